"""Requests that wait until their tickets are settled."""

from __future__ import annotations

import asyncio

from api.models.tickets import Ticket
from dllama.errors import DllamaError


class Waiters:
    """The tickets that somebody waits for."""

    def __init__(self) -> None:
        self._futures: dict[Ticket, asyncio.Future[None]] = {}

    async def wait(self, ticket: Ticket) -> None:
        """Returns once the ticket is settled. Raises what `fail` is told."""
        if ticket.is_settled:
            return
        self._futures[ticket] = asyncio.get_running_loop().create_future()
        try:
            await self._futures[ticket]
        finally:
            del self._futures[ticket]

    def wake(self) -> None:
        """Wakes those whose tickets are settled."""
        for ticket, future in self._futures.items():
            if ticket.is_settled and not future.done():
                future.set_result(None)

    def fail(self, error: DllamaError) -> None:
        """Ends all waiting."""
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)
