"""Measures dllama-demo through dllama's own engine, greedily: how many of the held-out questions it
answers right, and whether every answer ends by itself.

    python -m examples.demo_model.evaluate --update-card
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from examples.demo_model.answering import Answerer
from examples.demo_model.data.question_bank import DLLAMA_FILES, load_facts
from examples.demo_model.data.stop_prompts import stop_conversations
from examples.demo_model.paths import OUT, WORK

CARD = Path(__file__).parent / "MODEL_CARD.md"
BEGIN, END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"
MAX_TOKENS = 300
FIRST_QUESTIONS = ("What is dllama?", "How do I start a worker?", "hello")
stderr = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Checked:
    """One held-out question; `missing` are the keywords its answer lacks."""

    fact: str
    question: str
    answer: str
    missing: list[str]


@dataclass(frozen=True, slots=True)
class Unended:
    """A prompt whose answer did not end within MAX_TOKENS."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    model: str
    n_bytes: int
    checked: list[Checked]
    n_stop_prompts: int
    unended: list[Unended]
    longest: int  # tokens of the longest answer
    examples: list[tuple[str, str]]

    @property
    def n_right(self) -> int:
        return sum(not c.missing for c in self.checked)

    def to_json(self) -> dict[str, object]:
        scores = {"n_questions": len(self.checked), "n_right": self.n_right}
        return scores | asdict(self)


def evaluate(model: Path, threads: int) -> Evaluation:
    """Both measurements, with progress on stderr."""
    facts = [(fact, question) for fact in load_facts(DLLAMA_FILES) for question in fact.held]
    stops = stop_conversations()
    with Answerer(model, threads) as answerer, Progress(console=stderr, transient=True) as bar:

        def ask(label: str, texts: list[list[dict[str, object]]]) -> list[tuple[str, int, bool]]:
            task = bar.add_task(label, total=len(texts))
            answers = answerer.answer(texts, MAX_TOKENS, lambda n: bar.update(task, completed=n))
            return [(a.text, a.n_tokens, a.is_complete) for a in answers]

        held = ask("held-out questions", [_one(question) for _, question in facts])
        ended = ask("prompts of all kinds", stops)
        first = ask("first questions", [_one(text) for text in FIRST_QUESTIONS])
    return Evaluation(
        model=model.name,
        n_bytes=model.stat().st_size,
        checked=[
            Checked(fact.id, question, text, fact.missing(text))
            for (fact, question), (text, _, _) in zip(facts, held, strict=True)
        ],
        n_stop_prompts=len(stops),
        unended=[
            Unended(str(messages[-1]["content"]), text)
            for messages, (text, _, is_complete) in zip(stops, ended, strict=True)
            if not is_complete
        ],
        longest=max(n for _, n, _ in ended),
        examples=[(q, text) for q, (text, _, _) in zip(FIRST_QUESTIONS, first, strict=True)],
    )


def _one(text: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": text}]


def show(result: Evaluation, console: Console) -> None:
    """The failures as tables, then the scores."""
    failures = Table("fact", "held-out question", "answer", "lacks", title="wrong answers")
    for c in result.checked:
        if c.missing:
            failures.add_row(c.fact, escape(c.question), escape(c.answer), ", ".join(c.missing))
    if failures.row_count:
        console.print(failures)
    for u in result.unended:
        console.print(f"did not end: {escape(repr(u.prompt[:80]))} -> {escape(u.answer[:160])}")
    console.print(scores(result))


def scores(result: Evaluation) -> str:
    n, n_stops = len(result.checked), result.n_stop_prompts
    return (
        f"held-out questions answered right: {result.n_right} of {n} "
        f"({result.n_right / n:.1%})\n"
        f"answers that end by themselves within {MAX_TOKENS} tokens: "
        f"{n_stops - len(result.unended)} of {n_stops} (longest: {result.longest} tokens)"
    )


def card_section(result: Evaluation) -> str:
    """What the model card says of the evaluation, in Markdown."""
    by_topic: dict[str, list[bool]] = defaultdict(list)
    for c in result.checked:
        by_topic[c.fact.partition(".")[0]].append(not c.missing)
    rows = [f"| {t} | {sum(right)} | {len(right)} |" for t, right in sorted(by_topic.items())]
    n, n_stops = len(result.checked), result.n_stop_prompts
    lines = [
        f"Measured on `{result.model}` ({result.n_bytes / 1e6:.2f} MB), greedy decoding:",
        "",
        f"- held-out questions answered right: **{result.n_right} of {n}** "
        f"({result.n_right / n:.1%})",
        f"- answers that end by themselves within {MAX_TOKENS} tokens: "
        f"**{n_stops - len(result.unended)} of {n_stops}** (longest: {result.longest} tokens)",
        "",
        *("| topic | right | questions |", "|---|---|---|"),
        *rows,
        "",
        *(f"> **{q}** {a}\n>" for q, a in result.examples),
    ]
    return "\n".join(lines).removesuffix("\n>")


def update_card(card: Path, section: str) -> None:
    """Puts `section` between the card's markers. Raises ValueError where there are none."""
    text = card.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{card} lacks the lines {BEGIN} and {END}; put them back")
    card.write_text(f"{before}{BEGIN}\n{section}\n{END}{after}", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    result = evaluate(args.model, args.threads)
    show(result, Console())
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n")
    if args.update_card:
        update_card(CARD, card_section(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.evaluate",
        description="Measure dllama-demo on held-out questions and on prompts of all kinds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=OUT, help="the GGUF file to measure")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=WORK / "evaluation.json", help="to write")
    parser.add_argument("--update-card", action="store_true", help="put the result into the card")
    return parser


if __name__ == "__main__":
    sys.exit(main())
