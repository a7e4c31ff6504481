"""Counts the valid answers to random JSON schemas. Bounded in time and number.

python -m benchmarks.json_schemas --n 1000
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from jsonschema import Draft202012Validator

from benchmarks.random_schemas import Schema, random_schema
from dllama.chat import ChatTemplate, find_template, template_stop_ids
from dllama.cli.build import build_engine
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import load_tokenizer, metadata_of
from dllama.constraints.grammars import json_part, whole_answer
from dllama.engine.engine import Engine
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.tokenizer import Tokenizer

N_AT_ONCE = 64
TEMPERATURES = (0.0, 0.8, 1.5)


def prompt_of(schema: Schema, tokenizer: Tokenizer, template: ChatTemplate) -> list[int]:
    names = ", ".join(map(str, dict(schema["properties"])))  # type: ignore[call-overload]
    asked = f"Answer with JSON that has {names}."
    text = template.render([{"role": "user", "content": asked}])
    return tokenizer.encode(text, parse_special=True)


def submits(
    seeds: range, tokenizer: Tokenizer, template: ChatTemplate, max_tokens: int
) -> list[Submit]:
    """Returns a request for each seed, at alternating temperatures."""
    stops = sorted(tokenizer.eog_ids | template_stop_ids(template, tokenizer))
    return [
        Submit(
            str(seed),
            prompt_of(schema := random_schema(seed), tokenizer, template),
            SamplingParams(temperature=TEMPERATURES[seed % len(TEMPERATURES)], seed=seed),
            stops,
            max_tokens,
            grammar=whole_answer(json_part(schema)),
        )
        for seed in seeds
    ]


def answers(
    engine: Engine, requests: list[Submit], deadline_s: float
) -> dict[str, tuple[list[int], FinishReason | None, str | None]]:
    """Returns tokens, finish and error of every request; requests that were not done in time have
    no finish."""
    found: dict[str, tuple[list[int], FinishReason | None, str | None]] = {
        request.id: ([], None, None) for request in requests
    }
    for request in requests:
        engine.submit(request)
    while engine.has_work() and time.monotonic() < deadline_s:
        for output in engine.step():
            tokens = found[output.id][0] + output.tokens
            found[output.id] = (tokens, output.finish, output.error)
    for request in requests:
        engine.abort(request.id)
    return found


def verdict(schema: Schema, text: str, end: FinishReason | None, error: str | None) -> str:
    """ "valid", or what is wrong with an answer."""
    if end is not FinishReason.STOP:
        return f"not complete: {error or end}"
    try:
        value = json.loads(text)
    except ValueError:
        return "no JSON"
    checker = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return "valid" if checker.is_valid(value) else "not valid"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=str(DEFAULT_MODEL))
    parser.add_argument("--n", type=int, default=1000, help="schemas to answer")
    parser.add_argument("--first", type=int, default=0, help="the first schema's seed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=1024, help="of an answer")
    parser.add_argument("--seconds", type=float, default=900, help="the longest it may take")
    parser.add_argument("--show", action="store_true", help="show the answers that are not valid")
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.model, None)
    template = find_template(metadata_of(args.model, None), tokenizer=tokenizer)
    settings = EngineSettings(model=str(Path(args.model)), threads=args.threads)
    began_s = time.monotonic()
    engine = build_engine(settings, lambda *_: None, with_grammars=True)
    verdicts: Counter[str] = Counter()
    n_tokens = 0
    try:
        for first in range(args.first, args.first + args.n, N_AT_ONCE):
            seeds = range(first, min(first + N_AT_ONCE, args.first + args.n))
            requests = submits(seeds, tokenizer, template, args.max_tokens)
            found = answers(engine, requests, began_s + args.seconds)
            for seed in seeds:
                tokens, end, error = found[str(seed)]
                text = tokenizer.decode(tokens, is_continuation=True)
                said = verdict(random_schema(seed), text, end, error)
                verdicts[said] += 1
                n_tokens += len(tokens)
                if args.show and said != "valid":
                    print(seed, said, json.dumps(random_schema(seed)), text[:300], sep="\n  ")
    finally:
        engine.close()
    took_s = time.monotonic() - began_s
    print(f"{verdicts['valid']} of {args.n} answers valid, {n_tokens} tokens in {took_s:.0f} s")
    for said, n in verdicts.most_common():
        if said != "valid":
            print(f"  {n} {said}")
    return 0 if verdicts["valid"] == args.n else 1


if __name__ == "__main__":
    sys.exit(main())
