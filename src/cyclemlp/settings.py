"""Values that hold while a block runs, in its thread alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def held(variable: ContextVar[T], value: T) -> Iterator[None]:
    """While the block runs, `variable` has this value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
