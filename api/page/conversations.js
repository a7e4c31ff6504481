// The conversations, kept in this browser (IndexedDB) and nowhere else.

import { allVersions, areMessages } from "./versions.js";

const NAME = "dllama";
const STORE = "conversations";
const MAX_TITLE = 60;

function promised(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** All conversations: `open` first. */
export class Conversations {
  #database;

  static async open() {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    const opened = new Conversations();
    opened.#database = await promised(request);
    return opened;
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }

  /** Returns all of them, the latest first. */
  async all() {
    const found = await promised(this.#store("readonly").getAll());
    return found.sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return promised(this.#store("readonly").get(id));
  }

  async save(conversation, updated = Date.now()) {
    conversation.updated = updated;
    await promised(this.#store("readwrite").put(conversation));
  }

  remove(id) {
    return promised(this.#store("readwrite").delete(id));
  }

  /** Takes conversations from a file that was exported; returns how many. Raises Error. */
  async take(text) {
    let list = JSON.parse(text);
    if (!Array.isArray(list)) list = [list];
    const sound = list.filter(isConversation);
    if (!sound.length) throw new Error("The file has no conversations of this page.");
    for (const one of sound) await promised(this.#store("readwrite").put(one));
    return sound.length;
  }
}

function isConversation(value) {
  return typeof value?.id === "string" && areMessages(value.messages);
}

/** Returns a new conversation without messages. */
export function newConversation() {
  const random = crypto.getRandomValues(new Uint32Array(3));
  const id = Array.from(random, (n) => n.toString(36)).join("");
  return { id, title: "", created: Date.now(), updated: Date.now(), system: "", settings: {}, messages: [] };
}

/** Returns the title of a conversation: its first words. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = conversation.messages.find((message) => message.role === "user")?.content ?? "";
  const line = first.trim().split("\n")[0];
  return line.length > MAX_TITLE ? `${line.slice(0, MAX_TITLE)}…` : line || "New chat";
}

/** Returns whether words are in a conversation, in a version of it that is not shown, or in its title. */
export function says(conversation, words) {
  const texts = Array.from(allVersions(conversation.messages), (message) => message.content);
  return [titleOf(conversation), ...texts].some((text) => text.toLowerCase().includes(words.trim().toLowerCase()));
}

/** Returns a conversation as Markdown, in the versions that are shown. */
export function asMarkdown(conversation) {
  const parts = [`# ${titleOf(conversation)}`];
  if (conversation.system) parts.push(`> ${conversation.system.replaceAll("\n", "\n> ")}`);
  for (const message of conversation.messages) {
    parts.push(`**${message.role === "user" ? "You" : message.model || "Assistant"}**`, message.content);
  }
  return parts.join("\n\n");
}
