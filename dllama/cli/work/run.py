"""Answers one prompt, for dllama run."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from dataclasses import replace

from dllama.chat import find_template, template_stop_ids
from dllama.cli.build import build_engine
from dllama.cli.flags.engine import engine_settings
from dllama.cli.flags.sampling import sampling_params
from dllama.cli.model_file import load_tokenizer, metadata_of
from dllama.cli.terminal.answer_text import AnswerText, answer_text
from dllama.cli.terminal.output import loading, note
from dllama.cli.terminal.text_input import is_piped, piped_text, typed_text
from dllama.engine.engine import Engine
from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S, Recovery
from dllama.engine.submit_check import check_sampling
from dllama.errors import ClusterError, ConfigError, RequestError
from dllama.requests import FinishReason, Output, Submit
from dllama.tokenizer import Tokenizer


def prompt_text(args: argparse.Namespace) -> str:
    """Returns the prompt: piped text, then what was typed. Raises RequestError without either."""
    words = [*([args.prompt] if args.prompt else []), *args.words]
    typed = typed_text(" ".join(word for word in words if word != "-"), "the prompt")
    is_read = "-" in words or is_piped(sys.stdin) or (not words and not sys.stdin.isatty())
    # A piped file may begin with a byte order mark, which is no text.
    piped = piped_text(sys.stdin, _tell_waiting).removeprefix("\ufeff") if is_read else ""
    text = "\n".join(part for part in (piped.rstrip("\n"), typed) if part)
    if not text:
        raise RequestError('there is no prompt; write one: dllama -m MODEL -p "Hello"')
    return text


def _tell_waiting() -> None:
    note("reading standard input up to its end; with < /dev/null there is nothing to read")


def encode_prompt(
    args: argparse.Namespace, tokenizer: Tokenizer
) -> tuple[list[int], frozenset[int], AnswerText]:
    """Returns the prompt's ids, the ids that end the answer, and how its text is shown."""
    text = prompt_text(args)
    if args.raw:
        ids = tokenizer.encode_prompt(text, parse_special=False)
        return ids, tokenizer.eog_ids, tokenizer.decoder()
    metadata = metadata_of(args.model, args.tokenizer)
    template = find_template(
        metadata, args.chat_template_file or args.chat_template, tokenizer=tokenizer
    )
    messages = [{"role": "user", "content": text}]
    if args.system:
        messages.insert(0, {"role": "system", "content": typed_text(args.system, "--system")})
    prompt = template.render(messages)
    stop_ids = tokenizer.eog_ids | template_stop_ids(template, tokenizer)
    shown = answer_text(tokenizer, template.sources, prompt)
    return tokenizer.encode_prompt(prompt), stop_ids, shown


def run(args: argparse.Namespace) -> int:
    tokenizer = load_tokenizer(args.model, args.tokenizer)
    sampling = sampling_params(args, tokenizer, secrets.randbits(32))
    check_sampling(sampling, tokenizer.vocab_size)
    ids, stop_ids, shown = encode_prompt(args, tokenizer)
    with loading("loading") as report:
        named = str(args.tokenizer) if args.tokenizer else None
        engine = build_engine(replace(engine_settings(args), tokenizer=named), report)
    try:
        if len(ids) >= engine.max_len and not args.context_shift:
            raise ConfigError(
                f"the prompt has {len(ids)} tokens and the context {engine.max_len}; shorten it "
                "or raise --ctx-size"
            )
        submit = Submit(
            id="run",
            tokens=ids,
            sampling=sampling,
            stop_ids=sorted(stop_ids),
            max_tokens=args.n_predict if args.n_predict >= 0 else None,
            context_shift=args.context_shift,
            n_keep=args.keep or 0,
        )
        return answer(engine, submit, shown, is_verbose=args.verbose)
    finally:
        engine.close()


def next_outputs(engine: Engine) -> list[Output]:
    """Runs a step. Where a node is lost the answer waits until the cluster is back, and goes on.
    Raises ClusterError after DEFAULT_MAX_RECOVER_S in vain."""
    if engine.pending_change is not None:
        engine.suspend(engine.pending_change)
    else:
        try:
            return engine.step()
        except ClusterError as lost:
            note(f"{lost}. The answer waits and goes on.")
    recovery = Recovery(time.monotonic(), DEFAULT_MAX_RECOVER_S)
    while True:
        time.sleep(recovery.due_in(time.monotonic()))
        try:
            engine.recover()
        except ClusterError:
            if recovery.must_give_up(time.monotonic()):
                raise
            recovery.note_failure(time.monotonic())
        else:
            return []


def answer(engine: Engine, submit: Submit, shown: AnswerText, *, is_verbose: bool) -> int:
    """Streams the answer to stdout."""
    started_s = first_s = time.perf_counter()
    n = 0
    engine.submit(submit)
    while engine.has_work():
        for output in next_outputs(engine):
            n += len(output.tokens)
            if n and first_s == started_s:
                first_s = time.perf_counter()
            sys.stdout.write(shown.push(output.tokens))
            if output.finish is FinishReason.ERROR:
                raise RequestError(output.error or "the engine gave up on the answer")
            if output.finish is not None:
                sys.stdout.write(shown.flush() + "\n")
            sys.stdout.flush()
    if is_verbose:
        seconds = time.perf_counter() - first_s
        rate = (n - 1) / seconds if n > 1 and seconds > 0 else 0.0
        note(
            f"{len(submit.tokens)} prompt tokens, first token after {first_s - started_s:.2f} s; "
            f"{n} tokens at {rate:.1f} tokens/s"
        )
    return 0
