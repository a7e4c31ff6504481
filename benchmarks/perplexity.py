"""Perplexity of one text, ours beside llama.cpp's, for the same files.

    python -m benchmarks.perplexity --peer-python PYTHON MODEL.gguf
    python -m benchmarks.perplexity --peer-python PYTHON --types Q4_0,Q4_K_M F16.gguf

With --types the file, an F16 one, is quantized by llama.cpp first. Both read the same token ids,
in windows of --window tokens from an empty context; the second half of each window counts.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dllama.cli.build import build_runner
from dllama.cli.flags.arguments import comma_list
from dllama.cli.flags.settings import EngineSettings
from dllama.formats.gguf import GgufFile
from dllama.runner import Runner
from dllama.step import PAGE_TOKENS, Step
from dllama.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
ROWS = 64  # of logits a step may ask for
PEER = Path(__file__).parent / "peers" / "llama_perplexity.py"


def windows_of(ids: list[int], width: int) -> list[list[int]]:
    """Whole windows only."""
    return [ids[i : i + width] for i in range(0, len(ids) - width + 1, width)]


def window_nll(runner: Runner, ids: list[int]) -> float:
    """The sum of -log p of the tokens in the second half of a window."""
    total = 0.0
    pages = np.arange(-(-len(ids) // PAGE_TOKENS), dtype=np.int32)[None]
    for first in range(0, len(ids), ROWS):
        part = ids[first : first + ROWS]
        rows = np.arange(len(part), dtype=np.int32)
        step = Step(
            tokens=np.array(part, np.int32), positions=rows + first,
            starts=np.array([0, len(part)], np.int32), pages=pages, logits_at=rows,
            candidates=np.zeros_like(rows),
        )  # fmt: skip
        for at, row in enumerate(runner.run(step), start=first):
            if len(ids) // 2 <= at + 1 < len(ids):
                total += row.log_sum_exp - float(row.logits[ids[at + 1]])
    return total


def our_perplexity(path: Path, windows: list[list[int]], threads: int) -> float:
    settings = EngineSettings(model=str(path), threads=threads, max_step_tokens=ROWS)
    n_pages = -(-len(windows[0]) // PAGE_TOKENS)
    runner = build_runner(settings, lambda share, detail: None, n_pages)
    try:
        total = sum(window_nll(runner, window) for window in windows)
    finally:
        runner.close()
    return math.exp(total / n_counted(windows))


def n_counted(windows: list[list[int]]) -> int:
    return sum(len(w) - max(1, len(w) // 2) for w in windows)


def peer_perplexity(python: str, path: Path, windows: list[list[int]], threads: int) -> float:
    run = subprocess.run(
        [python, str(PEER), "score", str(path), str(threads)],
        input=json.dumps(windows), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return math.exp(float(run.stdout) / n_counted(windows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, default=ROOT / "README.md")
    parser.add_argument("--types", type=comma_list, default=())
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_gguf_metadata(GgufFile(args.model).metadata)
    ids = tokenizer.encode(args.text.read_text(encoding="utf-8"))
    windows = windows_of(ids, args.window)[: args.windows]
    if not windows:
        raise SystemExit(f"{args.text} has {len(ids)} tokens, too few for a window")
    view = Table("type", "dllama", "llama.cpp", "difference")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.types or (args.model.stem,):
            path = args.model
            if args.types:
                path = Path(folder) / f"{name}.gguf"
                quantize = [args.peer_python, str(PEER), "quantize", str(args.model), str(path)]
                subprocess.run([*quantize, name], check=True)
            ours = our_perplexity(path, windows, args.threads)
            theirs = peer_perplexity(args.peer_python, path, windows, args.threads)
            rows.append({"type": name, "dllama": ours, "llama.cpp": theirs})
            view.add_row(name, f"{ours:.4f}", f"{theirs:.4f}", f"{ours / theirs - 1:+.3%}")
    Console().print(view)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
