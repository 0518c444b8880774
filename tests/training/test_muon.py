"""The optimiser of runs from random weights: what it moves, how far, and which runs have it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import timm.optim.muon as timms
import torch
import yaml
from torch import nn
from training_runs import train_segmentation

import cyclemlp  # noqa: F401  # registers the models
from cyclemlp import api
from cyclemlp.errors import ConfigError
from cyclemlp.tasks.options import Optimisation, optimizer_of
from cyclemlp.tasks.segmentation.config import SegmentationConfig
from cyclemlp.training.muon import BETAS, MOMENTUM, STEP_RMS, Muon, is_matrix, orthogonalised


def test_singular_values_become_alike() -> None:
    torch.manual_seed(0)
    for rows, columns in ((48, 64), (64, 16), (8, 400)):
        u, _, v = torch.linalg.svd(torch.randn(rows, columns), full_matrices=False)
        matrix = u @ torch.diag(torch.logspace(0, -1.5, len(v))) @ v
        step = orthogonalised([matrix, 3 * matrix])
        scaled = step[0] / (STEP_RMS * max(rows, columns) ** 0.5)
        values = torch.linalg.svdvals(scaled)
        assert 0.1 < values.min() < values.max() < 2.0
        assert torch.nn.functional.cosine_similarity(scaled.flatten(), (u @ v).flatten(), dim=0) > 0.85
        torch.testing.assert_close(step[0], step[1])  # the size of a gradient says nothing


def test_a_step_is_as_large_as_one_of_adamw() -> None:
    torch.manual_seed(0)
    step = orthogonalised([torch.randn(64, 256)])[0]
    assert step.square().mean().sqrt() == pytest.approx(STEP_RMS, rel=0.15)


def gradients(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)


def test_matrices_move_as_in_timm_and_all_else_as_in_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    function = timms.zeropower_via_newtonschulz
    monkeypatch.setattr(
        timms, "zeropower_via_newtonschulz", lambda *args, **kwargs: function(*args, **kwargs, dtype=torch.float32)
    )
    torch.manual_seed(0)
    ours = timm.create_model("cyclemlp_nano", num_classes=3)
    theirs, vectors = copy.deepcopy(ours), copy.deepcopy(ours)
    optimisers = (
        Muon([{"params": list(ours.parameters()), "weight_decay": 0.05}], lr=0.01),
        timms.Muon(
            theirs.parameters(),
            lr=0.01 * STEP_RMS / 0.2,  # timm's step is as long as Liu et al. have it
            weight_decay=0.05 * 0.2 / STEP_RMS,
            momentum=MOMENTUM,
            nesterov=True,
            betas=BETAS,
            ns_steps=3,
            ns_coefficients="polar_express",
        ),
        torch.optim.AdamW(vectors.parameters(), lr=0.01, weight_decay=0.05, betas=BETAS),
    )
    for seed in range(3):
        for model, optimiser in zip((ours, theirs, vectors), optimisers, strict=True):
            gradients(model, seed)
            optimiser.step()
            optimiser.zero_grad()
    for name, parameter in ours.named_parameters():
        moved_alike = theirs if is_matrix(parameter) else vectors
        torch.testing.assert_close(parameter, moved_alike.get_parameter(name), rtol=1e-4, atol=1e-5)


def test_what_is_no_matrix() -> None:
    assert is_matrix(nn.Linear(8, 4).weight)
    assert is_matrix(nn.Conv2d(3, 16, 7).weight)
    assert not is_matrix(nn.Linear(8, 4).bias)
    assert not is_matrix(nn.Linear(64, 3).weight)
    assert not is_matrix(nn.Conv2d(16, 16, 3, groups=16).weight)  # depthwise


def test_tables_are_kept_out() -> None:
    table, matrix = nn.Parameter(torch.zeros(16, 16)), nn.Parameter(torch.zeros(16, 16))
    optimiser = Muon([{"params": [table, matrix], "weight_decay": 0.0}], lr=0.1, kept=[table])
    held = {id(each): group["orthogonal"] for group in optimiser.param_groups for each in group["params"]}
    assert held == {id(table): False, id(matrix): True}


def test_a_state_that_is_loaded_continues_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 4))
    first = Muon([{"params": list(model.parameters()), "weight_decay": 0.1}], lr=0.1)
    gradients(model, 1)
    first.step()
    other = copy.deepcopy(model)
    second = Muon([{"params": list(other.parameters()), "weight_decay": 0.1}], lr=0.1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for each, optimiser in ((model, first), (other, second)):
        gradients(each, 2)
        optimiser.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_small_networks_with_random_weights_have_it() -> None:
    assert optimizer_of("auto", 8_000_000, starts_from_weights=False) == "muon"
    assert optimizer_of("auto", 8_000_001, starts_from_weights=False) == "adamw"
    assert optimizer_of("auto", 1, starts_from_weights=True) == "adamw"
    assert optimizer_of("muon", 8_000_001, starts_from_weights=True) == "muon"
    assert optimizer_of("adamw", 1, starts_from_weights=False) == "adamw"


def has_muon(run_dir: Path) -> bool:
    """Whether the run's last checkpoint holds momenta of matrices."""
    saved = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["optimizer"]
    return any("momentum" in state for state in saved["state"].values())


@pytest.mark.usefixtures("small_networks")
def test_random_weights_have_it_and_others_not(configured: Callable[..., SegmentationConfig], tmp_path: Path) -> None:
    config = configured(steps=1)
    run_dir = train_segmentation(config)
    assert has_muon(run_dir)
    assert not has_muon(train_segmentation(replace(config, out=tmp_path / "tuned", init=run_dir)))
    given = Optimisation(batch_size=2, optimizer="muon")
    assert has_muon(train_segmentation(replace(config, out=tmp_path / "both", init=run_dir, optimisation=given)))
    with pytest.raises(ConfigError, match="optimizer"):
        Optimisation(optimizer="sgd")  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_networks")
def test_a_run_from_before_the_option_keeps_adamw(configured: Callable[..., SegmentationConfig]) -> None:
    run_dir = train_segmentation(configured(steps=2, optimisation=Optimisation(batch_size=2, optimizer="adamw")))
    path = run_dir / "config.yaml"
    options = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert options.pop("optimizer") == "adamw"
    path.write_text(yaml.safe_dump(options), encoding="utf-8")
    api.train("segmentation", resume=run_dir, steps=3)
    assert not has_muon(run_dir)
    with pytest.raises(ConfigError, match="--optimizer muon cannot be changed within a run"):
        api.train("segmentation", resume=run_dir, steps=4, optimizer="muon")


@pytest.mark.usefixtures("small_networks")
def test_a_run_keeps_it_whatever_it_is_continued_with(
    configured: Callable[..., SegmentationConfig], tmp_path: Path
) -> None:
    """Initial weights are allowed with --resume, where they change nothing."""
    run_dir = train_segmentation(configured(steps=2))
    assert yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))["optimizer"] == "muon"
    other = train_segmentation(replace(configured(steps=1), out=tmp_path / "other"))
    api.train("segmentation", resume=run_dir, steps=3, init=other)
    assert has_muon(run_dir)
    api.train("segmentation", resume=run_dir, steps=4)
    assert has_muon(run_dir)
