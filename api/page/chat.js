// The view of one conversation: its messages, and the answer that is being written.

import { addPiece, asRequest, canContinue, editedAnswer, emptyAnswer, speedOf } from "./answer.js";
import { titleOf } from "./conversations.js";
import { byId, el } from "./elements.js";
import { events } from "./server.js";
import { requestFields } from "./settings.js";
import { messageElement } from "./message.js";
import { addVersion, removeVersion, showVersion } from "./versions.js";

const LOOK_MS = 1000;  // between two looks at how far a model is that is waited for
const NEAR_END = 80;  // pixels from the end of the messages at which new ones scroll along

/** Shows conversations and has them answered; answers go on while another one is shown. */
export class Chat {
  #conversation = null;
  #running = new Map();  // by conversation: what ends its answer
  #live = new Map();  // the conversations that are being answered
  #elements = new Map();  // of the messages that are shown
  #due = new WeakSet();  // messages that are drawn anew at the next frame

  /** `modelOf()` names the model to ask, `loadingOf(model)` tells how far one is that loads, and
   * `save(conversation)` keeps one. */
  constructor({ modelOf, loadingOf, save }) {
    this.modelOf = modelOf;
    this.loadingOf = loadingOf;
    this.save = save;
    this.list = byId("messages");
    this.prompt = byId("prompt");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(this.prompt.value);
    });
    byId("stop").addEventListener("click", () => this.stop());
    this.prompt.addEventListener("input", () => this.#fit());
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send(this.prompt.value);
      } else if (event.key === "Escape") this.stop();
    });
  }

  get conversation() {
    return this.#conversation;
  }

  show(conversation) {
    this.#conversation = conversation;
    this.#draw();
    this.#toEnd();
    if (!matchMedia("(max-width: 720px)").matches) this.prompt.focus();
  }

  isRunning(conversation) {
    return this.#running.has(conversation?.id);
  }

  /** Returns a conversation whose answer is being written; what is kept of it is behind. */
  live(id) {
    return this.#live.get(id);
  }

  stop() {
    this.#running.get(this.#conversation?.id)?.abort();
  }

  async send(text) {
    const conversation = this.#conversation;
    if (!text.trim() || this.isRunning(conversation)) return;
    conversation.messages.push({ role: "user", content: text });
    this.prompt.value = "";
    this.#fit();
    await this.#answer(conversation);
  }

  /** Asks for another version of an answer. */
  async retry(index) {
    const conversation = this.#conversation;
    if (!this.isRunning(conversation)) await this.#answer(conversation, { index });
  }

  /** Continues the last answer where it ends. */
  async goOn() {
    const conversation = this.#conversation;
    if (!this.isRunning(conversation)) await this.#answer(conversation, { begun: conversation.messages.at(-1) });
  }

  /** Makes another version of a message. One of the user is answered; what followed an answer
   * follows its new version too. */
  async edit(index, text) {
    const conversation = this.#conversation;
    const { messages } = conversation;
    const former = messages[index];
    if (this.isRunning(conversation) || !text.trim()) return;
    if (former.role === "user") {
      addVersion(messages, index, [{ role: "user", content: text }]);
      await this.#answer(conversation);
      return;
    }
    addVersion(messages, index, [editedAnswer(former, text), ...structuredClone(messages.slice(index + 1))]);
    await this.#redraw(conversation, index, "[data-act=edit]");
  }

  /** Shows the version `step` away from the one of a message that is shown. */
  async turn(index, step) {
    const conversation = this.#conversation;
    const { messages } = conversation;
    if (this.isRunning(conversation) || !showVersion(messages, index, messages[index].versions.shown + step)) return;
    const { shown, tails } = messages[index].versions;
    await this.#redraw(conversation, index, `[data-step="${step}"]`);
    byId("announce").textContent = `Version ${shown + 1} of ${tails.length}.`;
  }

  /** Removes a message; one with other versions goes with all that follows it. */
  async remove(index) {
    const conversation = this.#conversation;
    const { messages } = conversation;
    if (this.isRunning(conversation)) return;
    const nAfter = messages.length - index - 1;
    const question = `Delete this version and ${nAfter === 1 ? "the message" : `the ${nAfter} messages`} after it?`;
    if (!messages[index].versions) messages.splice(index, 1);
    else if (!nAfter || confirm(question)) removeVersion(messages, index);
    else return;
    await this.#redraw(conversation, Math.min(index, messages.length - 1), "button");
  }

  /** Keeps what has changed and shows it, with the message at `index` where it was on the screen and
   * the focus on one of its buttons. */
  async #redraw(conversation, index, button) {
    const topOf = (shown) => shown?.getBoundingClientRect().top ?? 0;
    const before = topOf(this.list.children[index]);
    this.#draw();
    const shown = this.list.children[index];
    this.list.scrollTop += topOf(shown) - before;
    (shown?.querySelector(`.acts ${button}`) ?? this.prompt).focus({ preventScroll: true });
    await this.save(conversation);
  }

  /** Writes a new answer at `index`, or continues one that was `begun`. */
  async #answer(conversation, { begun = null, index = conversation.messages.length } = {}) {
    const model = this.modelOf();
    const message = begun ?? emptyAnswer(model);
    if (!begun) addVersion(conversation.messages, index, [message]);
    const body = {
      messages: asRequest(conversation, begun), stream: true, timings_per_token: true, return_progress: true,
      stream_options: { include_usage: true }, ...requestFields(conversation.settings),
    };
    if (model) body.model = model;
    if (begun) Object.assign(body, { continue_final_message: true });
    message.finish = null;
    delete message.failed;
    const controller = new AbortController();
    this.#running.set(conversation.id, controller);
    this.#live.set(conversation.id, conversation);
    this.#draw();
    this.#toEnd();
    await this.save(conversation);
    const waiting = setInterval(async () => {
      message.loading = await this.loadingOf(model);
      this.#refresh(conversation, message);
    }, LOOK_MS);
    try {
      for await (const piece of events("v1/chat/completions", { method: "POST", body, signal: controller.signal })) {
        clearInterval(waiting);
        delete message.loading;
        addPiece(message, piece);
        this.#refresh(conversation, message);
      }
    } catch (error) {
      if (error.name === "AbortError") message.finish = "stopped";
      else message.failed = error.message;
    }
    clearInterval(waiting);
    delete message.loading;
    this.#running.delete(conversation.id);
    this.#live.delete(conversation.id);
    await this.save(conversation);
    if (this.#conversation === conversation) {
      this.#draw();
      byId("announce").textContent = message.failed ?? "The answer is complete.";
    }
  }

  /** Shows what has come of an answer, at most once a frame. */
  #refresh(conversation, message) {
    if (this.#conversation !== conversation || this.#due.has(message)) return;
    this.#due.add(message);
    requestAnimationFrame(() => {
      this.#due.delete(message);
      const shown = this.#elements.get(message);
      if (!shown) return;
      const isAtEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < NEAR_END;
      shown.update(message);
      byId("speed").textContent = speedOf(message);
      if (isAtEnd) this.#toEnd();
    });
  }

  #draw() {
    const conversation = this.#conversation;
    const isRunning = this.isRunning(conversation);
    this.#elements.clear();
    const shown = conversation.messages.map((message, index) => {
      const isLast = index === conversation.messages.length - 1;
      const made = messageElement(message, {
        isWriting: isRunning && isLast,
        acts: isRunning ? {} : {
          retry: message.role === "assistant" ? () => this.retry(index) : null,
          edit: message.calls?.length ? null : (text) => this.edit(index, text),
          goOn: isLast && canContinue(message) ? () => this.goOn() : null,
          remove: () => this.remove(index),
          turn: message.versions ? (step) => this.turn(index, step) : null,
        },
      });
      this.#elements.set(message, made);
      return made.element;
    });
    this.list.replaceChildren(...(shown.length ? shown : [emptyNote()]));
    byId("send").hidden = isRunning;
    byId("stop").hidden = !isRunning;
    byId("speed").textContent = speedOf(conversation.messages.at(-1) ?? {});
    document.title = conversation.messages.length ? `${titleOf(conversation)} · dllama` : "dllama";
  }

  #toEnd() {
    this.list.scrollTop = this.list.scrollHeight;
  }

  #fit() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${this.prompt.scrollHeight}px`;
  }
}

function emptyNote() {
  return el("div", { class: "empty" }, el("p", { class: "lead" }, "What shall we talk about?"),
    el("p", {}, "Conversations stay in this browser. The model runs on your own machines."));
}

