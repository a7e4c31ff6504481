"""Writes a model of a real shape with random weights in distributed-llama's format, with a
tokenizer beside it: the same name, ending in .t.

    python -m benchmarks.random_m_model llama-3.2-1b /tmp/1b.m
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from benchmarks.random_model import SHAPES, random_blocks
from benchmarks.writers.filler_vocabulary import CHATML, SPECIALS, bpe_metadata
from benchmarks.writers.m_export import m_stream
from dllama.config import ModelConfig
from dllama.formats.m_layout import m_file_bytes, m_tensors
from dllama.models import model_tensors
from dllama.qtypes import QType
from dllama.tokenizer.byte_alphabet import BYTE_ORDER, from_alphabet
from dllama.tokenizer.t_file import TFile, write_t_file

TYPES = (QType.Q4_0, QType.F32)  # all that the format has


def write_random_m(
    path: Path, config: ModelConfig, qtype: QType, *, seed: int = 0,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> None:  # fmt: skip
    """Writes `path` and the tokenizer; `on_bytes` is called for every piece. Raises ValueError for
    models that the format cannot describe."""
    rng = np.random.Generator(np.random.SFC64(seed))
    table = model_tensors(replace(config, is_tied=False))  # the format has a head in any case
    with m_stream(path, config, qtype) as out:
        for info in m_tensors(config, qtype):
            for piece in random_blocks(rng, table[info.name], config, info.qtype):
                out.write(piece)
                on_bytes(piece.nbytes)
    write_t_file(path.with_suffix(".t"), tokenizer_of(config.vocab_size))


def tokenizer_of(vocab_size: int) -> TFile:
    """The filler vocabulary of the GGUF models, bytes in GPT-2's order; what comes earlier is
    merged first."""
    pieces = bpe_metadata(vocab_size)["tokenizer.ggml.tokens"]
    assert isinstance(pieces, list)
    plain = pieces[256 : -len(SPECIALS)]
    tokens = [bytes([b]) for b in BYTE_ORDER] + [from_alphabet(piece) for piece in plain]
    tokens += [special.encode() for special in SPECIALS]
    return TFile(
        tokens=tokens,
        scores=[-float(i) for i in range(vocab_size)],
        bos_id=len(tokens) - len(SPECIALS),
        eos_ids=[vocab_size - 1],
        add_bos=True,
        chat_template=CHATML,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.random_m_model",
        description="Write a .m model of a real shape with random weights, and its .t tokenizer.",
    )
    parser.add_argument("shape", choices=list(SHAPES), help="the model whose sizes to take")
    parser.add_argument("path", type=Path, help="the .m file to write")
    parser.add_argument("--type", choices=[t.name for t in TYPES], default=TYPES[0].name)
    args = parser.parse_args(argv)
    config, qtype = SHAPES[args.shape], QType[args.type]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(args.path.name, total=m_file_bytes(config, qtype))
        write_random_m(args.path, config, qtype, on_bytes=lambda n: progress.advance(task, n))
    return 0


if __name__ == "__main__":
    sys.exit(main())
