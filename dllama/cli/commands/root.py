"""dllama-root: serves one model over HTTP, on this machine and any number of workers."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

from api.answers.reasoning import tags_of
from api.app import build_app
from api.config import ApiConfig
from api.engines.zmq_client import ZmqEngineClient
from api.listener import tls_context
from api.serve import serve
from api.served_model import ModelFacts, ModelRegistry, ServedModel
from api.sleep import IdleSleep
from api.tools.dialects import dialect_of
from dllama.chat import ChatTemplate, find_template, template_stop_ids
from dllama.cli.flags.arguments import add_engine_flags, engine_settings, make_parser
from dllama.cli.flags.server import add_server_flags, server_settings
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.flags.vertex import at_vertex_port, vertex_of
from dllama.cli.guarded import guarded
from dllama.cli.model_file import load_tokenizer, metadata_of, open_source
from dllama.cli.supervisor import EngineSupervisor
from dllama.cli.terminal import LoadingLine, note, set_up_logging
from dllama.descriptors import check_free, raise_limit
from dllama.errors import ConfigError
from dllama.formats.gguf_metadata import GgufMetadata
from dllama.temporary import socket_folder
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.special_tokens import find_fim
from dllama.tokenizer.vocabulary import Kind
from dllama.weight_source import WeightSource

ROOT_DESCRIPTORS = 20  # sockets of the server and of ZeroMQ, files, and a few connections
VOCAB_TYPES = {Kind.SPM: 1, Kind.BPE: 2}  # llama.cpp's numbers


def find_facts(
    source: WeightSource,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    metadata: Mapping[str, object],
    *,
    path: str,
    file_metadata: GgufMetadata,
    n_ctx_train: int,
    n_slots: int,
    context_shift: bool,
    speculates: bool,
    saves_sessions: bool,
) -> ModelFacts:
    """Returns the facts about the model; the type of a file is that of most of its weights."""
    by_type: dict[str, int] = {}
    for info in source.tensors.values():
        by_type[info.qtype.name] = by_type.get(info.qtype.name, 0) + info.n_bytes
    return ModelFacts(
        path=path,
        arch=source.config.arch,
        modified_s=Path(path).stat().st_mtime,
        metadata=file_metadata,
        file_type=max(by_type, key=by_type.__getitem__),
        vocab_type=VOCAB_TYPES[tokenizer.kind],
        n_ctx_train=n_ctx_train,
        n_embd=source.config.dim,
        n_params=sum(prod((info.rows, info.cols)) for info in source.tensors.values()),
        size_bytes=sum(by_type.values()),
        n_slots=n_slots,
        context_shift=context_shift,
        speculates=speculates,
        saves_sessions=saves_sessions,
        template_source=template.source,
        bos_text=tokenizer.bos_text,
        eos_text=tokenizer.eos_text,
        fim=find_fim(metadata, tokenizer.token_texts),
    )


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


def build_parser() -> argparse.ArgumentParser:
    parser = make_parser("dllama-root", DESCRIPTION, EPILOG)
    add_engine_flags(parser)
    parser.add_argument(
        "--slot-save-path", metavar="DIR",
        help="where sessions are saved (/slots/N?action=save); workers have a folder of their own",
    )  # fmt: skip
    text = parser.add_argument_group("text")
    text.add_argument(
        "--tokenizer", metavar="FILE",
        help="a .t tokenizer, or a GGUF to take it from (default: the model file's own)",
    )  # fmt: skip
    text.add_argument(
        "--chat-template", metavar="FILE|NAME",
        help="a Jinja file or a built-in name such as chatml (default: the model's own)",
    )  # fmt: skip
    add_server_flags(parser)
    return parser


def served_model(
    engine: EngineSettings, server: ServerSettings, client: ZmqEngineClient
) -> ServedModel:
    """Everything about the model that the server's process holds: text, but no weights.

    Raises ModelFileError, TokenizerError, TemplateError or ConfigError, before any engine is
    started.
    """
    source = open_source(engine)
    try:
        tokenizer = load_tokenizer(engine.model, server.tokenizer)
        metadata = metadata_of(engine.model, server.tokenizer)
        template = find_template(metadata, server.chat_template, tokenizer=tokenizer)
        stop_ids = frozenset(tokenizer.eog_ids) | template_stop_ids(template, tokenizer)
        return ServedModel(
            id=engine.name or model_id(engine.model),
            tokenizer=tokenizer,
            chat_template=template,
            engine=client,
            max_seq_len=source.config.max_seq_len,
            created=int(time.time()),
            stop_ids=tuple(sorted(stop_ids)),
            aliases=server.aliases,
            facts=find_facts(
                source,
                tokenizer,
                template,
                metadata,
                path=engine.model,
                file_metadata=metadata_of(engine.model, None) if server.tokenizer else metadata,
                n_ctx_train=source.trained_context,
                n_slots=engine.max_batch,
                context_shift=engine.context_shift,
                speculates=engine.speculate != 0,
                saves_sessions=engine.slot_save_path is not None,
            ),
            tool_dialect=dialect_of(template.sources),
            think_tags=tags_of(template.source),
            knows_effort="reasoning_effort" in template.source,
        )
    finally:
        source.close()


def model_id(path: str) -> str:
    """Returns the name of a model in requests: its file's name without the ending."""
    return Path(path).name.removesuffix(".gguf").removesuffix(".m")


