"""The life of a download as events, in any order that it may happen; the board of all of them, and
what a slow reader hears."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dllama.errors import HubError
from dllama.hub import task_board
from dllama.hub.mailbox import Mailbox
from dllama.hub.repository import RemoteFile, Selection
from dllama.hub.task import UPDATE_S, DownloadTask, Event, EventType, State, new_task
from dllama.hub.task_board import TaskBoard

N_FILES = 3
N_BYTES = 100


def some_task(name: str = "hf.co/u/r:Q4_0") -> DownloadTask:
    files = tuple(RemoteFile(f"{i}.gguf", N_BYTES, f"https://h/{i}?s=1") for i in range(N_FILES))
    return new_task(Selection(name, ("hf.co", "u", "r", "Q4_0"), files, "0.gguf"), "/models/x")


def test_the_json_is_what_cortexs_clients_read() -> None:
    task = some_task()
    event = task.start(0.0)
    assert event is not None
    told = event.as_json()
    assert told["type"] == "DownloadStarted"
    item = told["task"]["items"][0]  # type: ignore[index]
    assert {key: item[key] for key in list(item)[:6]} == {
        "id": "0.gguf", "downloadUrl": "https://h/0", "localPath": "/models/x/0.gguf",
        "checksum": "N/A", "bytes": N_BYTES, "downloadedBytes": 0,
    }  # fmt: skip
    task.items[0].n_done = 50
    assert item["downloadedBytes"] == 0, "an event tells what was then"


def test_updates_come_now_and_then_and_the_end_at_once() -> None:
    task = some_task()
    task.start(0.0)
    told = [task.progress(0, i, i * UPDATE_S / 4) for i in range(1, 9)]
    assert [event is not None for event in told] == [False, False, False, True] * 2
    assert task.speed() == pytest.approx(4 / UPDATE_S)
    assert task.waits(1, "the network", 2.01) is not None, "what is waited for is told at once"
    end = task.succeed()
    assert end is not None and end.is_last and task.n_done == 8
    assert task.succeed() is task.stop() is task.fail("x") is None and task.error is None
    assert task.progress(0, 9, 99.0) is None and task.item_failed(0, "x", 99.0) is None


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens when: a task is told to start once at most, to end once, and then nothing
    more; readers see counts that fit."""

    def __init__(self) -> None:
        super().__init__()
        self.task, self.events, self.now_s = some_task(), [], 0.0

    def tell(self, event: Event | None) -> None:
        self.now_s += 0.3
        if event is not None:
            self.events.append(event)

    items = st.integers(0, N_FILES - 1)

    @rule()
    def start(self) -> None:
        self.tell(self.task.start(self.now_s))

    @rule(i=items, n=st.integers(0, N_BYTES))
    def progress(self, i: int, n: int) -> None:
        self.tell(self.task.progress(i, n, self.now_s))

    @rule(i=items)
    def item_done(self, i: int) -> None:
        self.tell(self.task.item_done(i, "sha256:x", self.now_s))

    @rule(i=items)
    def item_failed(self, i: int) -> None:
        self.tell(self.task.item_failed(i, "because", self.now_s))

    @precondition(lambda self: self.task.state is State.RUNNING)
    @rule()
    def succeed(self) -> None:
        self.tell(self.task.succeed())

    @rule()
    def fail(self) -> None:
        self.tell(self.task.fail("because"))

    @rule()
    def stop(self) -> None:
        self.tell(self.task.stop())

    @invariant()
    def holds(self) -> None:
        kinds = [event.type for event in self.events]
        assert kinds.count(EventType.STARTED) <= 1
        assert sum(event.is_last for event in self.events) == self.task.is_over
        if self.task.is_over:
            assert self.events[-1].is_last and self.events[-1].task["status"] == self.task.state
        if EventType.UPDATED in kinds or EventType.SUCCESS in kinds:
            assert kinds[0] is EventType.STARTED
        assert 0 <= self.task.n_done <= self.task.n_bytes


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=20)
TestAnyOrder = AnyOrder.TestCase


def test_tasks_start_in_the_order_they_came_a_few_at_a_time() -> None:
    board = TaskBoard(2)
    tasks = [board.add(some_task(str(i))) for i in range(4)]
    assert board.add(some_task("1")) is tasks[1], "the same model, once"
    assert board.startable() == tasks[:2]
    tasks[0].start(0.0)
    tasks[2].stop()
    assert board.startable() == [tasks[1]]
    tasks[1].start(0.0)
    assert board.startable() == []
    tasks[0].fail("x")
    assert board.startable() == [tasks[3]]
    again = board.add(some_task("0"))
    assert again is not tasks[0] and board.find("0") is again


def test_a_board_is_bounded() -> None:
    board = TaskBoard(1)
    for i in range(task_board.MAX_WAITING):
        board.add(some_task(str(i)))
    with pytest.raises(HubError, match="wait already"):
        board.add(some_task("more"))
    for task in board.all():
        task.stop()
    board.add(some_task("more"))
    assert len(board.all()) == task_board.MAX_KEPT + 1


def test_a_slow_reader_hears_every_start_and_end_and_the_newest_update() -> None:
    mailbox, one, two = Mailbox(), some_task("1"), some_task("2")
    one.start(0.0)
    two.start(0.0)
    for task in (one, two):
        mailbox.put(task.event(EventType.STARTED))
    for n in range(50):
        one.items[0].n_done = two.items[0].n_done = n
        mailbox.put(one.event(EventType.UPDATED))
        mailbox.put(two.event(EventType.UPDATED))
    mailbox.put(one.event(EventType.STOPPED))
    mailbox.put(one.event(EventType.STARTED))
    mailbox.put(one.event(EventType.UPDATED))
    told = mailbox.take_all()
    assert [(event.task_id, event.type.removeprefix("Download")) for event in told] == [
        ("1", "Started"), ("2", "Started"), ("1", "Updated"), ("2", "Updated"),
        ("1", "Stopped"), ("1", "Started"), ("1", "Updated"),
    ]  # fmt: skip
    assert told[2].task["downloadedBytes"] == 49 and not len(mailbox)
