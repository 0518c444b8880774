"""Results of many images: a list of objects of which one is in memory at a time."""

import json
import tracemalloc
from pathlib import Path

import pytest

from cyclemlp.files import JsonObject
from cyclemlp.inference.entries import Entries
from cyclemlp.inference.journal import Journal
from cyclemlp.inference.predict_files import Predictions


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


def test_json_of_many_images_is_one_line_that_is_never_in_memory() -> None:
    images = Entries({"image": f"{n}\n.png", "objects": [{"score": 0.5, "label": n}] * 100} for n in range(300))
    done = Predictions("detection", {"objects": "o.json"}, images, failed=[{"image": "x", "error": "is empty"}])
    tracemalloc.start()
    longest = max(map(len, done.json_parts("run")))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    text = "".join(done.json_parts("run"))
    assert json.loads(text) == done.to_dict("run")
    assert "\n" not in text
    assert longest < len(text) / 200
    assert most < len(text) / 5
