"""Measurements on disk, so that the next start costs nothing: kernels by machine and by the version
of the kernels, links by their two machines. A file that is damaged counts as none."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
        kernels = {k.key: k.speeds for k in kept.kernels if _is_new(k.measured_at, now)}
        links = {tuple(k.keys): k.speed for k in kept.links if _is_new(k.measured_at, now)}
        speeds, found = [], []
        for key in keys:
            each = kernels.get(key)
            if each is None or any(each.of(qtype) is None for qtype in types):
                return None
            speeds.append(each)
        for high in range(len(keys)):
            for low in range(high):
                link = links.get((keys[low], keys[high]))
                if link is None:
                    return None
                found.append(MeasuredLink(low, high, link))
        return Measurements(speeds, found)

    def keep(self, keys: Sequence[str], found: Measurements, now: float) -> None:
        """Writes what was measured, in place of what was known. A disk that takes nothing is told
        and else no harm."""
        if self._file is None:
            return
        kept = self._read()
        pairs = {(keys[link.low], keys[link.high]) for link in found.links}
        kernels = [k for k in kept.kernels if k.key not in keys]
        kernels += [KeptKernels(k, now, s) for k, s in zip(keys, found.speeds, strict=True)]
        links = [k for k in kept.links if tuple(k.keys) not in pairs]
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
        return kept


def _is_new(measured_at: float, now: float) -> bool:
    return 0 <= now - measured_at <= MAX_AGE_S
