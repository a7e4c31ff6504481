// The page of the cluster: what the nodes do at this moment.

import { bytes, duration, el } from "./elements.js";
import { json } from "./server.js";
import { nodeCard, times } from "./node_card.js";
import { Chart } from "./chart.js";

const EVERY_MS = 1000;
const MAX_EVENTS = 50;

export class ClusterPage {
  #isShown = false;
  #timer = 0;
  #before = null;  // the last stats, and when they came
  #states = new Map();  // of the nodes, by address
  #chart = new Chart("Tokens per second, the last two minutes", 120);

  constructor(place, modelOf) {
    this.modelOf = modelOf;
    this.tiles = el("dl", { class: "tiles" });
    this.nodes = el("div", { class: "nodes" });
    this.happened = el("ol", { class: "happened", "aria-live": "polite", "aria-label": "What happened to nodes" });
    this.trouble = el("p", { class: "failed", hidden: true, role: "alert" });
    this.models = el("div");
    place.append(el("h1", {}, "Cluster"), this.trouble, this.models, this.tiles, this.#chart.element,
      el("h2", {}, "Nodes"), legend(), this.nodes,
      el("h2", {}, "What happened"), this.happened);
    this.#say("Watching since this page was opened.");
  }

  set isShown(isShown) {
    if (isShown === this.#isShown) return;
    this.#isShown = isShown;
    clearTimeout(this.#timer);
    if (isShown) this.#look();
  }

  async #look() {
    try {
      const model = this.modelOf();
      const query = model ? `?model=${encodeURIComponent(model)}` : "";
      let stats = await json("stats");
      this.models.replaceChildren(...modelsOf(stats));
      if (stats.models) stats = await json(`stats${query}`);
      const { nodes } = await json(`cluster/nodes${query}`);
      this.trouble.hidden = true;
      this.#show(stats, nodes);
    } catch (error) {
      this.trouble.hidden = false;
      this.trouble.textContent = error.message;
    }
    if (this.#isShown) this.#timer = setTimeout(() => this.#look(), EVERY_MS);
  }

  #show(stats, nodes) {
    const at = performance.now();
    const before = this.#before;
    const seconds = before ? (at - before.at) / 1000 : 0;
    const rate = (now, then) => (seconds > 0 && now >= then ? (now - then) / seconds : 0);
    const decoded = before ? rate(stats.steps.decode_tokens, before.stats.steps.decode_tokens) : 0;
    this.#chart.add(decoded);
    this.tiles.replaceChildren(...tilesOf(stats, decoded));
    const workers = new Map(stats.workers.map((worker) => [worker.rank, worker]));
    const earlier = new Map((before?.stats.workers ?? []).map((worker) => [worker.rank, worker]));
    const total = nodes.reduce((sum, node) => sum + node.hidden, 0);
    const slowest = Math.max(0, ...stats.workers.map(times));
    this.nodes.replaceChildren(...nodes.map((node) => {
      const worker = workers.get(node.rank);
      const last = earlier.get(node.rank);
      const traffic = worker && last
        ? rate(worker.sent_bytes + worker.received_bytes, last.sent_bytes + last.received_bytes) : 0;
      return nodeCard(node, worker, { total, slowest, traffic });
    }));
    this.#compare(nodes);
    this.#before = { stats, at };
  }

  #compare(nodes) {
    for (const { address, state, reason } of nodes) {
      const was = this.#states.get(address);
      if (was !== undefined && was !== state) this.#say(`${address}: ${was} → ${state}. ${reason}`);
      this.#states.set(address, state);
    }
    const there = new Set(nodes.map((node) => node.address));
    for (const address of [...this.#states.keys()]) {
      if (there.has(address)) continue;
      this.#say(`${address} is no node of this cluster any more.`);
      this.#states.delete(address);
    }
  }

  #say(text) {
    this.happened.prepend(el("li", {}, el("time", { class: "dim" }, new Date().toLocaleTimeString()), ` ${text}`));
    while (this.happened.childElementCount > MAX_EVENTS) this.happened.lastChild.remove();
  }
}

/** The models of a router, and what each takes. */
function modelsOf(stats) {
  if (!stats.models) return [];
  const rows = stats.models.map((model) => el("tr", {}, el("td", {}, model.id), el("td", {}, model.state),
    el("td", {}, model.needed_bytes ? bytes(model.needed_bytes) : "–"), el("td", {}, String(model.open_requests))));
  const head = ["Model", "State", "Memory", "Requests"].map((text) => el("th", {}, text));
  return [el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)),
    el("p", { class: "dim" }, `${bytes(stats.memory_bytes)} for ${stats.max_models || "all"} models at most; ` +
      `${stats.n_waiting} requests wait for one. Below: the model that is chosen.`)];
}

function tile(name, value, note = "") {
  return el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value), note ? el("dd", { class: "dim" }, note) : null);
}

function tilesOf(stats, decoded) {
  const { sequences, kv, latency_ms: latency, steps, recovery } = stats;
  const predicted = stats.workers.find((worker) => worker.predicted)?.predicted;
  const used = kv.pages_total ? Math.round((100 * kv.pages_used) / kv.pages_total) : 0;
  return [
    tile("State", stats.state, `up ${duration(stats.uptime_s)}`),
    tile("Writing", `${decoded.toFixed(1)} tokens/s`,
      predicted ? `one sequence alone: ${predicted.tokens_per_s.toFixed(1)} predicted` : `${steps.decode_tokens} tokens so far`),
    tile("Reading prompts", `${stats.tokens_per_s.prefill.toFixed(0)} tokens/s`,
      predicted ? `${predicted.prefill_tokens_per_s.toFixed(0)} predicted` : "lately"),
    tile("Sequences", `${sequences.running} running`, `${sequences.waiting} waiting, ${sequences.finished} finished`),
    tile("Memory of contexts", `${used} %`, `${kv.pages_used} of ${kv.pages_total} pages, ${kv.pages_kept} kept for reuse`),
    tile("First token", latency.ttft_p50 ? `${latency.ttft_p50.toFixed(0)} ms` : "–",
      recovery.total ? `${recovery.total} losses survived, ${recovery.seconds.toFixed(1)} s` : "half of the answers sooner"),
  ];
}

function legend() {
  return el("p", { class: "legend dim" },
    ["compute", "wait", "network"].map((name) => el("span", {}, el("i", { class: `swatch ${name}` }), name)),
    "milliseconds of a token");
}
