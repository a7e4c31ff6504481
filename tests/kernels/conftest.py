"""One team for all kernel tests: two threads, so that races have a chance to show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from kernels.team import Team


@pytest.fixture(scope="session", params=[1, 2], ids=["1thread", "2threads"])
def team(request: pytest.FixtureRequest) -> Iterator[np.ndarray]:
    with Team(request.param) as t:
        yield t.state
