"""Grammar masks that are made in the background: a server is ready before they are, as the first
request seldom has a grammar."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from dllama.engine.constraint import Constraint, ConstraintMaker
from dllama.errors import DllamaError, RequestError
from dllama.requests import Resume


class BackgroundMasks:
    """A ConstraintMaker over one that `load` makes in a thread of its own. Where `load` raises a
    DllamaError, requests with a grammar are refused and all others served."""

    def __init__(self, load: Callable[[], ConstraintMaker]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._maker = self._pool.submit(load)

    def make(
        self,
        grammar: str,
        stop_ids: Collection[int],
        n_left: int | None = None,
        resume: Resume | None = None,
    ) -> Constraint:
        try:
            maker = self._maker.result()
        except DllamaError as error:
            raise RequestError(
                f"this engine cannot follow a grammar: {error}; leave out `response_format`, "
                "`grammar` and the like",
                param="grammar",
            ) from error
        return maker.make(grammar, stop_ids, n_left, resume)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if not self._maker.cancelled() and self._maker.exception() is None:
            self._maker.result().close()
