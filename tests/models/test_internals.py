"""What the private parts of timm and torch must go on doing for this package to work."""

import shutil

import pytest
import timm
import torch
from timm.models import PretrainedCfg
from torch._inductor import cpp_builder, exc

from cyclemlp.models.timm_internals import FeatureGetterNet, feature_take_indices, resolve_pretrained_source
from cyclemlp.models.torch_internals import has_compiler, process_store


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (None, ([0, 1, 2, 3], 3)),
        (2, ([2, 3], 3)),
        ([0, 2], ([0, 2], 2)),
        ((-1, 0), ([3, 0], 3)),
    ],
)
def test_indices_of_feature_maps(indices: object, expected: tuple[list[int], int]) -> None:
    assert feature_take_indices(4, indices) == expected
    for wrong in (5, [4], [-5]):
        with pytest.raises(AssertionError):
            feature_take_indices(4, wrong)


def test_the_feature_wrapper_prunes_and_returns_the_maps_of_its_model() -> None:
    torch.manual_seed(0)
    model = timm.create_model("cyclemlp_nano").eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        wanted = model.forward_intermediates(images, indices=[0, 1], intermediates_only=True)
        wrapper = FeatureGetterNet(model, out_indices=(0, 1))
        assert wrapper.model is model
        assert len(model.stages) == 2
        assert all(key.startswith("model.") for key in wrapper.state_dict())
        assert wrapper.feature_info.reduction() == [4, 8]
        for found, each in zip(wrapper(images), wanted, strict=True):
            assert torch.equal(found, each)


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        ({"url": "https://host/file"}, ("url", "https://host/file")),
        ({"url": "https://host/file", "file": "here.pth"}, ("file", "here.pth")),
        ({"file": "here.pth", "state_dict": {"weight": 1}}, ("state_dict", {"weight": 1})),
        ({"source": "local-dir", "file": "folder"}, ("local-dir", "folder")),
        ({"source": "hf-hub", "hf_hub_id": "owner/name"}, ("hf-hub", "owner/name")),
        ({}, ("", "")),
    ],
)
def test_where_timm_finds_weights(cfg: dict[str, object], expected: tuple[str, object]) -> None:
    assert resolve_pretrained_source(PretrainedCfg(**cfg).to_dict()) == expected


def test_without_a_compiler_torch_raises_the_error_that_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_compiler() == bool(shutil.which("g++") or shutil.which("clang++"))

    def none_found() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    assert not has_compiler()


def test_a_process_alone_has_no_store() -> None:
    with pytest.raises(ValueError, match="has not been initialized"):
        process_store()
