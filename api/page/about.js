// The page of the API: where programs find this server, and its routes.

import { byId, el } from "./elements.js";

/** Shows the routes, {"GET /path": "what it is about"}. */
export function showRoutes(routes, server) {
  const base = new URL("v1", document.baseURI).href;
  const rows = Object.entries(routes).map(([route, text]) =>
    el("tr", {}, el("td", {}, el("code", {}, route)), el("td", {}, text)));
  byId("page-about").replaceChildren(
    el("h1", {}, "Use it from programs"),
    el("p", {}, "Point a client of OpenAI, Anthropic, Ollama or llama-server here:"),
    el("p", {}, el("code", {}, base)),
    el("p", { class: "dim" }, server),
    el("h2", {}, "Routes"),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Route"), el("th", {}, "What it does"))), el("tbody", {}, rows)),
    el("p", { class: "dim" }, "This page shows formulas with Temml, © Ron Kok, under its ", el("a", { href: "page/temml.licence.txt" }, "MIT licence"), "."));
}
