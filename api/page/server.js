// Calls of the server this page came from. Paths are relative to the page, so that a prefix holds.

import { byId } from "./elements.js";

const KEY = "dllama.key";

/** An answer that was no success, with the server's own sentence. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers() {
  const key = localStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

let asking = null;

/** Asks for the API key, once for all calls that need it. */
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    dialog.addEventListener("close", () => {
      const key = byId("key").value.trim();
      if (key) localStorage.setItem(KEY, key);
      asking = null;
      resolve(Boolean(key) && dialog.returnValue === "ok");
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

async function failure(response) {
  let message = `The server answered ${response.status}.`;
  try {
    const body = await response.json();
    message = body.error?.message ?? body.error ?? message;
  } catch {
    // not JSON: the status says enough
  }
  return new ServerError(response.status, String(message));
}

/** Returns the response to a call; raises ServerError. Asks for a key where one is needed. */
export async function call(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    const options = { method, signal, headers: headers(), cache: "no-store" };
    if (body !== undefined) {
      options.body = JSON.stringify(body);
      options.headers["Content-Type"] = "application/json";
    }
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(0, "The server cannot be reached. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401 && (await askForKey())) continue;
    throw await failure(response);
  }
}

/** Returns what a route answers as JSON. Raises ServerError. */
export async function json(path, options) {
  return (await call(path, options)).json();
}

/** Yields the JSON of each event of a stream, until `[DONE]` or its end. */
export async function* events(path, options) {
  const response = await call(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;  // comments keep the connection open
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
