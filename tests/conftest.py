"""What all tests share: generated examples may take their time, on a busy machine too, and no test
touches the keys of the user's own nodes. Files of long tests begin first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("dllama", deadline=None)
settings.load_profile("dllama")


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nodes that tests start keep their keys in a folder of the tests, find no models but theirs,
    and ask no hub in the world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLLAMA_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("DLLAMA_MODELS", str(tmp_path_factory.mktemp("models")))
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        patch.delenv("DLLAMA_CLUSTER_KEY", raising=False)
        yield


# Types of weights that are made as others are (IQ3_S, TQ1_0, Q4_0): the kernels of each compile for
# seconds. `make test-all` tests them too.
ALIKE = frozenset(
    ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "TQ2_0", "Q1_0", "Q2_0", "NVFP4")
)


def is_of_alike_type(item: pytest.Item) -> bool:
    """Whether a test is of one of these types, by its parameters."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return any(str(getattr(value, "name", value)).upper() in ALIKE for value in parameters.values())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves tests of types out that are made as others are, but where all are asked for.

    Puts the files first whose tests are allowed the most time, so that no process has one of
    them to itself at the end. They also compile the kernels that the other files need."""
    if os.environ.get("DLLAMA_TESTS") != "all":
        left_out = [item for item in items if is_of_alike_type(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not is_of_alike_type(item)]
    allowed_s: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        if limit is not None and limit.args:
            allowed_s[item.path] = max(allowed_s.get(item.path, 0.0), limit.args[0])
    items.sort(key=lambda item: -allowed_s.get(item.path, 0.0))
