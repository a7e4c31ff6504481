// Downloads of models, in the dialog of models: one is named, and each shows how far it is, or why it
// failed. What is shown is changed in its place, so that a button keeps the focus.

import { bytes, duration, el } from "./elements.js";
import { json } from "./server.js";

const WORDS = { queued: "waits for its turn", stopped: "stopped", success: "is here" };

export class Pulls {
  #rows = new Map();  // what updates the row of a download, by its name
  #list = el("ul", { class: "pulls" });
  #said = el("p", { class: "failed", role: "alert", hidden: true });
  #isListed;

  /** The element with all of it. `isListed(name)` tells whether a model is in the list already. */
  constructor(isListed) {
    this.#isListed = isListed;
    const name = el("input", { id: "pull-name", name: "model", required: true, autocomplete: "off", spellcheck: false,
      placeholder: "qwen3:0.6b, or USER/REPO:Q4_K_M" });
    const form = el("form", { class: "pull", onsubmit: async (event) => {
      event.preventDefault();
      if (await this.#begin(name.value.trim())) name.value = "";
    } }, el("label", { htmlFor: "pull-name" }, "Download a model"),
      el("div", { class: "pull-row" }, name, el("button", { type: "submit" }, "Download")));
    this.element = el("section", { "aria-label": "Downloads", hidden: true }, form, this.#said, this.#list);
  }

  /** Shows how the downloads stand; nothing where the server has none. */
  async refresh() {
    let tasks = [];
    try {
      tasks = (await json("v1/models/pull")).data;
    } catch (error) {
      this.element.hidden = error.status === 501;
      this.#say(error.message);
      return;
    }
    this.element.hidden = false;
    const shown = tasks.filter((task) => task.status !== "success" || !this.#isListed(task.id));
    for (const id of this.#rows.keys()) {
      if (!shown.some((task) => task.id === id)) {
        this.#rows.get(id).element.remove();
        this.#rows.delete(id);
      }
    }
    for (const task of shown) {
      if (!this.#rows.has(task.id)) {
        this.#rows.set(task.id, this.#row(task.id));
        this.#list.append(this.#rows.get(task.id).element);
      }
      this.#rows.get(task.id).update(task);
    }
  }

  async #begin(name) {
    return this.#tell(() => json("v1/models/pull", { method: "POST", body: { model: name } }));
  }

  async #stop(id) {
    return this.#tell(() => json("v1/models/pull", { method: "DELETE", body: { taskId: id } }));
  }

  async #tell(ask) {
    let reason = "";
    try {
      await ask();
    } catch (error) {
      reason = error.message;
    }
    await this.refresh();
    this.#say(reason);
    return !reason;
  }

  #say(reason) {
    this.#said.textContent = reason;
    this.#said.hidden = !reason;
  }

  #row(id) {
    const bar = el("progress", { max: 1, "aria-label": `Download of ${id}` });
    const far = el("span", { class: "dim" });
    const why = el("p", { class: "failed", hidden: true });
    const act = el("button", { type: "button" });
    const element = el("li", { "data-pull": id }, el("div", {}, el("b", {}, id), el("br"), bar, " ", far, why), act);
    const update = (task) => {
      const isOver = !["queued", "running"].includes(task.status);
      bar.hidden = isOver;
      bar.value = task.bytes ? task.downloadedBytes / task.bytes : 0;
      far.textContent = WORDS[task.status] ?? (task.status === "running" ? progressOf(task) : "");
      why.textContent = task.error ?? "";
      why.hidden = !task.error;
      act.hidden = task.status === "success";
      act.textContent = !isOver ? "Stop" : task.status === "stopped" ? "Go on" : "Try again";
      act.onclick = () => (isOver ? this.#begin(id) : this.#stop(id));
    };
    return { element, update };
  }
}

/** Returns how far a download is, how fast, what is left, and what it waits for. */
function progressOf({ bytes: total, downloadedBytes: done, bytesPerSecond: speed, items }) {
  const parts = [`${bytes(done)} of ${bytes(total)}`];
  if (speed > 0) parts.push(`${bytes(speed)}/s`, `${duration((total - done) / speed)} left`);
  const note = items.find((item) => item.note)?.note;
  if (note) parts.push(note);
  return parts.join(" · ");
}
