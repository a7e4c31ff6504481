// Versions of messages: answers that were asked for again, questions and answers that were edited.
//
// `messages` of a conversation are those that are shown. Where there are other versions of one of
// them, and of what follows it, it has `versions`: {shown, tails}. `tails[i]` is the list of messages
// from there to the end in version i, each with versions of its own, and null for the one shown.

/** Makes `tail` the messages from `index` on. What was there becomes another version, unless it is a
 * single answer in which nothing was said. */
export function addVersion(messages, index, tail) {
  const former = messages.splice(index);
  if (former.length) {
    const versions = taken(former[0]) ?? { shown: 0, tails: [null] };
    if (former.length > 1 || !isBlank(former[0])) {
      versions.tails[versions.shown] = former;
      versions.shown = versions.tails.push(null) - 1;
    }
    give(tail[0], versions);
  }
  messages.push(...tail);
}

/** Shows version `n` of the message at `index`, with what followed it; returns whether there is one. */
export function showVersion(messages, index, n) {
  if (!messages[index].versions?.tails[n]) return false;
  const versions = taken(messages[index]);
  versions.tails[versions.shown] = messages.splice(index);
  messages.push(...versions.tails[n]);
  versions.tails[n] = null;
  versions.shown = n;
  give(messages[index], versions);
  return true;
}

/** Removes the version that is shown of the message at `index`, with what follows; another is shown. */
export function removeVersion(messages, index) {
  const { shown, tails } = taken(messages[index]);
  tails.splice(shown, 1);
  const next = Math.max(0, shown - 1);
  messages.splice(index, messages.length, ...tails[next]);
  tails[next] = null;
  give(messages[index], { shown: next, tails });
}

/** Yields all messages, those of versions that are not shown too. */
export function* allVersions(messages) {
  for (const message of messages) {
    yield message;
    for (const tail of message.versions?.tails ?? []) if (tail) yield* allVersions(tail);
  }
}

/** Returns whether a value is a list of messages whose versions, if any, can be shown. */
export function areMessages(value) {
  return Array.isArray(value) && value.every((message) =>
    typeof message?.content === "string" && typeof message.role === "string" &&
    (message.versions === undefined || areVersions(message.versions)));
}

function areVersions(value) {
  return Array.isArray(value?.tails) && value.tails.length > 1 && value.tails[value.shown] === null &&
    value.tails.every((tail, i) =>
      i === value.shown || (areMessages(tail) && tail.length > 0 && tail[0].versions === undefined));
}

function taken(message) {
  const { versions } = message;
  delete message.versions;
  return versions;
}

function give(message, versions) {
  if (versions.tails.length > 1) message.versions = versions;
}

function isBlank(message) {
  return message.role === "assistant" && !message.content && !message.thoughts && !message.calls?.length;
}
