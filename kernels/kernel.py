"""A kernel: a compiled function that Python calls without the GIL.

The first call with arguments of some kinds loads the machine code for these kinds from the disk, or
compiles it and keeps it there. Arguments travel in slots of 8 bytes: a number is one, an array as
compiled code takes it: owner and parent (none: the caller keeps it alive), size, bytes of an item,
address, shape and strides.
"""

from __future__ import annotations

import ctypes
import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kernels import cache
from kernels.addresses import address_of
from kernels.machine_code import load

log = logging.getLogger(__name__)

Kinds = tuple[Any, ...]
"""The kinds of a call's arguments: a number's is its dtype's letter, an array's is this letter, the
number of its dimensions and C (contiguous rows), A (any strides) or U (items at any address), a
tuple's are those of its items. Whether an array may be written makes no difference: a kernel writes
only to the arrays that it says it writes to."""

_FLAGS = 0x101  # in an array's flags: contiguous rows (1), aligned items (0x100)
_LAYOUTS = {0x101: "C", 0x100: "A", 0x1: "U", 0: "U"}
_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p)
_BOUND = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
RESULT = struct.Struct("=q")  # the first slot


def kind_of(value: Any) -> Any:
    """The kind of an argument. Raises TypeError where compiled code has none for it."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.char}{value.ndim}{_LAYOUTS[value.flags.num & _FLAGS]}"
    if isinstance(value, tuple):
        return tuple([kind_of(item) for item in value])
    if isinstance(value, np.generic):
        return value.dtype.char
    if isinstance(value, bool):
        return "?"
    if isinstance(value, int):
        return "q"
    if isinstance(value, float):
        return "d"
    raise TypeError(f"a {type(value).__name__} cannot be an argument of a kernel")


def _fields(kind: Any) -> str:
    """The slots of an argument, as struct writes them."""
    if isinstance(kind, tuple):
        return "".join(_fields(item) for item in kind)
    if len(kind) > 1:
        return "q" * (5 + 2 * int(kind[1:-1]))
    size = np.dtype(kind).itemsize
    letter = {"l": "q", "L": "Q"}.get(kind, kind)
    return f"{letter}{8 - size}x" if size < 8 else letter


def _values(args: tuple[Any, ...], into: list[Any]) -> None:
    for arg in args:
        if isinstance(arg, np.ndarray):
            into += (0, 0, arg.size, arg.itemsize, address_of(arg))
            into += arg.shape
            into += arg.strides
        elif isinstance(arg, tuple):
            _values(arg, into)
        else:
            into.append(arg)


class Entry:
    """The machine code of a kernel for arguments of some kinds."""

    def __init__(self, name: str, kinds: Kinds, code: cache.Code) -> None:
        self.address = load(code)  # of i32 entry(slots)
        self._call = _ENTRY(self.address)
        self._struct = struct.Struct("=q" + "".join(_fields(kind) for kind in kinds))
        self.name, self._has_result = name, code.has_result

    def slots(self, args: tuple[Any, ...]) -> bytes:
        """The arguments in their slots, after one for the result."""
        values: list[Any] = [0]
        _values(args, values)
        return self._struct.pack(*values)

    def __call__(self, args: tuple[Any, ...]) -> int | None:
        slots = self.slots(args)
        if not self._has_result:
            status, result = self._call(slots), None
        else:
            buffer = ctypes.create_string_buffer(slots, len(slots))
            status = self._call(ctypes.cast(buffer, ctypes.c_char_p))
            (result,) = RESULT.unpack_from(buffer)
        if status:
            raise RuntimeError(f"the kernel {self.name} failed; this is an error of the program")
        return result


class Bound:
    """A kernel with its arguments in their slots already: a call costs half a microsecond. Arrays
    must stay the same ones; their contents may change."""

    def __init__(self, entry: Entry, args: tuple[Any, ...]) -> None:
        self._args = args  # kept alive
        slots = entry.slots(args)
        self._slots = ctypes.create_string_buffer(slots, len(slots))
        self._call, self._at = _BOUND(entry.address), ctypes.addressof(self._slots)
        self._name = entry.name

    def __call__(self) -> int:
        """Makes the call; returns the kernel's result, 0 where it has none."""
        if self._call(self._at):
            raise RuntimeError(f"the kernel {self._name} failed; this is an error of the program")
        return int(RESULT.unpack_from(self._slots)[0])


class Kernel:
    """A function that is compiled for the kinds of arguments it is called with.

    Its arguments are arrays, numbers and tuples of them. It returns nothing or an integer,
    allocates nothing, and raises nothing.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.py_func, self.options = function, options
        self._entries: dict[Kinds, Entry] = {}

    @property
    def name(self) -> str:
        return f"{self.py_func.__module__.removeprefix('kernels.')}.{self.py_func.__name__}"

    def __call__(self, *args: Any) -> Any:
        kinds = tuple([kind_of(arg) for arg in args])
        entry = self._entries.get(kinds)
        return (entry or self._load(kinds))(args)

    def entry(self, args: tuple[Any, ...]) -> Entry:
        """The machine code for arguments like these."""
        kinds = tuple([kind_of(arg) for arg in args])
        return self._entries.get(kinds) or self._load(kinds)

    def bind(self, *args: Any) -> Bound:
        """The kernel with these arguments, for frequent calls."""
        return Bound(self.entry(args), args)

    def prepare(self, *args: Any) -> None:
        """Loads or compiles what a call with arguments like these needs."""
        self.entry(args)

    def _load(self, kinds: Kinds) -> Entry:
        self._entries[kinds] = entry = Entry(self.name, kinds, self._code(kinds))
        return entry

    def _code(self, kinds: Kinds) -> cache.Code:
        # Kernels of other packages, tests for one, may change where the cache's key does not.
        if not self.py_func.__module__.startswith("kernels."):
            return self._compile(kinds)
        if (kept := cache.read(self.name, kinds)) is not None:
            return kept
        with cache.turn_to_compile(self.name, kinds):
            code = cache.read(self.name, kinds)  # another process may have compiled it meanwhile
            if code is None:
                code = self._compile(kinds)
                cache.write(self.name, kinds, code)
            return code

    def _compile(self, kinds: Kinds) -> cache.Code:
        for listener in _listeners:
            listener(self.name)
        from kernels.emit.compile import compile_kernel

        return compile_kernel(self, kinds)


_listeners: list[Callable[[str], None]] = []


@contextmanager
def on_compile(callback: Callable[[str], None]) -> Iterator[None]:
    """Calls `callback` with the name of each kernel that is compiled instead of loaded from the
    disk, while the context lasts."""
    _listeners.append(callback)
    try:
        yield
    finally:
        _listeners.remove(callback)
