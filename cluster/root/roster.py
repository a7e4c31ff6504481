"""Finds the nodes that the next session is planned over: who answers, who fits, who waits.

Everything here is done between two steps, and nothing of it waits while a session is alive.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cluster.planning.predict import Prediction
from cluster.root.arranging import Arranged, Arranger
from cluster.root.fitting import Candidate, Choice, Fitting, Misfit, choose, free_bytes
from cluster.root.members import HELLO_S, Member, Members, State
from cluster.root.scouts import Scouts
from cluster.root.session import ClusterSession
from cluster.sockets import Address
from cluster.wire.messages import Welcome
from dllama.errors import ClusterError, ConfigError, DllamaError, PeerLost, TooLittleMemory

log = logging.getLogger(__name__)

GATHER_S = 2.0  # at most for one attempt: messages of the server are read between two of them
GATHER_POLL_S = 0.005
EARLY_S = 0.3  # for a lost node to answer, before a session without it is prepared
NO_HELLO = float("-inf")  # as the beginning of a greeting: it has had its time
LOOK_S = 0.2  # between two looks at the nodes while steps are computed

Answers = Mapping[Address, Welcome | DllamaError]
Held = Mapping[str, int]
"""The bytes that this root's session takes, or took until a moment ago, of each machine."""


class NodeReturned(ClusterError):
    """A node answers that a session is being prepared without."""


