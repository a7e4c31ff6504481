"""The number types partial sums cross the wire in. Every codec works row by row, so that a row's
bits never depend on the rows beside it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np

from dllama.collective import Addend
from dllama.errors import ProtocolError
from kernels.matmul.sums import FixedSums, Kind
from kernels.weights.layout import GROUP

MAX_RANKS = 1024


class SyncType(StrEnum):
    EXACT = "exact"  # integers: the same bits for any number of nodes and any cut
    F32 = "f32"  # float32, added in rank order
    BF16 = "bf16"  # the upper halves of float32
    Q80 = "q80"  # blocks of 32 int8 with a float16 scale: 3.8 times smaller

    def kind(self, world_size: int) -> Kind:
        """Returns the sums that a rank makes for this type."""
        if self is not SyncType.EXACT:
            return Kind.PLAIN
        return Kind.FIXED if world_size > 1 else Kind.ROUNDED


class SyncCodec(Protocol):
    """Rows of addends to wire bytes, and their sum."""

    def row_bytes(self, cols: int) -> int: ...

    def encode(self, x: Addend, rows: slice, out: np.ndarray) -> bytes:
        """Writes these rows of x (T, cols) to out (n * row_bytes,) uint8; returns the bytes that
        follow, which are few and mostly none."""
        ...

    def add_up(self, wires: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Writes the sum of every rank's bytes, in rank order, to out (n, cols) float32. Raises
        ProtocolError where they are not those of as many rows."""
        ...


class F32Codec:
    """Partials as they are."""

    def row_bytes(self, cols: int) -> int:
        return 4 * cols

    def encode(self, x: Addend, rows: slice, out: np.ndarray) -> bytes:
        part = floats_of(x)[rows]
        out.view("<f4").reshape(part.shape)[:] = part
        return b""

    def add_up(self, wires: Sequence[np.ndarray], out: np.ndarray) -> None:
        for rank, wire in enumerate(wires):
            _check_size(rank, wire, len(out) * self.row_bytes(out.shape[1]))
            values = wire.view("<f4").reshape(out.shape)
            if rank == 0:
                out[:] = values
            else:
                out += values


class Bf16Codec:
    """The upper halves of float32, rounded to the nearest, ties to even."""

    def row_bytes(self, cols: int) -> int:
        return 2 * cols

    def encode(self, x: Addend, rows: slice, out: np.ndarray) -> bytes:
        part = np.ascontiguousarray(floats_of(x)[rows])
        bits = part.view(np.uint32)
        halves = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        halves[np.isnan(part)] = 0x7FC0
        out.view("<u2").reshape(part.shape)[:] = halves
        return b""

    def add_up(self, wires: Sequence[np.ndarray], out: np.ndarray) -> None:
        out[:] = 0
        for rank, wire in enumerate(wires):
            _check_size(rank, wire, len(out) * self.row_bytes(out.shape[1]))
            bits = wire.view("<u2").reshape(out.shape).astype(np.uint32) << 16
            out += bits.view(np.float32)


class Q80Codec:
    """Blocks of 32 within a row (the last may be short): first all scales, then all int8."""

    def row_bytes(self, cols: int) -> int:
        return cols + 2 * n_blocks(cols)

    def encode(self, x: Addend, rows: slice, out: np.ndarray) -> bytes:
        from kernels.wire import q80 as kernels

        part = floats_of(x)[rows]
        scales = np.empty((len(part), n_blocks(part.shape[1])), np.float32)
        kernels.block_scales(part, scales)
        wire_scales, values = _q80_parts(out, part.shape)
        wire_scales[:] = scales
        scales[:] = wire_scales  # the receiver's scales, so that rounding fits them
        kernels.quantize(part, scales, values)
        return b""

    def add_up(self, wires: Sequence[np.ndarray], out: np.ndarray) -> None:
        from kernels.wire import q80 as kernels

        for rank, wire in enumerate(wires):
            _check_size(rank, wire, len(out) * self.row_bytes(out.shape[1]))
            wire_scales, values = _q80_parts(wire, out.shape)
            kernels.add_quantized(values, wire_scales.astype(np.float32), out, rank == 0)


