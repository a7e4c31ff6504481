// One message: who wrote it, its text, thoughts and calls, and what can be done with it.

import { speedOf } from "./answer.js";
import { copy, el, watchWidth } from "./elements.js";
import { render } from "./markdown.js";

const ENDS = {
  length: "The answer was cut off: the limit of tokens, or the end of the context.",
  content_filter: "The answer was ended by the server.",
};

/** Returns {element, update(message)}; `acts` are functions by name, null where they make no sense. */
export function messageElement(message, { isWriting, acts }) {
  const isUser = message.role === "user";
  const thoughts = el("pre");
  const thinking = el("details", { class: "aside", hidden: true }, el("summary", {}, "Thoughts"), thoughts);
  const calls = el("div");
  const body = el("div", { class: "body" });
  const note = el("div");
  const about = el("span", { class: "dim" });
  const header = el("header", {}, el("b", {}, isUser ? "You" : message.model || "Assistant"), about);
  const element = el("article", { class: `message ${message.role}${isWriting ? " writing" : ""}` },
    header, thinking, calls, body, note);

  const update = () => {
    if (isUser) {
      body.textContent = message.content;
      return;
    }
    thoughts.textContent = message.thoughts ?? "";
    thinking.hidden = !message.thoughts;
    if (isWriting) thinking.open = Boolean(message.thoughts) && !message.content;
    calls.replaceChildren(...(message.calls ?? []).map(callElement));
    render(body, message.content);
    about.textContent = isWriting ? "" : [message.edited && "edited", speedOf(message)].filter(Boolean).join(" · ");
    note.replaceChildren(...noteOf(message));
  };
  update();
  if (!isUser) watchWidth(body);
  if (!isWriting && Object.keys(acts).length) element.append(actsOf(message, acts, body));
  return { element, update };
}

function callElement(call) {
  let shown = call.arguments;
  try {
    shown = JSON.stringify(JSON.parse(call.arguments), null, 2);
  } catch {
    // still arriving
  }
  return el("details", { class: "aside", open: true },
    el("summary", {}, `Calls ${call.name}`), el("pre", {}, shown));
}

function noteOf(message) {
  if (message.failed) return [el("p", { class: "failed", role: "alert" }, message.failed)];
  if (message.loading) return [el("p", { class: "dim", role: "status" }, message.loading)];
  if (message.finish === "stopped") return [el("p", { class: "dim" }, "Stopped.")];
  return ENDS[message.finish] ? [el("p", { class: "dim" }, ENDS[message.finish])] : [];
}

function actsOf(message, { retry, goOn, edit, remove, turn }, body) {
  const button = (text, act, label, more) => el("button", { type: "button", class: "quiet", onclick: act, "aria-label": label, ...more }, text);
  const copying = button("Copy", async () => {
    copying.textContent = (await copy(message.content)) ? "Copied" : "Not allowed";
    setTimeout(() => { copying.textContent = "Copy"; }, 1500);
  }, "Copy the message");
  const row = el("div", { class: "acts" }, copying);
  if (retry) row.append(button("Retry", retry, "Answer again"));
  if (goOn) row.append(button("Continue", goOn, "Go on with the answer"));
  if (edit) {
    const label = message.role === "user" ? "Edit the message and ask again" : "Edit the answer";
    row.append(button("Edit", () => editor(message, edit, body, row), label, { "data-act": "edit" }));
  }
  if (remove) row.append(button("Delete", remove, turn ? "Delete this version and what follows it" : "Delete the message"));
  if (turn) row.append(versionsOf(message.versions, turn, button));
  return row;
}

/** The number of the version that is shown between two buttons; arrow keys turn them too. */
function versionsOf({ shown, tails }, turn, button) {
  const stepOf = { ArrowLeft: -1, ArrowRight: 1 };
  const way = (sign, step, label) => button(sign, () => turn(step), label,
    { "data-step": step, "aria-disabled": tails[shown + step] ? null : "true" });
  const onkeydown = (event) => {
    if (!(event.key in stepOf)) return;
    event.preventDefault();
    turn(stepOf[event.key]);
  };
  return el("span", { class: "versions", role: "group", "aria-label": "Versions", onkeydown },
    way("‹", -1, "The version before"), el("span", {}, `${shown + 1} / ${tails.length}`), way("›", 1, "The next version"));
}

function editor(message, edit, body, row) {
  const area = el("textarea", { value: message.content, rows: Math.min(12, message.content.split("\n").length + 1), "aria-label": "Message" });
  const done = () => {
    form.replaceWith(body);
    row.hidden = false;
    row.querySelector("[data-act=edit]").focus();
  };
  const form = el("form", { class: "editor", onsubmit: (event) => {
    event.preventDefault();
    edit(area.value);
  } }, area, el("div", { class: "sheet-row" },
    el("button", { type: "button", onclick: done }, "Cancel"),
    el("button", { type: "submit", class: "primary" }, message.role === "user" ? "Ask again" : "Save")));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") done();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  body.replaceWith(form);
  row.hidden = true;
  area.focus();
}
