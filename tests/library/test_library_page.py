"""Every row of docs/library.md names a test file that exists and that calls the tool."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "library.md"
CALLED = {  # what the test of a tool has to call, where its row says it in other words
    "timm, classifier": "create_model",
    "timm, feature maps": "features_only",
    "finer last maps": "output_stride",
    "layer-wise learning rates": "create_optimizer_v2",
    "moving averages": "ModelEmaV3",
    "segmentation_models.pytorch": "smp.create_model",
    "torchvision's detectors": "RetinaNet",
    "transformers": "TimmBackboneConfig",
    "hooks, Grad-CAM": "register_forward_hook",
    "a layer in the place of another (LoRA, quantised weights)": "setattr",
    "parametrizations, pruning": "register_parametrization",
    "dynamic int8": "quantize_dynamic",
    "FLOPs, torch": "FlopCounterMode",
    "FLOPs, fvcore": "FlopCountAnalysis",
    "FLOPs, thop": "thop.profile",
    "FLOPs, ptflops": "get_model_complexity_info",
    "lists of layers": "torchinfo.summary",
    "torch.fx": "create_feature_extractor",
    "torch.func": "stack_module_state",
    "torch.compile": "torch.compile",
    "torch.export": "torch.export.export",
    "ONNX": "dynamo=True",
    "ONNX, the old exporter": "dynamo=False",
    "torch.jit.trace": "torch.jit.trace",
    "OpenVINO": "openvino.convert_model",
    "safetensors": "save_file",
    "copies": "deepcopy",
    "DDP": "DistributedDataParallel",
    "channels_last": "channels_last",
    "half and bfloat16": "test_half_precision",
}


def rows() -> dict[str, str]:
    """The test files of each tool."""
    table = PAGE.read_text(encoding="utf-8").split("## What works")[1].split("## What does not")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    return {tool: tests for tool, _, tests in cells}


def test_the_page_and_the_tests_list_the_same_tools() -> None:
    assert rows().keys() == CALLED.keys()


@pytest.mark.parametrize("tool", CALLED)
def test_each_row_has_a_test_that_calls_the_tool(tool: str) -> None:
    file = rows()[tool].split(";")[0].strip("` ")
    assert CALLED[tool] in (HERE / file).read_text(encoding="utf-8")
