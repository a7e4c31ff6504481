from __future__ import annotations

from contextlib import closing

import pytest

from dllama.qtypes import QType
from dllama.runtime import ops, step_speed
from dllama.runtime.graph import Replay
from kernels.weights.layout import Packed


def test_steps_are_measured_as_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is captured belongs to its collective: with another one for each step, all of
    them would be made anew."""
    made, whole = [], Replay.__init__

    def counted(self: Replay, *args: object) -> None:
        made.append(self)
        whole(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Replay, "__init__", counted)
    with closing(step_speed.tiny_model(2, QType.Q4_K, 1)) as model:
        run = step_speed.step_of(model, 1)
        for _ in range(5):
            run()
        assert model.executor.n_graphs == 1
    assert len(made) == 1


def test_layers_and_steps_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_speed, "tiny_model", lambda n_layers, qtype, n_threads: n_layers)
    monkeypatch.setattr(
        step_speed, "_seconds_of", lambda n_layers: (5.0 + 2 * n_layers, 9.0 + 6 * n_layers)
    )
    assert step_speed.measure_steps(QType.Q4_0, 1) == pytest.approx((5.0, 1.0, 3.0))


def test_no_kernel_is_compiled_that_the_model_has_no_use_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But that for the embedding, which needs no products."""
    used = set()
    plain = ops.matmul

    def product(team: object, part: Packed, *rest: object) -> None:
        used.add(part.format)
        plain(team, part, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ops, "matmul", product)
    step_speed.measure_steps(QType.Q6_K, 1)
    assert used == {"q6_k"}
