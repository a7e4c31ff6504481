"""Nodes are added and removed by hand: what is answered at once, what later, what never."""

from __future__ import annotations

import pytest

from cluster.root.members import Members, State
from cluster.root.node_calls import MAX_WAITING, NodeCalls
from cluster.sockets import Address
from cluster.wire.engine_messages import decode_message, encode_message
from dllama.errors import ConfigError
from dllama.nodes import MAX_SENTENCE, NodeRow, NodesAction, NodesCall, NodesReply

A, B, C = (Address(f"host-{name}") for name in "abc")
ADD_C = NodesCall("1", NodesAction.ADD, "host-c", 2.0)
REMOVE_A = NodesCall("2", NodesAction.REMOVE, str(A))


class Root:
    """The calls of a root with two workers, whose memory is a word of the test's."""

    def __init__(self) -> None:
        self.members = Members([A, B], [1.0, 1.0], 3.0, 0.0)
        self.members.began([A, B], 0.0)
        self.needs: Address | None = None
        self.calls = NodeCalls(self.members, self.check, "vm")

    def take(self, call: NodesCall, now: float) -> NodesReply | None:
        return self.calls.take(call, self.rows, now)

    def settled(self, now: float) -> list[NodesReply]:
        return self.calls.settled(self.rows, now)

    def rows(self) -> list[NodeRow]:
        return [NodeRow(str(m.address), m.state, m.share, 0.0, m.reason) for m in self.members]

    def check(self, address: Address) -> None:
        if address == self.needs:
            raise ConfigError("5 GB are needed and there are 4")

    def addresses(self) -> list[Address]:
        return [m.address for m in self.members]


@pytest.fixture
def root() -> Root:
    return Root()


def test_a_list_is_answered_at_once(root: Root) -> None:
    reply = root.take(NodesCall("0", NodesAction.LIST), 1.0)
    assert reply is not None and reply.id == "0" and reply.error is None
    assert [row.address for row in reply.nodes] == [str(A), str(B)]


def test_an_added_node_is_answered_for_when_it_was_greeted_and_fits(root: Root) -> None:
    assert root.take(ADD_C, 1.0) is None
    assert root.settled(1.1) == []
    assert C in root.members.due_looks(1.1), "it is greeted at the next look"
    assert root.settled(1.2) == []
    root.members.joins(C, 2.0)
    (reply,) = root.settled(2.0)
    assert (reply.id, reply.error) == ("1", None)
    assert [(row.state, row.share) for row in reply.nodes][-1] == (State.JOINING, 2.0)
    assert root.settled(2.1) == [], "once"


def test_one_that_came_up_with_a_session_is_answered_for_too(root: Root) -> None:
    root.take(ADD_C, 1.0)
    root.members.ended(2.0)
    root.members.began([A, B, C], 2.0)
    (reply,) = root.settled(2.0)
    assert reply.error is None and reply.nodes[-1].state == State.PRESENT


def test_what_cannot_be_used_is_not_kept(root: Root) -> None:
    for why in ("silent", "left_out"):
        assert root.take(ADD_C, 1.0) is None
        getattr(root.members, why)(C, "it has 1 GB and needs 2", 2.0)
        (reply,) = root.settled(2.0)
        assert reply.error == f"the worker {C} was not added: it has 1 GB and needs 2"
        assert root.addresses() == [A, B]


def test_a_worker_s_own_words_are_cut_to_what_a_message_takes(root: Root) -> None:
    root.take(ADD_C, 1.0)
    root.members.silent(C, "no! " * MAX_SENTENCE, 2.0)
    (reply,) = root.settled(2.0)
    assert reply.error is not None and len(reply.error) == MAX_SENTENCE
    assert decode_message(encode_message(reply)) == reply


@pytest.mark.parametrize(
    ("address", "share", "said"),
    [
        (str(A), 1.0, "known already and is present"),
        ("no/host", 1.0, "is no worker address"),
        ("host:99999", 1.0, "has the port 99999"),
        ("host-c", 0.0, "must be a positive number"),
        ("host-c", float("nan"), "must be a positive number"),
        ("host-c", float("inf"), "must be a positive number"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    root: Root, address: str, share: float, said: str
) -> None:
    reply = root.take(NodesCall("1", NodesAction.ADD, address, share), 1.0)
    assert reply is not None and reply.error is not None and said in reply.error
    assert root.addresses() == [A, B] and root.members.change() is None


def test_a_removed_node_is_answered_for_when_the_others_go_on_without_it(root: Root) -> None:
    assert root.take(REMOVE_A, 1.0) is None
    assert root.members.change() == f"worker {A} leaves: it was removed by hand"
    assert root.settled(1.1) == []
    root.members.ended(2.0)
    root.members.began([B], 2.0)
    (reply,) = root.settled(2.0)
    assert (reply.id, reply.error) == ("2", None)
    assert [row.address for row in reply.nodes] == [str(B)]


def test_a_node_that_is_needed_stays(root: Root) -> None:
    root.needs = A
    reply = root.take(REMOVE_A, 1.0)
    assert reply is not None and reply.error == "5 GB are needed and there are 4"
    assert root.members.change() is None and root.addresses() == [A, B]


def test_an_unknown_node_is_told_with_the_known_ones(root: Root) -> None:
    reply = root.take(NodesCall("1", NodesAction.REMOVE, "host-x"), 1.0)
    assert reply is not None and reply.error is not None
    assert f"there is no worker host-x:9998; the workers are: {A}, {B}" in reply.error


def test_the_root_is_told_from_a_worker_of_its_machine(root: Root) -> None:
    removal = NodesCall("1", NodesAction.REMOVE, "vm")
    reply = root.take(removal, 1.0)
    assert reply is not None and reply.error is not None
    assert "vm is the root" in reply.error and "cannot be removed" in reply.error
    root.members.add(Address("vm"), 1.0, 1.0)
    assert root.take(removal, 1.0) is None, "a worker of that name and port is removed"
    assert root.addresses() == [A, B]


def test_of_two_calls_about_one_node_the_later_counts(root: Root) -> None:
    root.take(ADD_C, 1.0)
    root.take(NodesCall("3", NodesAction.REMOVE, "host-c"), 1.0)
    root.take(REMOVE_A, 1.0)
    root.take(NodesCall("4", NodesAction.ADD, str(A)), 1.0)
    told = {reply.id: reply.error for reply in root.settled(1.0)}
    assert told == {
        "1": f"the worker {C} was removed meanwhile", "3": None,
        "2": f"the worker {A} was added again meanwhile", "4": None,
    }  # fmt: skip
    assert root.members.change() is None


def test_calls_that_wait_are_bounded(root: Root) -> None:
    for i in range(MAX_WAITING):
        assert root.take(NodesCall(f"{i}", NodesAction.ADD, f"host-{i}"), 1.0) is None
    reply = root.take(ADD_C, 1.0)
    assert reply is not None and reply.error is not None and "under way" in reply.error
