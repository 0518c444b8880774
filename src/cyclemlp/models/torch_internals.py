"""The private parts of torch that this package uses; `tests/models/test_internals.py` fails when one changes."""


def has_compiler() -> bool:
    """Whether torch.compile finds the C++ compiler that it needs; no public function tells before the first call."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True
