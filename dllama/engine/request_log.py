"""What an engine logs of requests: that their sequences come and end. Never what is in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from dllama.requests import Output, Submit

log = logging.getLogger(__name__)


class RequestLog:
    """Tells of sequences under the ids of their requests, where the log's level is info or less."""

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}  # of open sequences, by their ids

    def arrived(self, submit: Submit) -> None:
        """Tells of a new sequence."""
        if not log.isEnabledFor(logging.INFO):
            return
        self._requests[submit.id] = submit.request_id
        fields = {"prompt_tokens": len(submit.tokens)}
        text = "a sequence has come: %d prompt tokens"
        self._tell(submit.request_id, fields, text, len(submit.tokens))

    def delivered(self, outputs: Iterable[Output]) -> None:
        """Tells of the sequences that end with these outputs."""
        if not self._requests:
            return
        for output in outputs:
            if output.finish is None or output.id not in self._requests:
                continue
            fields = {
                "finish": str(output.finish),
                "cached_tokens": output.n_cached,
                "waited_ms": round(1e3 * output.waited_s, 1),
            }
            request = self._requests.pop(output.id)
            text = "a sequence has ended: %s, %d prompt tokens from the cache, waited %.1f ms"
            self._tell(request, fields, text, *fields.values())

    def aborted(self, sequence_id: str) -> None:
        """Tells of a sequence that nobody reads any more."""
        request = self._requests.pop(sequence_id, None)
        if request is not None:
            self._tell(request, {"finish": "abort"}, "a sequence was aborted")

    def _tell(self, request: str, fields: Mapping[str, object], text: str, *args: object) -> None:
        log.info(text, *args, extra={"request_id": request, "fields": fields})
