// Markdown, as models write it, to elements: CommonMark's blocks, GitHub's tables and task lists, TeX's
// formulas.
// Nothing of a text ever becomes HTML; links go to http, https and mailto only, and pictures become
// links, so that a text cannot make the browser fetch anything.

import { coloured } from "./code_colours.js";
import { copy, el } from "./elements.js";
import { inline } from "./inline.js";
import { formula, mathAt } from "./math.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const TASK = /^\[([ xX])\]\s+/;
const MAX_DEPTH = 12;  // of lists and quotes within each other

/** Shows a text in an element. What did not change since the last call stays as it is. */
export function render(container, text) {
  const found = blocks(text.split("\n"));
  const before = container.shown ?? [];
  let same = 0;
  while (same < found.length && same < before.length && found[same].source === before[same]) same += 1;
  while (container.childNodes.length > same) container.lastChild.remove();
  for (const block of found.slice(same)) container.append(elementOf(block, 0));
  container.shown = found.map((block) => block.source);
}

/** Cuts lines into blocks: {kind, source, lines, …}. */
export function blocks(lines) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [end, block] = blockAt(lines, at);
    found.push({ ...block, source: `${block.kind}\n${lines.slice(at, end).join("\n")}` });
    at = end;
  }
  return found;
}

function blockAt(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [at + 1, { kind: "heading", level: heading[1].length, text: heading[2] }];
  const math = formulaAt(lines, at);
  if (math) return [at + math[1], { kind: "math", tex: math[0] }];
  if (RULE.test(line)) return [at + 1, { kind: "rule" }];
  if (QUOTE.test(line)) return quoted(lines, at);
  if (ITEM.test(line)) return listed(lines, at);
  if (isTable(lines, at)) return tabled(lines, at);
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !begins(lines, end)) end += 1;
  return [end, { kind: "paragraph", text: lines.slice(at, end).join("\n") }];
}

/** Whether a line begins a block that may interrupt a paragraph. */
function begins(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  const isItem = item !== null && item[3] !== "" && !/^\d{2,}/.test(item[2]);
  return FENCE.test(line) || formulaAt(lines, at) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || isItem || isTable(lines, at);
}

const formulaAt = (lines, at) => mathAt(lines, at, (line) => FENCE.test(line));

function fenced(lines, at, [, fence, language]) {
  let end = at + 1;
  const closing = (line) => {
    const found = /^ {0,3}(`{3,}|~{3,})\s*$/.exec(line);
    return found !== null && found[1][0] === fence[0] && found[1].length >= fence.length;
  };
  while (end < lines.length && !closing(lines[end])) end += 1;
  const code = lines.slice(at + 1, end).join("\n");
  return [Math.min(end + 1, lines.length), { kind: "code", language: language.trim().split(/\s/)[0], code }];
}

function quoted(lines, at) {
  let end = at;
  while (end < lines.length && lines[end].trim() && (QUOTE.test(lines[end]) || !begins(lines, end))) end += 1;
  return [end, { kind: "quote", lines: lines.slice(at, end).map((line) => line.replace(QUOTE, "")) }];
}

const indent = (line) => line.length - line.trimStart().length;

function listed(lines, at) {
  const [, margin, marker] = ITEM.exec(lines[at]);
  const isOrdered = /\d/.test(marker);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const found = ITEM.exec(lines[end]);
    if (!found || found[1].length > margin.length + 1 || /\d/.test(found[2]) !== isOrdered) break;
    if (!isOrdered && RULE.test(lines[end])) break;
    const width = found[0].length;
    const of = [lines[end].slice(width)];
    end += 1;
    while (end < lines.length && belongs(lines, end, found[1].length)) {
      of.push(lines[end].slice(Math.min(width, indent(lines[end]))));
      end += 1;
    }
    items.push(of);
  }
  if (!items.length) return [at + 1, { kind: "paragraph", text: lines[at] }];
  const start = isOrdered ? parseInt(marker, 10) : 1;
  return [end, { kind: "list", isOrdered, start, items }];
}

/** Whether a line goes on with an item whose marker stands after `margin` spaces. */
function belongs(lines, at, margin) {
  const line = lines[at];
  if (!line.trim()) {
    const next = lines[at + 1];
    return next !== undefined && next.trim() !== "" && (indent(next) > margin + 1 || !ITEM.test(next) && indent(next) > margin);
  }
  if (indent(line) > margin + 1) return true;
  return !ITEM.test(line) && lines[at - 1].trim() !== "" && !begins(lines, at);
}

function isTable(lines, at) {
  const next = lines[at + 1];
  return lines[at].includes("|") && next !== undefined && next.includes("-") && TABLE_LINE.test(next) &&
    (next.includes("|") || lines[at].trim().startsWith("|"));
}

function tabled(lines, at) {
  const aligned = cells(lines[at + 1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "centre" : "right") : "");
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && lines[end].trim()) end += 1;
  return [end, { kind: "table", head: cells(lines[at]), aligned, rows: lines.slice(at + 2, end).map(cells) }];
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function elementOf(block, depth) {
  switch (block.kind) {
    case "heading": return el(`h${Math.min(block.level + 1, 6)}`, {}, inline(block.text));
    case "rule": return el("hr");
    case "code": return codeOf(block);
    case "math": return el("div", {}, formula(block.tex, true));
    case "quote": return el("blockquote", {}, within(block.lines, depth));
    case "list": return listOf(block, depth);
    case "table": return tableOf(block);
    default: return el("p", {}, inline(block.text));
  }
}

function within(lines, depth) {
  if (depth >= MAX_DEPTH) return [lines.join("\n")];
  return blocks(lines).map((block) => elementOf(block, depth + 1));
}

function codeOf({ language, code }) {
  const button = el("button", { type: "button", onclick: async () => {
    button.textContent = (await copy(code)) ? "Copied" : "Not allowed";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } }, "Copy");
  const pre = el("pre", { tabIndex: 0, "aria-label": language ? `Code, ${language}` : "Code", role: "group" },
    el("code", {}, coloured(code, language)));
  return el("div", { class: "code" }, button, pre);
}

function listOf({ isOrdered, start, items }, depth) {
  const made = el(isOrdered ? "ol" : "ul", isOrdered && start !== 1 ? { start } : {});
  for (const lines of items) {
    const task = TASK.exec(lines[0]);
    if (task) lines[0] = lines[0].slice(task[0].length);
    const inside = within(lines, depth);
    const isTight = inside[0]?.tagName === "P" && !lines.some((line) => !line.trim());
    const first = isTight ? [...inside.shift().childNodes] : [];
    const done = task !== null && task[1] !== " ";
    const box = task ? [el("input", { type: "checkbox", disabled: true, checked: done, "aria-label": done ? "done" : "to do" }), " "] : [];
    made.append(el("li", task ? { class: "task" } : {}, box, first, inside));
  }
  return made;
}

function tableOf({ head, aligned, rows }) {
  const row = (tag, values) => el("tr", {}, head.map((_, i) => {
    const cell = el(tag, {}, inline(values[i] ?? ""));
    if (aligned[i]) cell.style.textAlign = aligned[i] === "centre" ? "center" : "right";
    return cell;
  }));
  return el("table", { tabIndex: 0 }, el("thead", {}, row("th", head)), el("tbody", {}, rows.map((values) => row("td", values))));
}
