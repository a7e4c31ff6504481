"""How our processes start others of our modules: with our own code, whatever lies in the folder
they are started in, and whatever the user's settings of Python are."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
"""The folder that holds our packages: a checkout, or where pip has installed them."""

NOT_FOR_CHILDREN = ("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONIOENCODING")
"""Settings for a person at the prompt, or for the streams of the process that the user started."""


def child_command(module: str) -> list[str]:
    """Returns the command that runs a module. -P: the folder it starts in is not searched."""
    return [sys.executable, "-P", "-m", module]


def child_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the environment of a child, which imports from where this process does.

    An entry of PYTHONPATH that is empty or relative means the folder a process is started in, and
    is left out. Installed packages are found without it: named there, they would come before the
    standard library.
    """
    listed = given.get("PYTHONPATH", "").split(os.pathsep)
    paths = [path for path in listed if Path(path).is_absolute()]
    if not is_installed():
        paths.insert(0, str(HOUSE))
    kept = {name: value for name, value in given.items() if name not in NOT_FOR_CHILDREN}
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def is_installed() -> bool:
    """True where pip has put our packages among the others."""
    places = [*site.getsitepackages(), site.getusersitepackages()]
    return HOUSE in (Path(place).resolve() for place in places)
