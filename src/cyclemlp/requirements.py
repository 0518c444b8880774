"""What is installed of what this package needs, and what of it is too old."""

import platform
from importlib.metadata import PackageNotFoundError, requires, version

_USED_BY_USERS = ("", "train", "export", "robustness", "video", "geo", "micro", "mlflow", "wandb", "sample")
"""The extras that are not for developers alone; "" is none."""


def report() -> str:
    """The version of this package, and one line for each package that it uses and that is installed."""
    lines = [version("cyclemlp"), f"python {platform.python_version()}"]
    lines += [
        f"{name} {found}{'' if fits else f', too old or too new: needs {needed}'}"
        for name, found, needed, fits in _found()
    ]
    return "\n".join(lines)


def unmet() -> list[str]:
    """A sentence for each installed package whose version this package does not work with."""
    return [
        f"{name} {found} is installed, but cyclemlp needs {name}{needed}"
        for name, found, needed, fits in _found()
        if not fits
    ]


def _found() -> list[tuple[str, str, str, bool]]:
    """Name, installed version, the versions that are needed, and whether it is one of them; without what is absent."""
    from packaging.requirements import Requirement  # timm needs it

    found = []
    for line in requires("cyclemlp") or ():
        need = Requirement(line)
        if need.name == "cyclemlp" or not any(
            need.marker is None or need.marker.evaluate({"extra": each}) for each in _USED_BY_USERS
        ):
            continue
        try:
            installed = version(need.name)
        except PackageNotFoundError:
            continue
        found.append((need.name, installed, str(need.specifier), need.specifier.contains(installed, prereleases=True)))
    return found