class Roster:
    """The nodes of one ClusterRunner. `root_bytes` returns the memory that this machine has
    left."""

    def __init__(
        self,
        members: Members,
        fitting: Fitting,
        scouts: Scouts,
        n_pages: int,
        root_bytes: Callable[[], int],
        arranger: Arranger,
    ) -> None:
        self.members = members
        self._arranger = arranger
        self._fitting, self._scouts, self._n_pages = fitting, scouts, n_pages
        self._root_bytes = root_bytes
        self._held: Held = {}
        self._current: Sequence[Candidate] | None = None  # of the session that is alive
        self._looked_at = float("-inf")

    # ---- while there is no session
    def first(self, welcomes: Sequence[Welcome]) -> Choice:
        """Returns the choice of all workers that are to compute, in order. Raises ConfigError
        unless they all fit."""
        answered = [
            Candidate(m.address, m.share, welcome)
            for m, welcome in zip(self.members, welcomes, strict=True)
        ]
        self._arranger.learn([c.address for c in answered])
        candidates, left_out = self._arrange(answered)
        bad = self._misfit(candidates, self._n_pages)
        if bad is not None:
            self._fitting.shards(self._fitting.session_config(candidates, self._n_pages))
            raise TooLittleMemory(bad.reason)
        for address, reason in left_out.items():
            self.members.left_out(address, reason, time.monotonic())
        return Choice(candidates, self._n_pages, left_out)

    def gather(self, held: Held) -> Choice:
        """Greets all workers and returns those to go on with: as soon as none but lost ones are
        waited for, which the choice then names.

        Raises PeerLost, which says who is waited for: it is to be called again.
        """
        self._held = held
        begun_at = time.monotonic()
        early_at = begun_at + EARLY_S
        answers: dict[Address, Welcome | DllamaError] = {}
        while True:
            now = time.monotonic()
            for member in self.members:
                if not isinstance(answers.get(member.address), Welcome) and not member.is_removed:
                    self._scouts.ask(member.address, HELLO_S)
            answers.update(self._scouts.answers())
            awaited = [
                m
                for m in self.members
                if not m.is_removed
                and not isinstance(answers.get(m.address), Welcome)
                and now < self.members.patience(m.address, begun_at)
            ]
            if not awaited:
                return self._chosen(answers, now)
            if now > early_at and self._are_lost(awaited, now - begun_at):
                with contextlib.suppress(PeerLost):  # it does not go without them
                    choice = self._chosen(answers, now)
                    return replace(choice, awaited=[m.address for m in awaited])
                early_at = float("inf")
            if now - begun_at > GATHER_S:
                self._note_silent(answers, now)
                raise self._waited_for(awaited[0], "is waited for")
            time.sleep(GATHER_POLL_S)

    def _are_lost(self, awaited: Sequence[Member], waited_s: float) -> bool:
        """Returns whether nodes that do not answer are known to be lost, or had time to answer."""
        return waited_s > HELLO_S or all(m.state is State.AWAY for m in awaited)

    def still_waits(self, choice: Choice) -> bool:
        """Returns whether a node may still come back that a choice was made without."""
        return bool(self._waits_for(choice, time.monotonic()))

    def _waits_for(self, choice: Choice, now: float) -> list[Member]:
        lost = [m for m in self.members if m.address in choice.awaited and not m.is_removed]
        patience = {m.address: self.members.patience(m.address, NO_HELLO) for m in lost}
        return [m for m in lost if m.waits_until() <= now < patience[m.address]]

    def check_return(self, choice: Choice) -> None:
        """Greets the nodes that a choice was made without and that may still come back. Raises
        NodeReturned where one answers."""
        awaited = [m.address for m in self._waits_for(choice, time.monotonic())]
        for address in awaited:
            self._scouts.ask(address, HELLO_S)
        for address, answer in self._scouts.answers():
            if address in awaited and isinstance(answer, Welcome):
                raise NodeReturned(f"worker {address} answers again")

    def waiting_for(self, choice: Choice) -> PeerLost:
        """Returns the PeerLost that names a node which a choice waits for."""
        member = next(m for m in self.members if m.address in choice.awaited)
        return self._waited_for(member, "is waited for")

    def _note_silent(self, answers: Answers, now: float) -> None:
        for member in self.members:
            answer = answers.get(member.address)
            if isinstance(answer, Welcome) or member.is_removed:
                continue
            if answer is not None:
                self.members.silent(member.address, str(answer), now)
            elif member.state is not State.AWAY:
                self.members.silent(member.address, "it does not answer", now)

    def _chosen(self, answers: Answers, now: float) -> Choice:
        self._note_silent(answers, now)
        welcomes = {a: w for a, w in answers.items() if isinstance(w, Welcome)}
        distinct = self._distinct(welcomes, now)
        self._arranger.learn(distinct)
        failure: ConfigError | None = None
        for addresses in self.members.preferred(distinct, now):
            candidates = [self._candidate(address, welcomes[address]) for address in addresses]
            try:
                choice = self._choose(candidates)
            except ConfigError as error:
                failure = error
                continue
            for address, reason in choice.left_out.items():
                self.members.left_out(address, reason, now)
            return choice
        away = [m for m in self.members if m.state is State.AWAY]
        if away:
            raise self._waited_for(
                away[0], f"is waited for, as it does not go without it: {failure}"
            )
        raise PeerLost(str(failure), rank=0, host=socket.gethostname())

    def _distinct(self, welcomes: Mapping[Address, Welcome], now: float) -> list[Address]:
        """Returns the addresses of different workers, and leaves later names of one out."""
        first: dict[str, Address] = {}
        for member in self.members:
            welcome = welcomes.get(member.address)
            if welcome is None or member.is_removed:
                continue
            known = first.setdefault(welcome.daemon, member.address)
            if known != member.address:
                self.members.left_out(member.address, f"it is the same worker as {known}", now)
        return list(first.values())

    def _waited_for(self, member: Member, what: str) -> PeerLost:
        reason = f" ({member.reason})" * bool(member.reason)
        return PeerLost(f"worker {member.address} {what}{reason}", rank=0, host=str(member.address))

    # ---- what becomes of a session
    def began(self, choice: Choice) -> None:
        self._current = choice.candidates
        for candidate in choice.candidates:
            member = self.members.get(candidate.address)
            if member is not None:
                member.share = candidate.share  # a plan may have another one than was given
        self.members.began([c.address for c in choice.candidates], time.monotonic())

    def prediction(self) -> Prediction | None:
        """Returns what is predicted of the session that is alive; None where nothing was
        planned."""
        plan = self._arranger.plan_of([c.address for c in self._current or ()])
        return None if plan is None else plan.prediction

    def ended(self) -> None:
        self._current = None
        self.members.ended(time.monotonic())

    def lost(self, lost: PeerLost, workers: Sequence[Address], *, n_losses: int = 1) -> None:
        """Records the worker that a session was lost with, if it was one."""
        if 0 < lost.rank <= len(workers):
            self.members.lost(
                workers[lost.rank - 1], str(lost), time.monotonic(), n_losses=n_losses
            )

    # ---- while a session is alive
    def check_removal(self, address: Address) -> None:
        """Raises ConfigError, with figures, where the other nodes of the session cannot go on
        without this one, or where there is no session now. One that is away may always go."""
        member = self.members.get(address)
        if member is None or member.state is State.AWAY:
            return  # nobody goes on with it now
        if self._current is None:
            raise ConfigError(
                f"the cluster is being brought back, and whether it goes on without {address} is "
                "not known yet; ask again in a moment"
            )
        if address not in [c.address for c in self._current]:
            return
        try:
            self._choose(self._others(member))
        except ConfigError as error:
            raise ConfigError(
                f"the worker {address} is needed, as the others cannot go on without it: {error}"
            ) from None

    def _others(self, member: Member) -> list[Candidate]:
        """Returns the nodes of the session but for this one and those that were removed."""
        gone = {m.address for m in self.members if m.is_removed} | {member.address}
        return [c for c in self._current or () if c.address not in gone]

    def look(self, session: ClusterSession, held: Held) -> None:
        """Takes what nodes have said, and greets those that are away, every LOOK_S."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at, self._held = now, held
        for link in session.links:
            member = self.members.get(link.address)
            if link.is_draining and member is not None and member.state is State.PRESENT:
                self._let_go(member, now)
        for address, answer in self._scouts.answers():
            self._take_answer(address, answer, now)
        for address in self.members.due_looks(now):
            self._scouts.ask(address, HELLO_S)

    def _let_go(self, member: Member, now: float) -> None:
        try:
            self._choose(self._others(member))
        except ConfigError as error:
            reason = f"it is to end, and the others cannot go on without it: {error}"
            self.members.drains(member.address, reason, now, is_needed=True)
            log.warning("worker %s: %s", member.address, reason)
        else:
            self.members.drains(member.address, "it is to end", now, is_needed=False)

    def _take_answer(self, address: Address, answer: Welcome | DllamaError, now: float) -> None:
        member = self.members.get(address)
        if member is None or member.state not in (State.AWAY, State.LEFT_OUT):
            return
        if member.waits_until() > now:  # greeted before it was lost
            return
        if isinstance(answer, DllamaError):
            self.members.silent(address, str(answer), now)
            return
        reason = self._why_not(self._candidate(address, answer))
        if reason is None:
            self.members.joins(address, now)
        else:
            self.members.left_out(address, reason, now)

    def _why_not(self, newcomer: Candidate) -> str | None:
        current = self._current or ()
        for present in current:
            if present.welcome.daemon == newcomer.welcome.daemon:
                return f"it is the same worker as {present.address}"
        try:
            choice = self._choose([*current, newcomer])
        except ConfigError as error:
            return str(error)
        return choice.left_out.get(newcomer.address)

    def _candidate(self, address: Address, welcome: Welcome) -> Candidate:
        member = self.members.get(address)
        return Candidate(address, 1.0 if member is None else member.share, welcome)

    def _choose(self, candidates: Sequence[Candidate]) -> Choice:
        able, left_out = self._arrange(candidates)
        choice = choose(able, self._n_pages, self._fitting.least_pages, self._misfit)
        return replace(choice, left_out={**left_out, **choice.left_out})

    def _arrange(self, candidates: Sequence[Candidate]) -> Arranged:
        free = free_bytes(candidates, self._root_bytes(), self._held)
        return self._arranger.arrange(candidates, free)

    def _misfit(self, candidates: Sequence[Candidate], n_pages: int) -> Misfit | None:
        return self._fitting.misfit(candidates, n_pages, self._root_bytes(), self._held)

    def close(self) -> None:
        self._scouts.close()
