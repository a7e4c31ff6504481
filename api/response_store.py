"""The responses that clients may go on with or ask for again: in memory, and not too many."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import orjson

from api.replies.event_stream import Json
from dllama.errors import RequestError

MAX_RESPONSES = 1024
MAX_BYTES = 64 * 1024 * 1024  # of all conversations together, as JSON


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response and the conversation up to and with it, without the instructions."""

    response: Json
    messages: list[Json]
    n_bytes: int


class ResponseStore:
    """Keeps the responses used last; the least recently used are evicted first."""

    def __init__(self, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self._max_responses, self._max_bytes = max_responses, max_bytes
        self._stored: OrderedDict[str, StoredResponse] = OrderedDict()
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._stored)

    def add(self, response: Json, messages: list[Json]) -> None:
        n_bytes = len(orjson.dumps([response, messages]))
        if n_bytes > self._max_bytes:
            return
        self._stored[str(response["id"])] = StoredResponse(response, messages, n_bytes)
        self.n_bytes += n_bytes
        while len(self._stored) > self._max_responses or self.n_bytes > self._max_bytes:
            _, oldest = self._stored.popitem(last=False)
            self.n_bytes -= oldest.n_bytes

    def find(self, response_id: str) -> StoredResponse | None:
        found = self._stored.get(response_id)
        if found is not None:
            self._stored.move_to_end(response_id)
        return found

    def earlier(self, response_id: str | None) -> list[Json]:
        """Returns the conversation of a response. Raises RequestError if it is not stored (any
        more)."""
        if response_id is None:
            return []
        found = self.find(response_id)
        if found is None:
            raise RequestError(
                f"`previous_response_id` names {response_id!r:.100}, which this server does not "
                f"hold: it keeps the last {self._max_responses} responses, in memory, and none "
                "that said `store: false`; send the whole conversation as `input`.",
                param="previous_response_id",
            )
        return found.messages

    def remove(self, response_id: str) -> bool:
        """Removes a response; False if there is none of this id."""
        found = self._stored.pop(response_id, None)
        if found is not None:
            self.n_bytes -= found.n_bytes
        return found is not None
