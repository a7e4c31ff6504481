from __future__ import annotations

from contextlib import closing

import pytest

from dllama.runtime import step_speed
from dllama.runtime.executor import Replay


def test_steps_are_measured_as_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is captured belongs to its collective: with another one for each step, all of
    them would be made anew."""
    made, whole = [], Replay.__init__

    def counted(self: Replay, *args: object) -> None:
        made.append(self)
        whole(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Replay, "__init__", counted)
    with closing(step_speed._tiny(2, 1)) as model:
        run = step_speed._one_step(model)
        for _ in range(5):
            run()
        assert model.executor.n_graphs == 1
    assert len(made) == 1


def test_layers_and_steps_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {step_speed.FEW: 5.0 + 2 * step_speed.FEW, step_speed.MANY: 5.0 + 2 * step_speed.MANY}
    monkeypatch.setattr(step_speed, "_seconds_of", lambda n_layers, n_threads: seconds[n_layers])
    assert step_speed.measure_steps(1) == pytest.approx((5.0, 1.0))
