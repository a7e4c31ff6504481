// One answer as it arrives: what the pieces of a stream add up to.

/** Returns an empty message of the assistant. */
export function emptyAnswer(model) {
  return { role: "assistant", content: "", thoughts: "", calls: [], model, finish: null };
}

/** Adds a piece of /v1/chat/completions to a message. */
export function addPiece(message, piece) {
  if (piece.error) {
    message.failed = piece.error.message ?? String(piece.error);
    return;
  }
  const [choice] = piece.choices ?? [];
  if (piece.prompt_progress) message.loading = readingOf(piece.prompt_progress);
  if (piece.timings) message.timings = piece.timings;
  if (piece.usage) message.usage = piece.usage;
  if (!choice) return;
  const delta = choice.delta ?? {};
  message.content += delta.content ?? "";
  message.thoughts += delta.reasoning_content ?? "";
  for (const part of delta.tool_calls ?? []) {
    const call = (message.calls[part.index] ??= { id: part.id, name: "", arguments: "" });
    call.name += part.function?.name ?? "";
    call.arguments += part.function?.arguments ?? "";
  }
  message.finish = choice.finish_reason ?? message.finish;
}

/** Returns the messages of a conversation as the server takes them; thoughts are sent only with a
 * `begun` answer, the last one, which the server continues. */
export function asRequest(conversation, begun = null) {
  const messages = conversation.messages
    .filter((message) => message === begun || message.role === "user" || message.content || message.calls?.length)
    .map((message) => ({ role: message.role, content: message.content,
      ...(message === begun && message.thoughts ? { reasoning_content: message.thoughts } : {}) }));
  const system = conversation.system?.trim();
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

/** Returns how far the prompt is read; "" for one that was read at once. */
function readingOf({ total, cache, processed }) {
  const [all, done] = [total - cache, processed - cache];
  return done < all ? `Reads the prompt: ${Math.round((100 * done) / all)} % of ${all} tokens` : "";
}

/** Returns an answer of the user's own words in the place of another. */
export function editedAnswer(former, text) {
  return { ...emptyAnswer(former.model), content: text, edited: true };
}

/** Returns whether an answer can be continued: it was cut off, or no model has ended it. */
export function canContinue(message) {
  const isOpen = [null, "length", "stopped"].includes(message.finish);
  return message.role === "assistant" && isOpen && Boolean(message.content || message.thoughts) && !message.calls?.length;
}

/** Returns the speeds of an answer in a line; "" where they are not known. */
export function speedOf(message) {
  const timings = message.timings;
  if (!timings) return "";
  const parts = [];
  if (timings.predicted_per_second > 0) {
    parts.push(`${timings.predicted_per_second.toFixed(1)} tokens/s`);
  }
  const known = timings.cache_n + timings.prompt_n + timings.predicted_n;
  parts.push(`${known} tokens`);
  return parts.join(" · ");
}
