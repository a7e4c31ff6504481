"""dllama perplexity: how well a model predicts a text."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dllama.cli.build import build_runner
from dllama.cli.flags.arguments import add_kv_flag, add_model_flag, positive
from dllama.cli.flags.cluster import add_cluster_flags
from dllama.cli.flags.engine import runner_settings
from dllama.cli.model_file import load_tokenizer, trained_context
from dllama.cli.terminal.output import is_terminal, loading, note, stderr
from dllama.errors import ConfigError
from dllama.perplexity import Estimate, Perplexity, windows_of
from dllama.step import PAGE_TOKENS

LEAST_WINDOW = 4  # tokens: one of them counts
EPILOG = """examples:
  dllama perplexity -m model.gguf -f wiki.test.raw
  dllama perplexity -m model.gguf -f text.txt -c 256 --windows 20 --json
  dllama perplexity -m model.gguf -f text.txt --workers 10.0.0.2

The text is cut into windows of -c tokens; the second half of each counts, as llama-perplexity has
it. Lower is better; compare only what read the same text with the same tokenizer and windows."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    parser = commands.add_parser(
        "perplexity", help=summary, epilog=EPILOG,
        description="Measure how well a model predicts a text, on this machine or on a cluster.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_model_flag(parser)
    parser.add_argument("-f", "--file", type=Path, required=True, metavar="FILE",
                        help="the text, in UTF-8")  # fmt: skip
    parser.add_argument("-c", "--ctx-size", type=positive, default=512, metavar="N",
                        help="tokens of a window (default: 512)")  # fmt: skip
    parser.add_argument("--windows", type=positive, metavar="N",
                        help="read so many windows at most (default: all)")  # fmt: skip
    parser.add_argument("--tokenizer", type=Path, metavar="FILE",
                        help="a .t file, or a GGUF of the same model")  # fmt: skip
    parser.add_argument("--step-tokens", type=positive, default=512, metavar="N",
                        help="tokens of a step (default: 512)")  # fmt: skip
    add_kv_flag(parser)
    parser.add_argument("--json", action="store_true", help="print an object")
    add_cluster_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
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
    estimate = measure(args, windows, bos_id)
    if args.json:
        print(json.dumps(estimate.to_json(), indent=1))
    else:
        print(f"perplexity {estimate.perplexity:.4f} ± {estimate.error:.4f} "
              f"({estimate.n_tokens} tokens of {estimate.n_windows} windows)")  # fmt: skip
    return 0


def measure(
    args: argparse.Namespace, windows: Sequence[Sequence[int]], bos_id: int | None
) -> Estimate:
    """Scores all windows; tells how far it is on stderr."""
    settings = replace(
        runner_settings(args), ctx_size=args.ctx_size, max_batch=1,
        tokenizer=str(args.tokenizer) if args.tokenizer else None,
    )  # fmt: skip
    with loading("loading") as report:
        runner = build_runner(settings, report, -(-args.ctx_size // PAGE_TOKENS))
    try:
        score = Perplexity(runner, bos_id=bos_id, max_step_tokens=args.step_tokens)
        with stderr().status("reading") as status:
            for n, window in enumerate(windows, start=1):
                estimate = score.add(window)
                told = f"window {n} of {len(windows)}: {estimate.perplexity:.4f}"
                status.update(told)
                if not is_terminal():
                    note(told)
    finally:
        runner.close()
    return estimate


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
