"""The main loop of every peer of a comparison: test names in, a line of JSON out for each.

The first line of stdin says how many KV pages the longest test needs; when the peer is ready it
says so. The standard library alone: the interpreters of other engines run it too.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Ready(NamedTuple):
    """A loaded peer: `measure` returns the figures of a test by its name, `tokens_per_s` at
    least."""

    version: str
    measure: Callable[[str], Mapping[str, object]]


def serve(load: Callable[[int], Ready], *, who: int = resource.RUSAGE_SELF) -> None:
    """Loads with the pages of the first line, then measures line by line to the end of stdin. The
    peak of memory is that of `who`: the process, or its children."""
    started = time.perf_counter()
    ready = load(int(json.loads(sys.stdin.readline())["pages"]))
    load_s = time.perf_counter() - started
    print(json.dumps({"load_s": load_s, "version": ready.version}), flush=True)
    for line in sys.stdin:
        found = ready.measure(line.strip())
        peak = resource.getrusage(who).ru_maxrss * 1024
        print(json.dumps({**found, "peak_bytes": peak}), flush=True)
