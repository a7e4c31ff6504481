"""Perplexity of one text, ours beside llama.cpp's, for the same files.

    python -m benchmarks.perplexity --peer-python PYTHON MODEL.gguf
    python -m benchmarks.perplexity --peer-python PYTHON --types Q4_0,IQ2_XS MODEL.gguf

With --types the file is quantized by llama.cpp first. Both read the same token ids, in windows of
--window tokens (dllama/perplexity.py). The peer's Python needs llama-cpp-python and gguf.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dllama.cli.build import build_runner
from dllama.cli.flags.arguments import comma_list
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import load_tokenizer
from dllama.perplexity import Estimate, Perplexity, windows_of
from dllama.step import PAGE_TOKENS

ROOT = Path(__file__).resolve().parents[1]
PEER = Path(__file__).parent / "peers" / "llama_perplexity.py"

Windows = list[list[int]]


def our_estimate(path: Path, windows: Windows, threads: int) -> Estimate:
    width = len(windows[0])
    settings = EngineSettings(model=str(path), threads=threads, ctx_size=width)
    runner = build_runner(settings, lambda share, detail: None, -(-width // PAGE_TOKENS))
    try:
        step_tokens = settings.max_step_tokens
        score = Perplexity(runner, bos_id=None, max_step_tokens=step_tokens)
        return [score.add(window) for window in windows][-1]
    finally:
        runner.close()


def peer_perplexity(python: str, path: Path, windows: Windows, threads: int, counted: int) -> float:
    run = subprocess.run(
        [python, str(PEER), "score", str(path), str(threads)],
        input=json.dumps(windows), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return math.exp(float(run.stdout) / counted)


def read_windows(args: argparse.Namespace) -> Windows:
    """The windows of the text, each after the token that begins texts where the model wants it."""
    tokenizer = load_tokenizer(str(args.model), None)
    ids = tokenizer.encode(args.text.read_text(encoding="utf-8"), add_special=True)
    windows = [list(window) for window in windows_of(ids, args.window)[: args.windows]]
    if not windows:
        raise SystemExit(f"{args.text} has {len(ids)} tokens, too few for a window")
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        for window in windows:
            window[0] = tokenizer.bos_id
    return windows


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
    windows = read_windows(args)
    view = Table("type", "dllama", "llama.cpp", "difference")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.types or (args.model.stem,):
            path = args.model
            if args.types:
                path = Path(folder) / f"{name}.gguf"
                quantize = [args.peer_python, str(PEER), "quantize", str(args.model), str(path)]
                subprocess.run([*quantize, name], check=True)
            estimate = our_estimate(path, windows, args.threads)
            ours, counted = estimate.perplexity, estimate.n_tokens
            theirs = peer_perplexity(args.peer_python, path, windows, args.threads, counted)
            rows.append({"type": name, "dllama": ours, "llama.cpp": theirs})
            view.add_row(name, f"{ours:.4f}", f"{theirs:.4f}", f"{ours / theirs - 1:+.3%}")
    Console().print(view)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
