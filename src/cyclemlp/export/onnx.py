"""ONNX files, with the weights in them."""

from pathlib import Path

import torch
from torch.export import ExportedProgram

from cyclemlp.errors import MissingExtraError
from cyclemlp.export.format import Format, Graph, operator_counts, quiet
from cyclemlp.inference.runtimes.facts import INPUT_NAME, Facts


def write(program: ExportedProgram, facts: Facts, path: Path) -> Graph:
    """An ONNX file. Raises MissingExtraError."""
    onnx_program = to_onnx(program, facts)
    model = onnx_program.model
    for node in model.graph:
        node.metadata_props.clear()  # stack traces, which name folders of the machine that exported
    model.metadata_props.update(facts.to_entries())
    onnx_program.save(path, external_data=False)
    opset = {domain or "ai.onnx": number for domain, number in model.opset_imports.items()}
    return {"opset": opset, **operator_counts(node.op_type for node in model.graph)}


def to_onnx(program: ExportedProgram, facts: Facts) -> torch.onnx.ONNXProgram:
    """The network as an ONNX graph. Raises MissingExtraError."""
    try:
        with quiet():
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[INPUT_NAME], output_names=list(facts.outputs)
            )
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "export") from error
    assert exported is not None  # it is None where a file is written at once
    return exported


FORMAT = Format("onnx", ".onnx", write)
