"""Many ways to ask one thing: slots, frames, synonyms, politeness, context, telegraphic style,
case, punctuation and typing errors. The rng alone decides."""

from __future__ import annotations

import random
import re

from examples.demo_model.data import lexicon as words
from examples.demo_model.data.question_bank import Fact

_SLOT = re.compile(r"\[([^\[\]]*)\]")
_WORD = re.compile(r"(?<![\w\-./`\"'_<:{])[A-Za-z]+(?:'[a-z]+)?(?![\w\-/`\"_>:}]|\.\w)")


def expand(rng: random.Random, pattern: str) -> str:
    """A pattern with a choice made in every slot, the innermost first."""
    while slot := _SLOT.search(pattern):
        pattern = pattern[: slot.start()] + rng.choice(slot[1].split("|")) + pattern[slot.end() :]
    return " ".join(pattern.split())


def gerund(phrase: str) -> str:
    """ "start a worker" as "starting a worker"."""
    verb, space, rest = phrase.partition(" ")
    if verb in words.DOUBLED:
        verb += verb[-1]
    elif verb.endswith("e") and not verb.endswith("ee"):
        verb = verb[:-1]
    return f"{verb}ing{space}{rest}"


def ask(rng: random.Random, fact: Fact) -> str:
    """One of the very many phrasings of a fact's question."""
    text = _framed(rng, fact)
    text = with_synonyms(rng, text, rng.choice((0.0, 0.15, 0.35)))
    style = rng.random()
    if style < 0.10:
        text = telegraphic(rng, text)
    elif style < 0.15:
        text = shuffled(rng, text)
    elif style < 0.23:
        text = without_a_word(rng, text)
    if rng.random() < 0.3:
        text = wordy(rng, text)
    elif rng.random() < 0.32:
        text = with_context(rng, text)
    return spelled(rng, text)


def talk(rng: random.Random, fact: Fact) -> str:
    """A phrasing of small talk, which frames and contexts would only make odd."""
    return spelled(rng, expand(rng, rng.choice(fact.ask)))


def _framed(rng: random.Random, fact: Fact) -> str:
    # Verb phrases multiply with the frames, so they deserve more of the room.
    kinds = [("do", 2.5 * len(fact.do)), ("what", 1.5 * len(fact.what)), ("ask", len(fact.ask))]
    kind = rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
    phrase = expand(rng, rng.choice(getattr(fact, kind)))
    if kind == "ask":
        return phrase
    if kind == "what":
        return expand(rng, rng.choice(words.WHAT_FRAMES)).format(what=phrase)
    if fact.via and rng.random() < 0.35:
        via = rng.choice(words.VIA_WORDS[fact.via])
        return expand(rng, rng.choice(words.VIA_FRAMES)).format(
            do=phrase, doing=gerund(phrase), via=via
        )
    frame = expand(rng, rng.choice(words.DO_FRAMES))
    return frame.format(do=phrase, doing=gerund(phrase))


def with_synonyms(rng: random.Random, text: str, share: float) -> str:
    """Some words replaced by others of the same meaning; names of commands, flags and paths are
    left alone."""
    if not share:
        return text

    def swap(match: re.Match[str]) -> str:
        others = words.SYNONYMS.get(match[0].lower())
        before = text[: match.start()].rstrip().rpartition(" ")[2]
        if not others or before in words.NAMES_COMMAND or rng.random() > share:
            return match[0]
        return rng.choice(others)

    for long, short in words.CONTRACTIONS:
        if rng.random() < share:
            text = re.sub(rf"\b{long}\b", short, text)
    return _WORD.sub(swap, text)


def telegraphic(rng: random.Random, text: str) -> str:
    """Without the little words, as people type into search fields."""
    kept = [w for w in text.split() if w.lower() not in words.LITTLE or rng.random() < 0.1]
    return " ".join(kept) if len(kept) > 1 else text


def shuffled(rng: random.Random, text: str) -> str:
    kept = telegraphic(rng, text).split()
    rng.shuffle(kept)
    return " ".join(kept)


def without_a_word(rng: random.Random, text: str) -> str:
    found = text.split()
    drop = [i for i, w in enumerate(found) if w.lower() in words.LITTLE]
    if len(found) < 4 or not drop:
        return text
    del found[rng.choice(drop)]
    return " ".join(found)


def wordy(rng: random.Random, text: str) -> str:
    """The words that matter among words that do not: no sentence anybody taught, but whoever
    learns to answer it reads what is said and not how."""
    share = rng.choice((0.1, 0.25, 0.45))
    found: list[str] = []
    for word in text.split():
        if word.lower() in words.LITTLE and rng.random() < 0.5:
            continue
        while rng.random() < share:
            found.append(rng.choice(words.FILLERS))
        found.append(word)
    text = " ".join(found) or text
    ends = rng.random()
    if ends < 0.35:
        text = f"{rng.choice(words.OPENERS)} {text}"
    if ends > 0.2 and rng.random() < 0.5:
        text = f"{text}{rng.choice((', ', '. ', '; ', ' '))}{rng.choice(words.CLOSERS)}?"
    return text


def with_context(rng: random.Random, text: str) -> str:
    """Politeness before or after, or a sentence of context."""
    kind = rng.random()
    if kind < 0.4:
        return expand(rng, rng.choice(words.PREFIXES)) + " " + text
    if kind < 0.75:
        return text + " " + expand(rng, rng.choice(words.SUFFIXES))
    context = expand(rng, rng.choice(words.CONTEXTS))
    if rng.random() < 0.7:
        return f"{context} {text[:1].upper()}{text[1:]}"
    return f"{text}{rng.choice('?.')} {context}"


def spelled(rng: random.Random, text: str) -> str:
    """Case, punctuation and typing errors."""
    style = rng.random()
    if style < 0.5:
        text = text[:1].upper() + text[1:]
    elif style < 0.52:
        text = text.upper() if len(text) < 40 and "-" not in text else text
    elif style < 0.85:
        text = text[:1].lower() + text[1:]
        text = re.sub(r"\bI\b", "i", text)
    if rng.random() < 0.1:
        text = typo(rng, text)
    if text[-1:] in ".?!":
        return text
    is_question = re.match(words.QUESTION_WORDS, text.lower()) is not None
    marks = ("?", "?", "?", "", "", "??", " ?") if is_question else (".", "", "", "!", "?", "?", "")
    return text + rng.choice(marks)


def typo(rng: random.Random, text: str) -> str:
    """One letter lost, doubled, or swapped with the next, inside a word of four letters or more."""
    places = [m.start() for m in re.finditer(r"(?<=[a-z])[a-z](?=[a-z]{2})", text)]
    if not places:
        return text
    i = rng.choice(places)
    return rng.choice(
        (text[:i] + text[i + 1 :], text[:i] + text[i] + text[i:],
         text[:i] + text[i + 1] + text[i] + text[i + 2 :])
    )  # fmt: skip
