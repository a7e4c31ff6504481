"""Work in a thread, whose caller is cancelled."""

from __future__ import annotations

import asyncio
import threading

from dllama.hub.threads import in_thread


def test_who_is_cancelled_twice_waits_for_the_end_of_the_work() -> None:
    """A download that is stopped, and whose server then ends: its file is open no more."""
    has_begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        has_begun.set()
        assert may_end.wait(60)
        ended.set()

    async def body() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(has_begun.wait, 60)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not task.done()
        may_end.set()
        await asyncio.wait([task])
        assert task.cancelled() and ended.is_set()

    asyncio.run(body())
