"""All attacks one after another, and the table of what became of them."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from tests.cluster.fuzz.attacks import MB, Row, attack_daemon, attack_session, toy_cluster
from tests.cluster.fuzz.decoders import DECODERS, Decoder
from tests.cluster.fuzz.insiders import attack_as_root, attack_engine, attack_root

MAX_GROWTH_MB = 48  # of a process: interpreters take some once, and give little back
SOCKET_SHARE = 0.1  # of the frames that go through sockets; decoders are faster


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing below an error is logged meanwhile."""
    log = logging.getLogger("cluster")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def run(n_frames: int, seed: int, limit_s: float) -> Iterator[Row]:
    """Sends about n_frames in all, no socket for longer than `limit_s`."""
    n_socket = int(n_frames * SOCKET_SHARE / 4)
    with toy_cluster() as (worker, runner):
        yield from attack_daemon(worker, n_socket, random.Random(f"{seed} daemon"), limit_s)
        rng = random.Random(f"{seed} session")
        yield from attack_session(worker, runner, n_socket, rng, limit_s)
        n_sessions = max(2, n_socket // 2_000)
        yield attack_as_root(worker, n_sessions, random.Random(f"{seed} root"))
    yield attack_root(max(4, n_socket // 500), random.Random(f"{seed} worker"))
    yield attack_engine(n_socket, random.Random(f"{seed} server"), limit_s)
    each = int(n_frames * (1 - SOCKET_SHARE)) // len(DECODERS)
    for name, decoder in DECODERS.items():
        yield decode(name, decoder, each, random.Random(f"{seed} {name}"))


def decode(name: str, decoder: Decoder, n: int, rng: random.Random) -> Row:
    """Reads n inputs in this process; the slowest one is its latency."""
    here, inputs = psutil.Process(), decoder(rng)
    next(inputs)
    before, worst_s, why, n_read = here.memory_info().rss, 0.0, "", 0
    for _ in range(n):
        began = time.thread_time()
        try:
            next(inputs)
        except Exception as error:  # it is what the table is to show
            why = f"{type(error).__name__}: {error}"
            break
        n_read += 1
        worst_s = max(worst_s, time.thread_time() - began)
    inputs.close()  # type: ignore[attr-defined]
    after = here.memory_info().rss
    return Row(
        f"decoder, {name}", n_read, int(bool(why)), 0, before // MB, after // MB, 0, worst_s, why
    )


def failures(rows: Sequence[Row]) -> list[str]:
    """What is not as it should be."""
    found = []
    for row in rows:
        if row.n_crashes or row.n_hangs or row.why:
            found.append(f"{row.socket}: {row.n_crashes} crashes, {row.n_hangs} hangs; {row.why}")
        if row.after_mb - row.before_mb > MAX_GROWTH_MB:
            found.append(f"{row.socket}: grew from {row.before_mb} to {row.after_mb} MB")
        if not row.socket.startswith("decoder") and not row.served:
            found.append(f"{row.socket}: nobody honest was served")
        if not row.n_frames:
            found.append(f"{row.socket}: no frame was taken")
    return found


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table in Markdown."""
    yield "| socket | frames | crashes | hangs | memory MB | honest served | worst latency |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        served = "-" if row.socket.startswith("decoder") else f"{row.served} times"
        yield (
            f"| {row.socket} | {row.n_frames:,} | {row.n_crashes} | {row.n_hangs} | "
            f"{row.before_mb} to {row.after_mb} | {served} | {row.worst_s * 1e3:.0f} ms |"
        )
    yield f"| all | {sum(row.n_frames for row in rows):,} | | | | | |"
