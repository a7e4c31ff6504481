"""Measures how well a model predicts a text, for dllama perplexity."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from dllama.cli.build import build_runner
from dllama.cli.flags.engine import runner_settings
from dllama.cli.model_file import load_tokenizer, trained_context
from dllama.cli.terminal.comparison_text import comparison_lines
from dllama.cli.terminal.output import is_terminal, loading, note, stderr
from dllama.divergence.base_file import BaseFile, BaseWriter, file_bytes
from dllama.divergence.comparison import Comparison, TokenPair, comparison_of
from dllama.errors import ConfigError
from dllama.host.disk import check_room
from dllama.perplexity import Estimate, Perplexity, window_rows, windows_of
from dllama.runner import Runner
from dllama.step import PAGE_TOKENS, LogitRow

LEAST_WINDOW = 4  # tokens: one of them counts


def run(args: argparse.Namespace) -> int:
    if args.kl_divergence:
        return run_comparison(args)
    if args.file is None:
        raise ConfigError("there is no text to read; name one with -f")
    check_window(args.model, args.ctx_size)
    tokenizer = load_tokenizer(args.model, args.tokenizer)
    bos_id = tokenizer.bos_id if tokenizer.add_bos else None
    ids = tokenizer.encode(read_text(args.file), add_special=True)
    windows = windows_of(ids, args.ctx_size)[: args.windows]
    if not windows:
        raise ConfigError(
            f"{args.file} has {len(ids)} tokens, too few for one window of {args.ctx_size}; give a "
            "longer text, or lower -c"
        )
    with runner_of(args, args.ctx_size) as runner:
        estimate = measured(args, runner, windows, bos_id)
    if args.json:
        print(json.dumps(estimate.to_json(), indent=1))
    else:
        print(f"perplexity {estimate.perplexity:.4f} ± {estimate.error:.4f} "
              f"({estimate.n_tokens} tokens of {estimate.n_windows} windows)")  # fmt: skip
    return 0


@contextmanager
def runner_of(args: argparse.Namespace, width: int) -> Iterator[Runner]:
    """Loads the model for windows of this width."""
    settings = replace(
        runner_settings(args), ctx_size=width, max_batch=1,
        tokenizer=str(args.tokenizer) if args.tokenizer else None,
    )  # fmt: skip
    with loading("loading") as report:
        runner = build_runner(settings, report, -(-width // PAGE_TOKENS))
    with closing(runner):
        yield runner


def measured(
    args: argparse.Namespace, runner: Runner, windows: Sequence[Sequence[int]], bos_id: int | None
) -> Estimate:
    """Scores all windows; writes the probabilities where a file is named for them."""
    path = args.kl_divergence_base
    if path is None:
        return scored(args, runner, windows, bos_id, lambda row: None)
    vocab_size = runner.config.n_tokens
    check_room(path, file_bytes(args.ctx_size, vocab_size, len(windows)))
    with BaseWriter(path, windows, vocab_size) as out:
        return scored(args, runner, windows, bos_id, out.add)


def scored(
    args: argparse.Namespace, runner: Runner, windows: Sequence[Sequence[int]], bos_id: int | None,
    on_row: Callable[[LogitRow], None],
) -> Estimate:  # fmt: skip
    """Scores all windows; tells how far it is on stderr."""
    score = Perplexity(runner, bos_id=bos_id, max_step_tokens=args.step_tokens, on_row=on_row)
    with told_windows(len(windows)) as tell:
        for window in windows:
            estimate = score.add(window)
            tell(f"{estimate.perplexity:.4f}")
    return estimate


def run_comparison(args: argparse.Namespace) -> int:
    if args.kl_divergence_base is None:
        raise ConfigError(
            "--kl-divergence compares with a base model, whose probabilities are in a file; name "
            "it with --kl-divergence-base"
        )
    tokenizer = load_tokenizer(args.model, args.tokenizer)
    bos_id = tokenizer.bos_id if tokenizer.add_bos else None
    with closing(BaseFile(args.kl_divergence_base)) as base:
        check_window(args.model, base.width)
        with runner_of(args, base.width) as runner:
            found = compared(args, runner, base, bos_id)
    if args.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        print("\n".join(comparison_lines(found)))
    return 0


def compared(
    args: argparse.Namespace, runner: Runner, base: BaseFile, bos_id: int | None
) -> Comparison:
    """Reads the windows of the base model's file; tells how far it is on stderr. Raises ConfigError
    where the models have other vocabularies."""
    if runner.config.n_tokens != base.vocab_size:
        raise ConfigError(
            f"{args.kl_divergence_base} has the probabilities of {base.vocab_size} tokens, and "
            f"this model has {runner.config.n_tokens}; compare models of one vocabulary"
        )
    pairs: list[TokenPair] = []
    windows = base.windows[: args.windows]
    with told_windows(len(windows)) as tell:
        for number, window in enumerate(windows):
            rows = window_rows(runner, window, bos_id=bos_id, max_step_tokens=args.step_tokens)
            for (token, row), of_base in zip(rows, base.rows(number), strict=True):
                pairs.append(TokenPair(row, of_base, token))
            found = comparison_of(pairs, number + 1)
            tell(f"perplexity {found.perplexity.value:.4f}, KLD {found.divergence.value:.6f}")
    return found


@contextmanager
def told_windows(n_windows: int) -> Iterator[Callable[[str], None]]:
    """Yields a function that tells on stderr what was found up to the next window."""
    n = 0
    with stderr().status("reading") as status:

        def tell(found: str) -> None:
            nonlocal n
            n += 1
            said = f"window {n} of {n_windows}: {found}"
            status.update(said)
            if not is_terminal():
                note(said)

        yield tell


def read_text(path: Path) -> str:
    """The text of a file, "-" for standard input. Raises ConfigError where it is none."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"the text {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is no text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        ) from error


def check_window(model: str, width: int) -> None:
    """Raises ConfigError where windows of this width are too short, or do not fit the model's
    context."""
    trained = trained_context(model)
    if not LEAST_WINDOW <= width <= trained:
        raise ConfigError(
            f"windows of {width} tokens do not do: this model reads {trained} tokens at most, and "
            f"a window has {LEAST_WINDOW} at least; change -c"
        )