class ExactCodec:
    """The lower halves of fixed-point sums, then records of the groups that need more."""

    def __init__(self) -> None:
        from kernels.wire.fixed import FixedAdder

        self._adder = FixedAdder(MAX_RANKS)

    def row_bytes(self, cols: int) -> int:
        return 4 * cols

    def encode(self, x: Addend, rows: slice, out: np.ndarray) -> bytes:
        from kernels.wire.fixed import wide_groups

        assert isinstance(x, FixedSums), "a rank that makes exact sums sends them"
        low = x.low[rows]
        out.view("<i4").reshape(low.shape)[:] = low
        return wide_groups(x, rows).tobytes()

    def add_up(self, wires: Sequence[np.ndarray], out: np.ndarray) -> None:
        n_bytes = 4 * out.size
        if all(len(wire) == n_bytes for wire in wires):  # nearly always
            self._adder.add(wires, out)
        else:
            self._add_up_wide(wires, out)

    def _add_up_wide(self, wires: Sequence[np.ndarray], out: np.ndarray) -> None:
        from kernels.wire.fixed import WIDE, add_wide

        lows, wides, n_bytes = [], [], 4 * out.size
        for rank, wire in enumerate(wires):
            extra = len(wire) - n_bytes
            if extra < 0 or extra % WIDE.itemsize or extra > 2 * n_bytes:
                raise _wrong_size(rank, wire, n_bytes)
            lows.append(wire[:n_bytes].view("<i4").reshape(out.shape))
            wides.append(wire[n_bytes:].view(WIDE))
            _check_places(rank, wides[-1], len(out), out.shape[1] // GROUP)
        self._adder.add(lows, out)
        add_wide(lows, wides, out)


def rows_in_place(x: Addend, rows: slice) -> np.ndarray | None:
    """Returns these rows of x (T, cols) as a view, (n,) uint8, where they travel as they are in
    memory and stay there until the sum is made, as most exact sums do; else None."""
    from kernels.wire.fixed import wide_groups

    if not isinstance(x, FixedSums):
        return None
    low = x.low[rows]
    is_whole = low.flags.c_contiguous and not len(wide_groups(x, rows))
    return low.reshape(-1).view(np.uint8) if is_whole else None


def _check_places(rank: int, wide: np.ndarray, n_rows: int, n_groups: int) -> None:
    """Raises ProtocolError for records of rows and groups that do not exist, or come twice."""
    if not len(wide):
        return
    row, group = wide["row"].astype(np.int64), wide["group"].astype(np.int64)
    is_inside = (row >= 0) & (row < n_rows) & (group >= 0) & (group < n_groups)
    if not is_inside.all() or len(np.unique(row * n_groups + group)) < len(wide):
        raise ProtocolError(
            f"rank {rank} sent wide sums of places outside of {n_rows} rows and {n_groups} groups, "
            "or one twice; install the same dllama on every node"
        )


def _check_size(rank: int, wire: np.ndarray, n_bytes: int) -> None:
    if len(wire) != n_bytes:
        raise _wrong_size(rank, wire, n_bytes)


def _wrong_size(rank: int, wire: np.ndarray, n_bytes: int) -> ProtocolError:
    return ProtocolError(
        f"rank {rank} sent {len(wire)} bytes to a collective that expects {n_bytes}; install the "
        "same dllama on every node"
    )


def floats_of(x: Addend) -> np.ndarray:
    """Returns the addend of a type that travels as float numbers."""
    assert isinstance(x, np.ndarray), "exact sums travel as they are"
    return x


def n_blocks(cols: int) -> int:
    return -(-cols // 32)


CODECS: dict[SyncType, type[SyncCodec]] = {
    SyncType.EXACT: ExactCodec,
    SyncType.F32: F32Codec,
    SyncType.BF16: Bf16Codec,
    SyncType.Q80: Q80Codec,
}


def make_codec(sync_type: SyncType) -> SyncCodec:
    """Returns the codec of a type with its kernels compiled, so that its first call in a step costs
    no more than others."""
    codec = CODECS[sync_type]()
    x: Addend = np.zeros((1, 32), np.float32)
    if sync_type is SyncType.EXACT:
        x = FixedSums.zeros(1, 32)
    wire = np.zeros(codec.row_bytes(32), np.uint8)
    codec.encode(x, slice(0, 1), wire)
    codec.add_up([wire], np.zeros((1, 32), np.float32))
    return codec


def _q80_parts(wire: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns scales (T, blocks) float16 and values (T, cols) int8 of a wire buffer, as views."""
    rows, cols = shape
    n_scale_bytes = 2 * rows * n_blocks(cols)
    scales = wire[:n_scale_bytes].view("<f2").reshape(rows, -1)
    return scales, wire[n_scale_bytes:].view(np.int8).reshape(rows, cols)
