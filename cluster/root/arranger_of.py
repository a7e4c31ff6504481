"""Makes the arranger that a cluster's configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cluster.planning.measurements import Measurements
from cluster.planning.store import MeasurementStore, measurements_file
from cluster.planning.work import ModelWork, Room
from cluster.root.arranging import Arranger, GivenShares, PlannedShares
from cluster.root.measuring import measured_nodes, types_by_bytes
from cluster.root.parts import RootParts
from cluster.sockets import Address


def arranger_of(parts: RootParts) -> Arranger:
    """Returns the shares that were given, or those of plans over measured nodes."""
    config = parts.config
    if not config.plans:
        return GivenShares()
    store = MeasurementStore(measurements_file())
    room = Room(config.n_pages, config.max_step_tokens, config.kv_type)
    work = ModelWork(parts.source.config, parts.source.tensors, room)

    def measure(workers: Sequence[Address]) -> Measurements:
        some = replace(config, workers=workers, shares=())
        types = types_by_bytes(work)
        found = measured_nodes(some, parts.root, parts.release, types, store, anew=False)
        return found.measurements

    return PlannedShares(work, config.sync_type, measure, uses_all=config.uses_all)
