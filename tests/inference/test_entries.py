"""Results of many images: a list of objects of which one is in memory at a time."""

import tracemalloc
from pathlib import Path

import pytest

from cyclemlp.files import JsonObject
from cyclemlp.inference.entries import Entries
from cyclemlp.inference.journal import Journal


def entry(number: int, objects: int = 3) -> JsonObject:
    box = [0.5, 1.25, 2.0, float(number)]
    return {"image": f"{number}.png", "objects": [{"class": "ü", "score": 0.5, "box": box}] * objects}


def test_entries_are_a_list_that_grows() -> None:
    expected = [entry(number) for number in range(5)]
    found = Entries(expected[:2])
    assert found[1] == expected[1]
    for each in expected[2:]:
        found.append(each)
    assert len(found) == 5
    assert found == expected
    assert list(found) == expected
    assert found[-1] == expected[-1]
    assert found[1:3] == expected[1:3]
    assert found != expected[:4]
    assert Entries() == []
    with pytest.raises(IndexError):
        found[5]


def kept_bytes(count: int) -> int:
    tracemalloc.start()
    found = Entries()
    for number in range(count):
        found.append(entry(number, objects=100))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == count
    return kept


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    """An entry of 100 objects takes some 7 KB as text and ten times that as objects; its place takes 8 bytes."""
    assert kept_bytes(300) - kept_bytes(100) < 200 * 100


def test_a_journal_that_goes_on_keeps_places_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"a": 1}, resume=False)
    for number in range(300):
        journal.add(f"{number}.png", entry(number, objects=100))
    journal.close(complete=False)
    tracemalloc.start()
    again = Journal(tmp_path, {"a": 1}, resume=True)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(again.entries) == 300
    assert kept < 300 * 1000
    assert again.finished("7.png", {}) == entry(7, objects=100)
