"""Checks of what ranks hold: peers, keys, tables of weights and their pieces. The model's sizes are
checked in model_checks, steps in step_checks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.security.keys import KEY_CHARS, is_key
from cluster.sockets import parse_address
from cluster.wire.messages import Spares
from dllama.config import ModelConfig
from dllama.errors import ConfigError, ProtocolError
from dllama.qtypes import BLOCK
from dllama.sharding.memory import state_bytes
from dllama.sharding.pieces import Tiling, piece_sizes
from dllama.step import PAGE_TOKENS
from dllama.weight_source import TensorInfo
from dllama.windows import window_pages

DIGEST_BYTES = 32  # of SHA-256
MAX_ROW_BYTES = 64 << 20


def check_peers(peers: Sequence[str], world_size: int) -> None:
    """Raises ProtocolError for anything but a TCP endpoint of each rank."""
    if len(peers) != world_size:
        raise ProtocolError(f"the root named {len(peers)} ranks for a session of {world_size}")
    for peer in peers:
        try:
            is_sound = peer == f"tcp://{parse_address(peer.removeprefix('tcp://'))}"
        except ConfigError:
            is_sound = False
        if not is_sound:
            raise ProtocolError(f"the root sent {peer!r:.80} as the address of a rank")


def check_keys(keys: Sequence[str], world_size: int, *, is_encrypted: bool) -> None:
    """Raises ProtocolError where a session is not told one public key for each rank, or is told
    keys where its links are plain."""
    n_expected = world_size if is_encrypted else 0
    if len(keys) != n_expected or not all(is_key(key) for key in keys):
        raise ProtocolError(
            f"the root named {len(keys)} public keys; expected {n_expected} of {KEY_CHARS} "
            "characters each"
        )


def check_pages(config: ModelConfig, n_pages: int, max_step_tokens: int, max_bytes: int) -> None:
    """Raises ProtocolError for KV pages and states that take more than `max_bytes` even where a
    rank has one head and a byte for each number."""
    n_window_pages = window_pages(config, n_pages, max_step_tokens)
    in_layers = n_pages * (config.n_kv_layers - config.n_window_layers)
    in_layers += n_window_pages * config.n_window_layers
    each = 2 * config.head_dim if config.latent is None else config.latent.width
    least = in_layers * PAGE_TOKENS * each
    least += config.n_slots * state_bytes(config, 1) // 4
    if least > max_bytes:
        raise ProtocolError(
            f"the root asks for {n_pages} KV pages, at least {least / 1e9:.2f} GB, and this node "
            f"has {max_bytes / 1e9:.2f} GB of memory free"
        )


def check_manifest(manifest: Sequence[TensorInfo], max_bytes: int) -> None:
    """Raises ProtocolError for tensors that cannot be, or that take more than `max_bytes` in
    all."""
    total = 0
    for info in manifest:
        try:
            is_sound = info.is_cut_between_runs and info.row_bytes <= MAX_ROW_BYTES
            is_sound = is_sound and info.rows % info.n_experts == 0
        except ValueError:
            is_sound = False
        if not is_sound:
            raise ProtocolError(f"the root announced a tensor that cannot be: {info}")
        total += info.n_bytes
    if total > max_bytes:
        raise ProtocolError(
            f"the root announced {total / 1e9:.2f} GB of weights and this node has "
            f"{max_bytes / 1e9:.2f} GB of memory free; give it a smaller share (--shares)"
        )


def check_tilings(
    manifest: Sequence[TensorInfo], tilings: Sequence[Tiling], digests: np.ndarray, max_bytes: int
) -> None:
    """Raises ProtocolError where pieces do not hold just the tensors of a checked manifest, or take
    more than `max_bytes`. `digests` are uint8 (n, 32)."""
    counts = [
        info.n_experts * tiling.n_tiles for info, tiling in zip(manifest, tilings, strict=False)
    ]
    if len(tilings) != len(manifest) or digests.shape != (sum(counts), DIGEST_BYTES):
        raise ProtocolError(
            f"the root sent {len(tilings)} tilings and digests of the shape {digests.shape} for "
            f"{len(manifest)} tensors of {sum(counts)} pieces"
        )
    for info, tiling in zip(manifest, tilings, strict=True):
        if not _holds(tiling, info) or sum(piece_sizes(info, tiling)) > max_bytes:
            raise ProtocolError(f"the root announced pieces that do not hold {info}: {tiling}")


def _holds(tiling: Tiling, info: TensorInfo) -> bool:
    """Returns whether pieces are whole blocks and hold the tensor, and all are needed."""
    block = BLOCK[info.qtype].values if tiling.is_by_cols else 1
    size = info.cols if tiling.is_by_cols else info.rows // info.n_experts
    first = tiling.unit if tiling.n_tiles > 1 else tiling.last_unit
    end = tiling.skip + size  # of the cut, within the pieces
    is_needed = tiling.skip < first and tiling.size - tiling.last_unit < end <= tiling.size
    is_whole = all(n % block == 0 for n in (tiling.skip, first, tiling.last_unit))
    return is_needed and is_whole and tiling.last_unit <= tiling.unit


def check_spares(spares: Spares, max_bytes: int) -> None:
    """Raises ProtocolError where the digests and the sizes of pieces do not fit each other, or one
    takes more than `max_bytes`."""
    n_pieces = len(spares.sizes)
    is_sound = spares.digests.shape == (n_pieces, DIGEST_BYTES)
    if not is_sound or not within(spares.sizes, 1, min(max_bytes, 1 << 31)):
        raise ProtocolError(
            f"the root announced {n_pieces} pieces of weights with digests of the shape "
            f"{spares.digests.shape}, or of sizes that cannot be"
        )


def within(values: np.ndarray, low: int, high: int) -> bool:
    """Returns whether all values are `low` at least and less than `high`."""
    return values.size == 0 or bool(values.min() >= low and values.max() < high)
