// Starts the page: the list of conversations, which page is shown, colours.

import { showRoutes } from "./about.js";
import { attach, takeFiles } from "./attachments.js";
import { Chat } from "./chat.js";
import { ClusterPage } from "./cluster.js";
import { Conversations, asMarkdown, newConversation, says, titleOf } from "./conversations.js";
import { byId, download, el } from "./elements.js";
import { Models } from "./models.js";
import { keptSettings, openSettings } from "./settings.js";

const THEME = "dllama.theme";
const THEMES = { "": "as the system", light: "light", dark: "dark" };

const conversations = await Conversations.open();
const models = new Models();
const cluster = new ClusterPage(byId("page-cluster"), () => models.chosen);
const chat = new Chat({
  modelOf: () => models.chosen,
  loadingOf: (id) => models.loading(id),
  save: async (conversation) => {
    await conversations.save(conversation);
    if (location.hash !== `#/c/${conversation.id}` && chat.conversation === conversation) {
      history.replaceState(null, "", `#/c/${conversation.id}`);
    }
    await drawList();
  },
});

function begun() {
  const kept = keptSettings();
  return { ...newConversation(), system: kept.system ?? "", settings: { ...kept.settings } };
}

async function drawList() {
  const sought = byId("search").value;
  const all = (await conversations.all()).filter((one) => says(one, sought));
  byId("conversations").replaceChildren(...all.map((one) => el("li", {},
    el("a", { href: `#/c/${one.id}`, title: titleOf(one), "aria-current": chat.conversation?.id === one.id ? "page" : null }, titleOf(one)),
    el("button", { class: "quiet", "aria-label": `Rename ${titleOf(one)}`, title: "Rename", onclick: () => rename(one) }, "✎"),
    el("button", { class: "quiet", "aria-label": `Export ${titleOf(one)}`, title: "Export as Markdown", onclick: () => download(`${titleOf(one)}.md`, asMarkdown(one), "text/markdown") }, "⤓"),
    el("button", { class: "quiet", "aria-label": `Delete ${titleOf(one)}`, title: "Delete", onclick: () => remove(one) }, "×"))));
}

async function rename(one) {
  const title = prompt("The name of this conversation", titleOf(one))?.trim();
  if (!title) return;
  const kept = chat.conversation?.id === one.id ? chat.conversation : one;
  kept.title = title;
  await conversations.save(kept, one.updated);
  await drawList();
}

async function remove(one) {
  if (!confirm(`Delete “${titleOf(one)}”? It is kept in this browser only.`)) return;
  await conversations.remove(one.id);
  if (chat.conversation?.id === one.id) location.hash = "#/";
  await drawList();
}

async function route() {
  const [, page = "", id] = location.hash.split("/");
  const name = page === "cluster" || page === "about" ? page : "chat";
  for (const one of ["chat", "cluster", "about"]) byId(`page-${one}`).hidden = one !== name;
  for (const link of document.querySelectorAll("nav a")) {
    link.toggleAttribute("aria-current", link.dataset.page === name);
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
  }
  cluster.isShown = name === "cluster";
  openSide(false);
  if (name === "chat") {
    const shown = chat.conversation?.id === id ? chat.conversation : chat.live(id);
    const found = page === "c" ? (shown ?? (await conversations.get(id))) : null;
    chat.show(found ?? begun());
  } else document.title = `${name === "cluster" ? "Cluster" : "API"} · dllama`;
  await drawList();
}

function openSide(isOpen) {
  byId("side").classList.toggle("open", isOpen);
  byId("menu").setAttribute("aria-expanded", String(isOpen));
}

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  byId("theme").setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
  byId("theme").title = `Colours: ${THEMES[theme]}`;
}

byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(localStorage.getItem(THEME) ?? "") + 1) % names.length];
  localStorage.setItem(THEME, next);
  applyTheme(next);
});
byId("menu").addEventListener("click", () => openSide(!byId("side").classList.contains("open")));
byId("new-chat").addEventListener("click", () => {
  history.pushState(null, "", "#/");
  route();
});
byId("settings").addEventListener("click", () =>
  openSettings(chat.conversation, models.chosen, () => {
    if (chat.conversation.messages.length) conversations.save(chat.conversation);
  }));
byId("export-all").addEventListener("click", async () =>
  download("dllama-conversations.json", JSON.stringify(await conversations.all(), null, 1)));
byId("import").addEventListener("click", () => byId("import-file").click());
byId("import-file").addEventListener("change", async ({ target }) => {
  try {
    await conversations.take(await target.files[0].text());
  } catch (error) {
    alert(`The file was not taken: ${error.message}`);
  }
  target.value = "";
  await drawList();
});
byId("search").addEventListener("input", drawList);
byId("attach").addEventListener("click", () => byId("attach-files").click());
byId("attach-files").addEventListener("change", async ({ target }) => {
  const refused = await attach(chat.prompt, target.files);
  target.value = "";
  if (refused) alert(refused);
});
takeFiles(byId("page-chat"), chat.prompt, alert);
byId("main").addEventListener("click", () => openSide(false));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") openSide(false);
});
addEventListener("hashchange", route);

applyTheme(localStorage.getItem(THEME) ?? "");
await route();
try {
  const told = await models.readRoutes();
  showRoutes(told.routes, told.server);
  await models.refresh();
} catch (error) {
  byId("announce").textContent = error.message;
}
document.documentElement.dataset.ready = "true";  // for whoever drives the page
