// Colours of code: strings, numbers, comments and the words most languages share. Roughly right in
// any language, which beats exactly right in a few.

import { el } from "./elements.js";

const WORDS = new Set(
  ("abstract and as assert async await begin bool break case catch char class const continue def default " +
    "defer del delete do done double elif else elsif end enum esac except export extends extern false False fi " +
    "final finally float fn for foreach from func function global go goto if impl implements import in " +
    "include inline int interface is lambda let local long loop match mod module mut namespace native new " +
    "nil None nonlocal not null of operator or override package pass private protected pub public raise " +
    "readonly ref return self short signed sizeof static str string struct super switch template then this " +
    "throw throws trait true True try type typedef typeof union unless unsafe unsigned until use using var " +
    "void volatile when where while with yield SELECT FROM WHERE INSERT INTO UPDATE DELETE CREATE TABLE JOIN " +
    "ON GROUP BY ORDER LIMIT VALUES SET AND OR NOT NULL AS").split(" "),
);
const HASH = new Set("bash sh zsh shell console python py ruby rb yaml yml toml ini make makefile dockerfile r perl".split(" "));
const DASHES = new Set(["sql", "lua", "haskell", "hs"]);
const PLAIN = new Set(["", "text", "txt", "plain", "markdown", "md", "output"]);
const MAX_LENGTH = 100_000;

function patternOf(language) {
  const comment = HASH.has(language) ? "#[^\\n]*" : DASHES.has(language) ? "--[^\\n]*" : "\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)|(?<=^|\\s)#[^\\n]*";
  const string = "(?:\"\"\"[\\s\\S]*?(?:\"\"\"|$))|(?:'''[\\s\\S]*?(?:'''|$))|\"(?:\\\\.|[^\"\\\\\\n])*\"?|'(?:\\\\.|[^'\\\\\\n])*'?|`(?:\\\\.|[^`\\\\])*`?";
  return new RegExp(`(?<c>${comment})|(?<s>${string})|(?<n>\\b(?:0x[\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b)|(?<w>[A-Za-z_]\\w*)`, "g");
}

/** Returns the texts and spans of some code. */
export function coloured(code, language) {
  const name = language.toLowerCase();
  if (PLAIN.has(name) || code.length > MAX_LENGTH) return [code];
  const found = [];
  let plain = 0;
  for (const match of code.matchAll(patternOf(name))) {
    const { c, s, n, w } = match.groups;
    const kind = c !== undefined ? "c" : s !== undefined ? "s" : n !== undefined ? "n" : WORDS.has(w) ? "k" : "";
    if (!kind) continue;
    if (match.index > plain) found.push(code.slice(plain, match.index));
    found.push(el("span", { class: kind }, match[0]));
    plain = match.index + match[0].length;
  }
  if (plain < code.length) found.push(code.slice(plain));
  return found;
}
