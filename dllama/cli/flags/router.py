"""The flags of a server of many models."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from dllama.cli.flags.arguments import whole
from dllama.errors import ConfigError

DEFAULT_MODELS = 4
GROUP = "many models"
LIST_FLAGS = frozenset(
    {"models_dir", "models_preset", "models_max", "models_memory", "models_autoload"}
)


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """`max_models` 0: any number are loaded at once. `memory_bytes` None: what all nodes together
    have free."""

    models_dir: Path | None = None
    preset_file: Path | None = None
    max_models: int = DEFAULT_MODELS
    memory_bytes: int | None = None
    autoloads: bool = True


def gigabytes(text: str) -> int:
    """An argparse type: a size in GB, as bytes."""
    try:
        n_bytes = float(text) * 1e9
    except ValueError:
        n_bytes = 0.0
    if not 1e6 <= n_bytes <= 1e18:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GB such as 24 or 0.5")
    return int(n_bytes)


def add_router_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        GROUP,
        "any of these flags, and no --model, starts a server that loads the models which requests "
        "name; see docs/router.md",
    )
    group.add_argument(
        "--models-dir", metavar="DIR", type=Path,
        help="a folder of model files, and of folders with one model each",
    )  # fmt: skip
    group.add_argument(
        "--models-preset", metavar="FILE", type=Path,
        help="an INI file with a section of flags for each model",
    )  # fmt: skip
    group.add_argument(
        "--models-max", metavar="N", type=whole,
        help=f"models that are loaded at once, 0: any number (default: {DEFAULT_MODELS})",
    )  # fmt: skip
    group.add_argument(
        "--models-memory", metavar="GB", type=gigabytes,
        help="memory that all of them may take (default: what all nodes have free)",
    )  # fmt: skip
    group.add_argument(
        "--models-autoload", action=argparse.BooleanOptionalAction,
        help="load a missing model for a request that names it (default: on)",
    )  # fmt: skip


def router_settings(args: argparse.Namespace) -> RouterSettings | None:
    """Returns the settings of a server of many models, None where no flag asks for one. Raises
    ConfigError where --model does, too."""
    given = (
        args.models_dir, args.models_preset, args.models_max, args.models_memory,
        args.models_autoload,
    )  # fmt: skip
    if all(value is None for value in given):
        return None
    if args.model is not None:
        raise ConfigError(
            "--model names the only model of a server, and --models-dir, --models-preset and the "
            "other --models flags ask for many; leave one of them out."
        )
    for flag, value in (("--alias", args.alias), ("--tags", args.tags)):
        if value:
            raise ConfigError(f"{flag} is of one model; give it in a section of --models-preset.")
    return RouterSettings(
        models_dir=args.models_dir,
        preset_file=args.models_preset,
        max_models=DEFAULT_MODELS if args.models_max is None else args.models_max,
        memory_bytes=args.models_memory,
        autoloads=args.models_autoload is not False,
    )
