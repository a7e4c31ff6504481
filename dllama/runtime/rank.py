"""One rank's share of a model, ready to compute: weights, KV pages, scratch and a thread team."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dllama.collective import Collective, SoloCollective
from dllama.config import ModelConfig
from dllama.errors import ConfigError
from dllama.kv import KvHeld, KvShift
from dllama.kv_type import KvType
from dllama.qtypes import QType, row_bytes
from dllama.runtime.executor import Executor
from dllama.runtime.forward import forward
from dllama.runtime.kv_files import FilePart, Tick, read_pages, write_pages
from dllama.runtime.linear import format_name
from dllama.runtime.logit_rows import encode_part, merge_parts
from dllama.runtime.ops import Ops
from dllama.runtime.rows import rows_of
from dllama.runtime.state import RunState, allocate
from dllama.runtime.weights import Weights, build_weights
from dllama.sharding.units import SumUnits
from dllama.step import MAX_LOGIT_ROWS, NO_SLOT, LogitRow, Step
from dllama.weight_source import TensorFeed
from kernels.attention.kv_pages import KvPages
from kernels.attention.latent import shift_latents
from kernels.attention.shift_keys import shift_keys
from kernels.matmul.sums import Kind
from kernels.team import STATE_WORDS, Team
from kernels.weights.dequantize import dequantize


class RankModel:
    """Computes steps on one rank. Not thread-safe: one caller, one step at a time."""

    def __init__(self, weights: Weights, state: RunState, team: Team, embed_qtype: QType) -> None:
        self.weights, self.state, self.team = weights, state, team
        self._embed_qtype, self._embed_format = embed_qtype, format_name(embed_qtype)
        self._ops = Ops(weights, state, team.state)
        self.executor = Executor(state.max_pages, weights.config)
        self.hidden = np.zeros((0, weights.config.dim), np.float32)  # (H, dim), of the last step

    @classmethod
    def load(
        cls, config: ModelConfig, tensors: TensorFeed, *, n_pages: int,
        max_step_tokens: int, n_threads: int, vocab_start: int, embed_qtype: QType,
        units: SumUnits, kind: Kind, kv_type: KvType = KvType.F16,
        progress: np.ndarray | None = None, may_shift: bool = True,
    ) -> RankModel:  # fmt: skip
        """Packs this rank's cut and allocates its state and thread team.

        `units` are those of the whole model, `kind` says how parts of sums are made: exactly,
        rounded for a single rank or not, or in float32.

        `progress`, int64 (kernels.team.STATE_WORDS,) aligned to 64 bytes, may lie in shared memory:
        its first word grows with every kernel, for a watchdog to read. Where no sequence is said to
        outgrow its context (`may_shift`), the kernel for that is compiled when one does.
        """
        if n_pages < 1 or max_step_tokens < 1:
            raise ConfigError(
                f"{n_pages} KV pages and steps of {max_step_tokens} tokens leave no room to work; "
                "there must be at least one of each"
            )
        team = Team(n_threads, progress)
        try:
            weights = build_weights(config, tensors, team.state, vocab_start, units, kind)
            state = allocate(
                weights, kv_type=kv_type, n_pages=n_pages, max_tokens=max_step_tokens,
                max_logits=MAX_LOGIT_ROWS, n_threads=n_threads, kind=kind,
            )  # fmt: skip
            model = cls(weights, state, team, embed_qtype)
            model._warm_up(may_shift=may_shift)
        except BaseException:
            team.close()
            raise
        return model

    def _warm_up(self, *, may_shift: bool) -> None:
        """Runs one token through the whole model, so that kernels are compiled or read from the
        cache now and not inside the first request, and the most frequent step is recorded. No
        sequence owns the page it writes."""
        one = np.zeros(1, np.int32)
        step = Step(one, one, np.array([0, 1], np.int32), one[None], one, np.array([1], np.int32))
        row = np.zeros((1, row_bytes(self._embed_qtype, self.weights.config.dim)), np.uint8)
        settled, self.executor.alike_before = self.executor.alike_before, 0
        self.forward(step, row, SoloCollective())
        self.executor.alike_before = settled
        if may_shift and self.weights.config.delta is None:
            self.shift(KvShift(2, 0, 1, one, one, one, one))

    def forward(
        self, step: Step, embed_rows: np.ndarray, comm: Collective
    ) -> list[LogitRow] | None:
        """Returns the logits of `step.logits_at` on rank 0, None elsewhere.

        `embed_rows` uint8 (T, row bytes) are the raw embedding rows of the step's tokens.
        Raises PeerLost; ConfigError where a step is larger than what was planned for.
        """
        self._check(step)
        _copy_pages(self.state.kv, step.copies)
        _copy_pages(self.state.window_kv, step.window_copies)
        x = self.state.x[: step.n_tokens]
        dequantize(self._embed_format, embed_rows, x)
        if self.weights.config.embedding_scale != 1:
            x *= np.float32(self.weights.config.embedding_scale)
        self._ops.begin(self.executor.begin(rows_of(step), comm))
        if not self.executor.replay(self._ops, comm):
            forward(self.weights, self._ops, comm, self.executor)
            self.executor.end(self._ops)
        part = encode_part(
            self.state.logits[: len(step.logits_at)], self.weights.n_tokens,
            self.weights.vocab_start, self.weights.units.vocab, step.candidates, self.state,
            self.team.state,
        )  # fmt: skip
        parts = comm.gather(part)
        if parts is None:
            return None
        if len(step.hidden_at) or len(self.hidden):
            self.hidden = self._last_states(self._ops.states_at(step.hidden_at))
        unit, n_tokens = self.weights.units.vocab, self.weights.config.n_tokens
        return merge_parts(parts, step.candidates, unit, n_tokens)

    def shift(self, shift: KvShift) -> None:
        """Moves this rank's keys and values of a sequence, before the next step."""
        weights, state, config = self.weights, self.state, self.weights.config
        assert config.delta is None, "a state cannot forget some of its tokens"
        if (latent := config.latent) is not None:
            if weights.n_kv_heads:
                shift_latents(
                    self.team.state, state.kv.values, shift.from_pages, shift.to_pages,
                    shift.n_keep, shift.n_drop, shift.n_tokens - shift.n_drop, latent.kv_rank,
                    latent.width, weights.rotations.inv_freq[0],
                )  # fmt: skip
            return
        has_window = np.array([config.is_windowed(i) for i in range(config.n_layers)])
        moves = (
            (state.kv, shift.from_pages, shift.to_pages, ~has_window),
            (state.window_kv, shift.from_window_pages, shift.to_window_pages, has_window),
        )
        for kv, from_pages, to_pages, layers in moves:
            if weights.n_kv_heads and layers.any():
                shift_keys(
                    self.team.state, kv.keys, kv.values, from_pages, to_pages,
                    shift.n_keep, shift.n_drop, shift.n_tokens - shift.n_drop,
                    weights.rotations.by_layer[layers], config.head_dim,
                )  # fmt: skip

    def save_kv(self, path: Path, held: KvHeld, mark: bytes, tick: Tick) -> int:
        """Writes what is held to a file; returns its bytes. Raises SessionFileError."""
        return write_pages(path, self._parts(held), mark, tick, self._states_in(held.slot))

    def load_kv(self, path: Path, held: KvHeld, mark: bytes, tick: Tick) -> int:
        """Reads what save_kv wrote; returns the bytes of the file. Raises SessionFileError."""
        return read_pages(path, self._parts(held), mark, tick, self._states_in(held.slot))

    def _parts(self, held: KvHeld) -> list[FilePart]:
        return [
            FilePart(self.state.kv, held.pages.tolist()),
            FilePart(self.state.window_kv, held.window_pages.tolist()),
        ]

    def _states_in(self, slot: int) -> list[np.ndarray]:
        """Returns views of what a slot holds, layer by layer; nothing of NO_SLOT."""
        states = self.state.states
        if states is None or slot == NO_SLOT:
            return []
        return [array[layer, slot] for array in states[:2] for layer in range(len(array))]

    def _last_states(self, x: np.ndarray) -> np.ndarray:
        """Returns the input of the head, (H, dim) float32, for the last layer's states x (H,
        dim)."""
        config, norm = self.weights.config, self.weights.norm
        wide = x.astype(np.float64)
        if config.has_layer_norm:
            wide -= wide.mean(axis=1, keepdims=True)
        mean_square = np.square(wide).mean(axis=1, keepdims=True)
        scale = 1.0 / np.sqrt(mean_square + config.norm_epsilon)
        states: np.ndarray = (wide * scale).astype(np.float32) * norm[: config.dim]
        states += norm[config.dim :] if norm.size > config.dim else np.float32(0)
        return states

    def _check(self, step: Step) -> None:
        if step.n_tokens > len(self.state.x) or len(step.logits_at) > len(self.state.last):
            raise ConfigError(
                f"a step of {step.n_tokens} tokens and {len(step.logits_at)} rows of logits is "
                f"larger than the {len(self.state.x)} and {len(self.state.last)} this rank has "
                "room for; lower --max-batch or the tokens of a step"
            )

        n_window_pages = self.state.window_kv.keys.shape[1]
        assert not n_window_pages or len(step.window_pages) or step.pages.max() < n_window_pages, (
            "a step for layers with a window names their pages"
        )
        n_sequences, n_slots = len(step.starts) - 1, self.weights.config.n_slots
        if n_slots and n_sequences > n_slots:
            raise ConfigError(
                f"a step of {n_sequences} sequences needs as many states, and this rank has room "
                f"for {n_slots}; lower the number of sequences"
            )

    def close(self) -> None:
        self.team.close()


def _copy_pages(kv: KvPages, copies: np.ndarray) -> None:
    """Copies whole pages, (C, 2) from and to: what lies behind the tokens that are wanted is
    overwritten before it is read."""
    for source, target in copies.tolist():
        for pages in kv:
            pages[:, target] = pages[:, source]


def progress_memory(buffer: memoryview | bytearray) -> np.ndarray:
    """Returns a view of a buffer of STATE_WORDS * 8 bytes, such as a shared mapping, for
    RankModel.load."""
    return np.frombuffer(buffer, np.int64, STATE_WORDS)
