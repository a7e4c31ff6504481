"""How the ranks of one epoch meet: session processes on all workers, and a mesh between all ranks.
Knows no weights."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.meeting_times import MESH_TIMEOUT_S, START_TIMEOUT_S
from cluster.mesh.collective import MeshCollective
from cluster.mesh.sync_type import SyncType
from cluster.root.root_way import listen_host, root_host, way_hint
from cluster.root.session_plan import ClusterConfig, peer_endpoints
from cluster.root.worker_links import WorkerLinks
from cluster.security.epoch_links import EpochLinks, SessionLinks
from cluster.security.keys import KeyPair, new_pair
from cluster.security.links import LinkSecurity
from cluster.sockets import Context
from cluster.wire.checks import check_keys
from cluster.wire.messages import Join, Joined, OpenSession, SessionReady, Welcome
from dllama.host.container import is_throttled


class Meeting:
    """The sessions that a root opens on greeted workers, and rank 0's end of their mesh."""

    def __init__(
        self, config: ClusterConfig, root: str, links: WorkerLinks, context: Context, epoch: int
    ) -> None:
        """`root` names the runner to daemons, which end its earlier sessions."""
        self._config, self._root, self._links = config, root, links
        self._context, self._epoch = context, epoch
        self._pair: KeyPair | None = None  # of this session, where its links are encrypted
        self._security: SessionLinks | None = None
        self._made_mesh: MeshCollective | None = None
        self.ready: list[SessionReady] = []

    @property
    def mesh(self) -> MeshCollective:
        assert self._made_mesh is not None, "open() comes first"
        return self._made_mesh

    def open(self, welcomes: Sequence[Welcome], sync_type: SyncType, needed: Sequence[int]) -> None:
        """Opens a session on each worker, of which rank r is to have room for needed[r] bytes, and
        returns when all ranks have heard each other. Raises ClusterError, ProtocolError,
        PeerLost."""
        self._prepare(sync_type)
        self._open_sessions(welcomes, sync_type, needed)
        if self._config.workers:
            self._join()

    def _prepare(self, sync_type: SyncType) -> None:
        """Makes what sockets of this session need, as the workers have said what they can do."""
        if self._links.is_encrypted:
            self._pair = new_pair()
            self._security = LinkSecurity(self._context, self._pair)
        else:
            self._security = EpochLinks(self._context, self._epoch)
        self._security.start()
        self._made_mesh = MeshCollective(
            0,
            self._config.world_size,
            self._epoch,
            sync_type=sync_type,
            context=self._context,
            watch=self._links.watch,
            polls=not is_throttled(self._config.threads),
        )

    def _open_sessions(
        self, welcomes: Sequence[Welcome], sync_type: SyncType, needed: Sequence[int]
    ) -> None:
        config = self._config
        for link, welcome in zip(self._links, welcomes, strict=True):
            link.epoch = self._epoch
            link.watch_from_now()
            link.tell_daemon(
                OpenSession(
                    self._root,
                    link.rank,
                    config.world_size,
                    str(sync_type),
                    needed[link.rank],
                    welcome.nonce,
                    "" if self._pair is None else self._pair.public,
                )
            )
        slow = f"started no process within {START_TIMEOUT_S:g} s; its own output may say why"
        self.ready = self._links.await_all(SessionReady, START_TIMEOUT_S, slow)
        for link, ready in zip(self._links, self.ready, strict=True):
            link.open_session_link(ready, self._pair)

    def _join(self) -> None:
        """All ranks connect to all: a firewall between two workers shows before the weights go."""
        config = self._config
        mesh_ports = {
            link.rank: r.mesh_port for link, r in zip(self._links, self.ready, strict=True)
        }
        store_ports = {
            link.rank: r.store_port for link, r in zip(self._links, self.ready, strict=True)
        }
        mesh_ports[0] = self.mesh.bind(listen_host(config), config.mesh_ports, self._security)
        keys = self._public_keys()
        for link in self._links:
            seen_as = root_host(config, link.address)
            endpoints = peer_endpoints(link.rank, config.workers, mesh_ports, seen_as)
            store_ports[0] = mesh_ports[0]  # the root has the file, and nobody asks it there
            stores = peer_endpoints(link.rank, config.workers, store_ports, seen_as)
            link.way_hint = way_hint(config)
            link.tell_session(Join(endpoints, stores, keys))
        own = peer_endpoints(0, config.workers, mesh_ports, "127.0.0.1")
        self.mesh.links.hosts = ["the root", *(str(w) for w in config.workers)]
        with self._links.explained():
            self.mesh.connect(own, MESH_TIMEOUT_S, keys)
        self._links.await_all(Joined, MESH_TIMEOUT_S + 5, "did not hear all other ranks in time")

    def _public_keys(self) -> list[str]:
        """Returns the public keys of all ranks in this session; none where links are plain."""
        if self._pair is None:
            return []
        keys = [self._pair.public, *(ready.key for ready in self.ready)]
        check_keys(keys, len(keys), is_encrypted=True)
        return keys

    def close(self) -> None:
        """Closes the mesh; the links to the workers are their owner's."""
        if self._made_mesh is not None:
            self._made_mesh.close()
        if self._security is not None:
            self._security.close()
