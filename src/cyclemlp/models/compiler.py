"""Whether torch.compile can work here."""


def has_compiler() -> bool:
    """Whether torch.compile finds the C++ compiler it needs."""
    from torch._inductor import cpp_builder, exc  # no public name tells before the first call

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True
