"""The contract of Runner, one body over all implementations: one machine, ranks in threads, a
cluster of processes, and the runners of the tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.worker.launcher import SESSION_COMMAND
from dllama.errors import PeerLost, SessionFileError
from dllama.formats import open_model
from dllama.kv import KvHeld, KvShift
from dllama.runner import Runner
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.local_runner import LocalRunner
from dllama.runtime.rank import RankModel
from dllama.step import LogitRow, Step
from tests.cluster.steps import recover
from tests.cluster.worker_process import WorkerProcess
from tests.dllama.engine.history_runner import HistoryRunner
from tests.local_model import load_whole
from tests.ranks_runner import RanksRunner
from tests.scripted_runner import ScriptedRunner
from tests.toy_models import write_toy

VOCAB, N_PAGES, STAMP = 352, 32, b"sixteen bytes it"
TEXT = [(7 * k) % 90 for k in range(70)]  # three pages

pytestmark = pytest.mark.timeout(400)


@dataclass
class Case:
    """A runner, how it loses a node (None: it has none to lose), and whether it saves pages."""

    runner: Runner
    lose: Callable[[], None] | None = None
    saves: bool = False


@contextmanager
def local(folder: Path) -> Iterator[Case]:
    source = open_model(write_toy(folder / "toy.gguf"))
    model = load_whole(source, n_pages=N_PAGES)
    yield Case(LocalRunner(model, EmbeddingTable(source), kv_dir=folder), saves=True)


@contextmanager
def ranks(folder: Path) -> Iterator[Case]:
    yield Case(RanksRunner(write_toy(folder / "toy.gguf"), 2, n_pages=N_PAGES))


@contextmanager
def cluster(folder: Path) -> Iterator[Case]:
    worker = WorkerProcess(session_command=SESSION_COMMAND)
    config = ClusterConfig([worker.address], N_PAGES, 64, threads=1, kv_dir=folder)
    source = open_model(write_toy(folder / "toy.gguf"))
    runner = ClusterRunner(source, config, RankModel.load)
    try:
        runner.start()
        yield Case(runner, lambda: worker.kill_session(signal.SIGKILL), saves=True)
    finally:
        runner.close()
        worker.end()


@contextmanager
def history(folder: Path) -> Iterator[Case]:
    runner = HistoryRunner(vocab_size=VOCAB, n_pages=N_PAGES)
    yield Case(runner, runner.lose)


@contextmanager
def scripted(folder: Path) -> Iterator[Case]:
    runner = ScriptedRunner(vocab_size=VOCAB, max_seq_len=1000, n_pages=N_PAGES)

    def lose() -> None:
        runner.loses_node = True

    yield Case(runner, lose, saves=True)


@pytest.fixture(scope="module", params=[local, ranks, cluster, history, scripted])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("runner")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DLLAMA_SESSIONS", str(folder / "workers"))
        with request.param(folder) as made:
            yield made
            made.runner.close()


def chunk(tokens: list[int], position: int, pages: list[int], candidates: int = 0) -> Step:
    """A step of one sequence, whose last row of logits is wanted."""
    n = len(tokens)
    return Step(
        tokens=np.array(tokens, np.int32),
        positions=np.arange(position, position + n, dtype=np.int32),
        starts=np.array([0, n], np.int32),
        pages=np.array([pages], np.int32),
        logits_at=np.array([n - 1], np.int32),
        candidates=np.array([candidates], np.int32),
    )


def read(
    runner: Runner, tokens: list[int], pages: list[int], n_each: int = 60, begin: int = 0
) -> LogitRow:
    """Computes tokens of a sequence from position `begin` on, in these pages, `n_each` a step;
    returns the last row of logits."""
    for i in range(0, len(tokens), n_each):
        [row] = runner.run(chunk(tokens[i : i + n_each], begin + i, pages))
    return LogitRow(row.ids, row.logits.copy(), row.log_sum_exp)


def test_what_a_runner_tells_of_itself(case: Case) -> None:
    runner = case.runner
    assert runner.config.vocab_size == VOCAB and runner.config.max_seq_len > 100
    assert runner.n_pages == N_PAGES and runner.weight_bytes >= 0
    assert len(runner.fingerprint) == 32 and runner.fingerprint == runner.fingerprint
    before = runner.counters()
    read(runner, [1, 2, 3], [0])
    after = runner.counters()
    assert before.keys() == after.keys() == {"compute_ns", "wait_ns", "network_ns"}
    assert all(after[key] >= before[key] for key in before)
    rows = runner.stats()
    assert [row["rank"] for row in rows] == list(range(len(rows)))
    runner.idle()


def test_rows_come_in_their_order_whole_or_as_candidates(case: Case) -> None:
    step = Step(
        tokens=np.array([3, 1, 4, 5], np.int32),
        positions=np.array([0, 1, 2, 0], np.int32),
        starts=np.array([0, 3, 4], np.int32),
        pages=np.array([[0], [1]], np.int32),
        logits_at=np.array([1, 2, 3], np.int32),
        candidates=np.zeros(3, np.int32),
    )
    whole = [row.logits.copy() for row in case.runner.run(step)]
    assert len(whole) == 3 and all(row.shape == (VOCAB,) for row in whole)
    for tokens, row in (([3, 1], whole[0]), ([3, 1, 4], whole[1]), ([5], whole[2])):
        assert np.array_equal(read(case.runner, tokens, [2]).logits, row)
    for n in (1, 20):
        best = case.runner.run(replace(step, candidates=np.array([n, 0, n], np.int32)))
        assert best[1].ids is None and np.array_equal(best[1].logits, whole[1])
        for found, row in ((best[0], whole[0]), (best[2], whole[2])):
            order = np.lexsort((np.arange(VOCAB), -row))[:n]
            assert found.ids is not None and np.array_equal(found.ids, order)
            assert np.array_equal(found.logits, row[order])
            assert found.log_sum_exp == pytest.approx(np.logaddexp.reduce(row), abs=1e-4)


def test_neither_chunks_nor_pages_change_a_row(case: Case) -> None:
    expected = read(case.runner, TEXT, [0, 1, 2])
    for n_each, pages in ((1, [0, 1, 2]), (7, [9, 3, 8]), (33, [2, 1, 0])):
        assert np.array_equal(read(case.runner, TEXT, pages, n_each).logits, expected.logits)


def test_a_copied_page_is_as_good_as_a_computed_one(case: Case) -> None:
    """Two sequences begin with pages of another, each copied as far as it is wanted; the second
    copy overwrites what the first has read."""
    first = read(case.runner, TEXT, [0, 1, 2])
    expected = read(case.runner, [*TEXT[:50], 9, 8], [3, 4])
    copies = np.array([[1, 5], [2, 1], [0, 0]], np.int32)
    rows = case.runner.run(
        Step(
            tokens=np.array([9, 8, TEXT[69]], np.int32),
            positions=np.array([50, 51, 69], np.int32),
            starts=np.array([0, 2, 3], np.int32),
            pages=np.array([[0, 5, -1], [0, 6, 1]], np.int32),
            logits_at=np.array([1], np.int32),
            candidates=np.zeros(1, np.int32),
            copies=np.concatenate([np.array([[1, 6]], np.int32), copies]),
        )
    )
    assert np.array_equal(rows[0].logits, expected.logits)
    again = read(case.runner, TEXT[69:], [0, 6, 1], begin=69)
    assert np.array_equal(again.logits, first.logits)


def test_hidden_states_are_those_of_the_rows_that_were_asked_for(case: Case) -> None:
    step = replace(chunk([5, 6, 7, 8], 0, [0]), hidden_at=np.array([0, 2, 3], np.int32))
    case.runner.run(step)
    found = np.array(case.runner.hidden)
    assert found.shape == (3, case.runner.config.dim) and found.dtype == np.float32
    case.runner.run(chunk([5, 6, 7], 0, [1]))
    case.runner.run(replace(chunk([8], 3, [1]), hidden_at=np.array([0], np.int32)))
    assert np.array_equal(case.runner.hidden, found[2:])


def test_a_shift_does_not_depend_on_where_it_goes(case: Case) -> None:
    rows = []
    for pages, to_pages in (([0, 1, 2], [0, 1]), ([3, 4, 5], [6, 4]), ([0, 1, 2], [7, 8])):
        read(case.runner, TEXT, pages)
        shift = KvShift(70, 4, 20, np.array(pages, np.int32), np.array(to_pages, np.int32))
        case.runner.shift(shift)
        [row] = case.runner.run(chunk([9], 50, to_pages))
        rows.append(row.logits.copy())
    assert np.array_equal(rows[0], rows[1]) and np.array_equal(rows[0], rows[2])


def test_saved_pages_come_back_elsewhere_or_are_refused_in_a_sentence(case: Case) -> None:
    runner = case.runner
    if not case.saves:
        for action in (runner.save_kv, runner.load_kv):
            with pytest.raises(SessionFileError, match=" "):
                action("chat", KvHeld.of([0]), STAMP)
        return
    read(runner, TEXT, [0, 1, 2])
    [before] = runner.run(chunk([5], 70, [0, 1, 2]))
    expected = before.logits.copy()
    n_bytes = runner.save_kv("chat", KvHeld.of([0, 1, 2]), STAMP)
    read(runner, [1] * 70, [0, 1, 2])
    assert runner.load_kv("chat", KvHeld.of([4, 9, 5]), STAMP) == n_bytes > 0
    [again] = runner.run(chunk([5], 70, [4, 9, 5]))
    assert np.array_equal(again.logits, expected)
    for name, stamp in (("chat", b"another stamp of"), ("missing", STAMP)):
        with pytest.raises(SessionFileError, match=" "):
            runner.load_kv(name, KvHeld.of([0, 1, 2]), stamp)


def test_after_a_loss_nothing_runs_until_it_has_recovered(case: Case) -> None:
    expected = read(case.runner, TEXT, [0, 1, 2])
    if case.lose is None:
        case.runner.recover()  # there is nothing to do
    else:
        case.lose()
        with pytest.raises(PeerLost) as lost:
            while True:
                read(case.runner, TEXT, [0, 1, 2])
        assert lost.value.rank == 1 and lost.value.host
        for again in (lambda: case.runner.run(chunk([1], 0, [0])), case.runner.idle):
            with pytest.raises(PeerLost):
                again()
        recover(case.runner)
    case.runner.idle()
    assert np.array_equal(read(case.runner, TEXT, [0, 1, 2]).logits, expected.logits)


def test_closing_twice_is_closing_once(case: Case) -> None:
    case.runner.close()
    case.runner.close()
