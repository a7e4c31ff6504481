"""Checks of messages that no limit of a field can express: how the fields fit each other and what
a rank has room for. Kernels index memory by these numbers and do not check them again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

from cluster.security.keys import KEY_CHARS, is_key
from cluster.sockets import parse_address
from cluster.wire.messages import KvCall, Spares, StepCall
from dllama.config import DeltaSizes, Latent, ModelConfig
from dllama.errors import ConfigError, ProtocolError
from dllama.kv import KvShift
from dllama.models import FAMILIES
from dllama.models.delta import is_delta_sound
from dllama.models.latent import LATENT_ATTENTION
from dllama.qtypes import BLOCK
from dllama.runtime.kv_files import MARK_BYTES
from dllama.sharding.memory import state_bytes
from dllama.sharding.pieces import Tiling, piece_sizes
from dllama.step import MAX_CANDIDATES, PAGE_TOKENS, Step
from dllama.weight_source import TensorInfo
from dllama.windows import window_pages

DIGEST_BYTES = 32  # of SHA-256
MAX_DIMENSION = 1 << 24
MAX_EXPERTS = 1 << 12
MAX_ROW_BYTES = 64 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class KvRoom(NamedTuple):
    """What of a sequence's keys, values and states a rank has room for."""

    n_pages: int
    n_window_pages: int = 0
    n_slots: int = 0

    @classmethod
    def of(cls, config: ModelConfig, n_pages: int, max_step_tokens: int) -> KvRoom:
        return cls(n_pages, window_pages(config, n_pages, max_step_tokens), config.n_slots)


@dataclass(frozen=True, slots=True)
class RankLimits:
    """What a rank has room for."""

    max_step_tokens: int
    n_pages: int
    max_seq_len: int
    vocab_size: int
    embed_row_bytes: int
    n_slots: int = 0
    n_window_pages: int = 0
    window: int = 0  # tokens that layers with one see at most


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


MAX_GROWTHS = 1 << 16  # factors of a table that a rank makes for queries that grow


