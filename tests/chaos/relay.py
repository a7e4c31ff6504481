"""A TCP relay before one port of this machine, for links that are bad where no namespaces can be
made. It passes on bytes, late or slowly, or holds them back; it can reset all its connections."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from contextlib import suppress

from benchmarks.lan.wire import LinkRule, Wire

CHUNK = 64 << 10
LOOK_S = 0.02
RETRANSMIT_S = 0.2  # what TCP loses comes after its shortest timeout
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


class Relay:
    """Listens on a port of 127.0.0.1 and passes on to another; runs in a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._rules = {True: LinkRule(), False: LinkRule()}  # True: towards the target
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"relay to {target_port}")
        self._thread.start()

    def set_rules(self, to_target: LinkRule, from_target: LinkRule) -> None:
        """Makes the two ways good or bad. Bytes of a way that is cut wait, as TCP would have it."""
        self._rules = {True: to_target, False: from_target}

    def reset(self) -> None:
        """Ends all connections with RST."""

        async def end_all() -> None:
            for writer in list(self._writers):
                with suppress(OSError):
                    end = writer.get_extra_info("socket")
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(end_all(), self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listening)
        await self._over.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._pass_on(reader, far_writer, True), self._pass_on(far_reader, writer, False)
            )
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_to_target: bool
    ) -> None:
        wire, loop = Wire(), asyncio.get_running_loop()
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                while self._rules[is_to_target].is_cut:
                    await asyncio.sleep(LOOK_S)
                wire.rule = self._rules[is_to_target]
                now_s = loop.time()
                due_s = wire.due_s(now_s, len(data), random.random(), random.random())
                late_s = RETRANSMIT_S if due_s is None else due_s - now_s
                if late_s > 0:
                    await asyncio.sleep(late_s)
                writer.write(data)
                await writer.drain()
        writer.close()
