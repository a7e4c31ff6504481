"""Measurements on disk, so that the next start costs nothing: kernels by machine and by the version
of the kernels, links by their two machines, in any order. A file that is damaged counts as none,
and so does an entry that cannot be."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from cluster.planning.links import LinkSpeed
from cluster.planning.measurements import MeasuredLink, Measurements
from cluster.wire.records import record_of
from dllama.errors import ProtocolError
from dllama.limits import MaxLength
from dllama.qtypes import QType
from dllama.speeds import KernelSpeeds
from kernels.cache import cache_root
from kernels.whole_files import write_whole

log = logging.getLogger(__name__)

MAX_AGE_S = 7 * 86_400.0
MAX_NODES, MAX_LINKS = 256, 2048
MAX_FILE_BYTES = 8 << 20
LEAST_LONGEST = 64 << 10  # bytes of a link's longest exchange, which tells of its bandwidth
Key = Annotated[str, MaxLength(2048)]


@dataclass(frozen=True, slots=True)
class KeptKernels:
    key: Key
    measured_at: float
    speeds: KernelSpeeds


@dataclass(frozen=True, slots=True)
class KeptLink:
    keys: Annotated[list[Key], MaxLength(2)]
    measured_at: float
    speed: LinkSpeed


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is in the file."""

    kernels: Annotated[list[KeptKernels], MaxLength(MAX_NODES)] = field(default_factory=list)
    links: Annotated[list[KeptLink], MaxLength(MAX_LINKS)] = field(default_factory=list)


def measurements_file() -> Path | None:
    """Returns where a root keeps measurements: beside the compiled kernels; None where the user has
    no home."""
    root = cache_root()
    return None if root is None else root.parent / "measured.json"


class MeasurementStore:
    """The measurements in one file; `None` keeps nothing. A key names a machine, its processor,
    its threads and its kernels. The clock is an argument: seconds since 1970."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def find(self, keys: Sequence[str], types: Sequence[QType], now: float) -> Measurements | None:
        """Returns what is known of these nodes, the root first; None unless all of it is."""
        kept = self._read()
        links = {frozenset(k.keys): k.speed for k in kept.links if _is_new(k.measured_at, now)}
        speeds, found = [], []
        for key in keys:
            runs = [k for k in kept.kernels if k.key == key and _is_new(k.measured_at, now)]
            each = _speeds_of([run.speeds for run in runs], types)
            if each is None:
                return None
            speeds.append(each)
        for high in range(len(keys)):
            for low in range(high):
                link = links.get(frozenset((keys[low], keys[high])))
                if link is None:
                    return None
                found.append(MeasuredLink(low, high, link))
        return Measurements(speeds, found)

    def keep(self, keys: Sequence[str], found: Measurements, now: float) -> None:
        """Writes what was measured, in place of what was known of the same types and links. A disk
        that takes nothing is told and else no harm."""
        if self._file is None:
            return
        kept = self._read()
        pairs = {frozenset((keys[link.low], keys[link.high])) for link in found.links}
        new = dict(zip(keys, found.speeds, strict=True))
        kernels = [k for k in (_without(k, new.get(k.key)) for k in kept.kernels) if k is not None]
        kernels += [KeptKernels(key, now, each) for key, each in new.items()]
        links = [k for k in kept.links if frozenset(k.keys) not in pairs]
        links += [KeptLink([keys[a.low], keys[a.high]], now, a.speed) for a in found.links]
        whole = Kept(kernels[-MAX_NODES:], links[-MAX_LINKS:])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, json.dumps(asdict(whole)).encode())
        except OSError as error:
            log.warning("measurements could not be kept in %s: %s", self._file, error)

    def _read(self) -> Kept:
        if self._file is None:
            return Kept()
        try:
            with self._file.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                return Kept()
            kept = record_of(Kept).build(json.loads(data), iter(()))
        except (OSError, ValueError, RecursionError, ProtocolError):
            return Kept()
        assert isinstance(kept, Kept)
        return Kept(
            [each for each in kept.kernels if each.speeds.is_sound],
            [each for each in kept.links if len(each.keys) == 2 and _is_whole(each.speed)],
        )


def _speeds_of(runs: Sequence[KernelSpeeds], types: Sequence[QType]) -> KernelSpeeds | None:
    """Returns the speeds for these types of one node, whose runs measured one type or another;
    None where a type is missing. What is of no type is of the last run."""
    known = {each.qtype: each for run in runs for each in run.types}
    if not runs or not known.keys() >= set(types):
        return None
    return replace(runs[-1], types=[known[qtype] for qtype in sorted(set(types))])


def _without(kept: KeptKernels, new: KernelSpeeds | None) -> KeptKernels | None:
    """Returns an entry without the types that were measured anew; None where it has no others."""
    if new is None:
        return kept
    types = [each for each in kept.speeds.types if new.of(each.qtype) is None]
    return replace(kept, speeds=replace(kept.speeds, types=types)) if types else None


def _is_whole(speed: LinkSpeed) -> bool:
    """Returns whether a link can be as it is kept, and was measured as far as its bandwidth shows:
    no larger payload follows a slow one (cluster/mesh/probe.py), which may have been slow once."""
    return speed.is_sound and speed.points[-1].n_bytes >= LEAST_LONGEST


def _is_new(measured_at: float, now: float) -> bool:
    return 0 <= now - measured_at <= MAX_AGE_S
