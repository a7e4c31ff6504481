"""The command line of dllama-root."""

from __future__ import annotations

import argparse
import logging
import os
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dllama.cli.flags.arguments import DEFAULT_MODEL, make_parser
from dllama.cli.flags.contexts import add_context_flags, with_context_flags
from dllama.cli.flags.defaults import add_default_flags
from dllama.cli.flags.durations import seconds
from dllama.cli.flags.engine import add_engine_flags, engine_settings
from dllama.cli.flags.environment import environment_flags
from dllama.cli.flags.hub import add_hub_flags, use_hub_flags
from dllama.cli.flags.llama_server import add_foreign_flags, taken_flags
from dllama.cli.flags.logs import log_settings
from dllama.cli.flags.router import RouterSettings, add_router_flags, router_settings
from dllama.cli.flags.server import add_server_flags, server_settings
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.model_name import name_models
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


def build_parser(kind: type[ArgumentParser] = ArgumentParser) -> ArgumentParser:
    """Returns the parser of dllama-root's flags. --model is None where it is not given."""
    parser = make_parser("dllama-root", DESCRIPTION, EPILOG, kind)
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
    text.add_argument(
        "--tokenizer", metavar="FILE",
        help="a .t tokenizer, or a GGUF to take it from (default: the model file's own)",
    )  # fmt: skip
    text.add_argument(
        "--chat-template", metavar="FILE|NAME|TEXT",
        help="a Jinja file, a built-in name such as chatml, or Jinja itself (default: the "
        "model's own)",
    )  # fmt: skip
    text.add_argument(
        "--chat-template-file", metavar="FILE", help="the same, as llama-server calls it"
    )
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


def read_flags(words: Sequence[str]) -> RootFlags:
    """Returns what is asked for; the log is set up. Raises ConfigError; argparse ends the process
    for flags that it cannot read."""
    parser = build_parser()
    args = parser.parse_args([*environment_flags(os.environ), *words])
    logs = log_settings(args)
    set_up_logging(logs)
    taken = list(dict.fromkeys(taken_flags(args)))
    if taken:
        log.warning("taken, but without effect here: %s", ", ".join(taken))
    use_hub_flags(args)
    router = router_settings(args)
    name_models(args)
    engine, server = model_settings(args)
    return RootFlags(engine, server, logs, tuple(words), router)


def model_settings(args: argparse.Namespace) -> tuple[EngineSettings, ServerSettings]:
    """Returns the settings of one model and of its server. Raises ConfigError."""
    args.model = args.model or str(DEFAULT_MODEL)
    engine = replace(
        engine_settings(args), max_recover_s=args.max_recover_s, rejoin_s=args.rejoin_s
    )
    return with_context_flags(engine, args), server_settings(args)
