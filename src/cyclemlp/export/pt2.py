"""torch.export archives."""

import json
from pathlib import Path

import torch
from torch.export import ExportedProgram

from cyclemlp.export.format import Format, Graph, operator_counts, quiet
from cyclemlp.inference.runtimes.facts import Facts
from cyclemlp.inference.runtimes.torch import FACTS_FILE


def write(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """A torch.export archive."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of the machine that exported
    with quiet():
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(facts.to_entries())})
    return operator_counts(str(node.target) for node in program.graph.nodes if node.op == "call_function")


FORMAT = Format("pt2", ".pt2", write)
