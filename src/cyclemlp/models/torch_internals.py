"""The private parts of torch that this package uses; `tests/models/test_internals.py` fails when one changes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store


def has_compiler() -> bool:
    """Whether torch.compile finds the C++ compiler that it needs; no public function tells before the first call."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


def process_store() -> "Store":
    """The key-value store through which the processes have found each other; that of process 0 ends with it."""
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()
