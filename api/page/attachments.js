// Text files, put into the message that is being written, where they can be seen and changed.

const MAX_BYTES = 1_000_000;

/** Has files that are dropped at a place, or pasted into the text area there, put into the area;
 * `refused(why)` tells of those that are not. */
export function takeFiles(place, area, refused) {
  const take = async (event, { files }) => {
    if (!files.length) return;
    event.preventDefault();
    const why = await attach(area, [...files]);  // the event's own list may be emptied once it is over
    if (why) refused(why);
  };
  place.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
  place.addEventListener("drop", (event) => take(event, event.dataTransfer));
  area.addEventListener("paste", (event) => {  // cells of a table come as a text, and as a picture too
    if (!event.clipboardData.types.includes("text/plain")) take(event, event.clipboardData);
  });
}

/** Puts files at the end of a text area, each in a block of its own; returns why some were not. */
export async function attach(area, files) {
  const refused = [];
  for (const file of files) {
    const text = file.size > MAX_BYTES ? null : await textOf(file);
    if (text === null) refused.push(file.name);
    else area.value = `${area.value.trimEnd()}\n\n${blockOf(file.name, text)}\n`.trimStart();
  }
  area.dispatchEvent(new Event("input"));
  area.focus();
  if (!refused.length) return "";
  const isPdf = refused.some((name) => /\.pdf$/i.test(name));
  return `Only text files of at most 1 MB can be read: not ${refused.join(", ")}.` +
    (isPdf ? " The program pdftotext makes text of a PDF file." : "");
}

async function textOf(file) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

/** Returns a text as a block of Markdown, whose fence is longer than any in the text. */
function blockOf(name, text) {
  const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), ([ticks]) => ticks.length));
  const fence = "`".repeat(longest + 1);
  return `${name}:\n${fence}\n${text.trimEnd()}\n${fence}`;
}
