"""Listens, until it is told to stop, and then stops without cutting anybody off too early."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from api.context import CONTEXT
from dllama.errors import ConfigError

log = logging.getLogger(__name__)

GRACE_S = 5.0  # streams may go on for so long after a signal
LINGER_S = 5.0  # an oversized body is read and dropped for so long, so that its sender sees the 413
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner whose handlers are cancelled when their client leaves, which frees sequences."""
    return web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=1.0,
        lingering_time=LINGER_S,
    )


async def serve(
    app: web.Application,
    host: str,
    port: int,
    *,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
    grace_s: float = GRACE_S,
) -> None:
    """Serves until SIGTERM, SIGINT or `stop`; then takes no more requests, lets those at work
    finish for `grace_s` seconds and aborts the rest.

    `on_ready` hears the URL (port 0 picks a free port). Raises ConfigError if the address cannot
    be had, in which case nothing was started.
    """
    stop = stop or asyncio.Event()
    runner = make_runner(app)
    try:
        await runner.setup()
        site = await listen(runner, host, port)
        with stopping_on_signals(stop):
            if on_ready is not None:
                on_ready(f"http://{display_host(host)}:{runner.addresses[0][1]}")
            await stop.wait()
        await site.stop()
        await finish(app, grace_s)
    finally:
        await runner.cleanup()


async def listen(runner: web.AppRunner, host: str, port: int) -> web.TCPSite:
    """Opens the port; ConfigError says what to do if that fails."""
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "another program listens there; stop it or choose another --port"
        elif error.errno == errno.EACCES:
            reason = "this user may not open it; choose a --port above 1023"
        else:
            reason = f"{error.strerror or error}; check --host and --port"
        raise ConfigError(f"The server cannot listen on {host} port {port}: {reason}.") from error
    except OverflowError as error:
        raise ConfigError(f"The port {port} does not exist; choose one up to 65535.") from error
    return site


async def finish(app: web.Application, grace_s: float) -> None:
    """Waits for open requests, then cancels what is left of them."""
    context = app[CONTEXT]
    context.is_stopping = True
    if context.generating:
        log.info("stopping; %d requests may finish within %g s", len(context.generating), grace_s)
        _, late = await asyncio.wait(list(context.generating), timeout=grace_s)
        for task in late & context.generating:
            task.cancel()


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


def display_host(host: str) -> str:
    """The host as a URL has it; a wildcard is shown as the address that works from here."""
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
