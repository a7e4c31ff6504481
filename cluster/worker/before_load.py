"""What a session does between its mesh and its weights: it measures, if the root asks."""

from __future__ import annotations

import numpy as np

from cluster.measuring import measure_rank
from cluster.mesh.collective import MeshCollective
from cluster.wire.measure_messages import Measure, check_measure
from cluster.wire.messages import Load
from cluster.worker.root_link import RootLink
from dllama.errors import ProtocolError


def next_load(root: RootLink, mesh: MeshCollective, n_threads: int, progress: np.ndarray) -> Load:
    """Returns the root's Load, after what it wants to be measured before. Raises ProtocolError,
    PeerLost."""
    message = root.receive()
    if isinstance(message, Measure):
        check_measure(message)
        root.send(measure_rank(message, mesh, n_threads, progress))
        return root.expect(Load)
    if not isinstance(message, Load):
        raise ProtocolError(f"the root sent {type(message).__name__} where Load was due")
    return message
