"""dllama quantize: a model file with smaller weights."""

from __future__ import annotations

import argparse
import json
import re
from contextlib import closing
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dllama.cli.flags.arguments import default_threads, positive
from dllama.cli.terminal.output import note, show, stderr
from dllama.errors import ConfigError
from dllama.formats.quantized import type_named
from dllama.qtypes import QType
from dllama.quantizing.choice import Recipe, mix_named
from dllama.quantizing.errors_found import Kind
from dllama.quantizing.mixes import ALIASES, MIXES
from dllama.quantizing.quantize import Plan, Quantizer, part_names, plan_of
from dllama.quantizing.tensor_files import TensorFile, open_tensors

EPILOG = f"""types: {", ".join(list(MIXES)[:14])},
  {", ".join(list(MIXES)[14:])}; {", ".join(f"{a} is {b}" for a, b in ALIASES.items())}

examples:
  dllama quantize qwen3-0.6b-bf16.gguf qwen3-0.6b-q4_k_m.gguf q4_k_m
  dllama quantize Qwen3-0.6B qwen3-0.6b-q6_k.gguf q6_k --token-embedding-type q8_0

A mix gives some matrices more bits than others, by the rules of llama-quantize without an
importance matrix. RMSE is the root of the mean squared error, in parts of the weights' own."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    parser = commands.add_parser(
        "quantize", help=summary, epilog=EPILOG,
        description="Write a model, of a GGUF file or of a folder of safetensors files, as a GGUF "
        "file with smaller weights, and show how far they are from what they were.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", type=Path)
    parser.add_argument("out", metavar="OUT.gguf", type=Path)
    parser.add_argument("type", metavar="TYPE", help="a type or a mix of types, see below")
    _add_choices(parser)
    parser.add_argument(
        "--keep-split", action="store_true", help="write as many files as the model has parts"
    )
    parser.add_argument(
        "--dry-run", action="store_true",
        help="show what would become of the tensors, and write nothing",
    )  # fmt: skip
    parser.add_argument(
        "-t", "--threads", type=positive, default=default_threads(), metavar="N",
        help="compute threads (default: the cores of this machine)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.set_defaults(run=run)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose types."""
    parser.add_argument("--pure", action="store_true", help="give all matrices the same type")
    parser.add_argument(
        "--output-tensor-type", metavar="TYPE", help="of the matrix that the logits come from"
    )
    parser.add_argument(
        "--token-embedding-type", metavar="TYPE", help="of the table of token embeddings"
    )
    parser.add_argument(
        "--tensor-type", metavar="NAME=TYPE", action="append", default=[],
        help="of tensors in whose name this pattern is found (may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--leave-output-tensor", action="store_true",
        help="keep the matrix that the logits come from as it is",
    )  # fmt: skip
    parser.add_argument(
        "--allow-requantize", action="store_true",
        help="also take weights that are quantized already, which costs much",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    recipe = recipe_of(args)
    with closing(open_tensors(args.model)) as file:
        n_parts = file.n_parts if args.keep_split else 1
        check_free(part_names(args.out, n_parts))
        plan = plan_of(file, recipe)
        is_dry = args.dry_run
        kinds = list(plan.kinds().values()) if is_dry else written(args, file, recipe, plan)
    if args.json:
        print(json.dumps([kind.to_json() for kind in kinds], indent=1))
    else:
        show(table(kinds))
    return 0


def recipe_of(args: argparse.Namespace) -> Recipe:
    """Returns what the flags ask for. Raises ConfigError."""
    types = []
    for text in args.tensor_type:
        name, equals, qtype = text.partition("=")
        if not (name and equals):
            raise ConfigError(
                f"--tensor-type {text!r} is no pair; write a part of a tensor's name and a type, "
                "such as ffn_down=q6_k"
            )
        types.append((checked_pattern(name), type_named(qtype)))
    return Recipe(
        mix_named(args.type),
        is_pure=args.pure,
        output=_optional(args.output_tensor_type),
        embedding=_optional(args.token_embedding_type),
        types=tuple(types),
        keeps_output=args.leave_output_tensor,
        allows_requantize=args.allow_requantize,
    )


def checked_pattern(text: str) -> str:
    """Returns a regular expression. Raises ConfigError where it is none."""
    try:
        re.compile(text)
    except re.error as error:
        raise ConfigError(f"--tensor-type {text!r} is no regular expression: {error}") from error
    return text


def _optional(name: str | None) -> QType | None:
    return None if name is None else type_named(name)


def check_free(paths: list[Path]) -> None:
    """Raises ConfigError where one of the files is there already."""
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} is there already; name another file, or remove it first")


def written(args: argparse.Namespace, file: TensorFile, recipe: Recipe, plan: Plan) -> list[Kind]:
    """Writes the file; returns the errors by kind of tensor."""
    columns = (TextColumn("quantizing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task("quantizing", total=plan.bytes_before)
        quantizer = Quantizer(file, recipe, plan, args.threads, lambda n: progress.advance(task, n))
        paths = quantizer.write(args.out, keeps_parts=args.keep_split)
    n_bytes = sum(path.stat().st_size for path in paths)
    bits = 8 * plan.bytes_after / sum(info.rows * info.cols for info, _ in plan.pairs)
    note(f"wrote {', '.join(map(str, paths))}: {n_bytes / 1e6:.1f} MB of "
         f"{plan.bytes_before / 1e6:.1f} MB, {bits:.2f} bits a weight")  # fmt: skip
    return list(quantizer.kinds.values())


def table(kinds: list[Kind]) -> Table:
    """Returns the kinds of tensors as a table for people."""
    view = Table()
    for name in ("tensor", "types", "MB before", "MB after", "RMSE %", "largest error"):
        view.add_column(name, justify="left" if name in ("tensor", "types") else "right")
    for kind in kinds:
        types = ", ".join(
            f"{n} x {a.name}" + (f" to {b.name}" if a is not b else "")
            for (a, b), n in kind.types.items()
        )
        has_errors = kind.errors.n_values > 0
        view.add_row(
            kind.name, types, f"{kind.bytes_before / 1e6:.2f}", f"{kind.bytes_after / 1e6:.2f}",
            f"{100 * kind.errors.relative:.3f}" if has_errors else "",
            f"{kind.errors.largest:.4g}" if has_errors else "",
        )  # fmt: skip
    return view
