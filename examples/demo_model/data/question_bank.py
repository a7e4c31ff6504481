"""The bank of questions: text files of facts, each with phrasings for training, phrasings that are
held out for the evaluation, answers, and the keywords a right answer must contain.

A fact is a block of lines `key: value`, opened by `# topic.name` or `# topic.name (via)`:
`do` what somebody wants to do, `what` a thing to be explained, `ask` whole questions, `held`
held-out questions (one a line), `says` an answer (one a line), `brief` the short one, `keys` the
keywords, separated by commas, with alternatives by `|`. Phrasings are separated by ` / ` and
`[a|b|]` stands for any of a, b and nothing; `via` is what frames may call the means: flag,
command, route or field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

QUESTIONS = Path(__file__).parent / "questions"
DLLAMA_FILES = ("about", "commands", "flags", "formats", "api", "stats", "errors")
TALK_FILES = (
    "small_talk",
)  # fmt: skip
_HEAD = re.compile(r"# ([a-z0-9_]+\.[a-z0-9_]+)(?: \((flag|command|route|field)\))?$")
_MANY = ("do", "what", "ask")


@dataclass(slots=True)
class Fact:
    """One thing to know. `keys` is a tuple of alternatives for every keyword."""

    id: str
    via: str = ""
    do: list[str] = field(default_factory=list)
    what: list[str] = field(default_factory=list)
    ask: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    says: list[str] = field(default_factory=list)
    brief: str = ""
    keys: list[tuple[str, ...]] = field(default_factory=list)

    def missing(self, answer: str) -> list[str]:
        """The keywords that `answer` lacks; none where it is right."""
        said = answer.lower()
        return ["|".join(k) for k in self.keys if not any(word in said for word in k)]


def load_facts(names: tuple[str, ...]) -> list[Fact]:
    """The facts of some files, in order. Raises ValueError, naming file and line."""
    facts: list[Fact] = []
    for name in names:
        path = QUESTIONS / f"{name}.txt"
        facts += parse_facts(path.read_text(encoding="utf-8"), path.name)
    ids = [fact.id for fact in facts]
    if len(set(ids)) != len(ids):
        raise ValueError(f"facts with the same id: {sorted(i for i in ids if ids.count(i) > 1)}")
    return facts


def parse_facts(text: str, name: str) -> list[Fact]:
    facts: list[Fact] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if head := _HEAD.match(line):
            facts.append(Fact(head[1], head[2] or ""))
            continue
        key, colon, value = line.partition(": ")
        if not colon or not facts or not _put(facts[-1], key, value.strip()):
            raise ValueError(f"{name}, line {number}: expected `# topic.name` or `key: value`")
    return facts


def _put(fact: Fact, key: str, value: str) -> bool:
    if key in _MANY:
        getattr(fact, key).extend(part.strip() for part in value.split(" / "))
    elif key in ("held", "says"):
        getattr(fact, key).append(value)
    elif key == "brief":
        fact.brief = value
    elif key == "keys":
        fact.keys = [tuple(keyword(k)) for k in re.split(r", ", value)]
    else:
        return False
    return True


def keyword(text: str) -> list[str]:
    """Alternatives of one keyword; a bar with spaces around belongs to the keyword."""
    return [word.lower() for word in re.split(r"(?<! )\|(?! )", text.strip())]


def normal(text: str) -> str:
    """A question without case, punctuation and spacing: equal ones are the same question."""
    return " ".join(re.findall(r"\w+", text.lower()))
