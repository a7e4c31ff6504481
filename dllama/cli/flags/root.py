"""The command line of dllama-root."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dllama.cli.flags.arguments import DEFAULT_MODEL, add_text_flags
from dllama.cli.flags.contexts import add_context_flags, with_context_flags
from dllama.cli.flags.defaults import add_default_flags
from dllama.cli.flags.durations import seconds
from dllama.cli.flags.engine import add_engine_flags, engine_settings
from dllama.cli.flags.hub import add_hub_flags, use_hub_flags
from dllama.cli.flags.llama_server import add_foreign_flags, taken_flags
from dllama.cli.flags.logs import log_settings
from dllama.cli.flags.parser import FlagParser, make_parser
from dllama.cli.flags.router import LIST_FLAGS, RouterSettings, add_router_flags, router_settings
from dllama.cli.flags.server import add_server_flags, server_settings
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.model_name import name_models
from dllama.cli.sources.level import Level
from dllama.cli.sources.reading import SERVER
from dllama.cli.sources.reading import read_flags as from_sources
from dllama.cli.sources.resolve import Resolved
from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S, DEFAULT_REJOIN_S
from dllama.logs.settings import LogSettings, set_up_logging

log = logging.getLogger(__name__)

DESCRIPTION = """Serve a model over an OpenAI-compatible API, alone or with worker machines.

Start `dllama-worker` on each other machine first; this one needs the model file, they need
nothing. The model is cut, sent to the workers, and served at http://HOST:PORT/v1."""
EPILOG = """examples:
  dllama-root -m model.gguf
  dllama-root -m model.gguf --workers 10.0.0.2,10.0.0.3 --host 0.0.0.0
  dllama-root -m model.gguf --workers big:9998,small:9998 --shares 2,3,1
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "Hello"}], "stream": true}'"""


MODEL = frozenset({"model", "hf_repo", "hf_file", "model_url"})
RIVALS = (
    (MODEL, MODEL),
    (MODEL | {"alias", "tags"}, LIST_FLAGS),
    (frozenset({"kv_type"}), frozenset({"cache_type_k", "cache_type_v"})),
    *((names, names) for names in (
        frozenset({"api_key", "api_key_file"}), frozenset({"chat_template", "chat_template_file"}),
    )),
)  # fmt: skip


def build_parser() -> FlagParser:
    """Returns the parser of dllama-root's flags. --model is None where it is not given."""
    parser = make_parser("dllama-root", DESCRIPTION, EPILOG)
    parser.rivals = RIVALS
    add_engine_flags(parser)
    parser.add_argument(
        "--slot-save-path", metavar="DIR",
        help="where sessions are saved (/slots/N?action=save); workers have a folder of their own",
    )  # fmt: skip
    parser.add_argument(
        "--rejoin-s", metavar="S", type=seconds, default=DEFAULT_REJOIN_S,
        help="how long a lost worker is waited for before the model is planned over those left, if "
        "they have the memory; it is taken back whenever it returns",
    )  # fmt: skip
    parser.add_argument(
        "--max-recover-s", metavar="S", type=seconds, default=DEFAULT_MAX_RECOVER_S,
        help="seconds that answers wait until a lost worker or engine is replaced, and then go on; "
        "after that they end with an error, and it is still tried",
    )  # fmt: skip
    text = parser.add_argument_group("text")
    add_text_flags(text)
    add_context_flags(parser)
    add_default_flags(parser)
    add_router_flags(parser)
    add_server_flags(parser)
    add_hub_flags(parser)
    add_foreign_flags(parser)
    parser.set_defaults(model=None)
    return parser


@dataclass(frozen=True, slots=True)
class RootFlags:
    """What the command line and the environment ask for: one model, or with `router` those that
    `words` and the presets make of it."""

    engine: EngineSettings
    server: ServerSettings
    logs: LogSettings
    words: tuple[str, ...]
    router: RouterSettings | None


@dataclass(frozen=True, slots=True)
class ReadFlags:
    """`found` tells where flags came from, `taken` names those that change nothing."""

    args: argparse.Namespace
    found: Level
    taken: tuple[str, ...]
    router: RouterSettings | None


def read_flags(words: Sequence[str]) -> RootFlags:
    """Returns what is asked for; the log is set up. Raises ConfigError; argparse ends the process
    for flags that it cannot read."""
    found = resolved_root(build_parser(), words)
    logs = log_settings(found.args)
    set_up_logging(logs)  # before anything else is told
    checked = checked_root(found)
    args = checked.args
    if checked.taken:
        log.warning("taken, but without effect here: %s", ", ".join(checked.taken))
    name_models(args)
    engine, server = model_settings(args)
    return RootFlags(engine, server, logs, tuple(words), checked.router)


def resolved_root(parser: FlagParser, words: Sequence[str]) -> Resolved:
    """Returns the flags from all their sources. Raises ConfigError; argparse ends the process for
    flags that it cannot read."""
    return from_sources(parser, SERVER, words)


def checked_root(found: Resolved) -> ReadFlags:
    """Returns flags that fit each other. Raises ConfigError."""
    taken = tuple(dict.fromkeys(taken_flags(found.args)))
    use_hub_flags(found.args)
    return ReadFlags(found.args, found.found, taken, router_settings(found.args))


def model_settings(args: argparse.Namespace) -> tuple[EngineSettings, ServerSettings]:
    """Returns the settings of one model and of its server. Raises ConfigError."""
    args.model = args.model or str(DEFAULT_MODEL)
    engine = replace(
        engine_settings(args), max_recover_s=args.max_recover_s, rejoin_s=args.rejoin_s
    )
    return with_context_flags(engine, args), server_settings(args)
