// One node of the cluster: its share, its memory, and where the time of a token goes.

import { bytes, duration, el } from "./elements.js";

const PARTS = ["compute", "wait", "network"];

/** Returns the milliseconds that a token takes on a node. */
export function times(worker) {
  return PARTS.reduce((sum, name) => sum + worker[`${name}_ms`], 0);
}

/** `worker` is the node's row of /stats, undefined while it computes nothing. `total` is all nodes'
 * columns, `slowest` the longest time of a token, `traffic` bytes a second. */
export function nodeCard(node, worker, { total, slowest, traffic }) {
  const isPresent = node.state === "present";
  const share = total ? (100 * node.hidden) / total : 0;
  return el("article", { class: `node${isPresent ? "" : " lost"}` },
    el("header", {}, el("h3", {}, node.address), el("span", { class: "badge" }, node.state)),
    el("p", { class: "dim" }, [node.rank === null ? "no rank" : node.rank === 0 ? "root" : `rank ${node.rank}`,
      worker ? `${worker.isa}, ${worker.threads} thread${worker.threads === 1 ? "" : "s"}` : null,
      `${node.state} for ${duration(node.since_s)}`].filter(Boolean).join(" · ")),
    node.reason ? el("p", { class: "failed" }, node.reason) : null,
    bar("Share", share, `${share.toFixed(0)} %, ${node.kv_heads} KV head${node.kv_heads === 1 ? "" : "s"}`),
    node.rss_bytes ? bar("Memory", node.memory_bytes ? (100 * node.rss_bytes) / node.memory_bytes : 0,
      `${bytes(node.rss_bytes)}${node.memory_bytes ? ` of ${bytes(node.memory_bytes)}` : ""}`) : null,
    worker && times(worker) > 0 ? timeBar(worker, slowest) : null,
    worker ? speeds(worker, traffic) : null,
    worker?.finding ? el("p", { class: "failed" }, worker.finding) : null);
}

function bar(name, percent, text) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${Math.min(100, Math.max(0, percent))}%`;
  return el("div", { class: "row" }, el("span", {}, name), el("span", { class: "track", "aria-hidden": "true" }, fill), el("span", { class: "dim" }, text));
}

function timeBar(worker, slowest) {
  const parts = PARTS.map((name) => {
    const part = el("span", { class: `fill ${name}` });
    part.style.width = `${(100 * worker[`${name}_ms`]) / slowest}%`;
    return part;
  });
  const text = PARTS.map((name) => worker[`${name}_ms`].toFixed(1)).join(" + ");
  return el("div", { class: "row" }, el("span", {}, "A token"),
    el("span", { class: "track", "aria-hidden": "true" }, parts),
    el("span", { class: "dim" }, `${text} ms`));
}

function speeds(worker, traffic) {
  const { predicted } = worker;
  const parts = [];
  if (worker.tokens_per_s) {
    const beside = predicted ? ` (${predicted.tokens_per_s.toFixed(1)} predicted)` : "";
    parts.push(`${worker.tokens_per_s.toFixed(1)} tokens/s${beside}`);
  }
  if (worker.weights_gb_per_s) parts.push(`reads ${worker.weights_gb_per_s.toFixed(1)} GB/s`);
  if (traffic) parts.push(`link ${bytes(traffic)}/s`);
  return parts.length ? el("p", { class: "dim" }, parts.join(" · ")) : null;
}
