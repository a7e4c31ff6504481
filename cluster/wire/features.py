"""What a node can do beyond its protocol's messages: a node that lacks a feature is worked with
without it, one of another protocol is refused."""

from __future__ import annotations

from cluster.mesh.shared_ring import IS_SUPPORTED
from cluster.mesh.sync_type import SyncType

SHARED_MEMORY = "shared-memory"
MEASURES = "measures"  # its kernels and links, when it is asked


def sync_feature(sync_type: SyncType | str) -> str:
    """Returns the feature of a node that can exchange partial sums in this form."""
    return f"sync-{sync_type}"


def own_features() -> tuple[str, ...]:
    """Returns the features of this node."""
    syncs = tuple(sync_feature(each) for each in SyncType)
    return (*syncs, MEASURES, SHARED_MEMORY) if IS_SUPPORTED else (*syncs, MEASURES)
