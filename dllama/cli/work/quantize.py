"""Writes a model file with smaller weights, for dllama quantize."""

from __future__ import annotations

import argparse
import json
import re
from contextlib import closing
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dllama.cli.terminal.output import note, show, stderr
from dllama.errors import ConfigError
from dllama.formats.quantized import type_named
from dllama.qtypes import QType
from dllama.quantizing.choice import Recipe, mix_named
from dllama.quantizing.errors_found import Kind
from dllama.quantizing.quantize import Plan, Quantizer, part_names, plan_of
from dllama.quantizing.tensor_files import TensorFile, open_tensors


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
