"""A family's name stands for one of its models."""

import logging

import pytest
import timm

from cyclemlp import models  # noqa: F401  registers ours
from cyclemlp.tasks.model_families import FAMILIES, full_name


def test_every_family_stands_for_a_model_that_timm_knows(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for family in FAMILIES:
            assert timm.is_model(full_name(family))
    assert "model asmlp is taken as asmlp_tiny" in caplog.text


def test_other_names_stay() -> None:
    assert full_name("resnet18") == "resnet18"
    assert full_name("nonsense") == "nonsense"
