"""Makes the packages of this house the ones that are imported, whatever else is called so.

`api`, `cluster` and `kernels` are common words, and `python -m` looks into the folder it is started
in before it looks anywhere else: what lies there would be run in place of our modules, or of the
standard library's.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

from dllama.host.child_python import HOUSE

PACKAGES = ("api", "cluster", "kernels")  # beside dllama, which is here already


def own_modules_first() -> None:
    """Imports the other packages from beside this one, and takes the current folder from the search
    path where nobody asked for it."""
    if _is_by_name() and not sys.flags.safe_path and Path(sys.path[0]).resolve() != HOUSE:
        del sys.path[0]
    if "" in os.environ.get("PYTHONPATH", "x").split(os.pathsep):  # as in "$PYTHONPATH:/other"
        here = os.getcwd()  # noqa: PTH109  as Python wrote it
        sys.path[:] = [path for path in sys.path if path not in ("", here) or path == str(HOUSE)]
    for name in PACKAGES:
        spec = None if name in sys.modules else PathFinder.find_spec(name, [str(HOUSE)])
        if spec is not None and spec.loader is not None:
            sys.modules[name] = module = module_from_spec(spec)
            spec.loader.exec_module(module)


def _is_by_name() -> bool:
    """True where this process was started as `python -m dllama...`."""
    if sys.argv[:1] == ["-m"]:  # so it is while Python still looks for the module
        return True
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.startswith("dllama.")
