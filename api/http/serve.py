"""Serves until it is told to stop, and then stops without cutting anybody off too early."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

from api.answers.sequence import AnswerSequence
from api.context import CONTEXT, ApiContext
from api.http.acceptor import Acceptor, room_for_connections
from api.http.listener import listen_all, shown_url

log = logging.getLogger(__name__)

DRAIN_S = 30.0  # how long answers may continue after a signal
LAST_WORDS_S = 1.0  # for a client to take the reason why its answer ends
KEEP_ALIVE_S = 75.0  # a connection without a request, after its first; as nginx has it
MAX_LINE_BYTES = MAX_HEADER_BYTES = 8190  # of the request line, and of each header
MAX_HEADERS = 128
LINGER_S = 5.0  # how long an oversized body is read and dropped, so that its sender sees the 413
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def make_runner(app: web.Application) -> web.AppRunner:
    """Returns a runner whose handlers are cancelled when their client leaves, which frees
    sequences."""
    return web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=1.0,
        lingering_time=LINGER_S,
        keepalive_timeout=KEEP_ALIVE_S,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
    )


async def serve(
    app: web.Application,
    hosts: Sequence[str],
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
    drain_s: float = DRAIN_S,
) -> None:
    """Serves until SIGTERM, SIGINT or `stop`; then says so (/health and new requests get a 503),
    lets those at work finish for `drain_s` seconds and aborts the rest.

    One of `hosts` may name a unix socket (api.http.listener.unix_path). `on_ready` hears the URL of
    the first; port 0 picks a free port. Raises ConfigError if an address cannot be had, in which
    case nothing was started.
    """
    stop = stop or asyncio.Event()
    runner = make_runner(app)
    try:
        await runner.setup()
        assert runner.server is not None, "the runner is set up"
        listeners = await listen_all(runner.server, hosts, port)
        with accepting(runner, listeners, tls):
            async with silent_ones_closed(runner):
                with stopping_on_signals(stop):
                    if on_ready is not None:
                        on_ready(shown_url(listeners, hosts[0], tls))
                    await stop.wait()
                await finish(app, drain_s)
    finally:
        await runner.cleanup()


@contextmanager
def accepting(
    runner: web.AppRunner, listeners: list[socket.socket], tls: ssl.SSLContext | None
) -> Iterator[None]:
    """Accepts connections for as long as this lasts."""
    server, silent = runner.server, runner.app[CONTEXT].silent
    assert server is not None, "the runner is set up"
    acceptor = Acceptor(
        server, tls, lambda: silent.make_room(server, time.monotonic()), room_for_connections()
    )
    acceptor.add(listeners)
    try:
        yield
    finally:
        acceptor.close()


@asynccontextmanager
async def silent_ones_closed(runner: web.AppRunner) -> AsyncIterator[None]:
    """Closes connections that bring no request, for as long as this lasts."""
    assert runner.server is not None, "the runner is set up"
    silent = runner.app[CONTEXT].silent
    watch = asyncio.create_task(silent.watch(runner.server), name="close silent connections")
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def finish(app: web.Application, drain_s: float) -> None:
    """Waits for open requests; ends the rest of them with a reason, and by force those that do not
    end."""
    context = app[CONTEXT]
    context.is_stopping = True
    context.models.stop()
    if context.generating:
        log.warning(
            "stopping: %d requests may finish within %g s", len(context.generating), drain_s
        )
        _, late = await asyncio.wait(list(context.generating), timeout=drain_s)
        if late:
            interrupt_all(context)
            _, late = await asyncio.wait(late, timeout=LAST_WORDS_S)
        for task in late & context.generating:
            task.cancel()


def interrupt_all(context: ApiContext) -> None:
    open_now = [one for meter in context.meters.values() for _, one in meter.sequences()]
    for sequence in open_now:
        if isinstance(sequence, AnswerSequence):
            sequence.interrupt(
                "The server has stopped before this answer was complete; send the request again "
                "in a moment."
            )


@contextmanager
def stopping_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Sets `stop` on the first signal; the second one then has its usual, harsher effect."""
    loop = asyncio.get_running_loop()
    handled = []
    for number in SIGNALS:
        try:
            loop.add_signal_handler(number, stop.set)
        except (NotImplementedError, RuntimeError, ValueError):  # not the main thread
            continue
        handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
