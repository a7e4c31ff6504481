"""dllama convert: a model as a GGUF file."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from dllama.cli.command_table import Commands
from dllama.cli.terminal.output import note, stderr
from dllama.errors import ConfigError

EPILOG = """examples:
  dllama convert Qwen3-0.6B qwen3-0.6b.gguf
  dllama convert Qwen3-0.6B qwen3-0.6b-q8_0.gguf --type q8_0"""


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "convert", help=summary, epilog=EPILOG,
        description="Write a model, of a folder of safetensors files or of a GGUF file, as one "
        "GGUF file with its tokenizer and chat template. Weights that are quantized already stay "
        "as they are.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("out", metavar="OUT.gguf", type=Path)
    parser.add_argument(
        "--type", metavar="TYPE",
        help="what float weights are made into: bf16, f16, q8_0, q4_0 and others (default: as the "
        "files have them)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from dllama.cli.model_file import load_tokenizer, metadata_of
    from dllama.formats.quantized import open_weights
    from dllama.formats.writing.convert import write_gguf
    from dllama.host.disk import check_room

    metadata = metadata_of(args.model, None)
    if not metadata:
        raise ConfigError(
            f"{args.model} has no metadata to write; name a folder of safetensors files or a GGUF "
            "file"
        )
    if args.out.exists():
        raise ConfigError(f"{args.out} is there already; name another file, or remove it first")
    load_tokenizer(args.model, None)  # what is wrong with it is told before hours of writing
    with closing(open_weights(args.model, args.type, is_exact=True)) as source:
        total = sum(info.n_bytes for info in source.tensors.values())
        check_room(args.out, total)
        columns = (TextColumn("writing"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=stderr(), transient=True) as progress:
            task = progress.add_task("writing", total=total)
            write_gguf(source, metadata, args.out, lambda n: progress.advance(task, n))
    note(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0
