"""Brings a cluster back, over the nodes that are there.

While a lost node is waited for, the session of the others is opened already: their ranks load and
warm up, and at the end of the wait nothing is left to do. If the node answers before that, the
prepared session is given up, and the next one has it too.
"""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from cluster.root.fitting import Choice
from cluster.root.opener import SessionOpener
from cluster.root.roster import GATHER_S, NodeReturned, Roster
from cluster.root.session import ClusterSession
from cluster.root.session_plan import ClusterConfig
from dllama.errors import ClusterError, PeerLost

log = logging.getLogger(__name__)

HELLO_S = 2.0  # for workers that have answered a moment ago
OPENING_LOSSES = 2  # a node that a session does not come up with is planned without at once
HOLD_POLL_S = 0.01


class Opened(NamedTuple):
    """A session that can compute."""

    session: ClusterSession
    config: ClusterConfig
    choice: Choice


class Comeback:
    """Attempts to come back. A prepared session outlives an attempt and waits for the next."""

    def __init__(self, opener: SessionOpener, roster: Roster) -> None:
        self._opener, self._roster = opener, roster
        self._prepared: Opened | None = None

    def attempt(self) -> Opened:
        """Returns the session to go on with, which is the caller's from here on.

        Raises PeerLost, which says who is waited for or was lost: it is to be called again.
        ConfigError, ClusterError where there is no session with the nodes that are there.
        """
        while True:
            try:
                opened = self._prepared or self._prepare()
                self._hold(opened)
            except NodeReturned as returned:
                log.info("%s; the session that was prepared without it is given up", returned)
                self.drop()
                continue
            self._prepared = None
            return opened

    def drop(self) -> None:
        """Ends the prepared session, if there is one."""
        if self._prepared is not None:
            self._opener.end(self._prepared.session)
            self._prepared = None

    def _prepare(self) -> Opened:
        choice = self._roster.gather(self._opener.held(None))
        config = self._opener.config_of(choice)
        session = self._opener.session(config)
        session.links.interrupt = lambda: self._roster.check_return(choice)
        try:
            session.greet(HELLO_S)
            self._opener.open(session, config)
        except BaseException as error:
            self._opener.end(session)
            if isinstance(error, PeerLost):
                self._roster.lost(error, config.workers, n_losses=OPENING_LOSSES)
            raise
        self._prepared = Opened(session, config, choice)
        return self._prepared

    def _hold(self, opened: Opened) -> None:
        """Waits with a prepared session for the nodes that it was prepared without. Raises
        NodeReturned; ClusterError where it cannot go on; PeerLost where one of its own is lost,
        and where the wait is a long one."""
        until = time.monotonic() + GATHER_S
        while self._roster.still_waits(opened.choice):
            try:
                opened.session.idle()
                self._roster.check_return(opened.choice)
            except NodeReturned:
                raise
            except ClusterError as error:  # whatever it is, ranks are in the middle of something
                if isinstance(error, PeerLost):
                    self._roster.lost(error, opened.config.workers)
                self.drop()
                raise
            if time.monotonic() > until:
                raise self._roster.waiting_for(opened.choice)
            time.sleep(HOLD_POLL_S)
        opened.session.links.interrupt = lambda: None
