"""Perplexity of texts, ours beside llama.cpp's, for the same files, by type of weights.

    python -m benchmarks.perplexity --llama-cpp DIR/bin
    python -m benchmarks.perplexity --llama-cpp DIR/bin --types Q4_0,IQ2_XS --exact
    python -m benchmarks.perplexity --llama-cpp DIR/bin --types file --model FILE --texts wiki.txt

llama-quantize makes the model's matrices into each type; both programs then read the same windows
of token ids (dllama/perplexity.py): ours writes its probabilities down, llama-perplexity compares
its own with them. Tables have both perplexities, the difference with its standard error, and the
KL divergence. --exact adds the perplexity of the file's values in float32, as llama.cpp computes it
without rounding activations and keys, and how far both are from it. A small model takes half a
minute a type.

The packaged model reads `demo`, a text of the kind that it was trained on, and docs/log.md, which
it does not know. docs/benchmarks.md says how llama.cpp's programs are built.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.compare import machine_facts
from benchmarks.peers.llama_perplexity import CannotWrite, LlamaPrograms
from dllama.cli.build import build_runner
from dllama.cli.flags.arguments import DEFAULT_MODEL, comma_list, positive
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import load_tokenizer
from dllama.divergence.base_file import BaseWriter, counted_tokens, file_bytes
from dllama.errors import DllamaError
from dllama.formats import open_model
from dllama.host.disk import check_room
from dllama.kv_type import KvType
from dllama.perplexity import Perplexity, windows_of
from dllama.qtypes import QType
from dllama.step import PAGE_TOKENS
from dllama.tokenizer import Tokenizer
from examples.demo_model.data.conversations import Writer
from examples.demo_model.data.dialogue import segments

ROOT = Path(__file__).resolve().parents[1]
DEMO = "demo"  # a text
UNKNOWN = ROOT / "docs" / "log.md"
AS_IS = "file"  # a type
TYPES = (
    "F32,F16,BF16,Q8_0,Q6_K,Q5_K,Q5_1,Q5_0,Q4_K,Q4_1,Q4_0,IQ4_NL,IQ4_XS,MXFP4,NVFP4,Q3_K,IQ3_S,"
    "IQ3_XXS,Q2_K,IQ2_S,IQ2_XS,IQ2_XXS,TQ2_0,TQ1_0,IQ1_M,IQ1_S,Q2_0,Q1_0"
)
DEMO_SEED = 20261129  # training had others
DEMO_TOKENS = 50  # of a document, at the very least on average
LEAST_COUNTED = 100  # tokens, of which llama-perplexity makes statistics

Windows = list[list[int]]


@dataclass(frozen=True, slots=True)
class Row:
    """What was found for one text and one type. `error` is the standard error of `difference`,
    `divergence` the mean KL divergence of llama.cpp's probabilities from ours."""

    text: str
    type: str
    n_windows: int
    dllama: float
    llama_cpp: float
    difference: float  # in parts of llama.cpp's
    error: float
    divergence: float
    exact: float | None


