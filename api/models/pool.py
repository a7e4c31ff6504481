"""The models of a router: loads those that requests name, and lets others go for them. What is done
and when decides LoadScheduler; this is what does it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from api.config import AnswerDefaults
from api.models.entry import ModelEntry, ModelSource
from api.models.events import ModelEvents
from api.models.life import ModelLife
from api.models.load_scheduler import LoadScheduler
from api.models.names import ModelNames
from api.models.refusals import gone, not_loaded, refused, stopping, unusable
from api.models.residents import Limits, Phase, Resident
from api.models.status import ModelStatus, StatusBoard, status_of
from api.models.texts import ModelTexts
from api.models.tickets import Act, Command, Ticket
from api.models.waiters import Waiters
from api.served_model import ServedModel
from dllama.errors import ConfigError, DllamaError
from dllama.requests import EngineState

log = logging.getLogger(__name__)


class ModelPool:
    """Satisfies api.models.models.Models. Each model that is loaded has an engine of its own."""

    def __init__(
        self,
        entries: Iterable[ModelEntry],
        source: ModelSource,
        limits: Limits,
        *,
        autoloads: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigError where two models have the same name. Without `autoloads` only those
        requests load a model that say so."""
        self._source, self._clock = source, clock
        self.autoloads, self.limits = autoloads, limits
        self._scheduler = LoadScheduler(limits)
        self._texts = ModelTexts(source)
        self._lives: dict[str, ModelLife] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters = Waiters()
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._reloading = asyncio.Lock()
        self.events = ModelEvents()
        self._board = StatusBoard(self.events)
        self._names = ModelNames(entries)
        self._add_all()

    # ---- Models
    def all(self) -> tuple[ServedModel, ...]:
        found = (self._lives[entry.name].model for entry in self.entries() if self._is_up(entry))
        return tuple(model for model in found if model is not None)

    def knows(self, name: str) -> bool:
        return self._names.knows(name)

    def defaults_of(self, name: str | None) -> AnswerDefaults:
        return self.entry(name).defaults

    @asynccontextmanager
    async def use(
        self, name: str | None, *, loads: bool | None = None, keep_s: float | None = None
    ) -> AsyncIterator[ServedModel]:
        ticket = await self._ask(name, self.autoloads if loads is None else loads)
        await self._settled(ticket)
        try:
            yield self._model_of(ticket.name)
        finally:
            self._scheduler.release(ticket.name, self._clock(), keep_s)
            self._act()

    @contextmanager
    def hold(self, model: ServedModel) -> Iterator[None]:
        name = self._names.entry(model.id).name
        self._scheduler.hold(name)
        try:
            yield
        finally:
            self._scheduler.release(name, self._clock())
            self._act()

    def last_load(self, model: ServedModel) -> tuple[float, float] | None:
        resident = self._scheduler.resident(self._names.entry(model.id).name)
        return resident.load_began_s, resident.loaded_s

    def look(self, name: str | None) -> ServedModel:
        entry = self.entry(name)
        if not self._is_up(entry):
            raise not_loaded(self._names.usable(name).name)
        return self._model_of(entry.name)

    async def shown(self, name: str | None, *, is_exact: bool = False) -> ServedModel:
        entry = self.entry(name)
        if self._is_up(entry):
            return self._model_of(entry.name)
        return await self._texts.read(self._names.usable(name))

    def not_serving(self) -> EngineState | None:
        return None  # a router serves, whatever its models do

    async def start(self) -> None:
        for entry in [one for one in self.entries() if one.loads_on_startup]:
            try:
                await self.load(entry.name)
            except DllamaError as error:  # the others are served all the same
                log.error("the model %s is not loaded: %s", entry.name, error)

    def stop(self) -> None:
        self._is_stopping = True
        self.events.close()
        self._waiters.fail(stopping())

    async def close(self) -> None:
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        for life in self._lives.values():
            life.leave()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- the list
    def entries(self) -> tuple[ModelEntry, ...]:
        return self._names.entries()

    def entry(self, name: str | None) -> ModelEntry:
        """Returns the model of a name, the only one for None. Raises ApiError."""
        return self._names.entry(name)

    def status(self, entry: ModelEntry) -> ModelStatus:
        """Returns how far a model is."""
        life = self._lives.get(entry.name)
        state = None if life is None else life.engine.client.state
        return status_of(entry, self._scheduler.resident(entry.name), state)

    def usage(self, entry: ModelEntry) -> dict[str, int]:
        """Returns the memory that a model takes, if it is loaded, and the requests that use it."""
        resident = self._scheduler.resident(entry.name)
        is_there = resident.phase is not Phase.UNLOADED
        return {
            "needed_bytes": resident.need_bytes * is_there,
            "open_requests": resident.n_leases,
            "loads": resident.n_loads,
        }

    def expires_in_s(self, entry: ModelEntry) -> float:
        """Returns for how long a model stays loaded if nobody asks it anything."""
        return self._scheduler.resident(entry.name).sleeps_in_s(self._clock())

    @property
    def n_waiting(self) -> int:
        """Requests that wait for a model to be loaded."""
        return self._scheduler.n_waiting

    def text_of(self, entry: ModelEntry) -> ServedModel | None:
        """Returns what is known of a model without reading files."""
        return self._texts.known(entry)

    async def reload(self) -> None:
        """Reads the list anew. Models that are gone or have changed are unloaded first. Raises
        ConfigError where the list is wrong, which then stays as it was."""
        async with self._reloading:
            await self._replace(ModelNames(await asyncio.to_thread(self._source.entries)))

    async def _replace(self, names: ModelNames) -> None:
        before = self.entries()
        self._names = names
        self._add_all()
        self._texts.forget()
        removed = [entry.name for entry in before if not names.has(entry.name)]
        changed = [entry.name for entry in before if not names.holds(entry)]
        for name in removed:
            self._scheduler.refuse_waiting(name)
        for entry in self.entries():
            if entry.fault:
                self._scheduler.refuse_waiting(entry.name, str(unusable(entry)))
        for name in changed:
            self._scheduler.unload(name, self._clock())
        self._act()
        ends = [self._lives[name].ended.wait() for name in changed if name in self._lives]
        await asyncio.gather(*ends)
        for name in removed:
            self._scheduler.remove(name)
            self._board.remove(name)
        self.events.tell("*", "models_reload")
        self._act()

    def _add_all(self) -> None:
        for entry in self.entries():
            self._scheduler.add(Resident(entry.name, entry.is_pinned, entry.idle_s, entry.stop_s))
            self._board.add(entry.name, self.status(entry))

    # ---- by hand
    async def load(self, name: str) -> bool:
        """Begins to load a model, or has it wait for its turn or its end. Returns whether it was
        missing. Raises ApiError, and DllamaError where it cannot be loaded."""
        if self._scheduler.resident(self.entry(name).name).is_to_stay:
            return False
        ticket = await self._ask(name, True, only_loads=True)
        self._act()
        if ticket.refusal is not None:
            raise refused(ticket.refusal)
        return True

    def unload(self, name: str) -> bool:
        """Has a model leave, once its answers have ended. One that loads is loaded no further, and
        one that waits for its turn by hand waits no more. Returns whether there was any of this."""
        wanted = self.entry(name).name
        waits = self._scheduler.cancel_load(wanted)
        is_there = self._scheduler.unload(wanted, self._clock())
        self._act()
        return is_there or waits

    # ---- requests
    async def _ask(self, name: str | None, loads: bool, *, only_loads: bool = False) -> Ticket:
        if self._is_stopping:
            raise stopping()
        entry, n_bytes = self._names.usable(name), 0
        if self._scheduler.resident(entry.name).phase is Phase.UNLOADED:
            if not loads:
                raise not_loaded(entry.name)
            n_bytes = await asyncio.to_thread(self._source.needed_bytes, entry)
            entry = self._names.usable(name)  # the list may be another by now
        return self._scheduler.ask(entry.name, n_bytes, self._clock(), only_loads=only_loads)

    async def _settled(self, ticket: Ticket) -> None:
        """Waits until a ticket is granted. Raises DllamaError where it is refused."""
        self._act()
        try:
            await self._waiters.wait(ticket)
        except BaseException:
            if ticket.is_granted:
                self._scheduler.release(ticket.name, self._clock())
            self._scheduler.give_up(ticket)
            self._act()
            raise
        if ticket.refusal is not None:
            raise refused(ticket.refusal)

    def _act(self) -> None:
        """Does what the scheduler has decided, and tells those who wait."""
        now_s = self._clock()
        while not self._is_stopping:
            done = [self._do(command) for command in self._scheduler.decide(now_s)]
            if all(done):
                break
        self._waiters.wake()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self._scheduler.due_s(now_s)
        if not self._is_stopping and not math.isinf(due_s):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due_s - now_s), self._act)
        self._tell()

    def _do(self, command: Command) -> bool:
        """Carries out a command. Returns whether it could be: else another decision is due."""
        if command.act is Act.UNLOAD:
            self._lives[command.name].leave()
            return True
        name = command.name
        try:
            entry = self._names.entry(name)
            if entry.fault:
                raise ConfigError(entry.fault)
            # The model may be another than when it was asked for.
            if self._scheduler.puts_back(name, self._source.needed_bytes(entry)):
                return False
            engine = self._source.engine(entry)
        except Exception as error:  # of its files or settings: the other models go on
            is_known = isinstance(error, DllamaError | OSError)
            log.error("the model %s is not loaded: %s", name, error, exc_info=not is_known)
            self._scheduler.failed(name, str(error), self._clock())
            self._scheduler.ended(name, self._clock())
            return False
        life = self._lives[name] = ModelLife(entry, engine, self._texts)
        task = asyncio.create_task(self._live(life), name=f"model {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _live(self, life: ModelLife) -> None:
        """Runs an engine from its start to its end."""
        name = life.entry.name

        def loaded() -> None:
            self._scheduler.loaded(name, self._clock())
            self._act()

        try:
            failure = await life.run(loaded, self._tell)
            if failure is not None:
                reason, short = failure
                log.error("the model %s is gone: %s", name, reason)
                self._scheduler.failed(name, reason, self._clock(), is_short=short)
        finally:
            try:
                await life.end()
            finally:
                del self._lives[name]
                self._scheduler.ended(name, self._clock())
                life.ended.set()
                self._act()

    def _is_up(self, entry: ModelEntry) -> bool:
        return self._scheduler.resident(entry.name).phase is Phase.LOADED

    def _model_of(self, name: str) -> ServedModel:
        life = self._lives.get(name)
        if life is None or life.model is None:
            raise gone(name)  # its engine has just ended
        return life.model

    def _tell(self) -> None:
        """Tells listeners what has changed."""
        for entry in self.entries():
            self._board.note(entry.name, self.status(entry))
