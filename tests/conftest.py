"""What all tests share: generated examples may take their time, on a busy machine too, and no test
touches the keys of the user's own nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("dllama", deadline=None)
settings.load_profile("dllama")


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nodes that tests start keep their keys in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLLAMA_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("DLLAMA_CLUSTER_KEY", raising=False)
        yield
