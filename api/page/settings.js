// The settings of a conversation: its system prompt and how tokens are chosen. A field that is empty
// is the server's to choose, and not sent.

import { byId, el } from "./elements.js";
import { json } from "./server.js";

const KEPT = "dllama.settings";
const NUMBERS = [  // name of the field, label, least, largest, step
  ["temperature", "Temperature", 0, 5, 0.05],
  ["dynatemp_range", "Temperature range", 0, 5, 0.05],
  ["top_p", "Top p", 0, 1, 0.01],
  ["top_k", "Top k", 0, 1000, 1],
  ["min_p", "Min p", 0, 1, 0.01],
  ["repeat_penalty", "Repeat penalty", 0, 3, 0.01],
  ["presence_penalty", "Presence penalty", -2, 2, 0.05],
  ["frequency_penalty", "Frequency penalty", -2, 2, 0.05],
  ["max_tokens", "Most tokens", 1, 1_000_000, 1],
  ["seed", "Seed", 0, 4_294_967_295, 1],
];

/** Returns the fields of a request for the settings of a conversation. */
export function requestFields(settings) {
  const fields = {};
  for (const [name] of NUMBERS) {
    if (typeof settings[name] === "number") fields[name] = settings[name];
  }
  if (settings.stop?.length) fields.stop = settings.stop;
  if (settings.thinking === "on" || settings.thinking === "off") {
    fields.chat_template_kwargs = { enable_thinking: settings.thinking === "on" };
  }
  return fields;
}

/** Returns the settings and the system prompt that new conversations begin with. */
export function keptSettings() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

async function defaults(model) {
  try {
    const props = await json(model ? `props?model=${encodeURIComponent(model)}` : "props");
    return props.default_generation_settings?.params ?? {};
  } catch {
    return {};
  }
}

/** Opens the dialog; calls `changed()` once the conversation has other settings. */
export async function openSettings(conversation, model, changed) {
  const dialog = byId("settings-dialog");
  const known = await defaults(model);
  const { settings } = conversation;
  const system = el("textarea", { id: "set-system", rows: 4, value: conversation.system ?? "" });
  const numbers = NUMBERS.map(([name, label, min, max, step]) => el("label", {}, label,
    el("input", { type: "number", name, min, max, step: "any", "data-step": step, inputMode: "decimal",
      value: settings[name] ?? "", placeholder: shown(name, known[name]) })));
  const stop = el("input", { id: "set-stop", value: (settings.stop ?? []).map(escaped).join(" | "), placeholder: "none" });
  const thinking = el("select", { id: "set-thinking" },
    [["", "As the model does"], ["on", "On"], ["off", "Off"]].map(([value, text]) =>
      el("option", { value, selected: (settings.thinking ?? "") === value }, text)));
  const keep = el("input", { type: "checkbox", id: "set-keep" });
  keep.style.width = "auto";
  const form = el("form", { class: "sheet", method: "dialog" },
    el("h2", { id: "settings-title" }, "Settings of this chat"),
    el("label", { htmlFor: "set-system" }, "System prompt"), system,
    el("div", { class: "fields" }, numbers,
      el("label", {}, "Thinking", thinking),
      el("label", {}, "Stop at (a | b)", stop)),
    el("div", { class: "sheet-row" }, el("label", { htmlFor: "set-keep" }, keep, " for new chats too"),
      el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      el("button", { type: "submit", class: "primary" }, "Save")));
  form.addEventListener("submit", () => {
    conversation.system = system.value;
    conversation.settings = readSettings(form, stop.value, thinking.value);
    if (keep.checked) {
      localStorage.setItem(KEPT, JSON.stringify({ system: system.value, settings: conversation.settings }));
    }
    changed();
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

function readSettings(form, stop, thinking) {
  const settings = {};
  for (const [name] of NUMBERS) {
    const { value } = form.elements[name];
    if (value.trim() !== "") settings[name] = Number(value);
  }
  const texts = stop.split("|").map((text) => unescaped(text.trim())).filter(Boolean);
  if (texts.length) settings.stop = texts;
  if (thinking) settings.thinking = thinking;
  return settings;
}

function shown(name, value) {
  if (value === undefined || value === null) return "default";
  const isNone = (name === "max_tokens" && value === -1) || (name === "seed" && value === 4_294_967_295);
  if (isNone) return name === "seed" ? "random" : "no limit";
  return String(Math.round(value * 1000) / 1000);
}

const escaped = (text) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("|", "\\p");
const unescaped = (text) =>
  text.replace(/\\(.)/g, (_, character) => ({ n: "\n", p: "|", "\\": "\\" })[character] ?? character);