class Bench:
    """All that is the same for every type."""

    def __init__(self, args: argparse.Namespace, peer: LlamaPrograms, folder: Path) -> None:
        self._args, self._peer, self._folder = args, peer, folder
        self._tokenizer = load_tokenizer(str(args.model), None)
        self._windows = {text: self._windows_of(text) for text in args.texts}

    def _windows_of(self, text: str) -> Windows:
        args = self._args
        if text == DEMO:
            ids = demo_ids(self._tokenizer, args.window * args.windows)
        else:
            ids = self._tokenizer.encode(Path(text).read_text(encoding="utf-8"), add_special=True)
        windows = [list(window) for window in windows_of(ids, args.window)[: args.windows]]
        if len(windows) * counted_tokens(args.window) < LEAST_COUNTED:
            raise SystemExit(
                f"{text} has {len(ids)} tokens, too few: windows of {args.window} tokens have to "
                f"count {LEAST_COUNTED} at least; give a longer text, or change --window"
            )
        return windows

    def rows_of(self, kind: str) -> Iterator[Row]:
        """Writes the model in a type, and yields what each text gives. Raises CannotWrite."""
        path, values = self._args.model, self._folder / "values.gguf"
        if kind != AS_IS:
            path = self._folder / "model.gguf"
            self._peer.quantize(self._args.model, path, kind)
            check_type(path, kind)
        if self._args.exact:
            self._peer.dequantize(path, values)
        for text, windows in self._windows.items():
            yield self._row(text, windows, kind, path, values)

    def _row(self, text: str, windows: Windows, kind: str, path: Path, values: Path) -> Row:
        args, base = self._args, self._folder / "probabilities"
        running = self._running(path, windows, base)
        ours = running[-1]
        theirs = self._peer.estimate(path, base, args.window, args.kv_type)
        exact = self._peer.estimate(values, base, args.window, "f32") if args.exact else None
        return Row(
            Path(text).name, kind, len(windows), ours, theirs.perplexity,
            ours / theirs.perplexity - 1, error_of(running, theirs.running), theirs.divergence,
            exact and exact.perplexity,
        )  # fmt: skip

    def _running(self, path: Path, windows: Windows, base: Path) -> list[float]:
        """Returns our perplexity of all windows up to each; writes our probabilities down."""
        args, width = self._args, self._args.window
        tokenizer = self._tokenizer
        settings = EngineSettings(
            model=str(path), threads=args.threads, ctx_size=width, max_batch=1, kv_type=args.kv_type
        )
        runner = build_runner(settings, lambda share, detail: None, -(-width // PAGE_TOKENS))
        with closing(runner):
            vocab_size = runner.config.n_tokens
            check_room(base, file_bytes(width, vocab_size, len(windows)))
            with BaseWriter(base, windows, vocab_size) as out:
                score = Perplexity(
                    runner, bos_id=tokenizer.bos_id if tokenizer.add_bos else None,
                    max_step_tokens=settings.max_step_tokens, on_row=out.add,
                )  # fmt: skip
                return [score.add(window).perplexity for window in windows]


def demo_ids(tokenizer: Tokenizer, n_tokens: int) -> list[int]:
    """Returns the tokens of dialogues of the generator that the packaged model was trained on, one
    after the other."""
    documents = Writer(DEMO_SEED).documents(-(-n_tokens // DEMO_TOKENS))
    text = "".join(segment.text for document in documents for segment in segments(document))
    return tokenizer.encode(text, parse_special=True)


def error_of(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns the standard error of the logarithm of the ratio of two perplexities, which are told
    after each window: windows are what was drawn."""
    n = np.arange(1, len(ours) + 1)
    losses = [np.diff(n * np.log(running), prepend=0.0) for running in (ours, theirs)]
    return float(np.std(losses[0] - losses[1])) / math.sqrt(max(len(ours) - 1, 1))


def check_type(path: Path, kind: str) -> None:
    """Raises CannotWrite where no matrix has the type: rows without whole blocks get another."""
    with closing(open_model(path)) as source:
        found = {tensor.qtype.name for tensor in source.tensors.values()}
    if kind not in found:
        raise CannotWrite(f"its matrices became {', '.join(sorted(found))}")


def table(rows: Sequence[Row], text: str) -> Table:
    view = Table(title=text, title_justify="left")
    has_exact = any(row.exact is not None for row in rows)
    exact = ("exact", "dllama's", "llama.cpp's") if has_exact else ()
    for name in ("type", "dllama", "llama.cpp", "difference, %", "KL divergence", *exact):
        view.add_column(name, justify="left" if name == "type" else "right")
    for row in rows:
        cells = [
            row.type, f"{row.dllama:.4f}", f"{row.llama_cpp:.4f}",
            f"{100 * row.difference:+.3f} ± {100 * row.error:.3f}", f"{row.divergence:.6f}",
        ]  # fmt: skip
        if row.exact is not None:
            errors = (row.dllama / row.exact - 1, row.llama_cpp / row.exact - 1)
            cells += [f"{row.exact:.4f}", *(f"{100 * error:+.3f}" for error in errors)]
        view.add_row(*cells)
    return view


def measured(args: argparse.Namespace, peer: LlamaPrograms, tell: Console) -> Iterator[Row]:
    """Yields all rows, type by type; tells of each, and of types that llama.cpp does not write."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, peer, Path(folder))
        for number, kind in enumerate(args.types, start=1):
            progress = f"type {number} of {len(args.types)}"
            try:
                for row in bench.rows_of(kind):
                    tell.print(f"{progress}, {kind}, {row.text}: {100 * row.difference:+.3f} %")
                    yield row
            except CannotWrite as error:
                tell.print(f"{progress}: llama-quantize does not write {kind}: {error}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.perplexity", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--llama-cpp", type=Path, required=True, metavar="FOLDER",
        help="where its llama-quantize and llama-perplexity are")  # fmt: skip
    add("--model", type=Path, default=DEFAULT_MODEL, metavar="FILE",
        help="a GGUF file, best of float weights (default: the packaged model)")  # fmt: skip
    add("--types", type=comma_list, default=comma_list(TYPES), metavar="NAME,...",
        help="of the matrices; file: as they are (default: all that llama.cpp knows)")  # fmt: skip
    add("--texts", type=comma_list, metavar="FILE,...",
        help="in UTF-8 (default: docs/log.md, and for the packaged model demo)")  # fmt: skip
    add("--window", type=positive, default=256, metavar="N", help="tokens of a window")
    add("--windows", type=positive, default=100, metavar="N", help="of each text, at most")
    add("--kv-type", choices=[kind.value for kind in KvType], default="f16",
        help="what both keep keys and values as")  # fmt: skip
    add("--exact", action="store_true", help="what the file's values give without any rounding")
    add("--limit", type=float, default=0.5, metavar="PERCENT",
        help="the difference from which on the exit status is 1")  # fmt: skip
    add("--threads", type=positive, default=2, metavar="N")
    add("--json", type=Path, metavar="FILE", help="where to write what was found")
    return parser


def check(args: argparse.Namespace) -> None:
    """Completes the flags. Raises SystemExit where they make no sense."""
    is_packaged = args.model == DEFAULT_MODEL
    args.model = Path(args.model)
    args.texts = args.texts or ((DEMO,) if is_packaged else ()) + (str(UNKNOWN),)
    for path in (args.model, *(Path(text) for text in args.texts if text != DEMO)):
        if not path.is_file():
            raise SystemExit(f"{path} is no file")
    if args.model.suffix != ".gguf":
        raise SystemExit(f"llama.cpp reads GGUF files alone, not {args.model.name}")
    args.types = tuple(name if name == AS_IS else name.upper() for name in args.types)
    known = {qtype.name for qtype in QType} | {AS_IS}
    for name in args.types:
        if name not in known:
            raise SystemExit(f"{name} is no type of weights; known are {', '.join(sorted(known))}")


def main(argv: list[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and clean up
    args = build_parser().parse_args(argv)
    check(args)
    peer = LlamaPrograms(args.llama_cpp, args.threads)
    console = Console(width=None if sys.stdout.isatty() else 120)
    found = {
        "machine": machine_facts(), "model": args.model.stem, "window": args.window,
        "windows": args.windows, "kv_type": args.kv_type,
    }  # fmt: skip
    rows: list[Row] = []
    try:
        for row in measured(args, peer, Console(stderr=True, highlight=False)):
            rows.append(row)
            if args.json:  # what is measured is not lost
                text = json.dumps({**found, "rows": [asdict(row) for row in rows]}, indent=1)
                args.json.write_text(text + "\n")
    except DllamaError as error:
        raise SystemExit(str(error)) from error
    for text in dict.fromkeys(row.text for row in rows):
        console.print(table([row for row in rows if row.text == text], text))
    far = [f"{row.type} ({row.text})" for row in rows if 100 * abs(row.difference) > args.limit]
    if far:
        console.print(f"more than {args.limit:g} % from llama.cpp's: {', '.join(far)}")
    return 1 if far or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
