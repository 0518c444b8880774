import pytest


@pytest.fixture(autouse=True, scope="module")
def one_thread(one_thread: None) -> None:
    """Every test of this folder runs with one thread."""
