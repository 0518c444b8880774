"""The small networks, by the names that users give to timm."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_networks import SMALL, create


@pytest.fixture(scope="module", autouse=True)
def _small_networks() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, (module, sizes) in SMALL.items():
            patch.setitem(module.SIZES, name, sizes)
        yield
    torch.set_num_threads(before)


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    """The registered name of a network of each family."""
    return str(request.param)


@pytest.fixture
def model(name: str) -> Any:
    """In eval mode, every scale and bias drawn."""
    return create(name)
