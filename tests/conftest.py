"""What all tests share: generated examples may take their time, on a busy machine too, and no test
touches the keys of the user's own nodes. Files of long tests begin first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dllama.host.one_blas_thread import one_blas_thread
from tests.alike_types import IS_ALL, is_tested
from tests.certificates import certificate

__all__ = ["certificate"]

one_blas_thread()

settings.register_profile("dllama", deadline=None, max_examples=100 if IS_ALL else 30)
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


def is_left_out(item: pytest.Item) -> bool:
    """Whether a test is of a type of weights that is not tested in this run, by its parameters."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return not all(is_tested(str(getattr(value, "name", value))) for value in parameters.values())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves tests of some types out (tests/alike_types.py), and puts the files first whose tests
    are allowed the most time, so that no process has one of them to itself at the end. They also
    compile the kernels that the other files need."""
    left_out = [item for item in items if is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not is_left_out(item)]
    allowed_s: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        if limit is not None and limit.args:
            allowed_s[item.path] = max(allowed_s.get(item.path, 0.0), limit.args[0])
    items.sort(key=lambda item: -allowed_s.get(item.path, 0.0))
