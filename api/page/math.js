// Mathematics: where it stands in Markdown, and its elements. TeX becomes MathML, which browsers show
// by themselves; Temml, which makes it, is loaded with the first formula.

import { el, watchWidth } from "./elements.js";

const MAX_TEX = 20_000;  // characters of a formula
const MAX_LINES = 200;  // of a formula that is a block
const MAX_KEPT = 500;  // formulas that are kept translated, since a growing text is shown again and again
const MAX_SIZES = [40, 400];  // of what a formula may ask for, in em and in points
const FILES = ["temml.css", "temml.min.js"];

const BLOCK = /^\s*(?:\$\$((?:[^\\$]|\\[^]|\$(?!\$))+?)\$\$|\\\[((?:[^\\]|\\[^\]])+?)\\\])[ \t]*([.,;:]?)[ \t]*(?=\n|$)/;
const AMOUNT = /^\d/;
const WORD = /(?<![\\A-Za-z])(?:[A-Za-z]{3,}|an|as|at|by|for|in|is|of|on|or|to|vs|US)(?![A-Za-z])/;
const TEXT = /\\[A-Za-z]+\s*\{[^{}]*\}|\\[A-Za-z]+/g;

let temml = null;
let loading = null;
let waiting = [];
const kept = new Map();

/** Returns [tex, number of lines] of a formula that is a block of its own at a line; null for none. */
export function mathAt(lines, at, isFence) {
  if (!/^\s*(?:\$\$|\\\[)/.test(lines[at])) return null;
  let end = at + 1;
  while (end < lines.length && end < at + MAX_LINES && !isFence(lines[end])) end += 1;
  const found = BLOCK.exec(lines.slice(at, end).join("\n"));
  if (!found || !(found[1] ?? found[2]).trim()) return null;
  return [`${(found[1] ?? found[2]).trim()}${found[3]}`, found[0].trimStart().split("\n").length];
}

/** Patterns of formulas within a line, as inline.js has them; backticks, and so code, are in none. */
export const MATH_PATTERNS = [
  [/(?<!\$)\$\$(?!\$)((?:[^$`\\]|\\[^])+?)\$\$(?!\$)/y, ([, tex]) => [formula(tex, true)]],
  [/\\\[((?:[^`\\]|\\[^\]])+?)\\\]/y, ([, tex]) => [formula(tex, true)]],
  [/\\\(((?:[^`\\]|\\[^)])+?)\\\)/y, ([, tex]) => [formula(tex, false)]],
  // As pandoc has it, so that amounts of money are none: no space within the dollars, no digit after.
  [/(?<![A-Za-z0-9$])\$(?![\s$])((?:[^$`\\]|\\[^])+?)(?<!\s)\$(?![$])(?=(?:st|nd|rd|th|s)?(?![A-Za-z0-9]))/y,
    ([, tex]) => (isAmount(tex) ? null : [formula(tex, false)])],
];

/** Returns whether what stands between two dollars is an amount, and words until the next one. */
function isAmount(tex) {
  return AMOUNT.test(tex) && WORD.test(tex.replace(TEXT, " "));
}

/** Returns an element of a formula. It shows the TeX until that is translated, and where it cannot be. */
export function formula(tex, isDisplay) {
  const place = el("span", { class: isDisplay ? "math display" : "math" });
  if (isDisplay) watchWidth(place);
  if (temml) fill(place, tex, isDisplay);
  else {
    place.append(el("code", {}, tex));
    waiting.push([place, tex, isDisplay]);
    loadMath().catch(() => {});  // the TeX stays, and the next formula tries again
  }
  return place;
}

/** Loads what translates formulas, once, and shows those that wait for it. Raises Error. */
export function loadMath() {
  loading ??= Promise.all(FILES.map(loaded)).then(() => {
    temml = globalThis.temml;
    for (const [place, tex, isDisplay] of waiting) fill(place, tex, isDisplay);
    waiting = [];
  }).catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

function loaded(name) {
  const url = new URL(name, import.meta.url).href;
  return new Promise((resolve, reject) => {
    const ways = { onload: resolve, onerror: () => reject(new Error(`${url} cannot be loaded.`)) };
    document.head.append(name.endsWith(".css") ? el("link", { rel: "stylesheet", href: url, ...ways }) : el("script", { src: url, ...ways }));
  });
}

function fill(place, tex, isDisplay) {
  const key = `${isDisplay} ${tex}`;
  if (!kept.has(key)) {
    if (kept.size >= MAX_KEPT) kept.clear();
    kept.set(key, translated(tex, isDisplay));
  }
  const { tree, trouble } = kept.get(key);
  place.replaceChildren(tree ? tree.toNode() : el("code", { title: trouble }, tex));
}

/** Returns {tree}, of Temml's nodes, or the {trouble} with a formula. */
function translated(tex, isDisplay) {
  if (tex.length > MAX_TEX) return { trouble: "The formula is too long to be shown." };
  try {
    const options = { displayMode: isDisplay, wrap: isDisplay ? "none" : "tex", throwOnError: true, trust: false, maxSize: MAX_SIZES };
    const tree = temml.__renderToMathMLTree(tex, options);
    adapt(tree);
    return { tree };
  } catch (error) {
    return { trouble: error.message };
  }
}

/** Turns attributes `style`, which the page's policy forbids, into single properties, which it does not;
 * and black rules into rules of the text's colour. */
function adapt(node) {
  const { style } = node.attributes ?? {};
  if (style) {
    delete node.attributes.style;
    for (const [name, value] of style.split(";").map((one) => one.split(":"))) {
      if (value) node.style[name.trim()] = value.trim();
    }
  }
  if (node.type === "mspace" && node.attributes.mathbackground === "black") node.attributes.mathbackground = "currentcolor";
  for (const child of node.children ?? []) adapt(child);
}
