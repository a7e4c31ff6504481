// The models of the server: which one is asked, and, where the server is a router, loading,
// unloading and pulling them.

import { byId, bytes, el } from "./elements.js";
import { json } from "./server.js";

const CHOSEN = "dllama.model";
const WAIT_MS = 1000;

export class Models {
  #list = [];
  #routes = {};
  #timer = 0;

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

  choose(id) {
    localStorage.setItem(CHOSEN, id);
    byId("model-name").textContent = id;
    dispatchEvent(new CustomEvent("model-chosen"));
  }

  async open() {
    const dialog = byId("models-dialog");
    const body = el("div");
    dialog.replaceChildren(el("div", { class: "sheet" },
      el("h2", { id: "models-title" }, "Models"), body,
      el("div", { class: "sheet-row" }, el("button", { type: "button", onclick: () => dialog.close() }, "Close"))));
    dialog.showModal();
    const draw = async () => {
      try {
        await this.refresh();
        body.replaceChildren(this.#table(dialog));
      } catch (error) {
        body.replaceChildren(el("p", { class: "failed" }, error.message));
      }
    };
    await draw();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => (dialog.open ? draw() : clearInterval(this.#timer)), WAIT_MS);
  }

  #table(dialog) {
    const rows = this.#list.map((model) => {
      const choose = el("button", { type: "button", class: model.id === this.chosen ? "primary" : "", onclick: () => {
        this.choose(model.id);
        dialog.close();
      } }, model.id === this.chosen ? "Chosen" : "Choose");
      return el("tr", {}, el("td", {}, el("b", {}, model.id), el("br"), el("span", { class: "dim" }, about(model))),
        el("td", {}, choose));
    });
    return el("table", {}, el("tbody", {}, rows));
  }
}

function about(model) {
  const { meta = {}, status } = model;
  const parts = [];
  if (status) parts.push(status.value);
  if (meta.n_params) parts.push(`${(meta.n_params / 1e9).toFixed(meta.n_params < 1e9 ? 3 : 1)} B parameters`);
  if (meta.size) parts.push(bytes(meta.size));
  if (meta.ftype) parts.push(meta.ftype);
  if (meta.n_ctx) parts.push(`context ${meta.n_ctx}`);
  return parts.join(" · ");
}
