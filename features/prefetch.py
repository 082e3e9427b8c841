"""Memory that a kernel will read soon, asked for before it waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from features.compiled import kernel

__all__ = ["LINE", "ask_for", "prefetch"]

LINE = 64
"""Bytes that memory hands over at once."""


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(32)
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.inttoptr(arguments[0], pointer)
        # To read, into all caches, data.
        builder.call(function, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.uintp), code


prefetch: Callable[[Any], None] = _prefetch  # type: ignore[assignment]
"""Ask for the line at an address, ``array.ctypes.data`` plus bytes; nothing happens where no memory is."""


@kernel
def ask_for(address: int, row: int, size: int) -> None:
    """Ask for all lines of a row of `size` bytes in a table that begins at an address."""
    for line in range(row * size, (row + 1) * size, LINE):
        prefetch(address + line)
