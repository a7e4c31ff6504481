// The models of the server: which one is asked, and, where the server is a router, loading,
// unloading and deleting them.

import { byId, bytes, el } from "./elements.js";
import { Pulls } from "./pulls.js";
import { json } from "./server.js";

const CHOSEN = "dllama.model";
const WAIT_MS = 1000;

export class Models {
  #list = [];
  #routes = {};
  #timer = 0;
  #trouble = new Map();  // what the server said to a load, an unload or a deletion, by model
  #draw = null;

  constructor() {
    byId("model").addEventListener("click", () => this.open());
  }

  /** Reads the list anew; the name of the chosen one is shown. Raises ServerError. */
  async refresh() {
    this.#list = (await json("v1/models")).data;
    byId("model-name").textContent = this.chosen ?? "no model";
  }

  /** Returns what the server tells of itself: `server`, and its `routes`. */
  async readRoutes() {
    const response = await fetch("./", { headers: { Accept: "application/json" } });
    const told = await response.json();
    this.#routes = told.routes;
    return told;
  }

  /** The id of the model to ask; null where there is none. */
  get chosen() {
    const ids = this.#list.map((model) => model.id);
    const kept = localStorage.getItem(CHOSEN);
    if (ids.includes(kept)) return kept;
    return this.#list.find((model) => model.status?.value === "loaded")?.id ?? ids[0] ?? null;
  }

  /** Returns how far a model is that loads; "" for one that does not. */
  async loading(id) {
    try {
      await this.refresh();
    } catch {
      return "";
    }
    const status = this.#list.find((model) => model.id === id)?.status;
    return status?.value === "loading" ? `Loading ${id}: ${percent(status)}` : "";
  }

  choose(id) {
    localStorage.setItem(CHOSEN, id);
    byId("model-name").textContent = id;
    dispatchEvent(new CustomEvent("model-chosen"));
  }

  async open() {
    const dialog = byId("models-dialog");
    const body = el("div");
    const pulls = new Pulls((name) => this.#list.some(({ id, aliases }) => id === name || aliases.includes(name)));
    dialog.replaceChildren(el("div", { class: "sheet" },
      el("h2", { id: "models-title" }, "Models"), body, pulls.element,
      el("div", { class: "sheet-row" }, el("button", { type: "button", onclick: () => dialog.close() }, "Close"))));
    dialog.showModal();
    let shown = "";
    this.#draw = async () => {
      try {
        await this.refresh();
        for (const model of this.#list) model.trouble = this.#trouble.get(model.id);
        const now = JSON.stringify([this.#list, this.chosen]);
        if (now !== shown) body.replaceChildren(this.#table(dialog));  // else what has the focus would lose it
        shown = now;
      } catch (error) {
        shown = "";
        body.replaceChildren(el("p", { class: "failed" }, error.message));
      }
      await pulls.refresh();
    };
    await this.#draw();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => (dialog.open ? this.#draw() : clearInterval(this.#timer)), WAIT_MS);
  }

  #table(dialog) {
    const rows = this.#list.map((model) => {
      const isChosen = model.id === this.chosen;
      const choose = el("button", { type: "button", class: isChosen ? "primary" : "", onclick: () => {
        this.choose(model.id);
        dialog.close();
      } }, isChosen ? "Chosen" : "Choose");
      return el("tr", { "data-model": model.id },
        el("td", {}, el("b", {}, model.id), el("br"), el("span", { class: "dim" }, about(model)), troubleOf(model), progressOf(model)),
        el("td", {}, el("div", { class: "model-acts" }, choose, this.#ways(model))));
    });
    return el("table", {}, el("tbody", {}, rows));
  }

  /** Loading and unloading, where the server is a router. */
  #ways(model) {
    const { status } = model;
    if (!status || !("POST /models/load" in this.#routes)) return [];
    const way = status.value === "unloaded" || status.value === "sleeping" ? "load" : "unload";
    const path = `models/${way}`;
    const ways = [el("button", { type: "button", disabled: model.pinned && way === "unload",
      onclick: () => this.#change(model.id, path, { method: "POST", body: { model: model.id } }) },
      way === "load" ? "Load" : status.value === "loading" ? "Cancel" : "Unload")];
    if (model.can_remove) ways.push(el("button", { type: "button", onclick: () => this.#delete(model) }, "Delete"));
    return ways;
  }

  async #delete({ id, size }) {
    if (!confirm(`Delete “${id}” (${bytes(size)}) from the server's disk? It can be downloaded again.`)) return;
    await this.#change(id, `models?model=${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  async #change(id, path, options) {
    try {
      await json(path, options);
      this.#trouble.delete(id);
    } catch (error) {
      this.#trouble.set(id, error.message);
    }
    await this.#draw?.();
  }
}

function troubleOf(model) {
  const text = model.trouble ?? model.status?.reason ?? "";
  return text ? el("p", { class: "failed" }, text) : null;
}

function progressOf({ status }) {
  if (status?.value !== "loading") return null;
  return el("div", {}, el("progress", { max: 1, value: status.progress?.value ?? 0, "aria-label": "Loading" }),
    el("span", { class: "dim" }, ` ${percent(status)}`));
}

const percent = ({ progress, detail }) => `${Math.round(100 * (progress?.value ?? 0))} % ${detail ?? ""}`;

function about(model) {
  const { meta = {}, status } = model;
  const parts = [];
  if (status) parts.push(status.failed ? "failed" : status.downloaded === false ? "not downloaded" : status.value);
  if (meta.n_params) parts.push(`${(meta.n_params / 1e9).toFixed(meta.n_params < 1e9 ? 3 : 1)} B parameters`);
  if (meta.size ?? model.size) parts.push(bytes(meta.size ?? model.size));
  if (meta.ftype) parts.push(meta.ftype);
  if (meta.n_ctx) parts.push(`context ${meta.n_ctx}`);
  return parts.join(" · ");
}
