"""Root and worker introduce themselves; whoever may not take part is told why. No sockets."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from cluster.security import worker_side
from cluster.security.cluster_key import ClusterKey, new_cluster_key
from cluster.security.keys import new_pair
from cluster.security.peer import Peer
from cluster.security.root_side import (
    RootSide,
    agree_on_encryption,
    check_pins,
    pin_all,
    root_sides,
)
from cluster.security.settings import Security
from cluster.security.worker_side import WorkerSide
from cluster.sockets import Address
from cluster.wire.messages import (
    Admitted,
    CloseSession,
    Hello,
    Introduced,
    Introduction,
    Proof,
    Refused,
)
from dllama.errors import ClusterError, ConfigError, ProtocolError

FAR = "10.0.0.1"  # the root, as the worker sees it
WORKER = Address("10.0.0.2")
PEER = Peer(b"id", 1, FAR)
KEY = new_cluster_key()
_numbers = count()


def nonce() -> str:
    return f"nonce {next(_numbers)}"


class Pair:
    """A root and a worker, each with its Security and folder."""

    def __init__(
        self,
        tmp_path: Path,
        root: ClusterKey | None = None,
        worker: ClusterKey | None = None,
        *,
        root_encrypts: bool = True,
        worker_encrypts: bool = True,
    ) -> None:
        self.root = Security(root_encrypts, root, home=tmp_path / "root")
        self.worker = Security(worker_encrypts, worker, home=tmp_path / "worker")
        self.side = WorkerSide(
            self.worker,
            release="1",
            features=["f"],
            key=self.worker.pair().public if worker_encrypts else "",
            port=9_999 if worker_encrypts else 0,
            new_nonce=nonce,
        )

    def root_side(self, address: Address = WORKER) -> RootSide:
        return root_sides(self.root, [address], "1", nonce)[0]

    def introduce(self, root: RootSide | None = None) -> tuple[RootSide, Introduced, Proof]:
        root = root or self.root_side()
        found = self.side.hear(PEER, root.introduction)
        assert isinstance(found, Introduced), found
        return root, found, root.answer(found)

    def refusal(self, message: Introduction | Proof | Hello, peer: Peer = PEER) -> str:
        refused = self.side.hear(peer, message)
        assert isinstance(refused, Refused), refused
        return refused.reason


@pytest.mark.parametrize("key", [None, KEY], ids=["without a cluster key", "with one"])
def test_two_that_fit_each_other_get_on(tmp_path: Path, key: ClusterKey | None) -> None:
    pair = Pair(tmp_path, key, key)
    own_key = pair.root.pair().public
    assert not pair.side.may_enter(own_key)  # it has not said hello
    root, _, proof = pair.introduce()
    assert root.complaint == ""
    assert not pair.side.may_enter(own_key)
    assert isinstance(pair.side.hear(PEER, proof), Admitted)
    assert agree_on_encryption(pair.root, [root])
    check_pins(pair.root, [root])
    assert pair.side.may_enter(own_key)
    assert not pair.side.may_enter(new_pair().public)
    assert pair.side.hear(PEER._replace(key=own_key), Hello("1")) is None  # the daemon acts on it


def test_another_cluster_key_is_said_by_both(tmp_path: Path) -> None:
    pair = Pair(tmp_path, KEY, new_cluster_key())
    root, _, proof = pair.introduce()
    assert "worker 10.0.0.2:9998 has another cluster key than this root" in root.complaint
    assert "another cluster key than the root" in pair.refusal(proof)
    assert not pair.side.may_enter(pair.root.pair().public)


def test_a_root_without_the_key_is_told_that_it_needs_one(tmp_path: Path) -> None:
    pair = Pair(tmp_path, None, KEY)
    reason = pair.refusal(pair.root_side().introduction)
    assert "roots that have the cluster key only; start dllama-root with --cluster-key" in reason


def test_a_worker_without_a_key_is_told_to_have_one(tmp_path: Path) -> None:
    pair = Pair(tmp_path, KEY, None)
    assert "was started without a cluster key" in pair.refusal(pair.root_side().introduction)
    # One that pretends that all is well is found out by the root itself.
    liar = replace(_introduced(), answers="n")
    root = RootSide(WORKER, replace(pair.root_side().introduction, nonce="n"), KEY)
    root.answer(liar)
    assert "has no cluster key and this root has one" in root.complaint


def test_a_replayed_proof_is_refused(tmp_path: Path) -> None:
    pair = Pair(tmp_path, KEY, KEY)
    root, _, proof = pair.introduce()
    assert isinstance(pair.side.hear(PEER, proof), Admitted)
    again = PEER._replace(identity=b"somebody else")
    assert isinstance(pair.side.hear(again, root.introduction), Introduced)
    assert "replays what was said before" in pair.refusal(proof, again)
    assert "replays what was said before" in pair.refusal(proof, again)  # nothing is open now
    # A nonce that is made to fit does not help: it is in the proof.
    found = pair.side.hear(again, root.introduction)
    assert isinstance(found, Introduced)
    forged = replace(proof, answers=found.nonce)
    assert "another cluster key" in pair.refusal(forged, again)


def test_a_replayed_worker_is_found_out(tmp_path: Path) -> None:
    pair = Pair(tmp_path, KEY, KEY)
    _, found, _ = pair.introduce()
    other = pair.root_side()
    other.answer(found)
    assert "answered an earlier hello and not this one" in other.complaint
    other.answer(replace(found, answers=other.introduction.nonce))
    assert "another cluster key" in other.complaint


@pytest.mark.parametrize(
    "change",
    [
        {"key": new_pair().public},
        {"port": 1},
        {"encrypts": False},
        {"has_to_encrypt": False},
        {"features": []},
        {"release": "2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nobody_between_the_two_changes_a_word(tmp_path: Path, change: dict[str, object]) -> None:
    pair = Pair(tmp_path, KEY, KEY)
    root = pair.root_side()
    found = pair.side.hear(PEER, root.introduction)
    assert isinstance(found, Introduced)
    proof = root.answer(replace(found, **change))  # type: ignore[arg-type]
    assert "another cluster key" in root.complaint
    assert "another cluster key" in pair.refusal(proof)


def test_a_worker_whose_key_changed_is_refused_with_the_line_to_remove(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    root, found, _ = pair.introduce()
    check_pins(pair.root, [root])
    pin_all(pair.root, [root])
    root.answer(replace(found, key=new_pair().public))
    with pytest.raises(ClusterError, match=r"worker 10\.0\.0\.2:9998 had another key .* line 2 of"):
        check_pins(pair.root, [root])
    # With a cluster key the worker proves its key by that, and needs no pin.
    check_pins(replace(pair.root, cluster_key=KEY), [root])


def test_a_root_whose_key_changed_is_refused_with_the_line_to_remove(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    _, _, proof = pair.introduce()
    pair.side.hear(PEER, proof)
    own_key = pair.root.pair().public
    assert pair.side.hear(PEER._replace(key=own_key), Hello("1")) is None  # and it is pinned
    other = Pair(tmp_path / "other").root_side()
    reason = pair.refusal(other.introduction)
    assert "the root at 10.0.0.1 had another key" in reason and "remove line 2 of" in reason
    far = PEER._replace(host="10.0.0.9")
    assert isinstance(pair.side.hear(far, other.introduction), Introduced)  # another machine
    (tmp_path / "worker" / "known_roots").unlink()
    assert isinstance(pair.side.hear(PEER, other.introduction), Introduced)


@pytest.mark.parametrize("root_encrypts", [True, False])
@pytest.mark.parametrize("worker_encrypts", [True, False])
@pytest.mark.parametrize("host", ["10.0.0.2", "127.0.0.1"])
def test_both_encrypt_or_neither_does(
    tmp_path: Path, host: str, root_encrypts: bool, worker_encrypts: bool
) -> None:
    pair = Pair(tmp_path, root_encrypts=root_encrypts, worker_encrypts=worker_encrypts)
    root = pair.root_side(Address(host))
    peer = PEER._replace(host=FAR if host == WORKER.host else host)
    found = pair.side.hear(peer, root.introduction)
    assert isinstance(found, Introduced)
    root.answer(found)
    hello = pair.side.hear(peer, Hello("1"))  # in plain
    if host == "127.0.0.1":
        assert not agree_on_encryption(pair.root, [root]) and hello is None
    elif root_encrypts == worker_encrypts:
        assert agree_on_encryption(pair.root, [root]) == root_encrypts
        assert isinstance(hello, Refused) == root_encrypts
    else:
        who = "this root" if worker_encrypts else r"worker 10\.0\.0\.2:9998"
        with pytest.raises(ConfigError, match=f"{who} was started with --no-encrypt"):
            agree_on_encryption(pair.root, [root])
        assert isinstance(hello, Refused) == worker_encrypts


def test_a_loopback_address_of_another_machine_is_said(tmp_path: Path) -> None:
    """A forwarded port: the worker sees that the root is not on its machine."""
    pair = Pair(tmp_path)
    root, _, _ = pair.introduce(pair.root_side(Address("localhost")))
    with pytest.raises(ConfigError, match="is no process of this machine"):
        agree_on_encryption(pair.root, [root])


def test_a_worker_for_its_own_machine_only_is_said(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    root, found, _ = pair.introduce()
    root.answer(replace(found, port=0))
    with pytest.raises(ConfigError, match="takes links from its own machine only"):
        agree_on_encryption(pair.root, [root])


def test_on_one_machine_the_cluster_key_still_holds(tmp_path: Path) -> None:
    pair = Pair(tmp_path, KEY, KEY)
    near = PEER._replace(host="127.0.0.1")
    assert "cluster key only" in pair.refusal(Hello("1"), near)
    root = pair.root_side(Address("127.0.0.1"))
    found = pair.side.hear(near, root.introduction)
    assert isinstance(found, Introduced)
    assert isinstance(pair.side.hear(near, root.answer(found)), Admitted)
    assert pair.side.hear(near, Hello("1")) is None
    assert "cluster key only" in pair.refusal(Hello("1"), near._replace(identity=b"another"))


def test_what_strangers_leave_behind_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_side, "MAX_OPEN", 4)
    monkeypatch.setattr(worker_side, "MAX_ADMITTED", 4)
    pair = Pair(tmp_path)
    keys = [new_pair().public for _ in range(8)]
    proofs = []
    for i, key in enumerate(keys):
        root = RootSide(WORKER, replace(pair.root_side().introduction, key=key), None)
        peer = Peer(bytes([i]), i, f"10.0.1.{i}")
        found = pair.side.hear(peer, root.introduction)
        assert isinstance(found, Introduced)
        proofs.append((peer, root.answer(found)))
    kinds = [type(pair.side.hear(peer, proof)) for peer, proof in proofs]
    assert kinds == [Refused] * 4 + [Admitted] * 4
    for key in keys:
        assert pair.side.may_enter(key) == (key in keys[4:])


def _introduced() -> Introduced:
    return Introduced("1", [], new_pair().public, "w", "r", True, True, 9_999, "")


def test_of_a_peer_that_has_gone_only_the_farewell_counts(tmp_path: Path) -> None:
    side = Pair(tmp_path).side
    for gone in (PEER._replace(host=""), PEER._replace(host="", key=new_pair().public)):
        assert side.hear(gone, CloseSession()) is None
        assert isinstance(side.hear(gone, Hello("1")), Refused)
    assert not (tmp_path / "worker" / "known_roots").exists()


def test_a_worker_says_who_it_is_before_anything_else(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    side = pair.root_side()
    with pytest.raises(ProtocolError, match="without having said who it is"):
        _ = side.introduced
    assert not side.is_introduced
    assert pair.introduce()[0].is_introduced
