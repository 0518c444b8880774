"""ActiveMLP in the form that other runtimes open: the values of its checkpoint, at sizes of every kind."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from every_format import EVERY_FORMAT, file_of, write_every_format
from predictions import segmented

from cyclemlp.export.formats import FORMATS
from cyclemlp.export.verify import report_path
from cyclemlp.inference.predictor import Predictor
from cyclemlp.models.activemlp import SIZES, ActiveMLPSizes
from cyclemlp.tasks.card import ModelCard, build_model, load_model, save_model

CARD = ModelCard("segmentation", "activemlp_nano", "semantic-fpn", ("sea", "land"), head_width=8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Path]]]:
    """A run of a network with two blocks in each stage, which share the places, and its file in each format."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        sizes = ActiveMLPSizes((16, 16, 24, 32), (2, 2, 2, 2), (2, 2, 2, 2), shares=(2, 4, 4, 4))
        patch.setitem(SIZES, "activemlp_nano", sizes)
        model = build_model(CARD)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        save_model(folder / "run", model, CARD)
        write_every_format(*load_model(folder / "run"), folder)
        yield folder / "run", {form: file_of(folder, form) for form in FORMATS}


@pytest.mark.parametrize("form", EVERY_FORMAT)
def test_activemlp_is_exported_with_the_values_of_its_checkpoint(
    form: str, exported: tuple[Path, dict[str, Path]]
) -> None:
    run, files = exported
    parity = json.loads(report_path(files[form]).read_text())["parity"]
    assert parity["max_rel"] <= parity["limit"]
    wanted, found = Predictor.load(run), Predictor.load(files[form])
    for size in ((64, 64), (35, 90), (97, 131)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        ours, theirs = (segmented(each.predict(image)) for each in (wanted, found))
        assert np.mean(ours.mask == theirs.mask) >= 0.9999
