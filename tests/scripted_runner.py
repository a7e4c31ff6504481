"""The real engine over a model that says what a test wants.

`ScriptedRunner` is a Runner without weights: its pages hold token ids, and its logits follow the
script of the request whose tokens it finds there. `ScriptedEngine` is `dllama.engine`'s own Engine
over it, which also keeps what it was asked, for tests of the routes and of the engine's clients.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise, repeat

import numpy as np

from dllama.config import ModelConfig
from dllama.engine.engine import Engine
from dllama.errors import PeerLost, SessionFileError
from dllama.kv import KvHeld, KvShift
from dllama.nodes import NodeRow, NodesAction, NodesCall, NodesReply
from dllama.requests import Output, Submit
from dllama.step import PAGE_TOKENS, LogitRow, Step
from tests.dllama.engine.history_runner import (
    check_shift,
    check_step,
    history_config,
    logit_row,
)

FILLER_ID = 65  # after the end of a script that has no stop id: "A" for ever
DIM = 4
SESSION_BYTES = 100  # of each saved session
UNLIKELY = -100.0  # the logit of all tokens but one: e^-100 is never drawn

Said = int | np.ndarray  # the next token, or its whole row of logits
Script = Callable[[Submit], Iterable[Said]]


def sure_of(token: int, vocab_size: int) -> np.ndarray:
    """Logits (vocab_size,) float32 of which any sampler draws `token`."""
    logits = np.full(vocab_size, UNLIKELY, np.float32)
    logits[token] = 0.0
    return logits


def with_logprobs(logprobs: dict[int, float], vocab_size: int) -> np.ndarray:
    """Logits (vocab_size,) float32 that are log-probabilities, these for some tokens; the others
    share what is left."""
    rest = (1.0 - np.exp(list(logprobs.values())).sum()) / (vocab_size - len(logprobs))
    logits = np.full(vocab_size, np.log(rest), np.float32)
    logits[list(logprobs)] = list(logprobs.values())
    return logits


def hidden_state(token: int, position: int) -> list[float]:
    """The last hidden state, of DIM numbers, of a token at a position."""
    return [float(position), float(token), float(token % 7), 1.0]


class Answer:
    """The script of one request, and the tokens that stand before its next word. `resumed` are the
    words of the script that another engine has said."""

    def __init__(
        self, prompt: Sequence[int], said: Iterable[Said], resumed: Sequence[int] = ()
    ) -> None:
        self._before = np.array([*prompt, *resumed], np.int32)
        self._n_expected = len(self._before)
        self._script: Iterator[Said] = chain(said, repeat(FILLER_ID))
        for _ in resumed:
            next(self._script)

    def follows(self, tokens: np.ndarray) -> bool:
        """Whether these tokens, the newest last, are this answer so far."""
        n = len(self._before)
        return len(tokens) == self._n_expected and bool(np.array_equal(tokens[:n], self._before))

    def next_word(self, tokens: np.ndarray) -> Said:
        """What comes next; which token was drawn is seen the next time."""
        self._before, self._n_expected = tokens, len(tokens) + 1
        return next(self._script)


class ScriptedRunner:
    """Satisfies dllama.runner.Runner. Loses a node while `loses_node` is set, and then fails to
    recover `n_recover_failures` times; breaks with `fails_with`. Calls about nodes are kept in
    `node_calls`; those that change something are refused with `refusal`, or answered late."""

    def __init__(self, *, vocab_size: int, max_seq_len: int, n_pages: int = 4096) -> None:
        self._config = replace(history_config(vocab_size, max_seq_len), dim=DIM)
        self._n_pages = n_pages
        self._tokens = np.full((n_pages, PAGE_TOKENS), -1, np.int32)
        self._answers: dict[str, Answer] = {}  # by the id of their requests
        self._hidden = np.zeros((0, DIM), np.float32)
        self._saved: dict[str, tuple[bytes, np.ndarray]] = {}
        self._is_lost = False
        self.n_steps = 0
        self.loses_node = False
        self.n_recover_failures = 0
        self.change: str | None = None
        self.node_calls: list[NodesCall] = []
        self.node_rows = [NodeRow("root", "present", 1.0, 2.5, rank=0)]
        self.refusal: str | None = None
        self._late: list[NodesReply] = []
        self.fails_with: Exception | None = None

    def expect(
        self,
        name: str,
        prompt: Sequence[int],
        said: Iterable[Said],
        resumed: Sequence[int] = (),
    ) -> None:
        """Says this after this prompt, once, until told to `forget` it. What has no script is
        answered with FILLER_ID. `resumed` was said before by another engine."""
        self._answers[name] = Answer(prompt, said, resumed)

    def forget(self, name: str) -> None:
        """Ends a script; unknown names are ignored."""
        self._answers.pop(name, None)

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def n_pages(self) -> int:
        return self._n_pages

    @property
    def n_window_pages(self) -> int:
        return 0

    @property
    def weight_bytes(self) -> int:
        return 0

    def counters(self) -> dict[str, int]:
        return {"compute_ns": 0, "wait_ns": 0, "network_ns": 0}

    def run(self, step: Step) -> list[LogitRow]:
        self._refuse_lost()
        if self.fails_with is not None:
            raise self.fails_with
        check_step(step, self._n_pages, self._config.vocab_size)
        self.n_steps += 1
        for source, target in step.copies.tolist():
            self._tokens[target] = self._tokens[source]
        rows = []
        candidates = dict(zip(step.logits_at.tolist(), step.candidates.tolist(), strict=True))
        for sequence, (begin, end) in enumerate(pairwise(step.starts.tolist())):
            pages = step.pages[sequence]
            for row in range(begin, end):
                position = int(step.positions[row])
                place = pages[position // PAGE_TOKENS], position % PAGE_TOKENS
                self._tokens[place] = step.tokens[row]
                if row in candidates:
                    logits = self._logits(self._read(pages, position + 1))
                    rows.append(logit_row(logits, candidates[row]))
        at = step.hidden_at.tolist()
        states = [hidden_state(int(step.tokens[i]), int(step.positions[i])) for i in at]
        self._hidden = np.array(states, np.float32).reshape(-1, DIM)
        return rows

    @property
    def hidden(self) -> np.ndarray:
        return self._hidden

    def shift(self, shift: KvShift) -> None:
        self._refuse_lost()
        check_shift(shift, self._n_pages)
        dropped = np.arange(shift.n_keep, shift.n_keep + shift.n_drop)
        kept = np.delete(self._read(shift.from_pages, shift.n_tokens), dropped)
        for position in range(shift.n_keep // PAGE_TOKENS * PAGE_TOKENS, len(kept)):
            place = shift.to_pages[position // PAGE_TOKENS], position % PAGE_TOKENS
            self._tokens[place] = kept[position]

    @property
    def fingerprint(self) -> bytes:
        return bytes(32)

    def save_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        self._saved[name] = stamp, self._tokens[held.pages]
        return SESSION_BYTES

    def load_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        saved_stamp, tokens = self._saved.get(name, (b"", None))
        if tokens is None or saved_stamp != stamp:
            raise SessionFileError(f"there is no saved session {name!r} of this stamp")
        self._tokens[held.pages] = tokens
        return SESSION_BYTES

    def idle(self) -> None:
        self._refuse_lost()

    @property
    def pending_change(self) -> str | None:
        return self.change

    def recover(self) -> None:
        if self.n_recover_failures > 0:
            self.n_recover_failures -= 1
            raise PeerLost("node 1 is still away", rank=1, host="node-1")
        self.loses_node = self._is_lost = False
        self.change = None
        self._tokens[:] = -1

    def nodes(self, call: NodesCall) -> NodesReply | None:
        if call.action is NodesAction.LIST:
            return NodesReply(call.id, nodes=self.node_rows)
        self.node_calls.append(call)
        if self.refusal is not None:
            return NodesReply(call.id, error=self.refusal)
        self.node_rows = [r for r in self.node_rows if r.address != call.address]
        if call.action is NodesAction.ADD:
            self.node_rows.append(NodeRow(call.address, "joining", call.share, 0.0))
        self._late.append(NodesReply(call.id, nodes=self.node_rows))
        return None

    def node_replies(self) -> list[NodesReply]:
        late, self._late = self._late, []
        return late

    def stats(self) -> list[dict[str, object]]:
        return [{"rank": 0}]

    def close(self) -> None:
        """There is nothing to close."""

    def _refuse_lost(self) -> None:
        if self.loses_node or self._is_lost:
            self._is_lost = True
            self._tokens[:] = -1
            raise PeerLost("node 1 is lost", rank=1, host="node-1")

    def _read(self, pages: np.ndarray, n: int) -> np.ndarray:
        """The tokens (n,) int32 at the beginning of these pages."""
        found: np.ndarray = self._tokens[pages[: -(-n // PAGE_TOKENS)]].ravel()[:n]
        return found

    def _logits(self, tokens: np.ndarray) -> np.ndarray:
        said: Said = FILLER_ID
        for answer in list(self._answers.values()):
            if answer.follows(tokens):
                said = answer.next_word(tokens)
                break
        return said if isinstance(said, np.ndarray) else sure_of(said, self._config.vocab_size)


class ScriptedEngine(Engine):
    """The engine over a ScriptedRunner: `script` is what it says to a request. `gate` limits how
    many steps it takes before the test allows more, so that tests need no clock."""

    def __init__(
        self,
        script: Script,
        *,
        vocab_size: int = 352,
        max_len: int = 256,
        gate: threading.Semaphore | None = None,
        **settings: object,
    ) -> None:
        """`settings` are the Engine's."""
        self.runner = ScriptedRunner(vocab_size=vocab_size, max_seq_len=max_len)
        super().__init__(self.runner, **settings)  # type: ignore[arg-type]
        self.script = script
        self.gate = gate
        self.submitted: list[Submit] = []
        self.aborted: list[str] = []
        self.running: set[str] = set()  # waiting or running

    def submit(self, submit: Submit) -> None:
        self.submitted.append(submit)
        self.running.add(submit.id)
        if submit.pooling is None:
            resumed = submit.resume.tokens if submit.resume is not None else ()
            self.runner.expect(submit.id, submit.tokens, self.script(submit), resumed)
        super().submit(submit)

    def abort(self, sequence_id: str) -> None:
        super().abort(sequence_id)
        if sequence_id in self.running:
            self.aborted.append(sequence_id)
        self._ended([sequence_id])

    def step(self) -> list[Output]:
        if self.gate is not None and not self.gate.acquire(timeout=0.01):
            return []
        outputs = super().step()
        self._ended([output.id for output in outputs if output.finish is not None])
        return outputs

    def _ended(self, ids: list[str]) -> None:
        for name in ids:
            self.runner.forget(name)
            self.running.discard(name)