def check_config(config: ModelConfig) -> None:
    """Raises ProtocolError where the sizes of a model off the wire make no model."""
    sizes = (
        config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads,
        config.head_dim, config.vocab_size, config.max_seq_len,
    )  # fmt: skip
    is_sound = config.arch in FAMILIES and all(0 < size <= MAX_DIMENSION for size in sizes)
    is_sound = is_sound and 0 < config.n_tokens <= config.vocab_size
    is_sound = is_sound and 0 < config.rotary_dim <= config.head_dim and config.rotary_dim % 2 == 0
    factors = (config.rope_factors, config.long_rope_factors)
    is_sound = is_sound and all(f is None or len(f) == config.rotary_dim // 2 for f in factors)
    is_sound = is_sound and 0 <= config.n_active_experts <= config.n_experts <= MAX_EXPERTS
    is_sound = is_sound and (config.n_active_experts > 0) == (config.n_experts > 0)
    is_sound = is_sound and 0 <= config.shared_hidden_dim <= MAX_DIMENSION
    is_sound = is_sound and config.shared_hidden_dim % config.hidden_dim == 0
    is_sound = is_sound and (config.delta is None or _makes_states(config.delta))
    is_sound = is_sound and _is_mixture_sound(config)
    is_sound = is_sound and _is_attention_sound(config)
    if not is_sound or config.n_heads % config.n_kv_heads:
        raise ProtocolError(f"the root sent the sizes of no model: {config}")


def _makes_states(sizes: DeltaSizes) -> bool:
    """Returns whether there are gated delta nets of these sizes."""
    numbers = [size for size in astuple(sizes) if not isinstance(size, bool)]
    return all(0 < size <= MAX_DIMENSION for size in numbers) and is_delta_sound(sizes)


def _is_mixture_sound(config: ModelConfig) -> bool:
    """Returns whether experts divide into groups that have enough for a token, and dense layers
    have columns."""
    n_groups, n_active = config.n_expert_groups, config.n_active_groups
    is_sound = 0 < n_active <= n_groups <= max(1, config.n_experts)
    is_sound = is_sound and config.n_experts % n_groups == 0
    is_sound = is_sound and config.n_active_experts <= config.n_experts // n_groups * n_active
    is_sound = is_sound and 0 <= config.n_dense_layers <= config.n_layers
    is_sound = is_sound and 0 < config.mixture_interval <= config.n_layers
    least = min(1, config.n_dense_layers + config.mixture_interval - 1)
    return is_sound and least <= config.dense_hidden_dim <= MAX_DIMENSION


def _is_attention_sound(config: ModelConfig) -> bool:
    """Returns whether each layer has its kind of attention, and scales and caps are numbers."""
    layers, theta, latent = config.attention_layers, config.local_rope_theta, config.latent
    growth = config.query_growth
    factors = (
        config.attention_softcap, config.final_softcap, config.embedding_scale,
        config.residual_scale, config.logit_scale,
    )  # fmt: skip
    return (
        len(layers) in (0, config.n_layers)
        and all(layer.window is None or 0 < layer.window <= MAX_DIMENSION for layer in layers)
        and (theta is None or (math.isfinite(theta) and theta > 1))
        and all(math.isfinite(factor) and factor >= 0 for factor in factors)
        and (growth is None or (math.isfinite(growth.scale) and growth.first in (0, 1)))
        and (growth is None or growth.length > config.max_seq_len / MAX_GROWTHS)
        and all(layer.window is not None or not layer.is_chunked for layer in layers)
        and (config.attention_scale is None or math.isfinite(config.attention_scale))
        and (latent is not None) == (FAMILIES[config.arch].attention is LATENT_ATTENTION)
        and (latent is None or _is_latent_sound(config, latent))
    )


def _is_latent_sound(config: ModelConfig, sizes: Latent) -> bool:
    """Returns whether heads are of the sizes that latent attention makes them of."""
    of_rows = (sizes.kv_rank, sizes.rope_dim, sizes.nope_dim, sizes.value_dim)
    return (
        all(0 < size <= MAX_DIMENSION for size in of_rows)
        and 0 <= sizes.q_rank <= MAX_DIMENSION
        and config.n_kv_heads == config.n_heads
        and config.head_dim == sizes.nope_dim + sizes.rope_dim
        and config.rotary_dim == sizes.rope_dim
    )


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
    if not is_sound or not _within(spares.sizes, 1, min(max_bytes, 1 << 31)):
        raise ProtocolError(
            f"the root announced {n_pieces} pieces of weights with digests of the shape "
            f"{spares.digests.shape}, or of sizes that cannot be"
        )


def checked_step(call: StepCall, limits: RankLimits) -> Step:
    """The step of a message. Raises ProtocolError where a number points outside of memory."""
    step = call.step
    n_tokens, n_sequences = step.n_tokens, len(step.starts) - 1
    _check(0 < n_tokens <= limits.max_step_tokens, f"{n_tokens} tokens fit a step")
    _check(0 < n_sequences <= n_tokens, "there are no more sequences than tokens")
    _check(len(step.positions) == n_tokens, "every token has a position")
    _check(len(step.pages) == n_sequences, "every sequence has pages")
    _check(
        call.embed_rows.shape == (n_tokens, limits.embed_row_bytes),
        f"every token brings {limits.embed_row_bytes} bytes of embedding",
    )
    _check(_within(step.tokens, 0, limits.vocab_size), "tokens are in the vocabulary")
    _check(_within(step.logits_at, 0, n_tokens), "logits are asked of rows that exist")
    _check(_within(step.hidden_at, 0, n_tokens), "states are asked of rows that exist")
    _check(len(step.candidates) == len(step.logits_at), "every logits row has a count")
    _check(_within(step.candidates, 0, MAX_CANDIDATES + 1), "counts of logits are in range")
    _check(step.copies.shape[1] == 2, "a copy names two pages")
    _check(_within(step.copies, 0, limits.n_pages), "copied pages exist")
    _check(step.window_copies.shape[1] == 2, "a copy names two pages")
    _check(_within(step.window_copies, 0, limits.n_window_pages), "copied pages exist")
    _check_pages(step, limits)
    _check_window_pages(step, limits)
    _check_slots(step, limits)
    return step


def _check_pages(step: Step, limits: RankLimits) -> None:
    """Every position up to a sequence's last has a page, and every page exists."""
    starts = step.starts
    _check(starts[0] == 0 and starts[-1] == step.n_tokens, "sequences cover the tokens")
    _check(bool((np.diff(starts) > 0).all()), "every sequence has a token")
    _check(_within(step.positions, 0, limits.max_seq_len), "positions are within the context")
    _check(_within(step.pages, -1, limits.n_pages), "pages exist")
    last_pages = np.maximum.reduceat(step.positions, starts[:-1]) // PAGE_TOKENS  # (S,)
    _check(_within(last_pages, 0, step.pages.shape[1]), "every position has a page")
    used = np.arange(step.pages.shape[1])[None, :] <= last_pages[:, None]  # (S, max_pages)
    _check(not (used & (step.pages < 0)).any(), "every position has a page")


def _check_window_pages(step: Step, limits: RankLimits) -> None:
    """Every position that a row sees in a window has a page of layers with one."""
    if len(step.window_pages) == 0:
        is_told = limits.n_window_pages == 0 or _within(step.pages, -1, limits.n_window_pages)
        _check(is_told, "pages of layers with a window exist")
        return
    pages, starts = step.window_pages, step.starts
    _check(len(pages) == len(starts) - 1, "every sequence has pages")
    _check(_within(pages, -1, limits.n_window_pages), "pages of layers with a window exist")
    firsts, lasts = (
        reduce.reduceat(step.positions, starts[:-1]) for reduce in (np.minimum, np.maximum)
    )
    begin = np.maximum(0, firsts - limits.window + 1) // PAGE_TOKENS
    end = lasts // PAGE_TOKENS
    _check(_within(end, 0, pages.shape[1]), "every position in a window has a page")
    places = np.arange(pages.shape[1])[None, :]  # (S, max_pages)
    seen = (places >= begin[:, None]) & (places <= end[:, None])
    _check(not (seen & (pages < 0)).any(), "every position in a window has a page")


def _check_slots(step: Step, limits: RankLimits) -> None:
    """Every sequence has slots that exist, and none is written that another sequence uses."""
    _check(step.slots.shape[1] == step.kept.shape[1] == 2, "slots are named in pairs")
    n_sequences = len(step.starts) - 1
    _check(len(step.slots) in (0, n_sequences), "every sequence has a slot, or none is named")
    _check(
        limits.n_slots == 0 or n_sequences <= limits.n_slots, "there is a slot for each sequence"
    )
    _check(_within(step.slots, 0, limits.n_slots), "slots exist")
    _check(len(step.kept) == 0 or len(step.slots) > 0, "states are kept of sequences with slots")
    _check(_within(step.kept[:, 0], 0, step.n_tokens), "states are kept of rows that exist")
    _check(_within(step.kept[:, 1], 0, limits.n_slots), "slots of kept states exist")
    written = np.concatenate([step.slots[:, 1], step.kept[:, 1]])
    _check(len(np.unique(written)) == len(written), "no slot is written twice")
    others = step.slots[step.slots[:, 0] != step.slots[:, 1], 0]
    _check(not np.isin(others, written).any(), "no slot is written that another sequence reads")


def check_shift(shift: KvShift, limits: RankLimits) -> None:
    """Raises ProtocolError where a number of a shift points outside of memory, or where a page
    would be written before it is read."""
    _check(0 < shift.n_tokens <= limits.max_seq_len, "tokens fit the context")
    _check(0 <= shift.n_keep < shift.n_tokens, "tokens that stay are among the sequence's")
    _check(0 < shift.n_drop <= shift.n_tokens - shift.n_keep, "tokens that go come after those")
    n_from = -(-shift.n_tokens // PAGE_TOKENS)
    n_to = -(-(shift.n_tokens - shift.n_drop) // PAGE_TOKENS)
    for pages, n in ((shift.from_pages, n_from), (shift.to_pages, n_to)):
        _check(len(pages) == n, f"{n} pages hold the tokens")
        _check(_within(pages, 0, limits.n_pages), "pages exist")
        _check(len(np.unique(pages)) == n, "no page is named twice")
    is_new = shift.to_pages != shift.from_pages[:n_to]
    _check(not is_new[: shift.n_keep // PAGE_TOKENS].any(), "whole pages that stay stay in place")
    _check(not np.isin(shift.to_pages[is_new], shift.from_pages).any(), "new pages are new")
    _check_window_shift(shift, limits, n_from, n_to)


def _check_window_shift(shift: KvShift, limits: RankLimits, n_from: int, n_to: int) -> None:
    """Pages of layers with a window exist, and none is written before it is read."""
    before, after = shift.from_window_pages, shift.to_window_pages
    sizes = (n_from, n_to) if limits.n_window_pages else (0, 0)
    _check((len(before), len(after)) == sizes, "pages of layers with a window hold the tokens")
    for pages in (before, after):
        _check(_within(pages, -1, limits.n_window_pages), "pages of layers with a window exist")
        held = pages[pages >= 0]
        _check(len(np.unique(held)) == len(held), "no page is named twice")
    n_whole = shift.n_keep // PAGE_TOKENS
    stays = (after[:n_whole] < 0) | (after[:n_whole] == before[:n_whole])
    _check(bool(stays.all()), "whole pages that stay stay in place")
    places = {page: place for place, page in enumerate(before.tolist()) if page >= 0}
    for place, page in enumerate(after.tolist()):
        is_behind = place <= places.get(page, place) <= place + shift.n_drop // PAGE_TOKENS
        _check(is_behind, "a page of a window is read before it is written")


def check_kv_call(call: KvCall, room: KvRoom) -> None:
    """Raises ProtocolError where no root of ours would save or restore these pages, or this
    slot."""
    held = call.held
    if not 0 < len(held.pages) <= room.n_pages:
        raise ProtocolError("the root asks for KV pages that this rank does not have")
    for pages, n_pages in ((held.pages, room.n_pages), (held.window_pages, room.n_window_pages)):
        if not _within(pages, 0, n_pages):
            raise ProtocolError("the root asks for KV pages that this rank does not have")
        if len(np.unique(pages)) != len(pages):
            raise ProtocolError("the root names a KV page twice in one call")
    if held.slot >= room.n_slots:
        raise ProtocolError("the root asks for a slot of states that this rank does not have")
    if len(call.mark) != MARK_BYTES:
        raise ProtocolError(f"the root's mark of saved pages has not {MARK_BYTES} bytes")
    if not _FILE_NAME.fullmatch(call.name):
        raise ProtocolError(f"the root sent {call.name!r:.40} as the name of a file")


def _within(values: np.ndarray, low: int, high: int) -> bool:
    return values.size == 0 or bool(values.min() >= low and values.max() < high)


def _check(holds: bool | np.bool_, rule: str) -> None:
    if not holds:
        raise ProtocolError(f"the root sent a step or a shift that breaks this rule: {rule}")
