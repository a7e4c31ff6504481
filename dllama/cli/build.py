"""Builds a running engine from a model file and settings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dllama.cli.flags.settings import EngineSettings
from dllama.cli.memory_need import count_pages, step_rows
from dllama.cli.model_file import check_same_vocabulary, load_tokenizer, open_source
from dllama.constraints.background import BackgroundMasks
from dllama.engine.constraint import ConstraintMaker
from dllama.engine.engine import Engine
from dllama.engine.speculative.model_drafter import DraftModel
from dllama.errors import ConfigError
from dllama.formats import open_model
from dllama.host.container import available_memory
from dllama.kv_type import KvType
from dllama.runner import Runner
from dllama.runtime.local_runner import LocalRunner
from dllama.weight_source import WeightSource
from kernels.kernel import on_compile

if TYPE_CHECKING:  # sockets and messages, which a node without workers need not wait for
    from cluster.root.session_plan import ClusterConfig

log = logging.getLogger(__name__)

Report = Callable[[float, str], None]  # how far loading is, 0..1, and a line of text


def build_runner(
    settings: EngineSettings, report: Report, n_pages: int | None = None, *, serves: bool = False
) -> Runner:
    """Loads the model, here or over the cluster; `serves`: requests may ask for what the settings
    leave out. Raises ConfigError before anything is loaded where it does not fit the memory;
    ModelFileError; ClusterError."""
    source = open_source(settings)
    if n_pages is None:
        n_pages = count_pages(source.config, settings, available_memory())
    with compiling(report):
        if settings.workers:
            return _cluster_runner(source, settings, n_pages, report)
        return _local_runner(source, settings, n_pages, report, serves=serves)


def build_engine(
    settings: EngineSettings, report: Report, *, with_grammars: bool = False
) -> Engine:
    """Builds an engine over the runner that the settings ask for; an engine that serves requests
    needs grammars."""
    draft_model = build_draft_model(settings, report)
    runner: Runner | None = None
    try:
        runner = build_runner(settings, report, serves=with_grammars)
        if runner.config.delta is not None:
            tell_undrafted(settings)
        vocab_size = runner.config.n_tokens
        load = partial(load_masks, settings, vocab_size)
        masks = BackgroundMasks(load) if with_grammars else None
        return Engine(
            runner,
            constraints=masks,
            max_batch=settings.max_batch,
            max_step_tokens=settings.max_step_tokens,
            speculate=settings.speculate,
            draft_model=draft_model,
            session_dir=_session_dir(settings),
        )
    except BaseException:
        for opened in (runner, draft_model):
            if opened is not None:
                opened.close()
        raise


def build_draft_model(settings: EngineSettings, report: Report) -> DraftModel | None:
    """Loads the draft model, if one is named, on this machine. It is loaded before the large model,
    whose need is then compared with the memory that is left. Raises ConfigError where the two
    vocabularies differ, and as build_runner does."""
    path = settings.draft_model
    if path is None:
        return None
    named = Path(settings.tokenizer) if settings.tokenizer else None
    check_same_vocabulary(settings.model, named, path)
    with (
        contextlib.closing(open_source(settings)) as large,
        contextlib.closing(open_model(path)) as small,
    ):
        if large.config.delta is not None:
            return None
        if small.config.delta is not None:
            raise ConfigError(
                f"layers of {small.config.name} keep a state, which cannot be taken back to before "
                "a wrong draft; name another model with --draft-model, or leave it out"
            )
        context = min(large.config.max_seq_len, small.config.max_seq_len)
    own = replace(
        settings, model=path, name=None, quantize=None, ctx_size=context, kv_tokens=0, workers=(),
        shares=(), slot_save_path=None,
    )  # fmt: skip

    def tell(share: float, detail: str) -> None:
        report(0.0, f"draft model: {detail}")

    return DraftModel(
        build_runner(own, tell),
        max_tokens=settings.draft_max,
        max_rows=settings.max_step_tokens,
    )


def tell_undrafted(settings: EngineSettings) -> None:
    """Says that nothing is drafted for a model whose layers keep states."""
    is_asked = settings.speculate > 0 or settings.draft_model is not None
    log.log(
        logging.WARNING if is_asked else logging.INFO,
        "layers of this model keep a state, which cannot be taken back to before a wrong draft: "
        "nothing is drafted",
    )


def load_masks(settings: EngineSettings, vocab_size: int) -> ConstraintMaker:
    """Returns the grammar masks over the model's vocabulary. Raises TokenizerError, ModelFileError,
    or DllamaError where no token ends an answer."""
    from dllama.constraints.masks import GrammarMasks
    from dllama.constraints.vocabulary_bytes import VocabularyBytes

    named = Path(settings.tokenizer) if settings.tokenizer else None
    tokenizer = load_tokenizer(settings.model, named)
    return GrammarMasks(VocabularyBytes.of(tokenizer), vocab_size)


def _session_dir(settings: EngineSettings) -> Path | None:
    return Path(settings.slot_save_path) if settings.slot_save_path else None


def _local_runner(
    source: WeightSource, settings: EngineSettings, n_pages: int, report: Report, *, serves: bool
) -> Runner:
    return LocalRunner.load(
        source, n_pages=n_pages, max_step_tokens=step_rows(settings),
        n_threads=settings.threads, kv_type=KvType(settings.kv_type),
        kv_dir=_session_dir(settings), available_bytes=available_memory(), on_progress=report,
        may_shift=serves or settings.context_shift,
    )  # fmt: skip


def cluster_config(settings: EngineSettings, n_pages: int) -> ClusterConfig:
    """Returns the root's side of a cluster, and says where its links are plain. Raises
    ConfigError."""
    from cluster.mesh.sync_type import SyncType
    from cluster.root.session_plan import ClusterConfig
    from cluster.security.settings import security_of, warn_if_plain
    from cluster.sockets import parse_addresses

    workers = parse_addresses(",".join(settings.workers))
    security = security_of(settings.cluster_key, encrypts=settings.encrypts)
    warn_if_plain(security, [worker.host for worker in workers])
    return ClusterConfig(
        workers=workers,
        n_pages=n_pages,
        max_step_tokens=step_rows(settings),
        threads=settings.threads,
        shares=settings.shares,
        plans=not settings.shares,
        uses_all=settings.use_all,
        sync_type=SyncType(settings.sync_type),
        kv_type=KvType(settings.kv_type),
        advertise=settings.advertise,
        security=security,
        kv_dir=_session_dir(settings),
        rejoin_s=settings.rejoin_s,
    )


def _cluster_runner(
    source: WeightSource, settings: EngineSettings, n_pages: int, report: Report
) -> Runner:
    # Imported here, as a node without workers need not wait for sockets and messages.
    from cluster.feed import FeedProgress
    from cluster.root.runner import ClusterRunner
    from dllama.runtime.rank import RankModel

    config = cluster_config(settings, n_pages)
    sent: dict[int, FeedProgress] = {}

    def on_progress(progress: FeedProgress) -> None:
        sent[progress.rank] = progress
        found = sum(p.found_bytes for p in sent.values())
        done = sum(p.sent_bytes for p in sent.values())
        total = sum(p.total_bytes for p in sent.values())
        speed = sum(p.bytes_per_s for p in sent.values())
        n_again = sum(p.n_again for p in sent.values())
        detail = (
            f"sending {done / 1e6:.0f} of {(total - found) / 1e6:.0f} MB, {speed / 1e6:.0f} MB/s; "
            f"{found / 1e6:.0f} MB are on the workers"
        ) + f"; {n_again} pieces there were damaged and are sent again" * bool(n_again)
        report((found + done) / max(total, 1), detail)

    runner = ClusterRunner(source, config, RankModel.load, on_progress=on_progress)
    if settings.forgets_workers:
        runner.forget_workers()
    runner.start(needs_all=not (settings.is_restart or settings.forgets_workers))
    return runner


@contextlib.contextmanager
def compiling(report: Report) -> Iterator[None]:
    """Reports the kernels that are compiled meanwhile, which happens at a first start only."""
    n = 0

    def tell(name: str) -> None:
        nonlocal n
        n += 1
        report(0.0, f"compiling kernels, at the first start only: {n} {name}")

    with on_compile(tell):
        yield
