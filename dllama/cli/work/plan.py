"""Plans a model over machines, measured or described, for dllama plan."""

from __future__ import annotations

import argparse
import json
import socket
import uuid

from cluster.mesh.sync_type import SyncType
from cluster.planning.description import Description, read_description
from cluster.planning.predict import Predictor
from cluster.planning.report import PlanReport
from cluster.planning.search import Search, choose, with_everyone
from cluster.planning.store import MeasurementStore, measurements_file
from cluster.planning.work import ModelWork, Room, described_tensors
from cluster.root.measuring import measured_nodes, types_by_bytes
from dllama import __version__
from dllama.cli.build import cluster_config, compiling
from dllama.cli.flags.engine import engine_settings
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.memory_need import count_pages
from dllama.cli.model_file import open_source
from dllama.cli.terminal.output import loading, show
from dllama.host.container import available_memory
from dllama.kv_type import KvType
from dllama.step import PAGE_TOKENS


def run(args: argparse.Namespace) -> int:
    settings = engine_settings(args)
    if args.simulate is not None:
        report = simulated(read_description(args.simulate), settings)
    else:
        report = measured(settings)
    if args.json:
        print(json.dumps(report.as_json(), indent=1, allow_nan=False))
    else:
        from dllama.cli.terminal.plan_table import plan_view

        show(plan_view(report))
    return 0


def simulated(found: Description, settings: EngineSettings) -> PlanReport:
    """Returns the plans of nodes and links that are described. Raises ConfigError."""
    if found.model is not None:
        config, qtype = found.model
        work = ModelWork(
            config, described_tensors(config, qtype), room(settings, config.max_seq_len)
        )
    else:
        source = open_source(settings)
        work = ModelWork(source.config, source.tensors, room(settings, source.config.max_seq_len))
        source.close()
    predictor = Predictor(work, found.nodes, found.network, SyncType(settings.sync_type))
    plans = Search(predictor).plans()
    chosen = (with_everyone if settings.use_all else choose)(plans)
    return PlanReport(
        work, found.nodes, found.links, plans, chosen, is_simulated=True,
        uses_all=settings.use_all,
    )  # fmt: skip


def measured(settings: EngineSettings) -> PlanReport:
    """Measures this machine, the workers and their links, and returns the plans of the model.
    Raises ConfigError, ModelFileError, ClusterError."""
    source = open_source(settings)
    n_pages = count_pages(source.config, settings, available_memory())
    rows = settings.max_step_tokens + settings.max_batch
    work = ModelWork(source.config, source.tensors, Room(n_pages, rows, KvType(settings.kv_type)))
    source.close()
    config = cluster_config(settings, n_pages)
    with loading("measuring") as report, compiling(report):
        store = MeasurementStore(measurements_file())
        root = f"{socket.gethostname()}-{uuid.uuid4().hex}"
        types = types_by_bytes(work)
        facts, found = measured_nodes(config, root, __version__, types, store, anew=True)
    nodes = found.nodes(facts)
    plans = Search(Predictor(work, nodes, found.network(), config.sync_type)).plans()
    chosen = (with_everyone if settings.use_all else choose)(plans)
    return PlanReport(
        work, nodes, found.named_links(facts), plans, chosen, is_simulated=False,
        uses_all=settings.use_all,
    )  # fmt: skip


def room(settings: EngineSettings, max_seq_len: int) -> Room:
    """Returns what a simulated cluster has to have memory for: at least one whole conversation."""
    n_tokens = max(settings.kv_tokens, max_seq_len)
    rows = settings.max_step_tokens + settings.max_batch
    return Room(-(-n_tokens // PAGE_TOKENS), rows, KvType(settings.kv_type))
