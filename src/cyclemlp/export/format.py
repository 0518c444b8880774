"""What a file format is, and what the modules of the formats share."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from torch.export import ExportedProgram

from cyclemlp.inference.runtimes.facts import Facts

Graph = Mapping[str, object]
"""What the report says of the written graph: number of nodes, operators, version of the operator set."""


@dataclass(frozen=True)
class Format:
    """A kind of file that some runtime opens."""

    name: str
    suffix: str
    """Of the file; the runtime that is registered for it runs the file."""
    write: Callable[[ExportedProgram, Facts, Path], Graph]
    """Writes the file with the facts in it. Raises MissingExtraError."""
    companions: tuple[str, ...] = ()
    """Suffixes of the other files that belong to it."""

    def files(self, path: Path) -> list[Path]:
        """All that is written for the file `path`, which comes last."""
        return [*(path.with_suffix(suffix) for suffix in self.companions), path]


def operator_counts(operators: Iterable[str]) -> dict[str, object]:
    """The number of nodes of a graph, and of each operator, from the operators of its nodes."""
    listed = sorted(operators)
    return {"nodes": len(listed), "operators": {name: listed.count(name) for name in dict.fromkeys(listed)}}


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporters, which write on standard output and warn of their own code."""
    talkers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
