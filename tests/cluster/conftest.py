"""Workers and runners that tests share; all end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cluster.feed import FeedProgress
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from dllama.config import ModelConfig
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.worker_process import WorkerProcess
from tests.leaks import no_leaks

__all__ = ["no_leaks"]


@pytest.fixture
def start_worker() -> Iterator[Callable[..., WorkerProcess]]:
    """Starts daemons that end with the test."""
    started: list[WorkerProcess] = []

    def start(**changes: object) -> WorkerProcess:
        started.append(WorkerProcess(**changes))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for worker in started:
        worker.end()


@pytest.fixture
def make_runner() -> Iterator[Callable[..., ClusterRunner]]:
    """Makes runners over workers, with the numpy model, that close with the test."""
    made: list[ClusterRunner] = []

    def make(
        workers: list[WorkerProcess],
        *,
        model: ModelConfig | None = None,
        release: str | None = None,
        on_progress: Callable[[FeedProgress], None] | None = None,
        **changes: object,
    ) -> ClusterRunner:
        settings: dict[str, object] = {"n_pages": 8, "max_step_tokens": 64, "threads": 1}
        config = ClusterConfig([w.address for w in workers], **{**settings, **changes})  # type: ignore[arg-type]
        source = ArraySource(model or small_config())
        extra: dict[str, object] = {"on_progress": on_progress}
        if release is not None:
            extra["release"] = release
        made.append(ClusterRunner(source, config, load_numpy_rank, **extra))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for runner in made:
        runner.close()
