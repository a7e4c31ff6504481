"""The decorators of kernels and their pieces. They only record: numba is imported, and what they
stand for is made, when a kernel has to be compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from kernels.kernel import Kernel

MATH: dict[str, Any] = {"error_model": "numpy"}
FAST: dict[str, Any] = {"error_model": "numpy", "fastmath": True}
LEAN = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
"""Python calls no compiled function as numba would have it, and none owns memory or counts
references to it: that would be half of the code."""


class Jitted:
    """A piece of a kernel: a function that numba compiles as a part of those that call it. Called
    from Python, it runs as Python."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.py_func, self._options = function, options

    def __call__(self, *args: Any) -> Any:
        return self.py_func(*args)

    @cached_property
    def dispatcher(self) -> Any:
        """numba's own object for this function."""
        from numba import njit

        import kernels.emit.compile  # noqa: F401  (tells numba what a Jitted is)

        return njit(**LEAN, **self._options)(self.py_func)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dispatcher, name)


class Intrinsic:
    """A function that emits the instructions of its calls: intrinsic(typing context, *types)
    returns (signature, function that emits)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @cached_property
    def numbas(self) -> Any:
        """numba's own object for this function."""
        from numba.extending import intrinsic

        return intrinsic(self._function)


intrinsic = Intrinsic


def jitted(function: Callable[..., Any]) -> Any:
    """A piece of a kernel. Its float steps are done as written, none of them fused or reordered:
    ranks on different processors must get the same bits."""
    return Jitted(function, MATH)


def reordered(function: Callable[..., Any]) -> Any:
    """A loop that may run in another order, by vectors: its result must not depend on that."""
    return Jitted(function, FAST)


def inlined(function: Callable[..., Any]) -> Any:
    """Compiled as a part of its caller, under its caller's rules."""
    return Jitted(function, {"inline": "always"})


def kernel(function: Callable[..., Any]) -> Kernel:
    """A function that Python calls: without the GIL, and kept on disk. Its float steps are done as
    those of `jitted`."""
    return Kernel(function, MATH)


def named(name: str) -> Callable[[Any], Any]:
    """A decorator that names a function made inside another: kernels are kept on disk by their
    names."""

    def rename(function: Any) -> Any:
        function.__name__ = function.__qualname__ = name
        return function

    return rename


def kernel_of(name: str, body: Any) -> Kernel:
    """The kernel `name`(first, second) of a jitted function body(first, second): one way to make
    the kernels of all weight types."""

    def call(first: Any, second: Any) -> None:
        body(first, second)

    call.__module__ = body.py_func.__module__
    return kernel(named(name)(call))
