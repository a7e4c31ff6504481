// Markdown inside of a line: code, formulas, links, emphasis.

import { el } from "./elements.js";
import { MATH_PATTERNS } from "./math.js";

const MAX_DEPTH = 8;
const SAFE = /^(?:https?:|mailto:)/i;

// Tried in this order at every place where one of their first characters stands. One that makes null
// of what it found has not found it.
const PATTERNS = [
  ...MATH_PATTERNS,
  [/\\([!-/:-@[-`{-~])/y, ([, character]) => [character]],
  [/(`+)(?!`)([\s\S]*?[^`])\1(?!`)/y, ([, , code]) => [el("code", {}, code.replace(/^ (.*\S.*) $/s, "$1"))]],
  [/!\[([^\]]*)\]\(\s*<?([^\s)>]+)>?(?:\s+"[^"]*")?\s*\)/y, ([, text, url]) => [link(url, [text || "picture"])]],
  [/\[((?:[^[\]]|\[[^[\]]*\])+)\]\(\s*<?((?:[^\s()<>]|\([^\s()]*\))+)>?(?:\s+"[^"]*")?\s*\)/y,
    ([, text, url], depth) => [link(url, inline(text, depth + 1))]],
  [/<((?:https?:\/\/|mailto:)[^\s<>]+)>/y, ([, url]) => [link(url, [url.replace(/^mailto:/, "")])]],
  [/https?:\/\/[^\s<>"']*[^\s<>"'.,;:!?)\]*_~`]/y, ([url]) => [link(url, [url])]],
  [/\*\*(?=\S)((?:[^*]|\*(?!\*))+?\*?)(?<=\S)\*\*/y, ([, text], depth) => [el("strong", {}, inline(text, depth + 1))]],
  [/__(?=\S)([\s\S]+?)(?<=\S)__(?!\w)/y, ([, text], depth) => [el("strong", {}, inline(text, depth + 1))], true],
  [/~~(?=\S)([\s\S]+?)(?<=\S)~~/y, ([, text], depth) => [el("del", {}, inline(text, depth + 1))]],
  [/\*(?=[^\s*])((?:[^*]|\*\*)+?)(?<=[^\s*])\*(?!\*)/y, ([, text], depth) => [el("em", {}, inline(text, depth + 1))]],
  [/_(?=[^\s_])([^_]+?)(?<=\S)_(?!\w)/y, ([, text], depth) => [el("em", {}, inline(text, depth + 1))], true],
  [/ *\n/y, () => [el("br")]],
];
const SPECIAL = /[\\`![<*_~\n$]| +\n|https?:\/\//g;

function link(url, children) {
  if (!SAFE.test(url)) return el("span", {}, children);
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, children);
}

/** Returns the nodes and texts of a piece of Markdown without blocks. */
export function inline(text, depth = 0) {
  if (depth > MAX_DEPTH) return [text];
  const found = [];
  let plain = 0;
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const special = SPECIAL.exec(text);
    if (special === null) break;
    at = special.index;
    const [nodes, end] = matchAt(text, at, depth);
    if (nodes) {
      if (at > plain) found.push(text.slice(plain, at));
      found.push(...nodes);
      plain = end;
    }
    at = end;
  }
  if (plain < text.length) found.push(text.slice(plain));
  return found;
}

function matchAt(text, at, depth) {
  for (const [pattern, make, needsBorder] of PATTERNS) {
    if (needsBorder && at > 0 && /\w/.test(text[at - 1])) continue;
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    const nodes = found && make(found, depth);
    if (nodes) return [nodes, at + found[0].length];
  }
  return [null, at + 1];
}
