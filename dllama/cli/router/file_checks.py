"""Whether the files of models are whole, read once for each file that has changed."""

from __future__ import annotations

from pathlib import Path

from dllama.errors import DllamaError
from dllama.formats import open_model


class FileChecks:
    """Remembers which files are whole, by their paths, sizes and times. What cannot be read is read
    again each time: what is wrong may be mended elsewhere, such as in a config.json."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, float], str]] = {}

    def fault_of(self, path: Path, size_bytes: int, modified_s: float) -> str:
        """Returns why the weights of a model cannot be read, "" where they can: the head of each
        file and the list of its tensors are read, and none of these may end after the file. A whole
        file of the same size and time (unix seconds) as before is not read again."""
        facts = (size_bytes, modified_s)
        known = self._known.get(path)
        if known is None or known[0] != facts or known[1]:
            known = self._known[path] = (facts, _read(path))
        return known[1]


def _read(path: Path) -> str:
    try:
        open_model(path).close()
    except DllamaError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}."
    return ""