async def watch_loading(client: ZmqEngineClient, label: str) -> None:
    """Shows the progress of loading until the engine is ready or has failed."""
    line = LoadingLine(label)
    try:
        while client.state.state == "loading":
            line.update(client.state.progress, client.state.detail)
            await asyncio.sleep(0.1)
    finally:
        line.close()


async def run_server(engine: EngineSettings, server: ServerSettings, log_level: str) -> int:
    """Serves until a signal. Raises ConfigError and file errors before it listens."""
    vertex = vertex_of(os.environ)
    if vertex is not None:
        server = at_vertex_port(server, os.environ)
    tls = tls_context(server.ssl_cert_file, server.ssl_key_file)
    engine = replace(engine, tokenizer=str(server.tokenizer) if server.tokenizer else None)
    with socket_folder("dllama-", "engine") as folder:
        endpoint = f"ipc://{folder}/engine"
        client = ZmqEngineClient(endpoint, bind=True)
        model = served_model(engine, server, client)
        supervisor = EngineSupervisor(replace(engine, name=model.id), endpoint, client, log_level)
        sleep = (
            None
            if server.sleep_idle_s is None
            else IdleSleep(client, supervisor, server.sleep_idle_s)
        )
        app = build_app(
            ModelRegistry([model]),
            ApiConfig(
                api_keys=server.api_keys,
                cors_origins=server.cors_origins,
                max_body_bytes=server.max_body_mb << 20,
                strict_fields=server.strict_fields,
                vertex=vertex,
            ),
            sleep,
        )
        stop = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def announce(url: str) -> None:
            await watch_loading(client, f"loading {model.id}")
            if client.state.state == "failed":
                stop.set()
            else:
                note(f"{model.id} is served at {url}/v1 (health: {url}/health, nodes: {url}/stats)")

        def on_ready(url: str) -> None:
            tasks.append(asyncio.create_task(supervisor.run()))
            tasks.append(asyncio.create_task(announce(url)))
            if sleep is not None:
                tasks.append(asyncio.create_task(sleep.watch()))

        try:
            await serve(
                app, server.host, server.port, tls=tls, stop=stop, on_ready=on_ready,
                drain_s=server.drain_s,
            )  # fmt: skip
        finally:
            failed = client.state.detail if client.state.state == "failed" else ""
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if failed:
            raise ConfigError(failed)
        return 0


def run(argv: list[str] | None) -> int:
    args = build_parser().parse_args(argv)
    set_up_logging(args.log_level)
    raise_limit()
    check_free(ROOT_DESCRIPTORS, "dllama-root")
    return asyncio.run(run_server(engine_settings(args), server_settings(args), args.log_level))


main = guarded(run)

if __name__ == "__main__":
    sys.exit(main())
