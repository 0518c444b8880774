import pytest
import timm
import torch
from torch import nn

import cyclemlp.models  # noqa: F401  registers the names
from cyclemlp.models.flops import count_flops
from cyclemlp.ops import CycleFC


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name)
    return model


@pytest.mark.parametrize(
    ("name", "giga"),
    # by arithmetic from the sizes in the paper's Table 1; to one digit they are the paper's own numbers
    [("b1", 2.131), ("b2", 3.890), ("b3", 6.853), ("b4", 10.059), ("b5", 12.267)],
)
def test_the_papers_numbers(name: str, giga: float) -> None:
    assert count_flops(on_meta(f"cyclemlp_{name}"), 224, 224) / 1e9 == pytest.approx(giga, abs=6e-4)


@pytest.mark.parametrize(
    # arXiv 2203.06108, and the authors' README
    ("name", "giga"),
    [("xtiny", 2.2), ("tiny", 4.0), ("small", 6.9), ("base", 10.1), ("large", 12.4)],
)
def test_the_numbers_of_activemlp(name: str, giga: float) -> None:
    assert count_flops(on_meta(f"activemlp_{name}"), 224, 224) / 1e9 == pytest.approx(giga, abs=0.051)


def test_a_rivals_attention_counts() -> None:
    # Swin's own paper prints 4.5 G for its multiply-adds.
    assert count_flops(on_meta("swin_tiny_patch4_window7_224"), 224, 224) / 1e9 == pytest.approx(4.5, abs=0.05)


def test_group_norms_count_as_layer_norms_do() -> None:
    assert count_flops(nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(1, 8)), 4, 5) == 20 * 8 * (3 + 5)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 6, 2, stride=2)
        self.norm = nn.LayerNorm(6)
        self.mix = CycleFC(6, 7)
        self.batch_norm = nn.BatchNorm2d(7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x_nhwc = self.norm(self.conv(images).permute(0, 2, 3, 1))
        out: torch.Tensor = self.batch_norm(self.mix(x_nhwc).permute(0, 3, 1, 2))
        return out


def test_counted_by_hand() -> None:
    positions = 3 * 4
    by_hand = positions * (5 * 4 * 6 + 5 * 6 + 6 * 7)
    assert count_flops(Tiny(), 6, 8) == by_hand


def test_the_model_is_left_as_it_was() -> None:
    model = Tiny()
    model.batch_norm.eval()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    count_flops(model, 6, 8)
    assert model.training
    assert not model.batch_norm.training
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
