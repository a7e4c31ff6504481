"""What both sides of an introduction prove that they know the cluster key over."""

from __future__ import annotations

from cluster.wire.messages import Introduced, Introduction

ROOT = "root"
WORKER = "worker"


def transcript(root: Introduction, worker: Introduced) -> list[str]:
    """Returns all that was said, but for the proof: nobody between the two can change a word.

    Both nonces are in it, so that no proof of another conversation fits.
    """
    return [
        root.release,
        ",".join(root.features),
        root.key,
        root.nonce,
        str(root.encrypts),
        worker.release,
        ",".join(worker.features),
        worker.key,
        worker.nonce,
        str(worker.encrypts),
        str(worker.has_to_encrypt),
        str(worker.port),
    ]
