import json
from functools import partial
from typing import Any

import command_line
import pytest
import timm

command = partial(command_line.command, "models")


def listed_as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    assert command(*arguments, "--json") == 0
    return {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}


def test_lists_this_packages_models(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers of models B are those of the paper's Table 1."""
    listed = listed_as_json(capsys)
    assert {f"cyclemlp_b{n}" for n in range(1, 6)} | {"cyclemlp_nano"} <= set(listed)
    assert all(timm.model_entrypoint(name).__module__.startswith("cyclemlp.") for name in listed)
    b1 = listed["cyclemlp_b1"]
    assert round(b1["params"] / 1e6, 3) == 15.155
    assert b1["input_size"] == [3, 224, 224]
    assert b1["license"] == "mit"
    assert listed["cyclemlp_nano"]["license"] is None
    counted = {
        name: (round(each["params"] / 1e6, 1), round(each["flops"] / 1e9, 1))
        for name, each in listed.items()
        if name.startswith("cyclemlp_b") and name[-1].isdigit()
    }
    assert counted == {
        "cyclemlp_b1": (15.2, 2.1),
        "cyclemlp_b2": (26.8, 3.9),
        "cyclemlp_b3": (38.4, 6.9),
        "cyclemlp_b4": (51.8, 10.1),
        "cyclemlp_b5": (75.7, 12.3),
    }


def test_prints_a_table_of_those_that_match(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--filter", "cyclemlp_b[12]") == 0
    printed = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]]
    assert printed == [["cyclemlp_b1", "15.2", "2.1"], ["cyclemlp_b2", "26.8", "3.9"]]


def test_counts_the_whole_network_with_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    listed = listed_as_json(capsys, "cyclemlp_b1", "--head", "semantic-fpn", "--classes", "150")
    assert listed["cyclemlp_b1"]["params"] / 1e6 == pytest.approx(18.9, rel=0.01)  # the paper's Table 6


@pytest.mark.parametrize(("head", "params"), [("retinanet", 36.5), ("mask-rcnn", 46.5)])
def test_counts_detectors(head: str, params: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("cyclemlp_b2", "--head", head, "--classes", "80", "--json") == 0
    (counted,) = json.loads(capsys.readouterr().out)["models"]
    assert counted["params"] / 1e6 == pytest.approx(params, rel=0.01)  # the paper's Table 5
    assert (counted["flops"] is None) == (head == "mask-rcnn")


def test_lists_rivals(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--filter", "swin_t*_window7_224", "--json") == 0
    (swin,) = json.loads(capsys.readouterr().out)["models"]
    assert swin["name"] == "swin_tiny_patch4_window7_224"
    assert round(swin["params"] / 1e6, 1) == 28.3


def test_lists_rivals_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("resnet50", "cyclemlp_tiny") == 0
    resnet, tiny = capsys.readouterr().out.splitlines()[1:]
    assert resnet.split()[:3] == ["resnet50", "25.6", "4.1"]
    assert "(mit)" not in tiny  # weights without code: the licence of that repository's code says nothing of them
    assert "code never published" in tiny


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet5"], "model 'resnet5' is not known"),
        (["resnet50", "--filter", "swin_*"], "names and --filter were both given"),
        (["--filter", "cyclemlp_b9"], "no model matches --filter 'cyclemlp_b9'; a shell pattern such as 'swin_*'"),
        (["--filter", "cyclemlp_b9"], "Did you mean 'cyclemlp_b"),
        (["--head", "semantic-fnp"], "Did you mean 'semantic-fpn'?"),
        (["--filter", "mixer_b16_224", "--head", "semantic-fpn"], "has no feature pyramid at strides 4, 8, 16, 32"),
        (["--classes", "0"], "--classes is 0; it must be 1 or more"),
        (["--heads", "semantic-fpn"], "Did you mean"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
