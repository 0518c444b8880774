"""Whatever a JSON, YAML or XML file holds, its reader returns plain values or raises an error of one short line."""

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclemlp import documents
from cyclemlp.documents import (
    MAX_ANNOTATION_BYTES,
    DocumentError,
    finite_number,
    read_json,
    read_xml,
    read_yaml,
    shown,
    whole_number,
)

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
BILLION = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><a>&b;</a>'
)
HOSTILE: list[tuple[Callable[[Path], Any], str, str]] = [
    (read_json, "[" * 100_000, "is not JSON that can be read (it is nested too deeply)"),
    (read_json, '{"a":' * 100_000, "is not JSON that can be read (it is nested too deeply)"),
    (read_json, "1" * 5000, "is not JSON (Exceeds the limit"),
    (read_json, "{", "is not JSON (Expecting property name"),
    (read_yaml, LAUGHS, "has more than 50000 values with its aliases written out"),
    (read_yaml, "[" + "a," * 500_000 + "]", "has more than 50000 values"),
    (read_yaml, "a: &a [*a]", "has a value that is part of itself"),
    (read_yaml, "[" * 3000, "nested too deeply"),
    (read_yaml, "[" * 60 + "]" * 60, "is nested more than 50 levels deep"),
    (read_yaml, "n: " + "9" * 5000, "has a number of 5000 characters"),
    (read_yaml, "n: 0x" + "f" * 50_000, "has a number of 50002 characters"),
    (read_yaml, "n: 1" + ":59" * 100_000, "has a number of 300001 characters"),
    (read_yaml, "n: !!binary aGVsbG8=", "could not determine a constructor for the tag"),
    (read_yaml, "n: !!timestamp 2024-13-45", "could not determine a constructor for the tag"),
    (read_yaml, "n: !!set {a, b}", "could not determine a constructor for the tag"),
    (read_yaml, "n: !!python/object/apply:os.getcwd []", "could not determine a constructor for the tag"),
    (read_yaml, "n: !!bool perhaps", "is not YAML (a value is not of its type)"),
    (read_yaml, "n: !!int ''", "is not YAML (a value is not of its type)"),
    (read_yaml, "n: !!float x", "is not YAML (a value is not of its type)"),
    (read_yaml, "{[1]: 2}", "is not YAML (while constructing a mapping: found unhashable key, line 1)"),
    (read_yaml, "a: 1\n---\nb: 2", "is not YAML"),
    (read_xml, BILLION, "has a DOCTYPE, which is not read"),
    (read_xml, "<a>&b;</a>", "is not XML (undefined entity"),
    (read_xml, '<?xml version="1.0" encoding="klingon"?><a/>', "is not XML"),
    (read_xml, '<?xml version="1.0" encoding="utf-7"?><a/>', "is not XML"),
]


@pytest.mark.parametrize(("read", "content", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_are_one_short_line(
    tmp_path: Path, read: Callable[[Path], Any], content: str, message: str
) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    began = time.process_time()
    with pytest.raises(DocumentError) as caught:
        read(path)
    assert time.process_time() - began < 5
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("read", [read_json, read_yaml, read_xml])
def test_files_that_cannot_be_read(
    tmp_path: Path, read: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / ("n" * 300)):
        with pytest.raises(DocumentError, match=r"^cannot be read: "):
            read(path)
    (tmp_path / "latin").write_bytes(b"name: caf\xe9")
    with pytest.raises(DocumentError, match=r"^is not "):
        read(tmp_path / "latin")
    for name in ("JSON", "YAML", "XML"):
        monkeypatch.setattr(documents, f"MAX_{name}_BYTES", 2**20)
    with (tmp_path / "large").open("wb") as file:
        os.truncate(file.fileno(), 2**27)
    with pytest.raises(DocumentError, match=r"^has 128 MB, over the limit of \d+ MB$"):
        read(tmp_path / "large")


def test_deeply_nested_xml_is_read(tmp_path: Path) -> None:
    (tmp_path / "deep.xml").write_text("<a>" * 200_000 + "</a>" * 200_000)
    assert read_xml(tmp_path / "deep.xml").tag == "a"


def test_yaml_values_are_plain(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(
        "\ufeffday: 2024-01-01\nbad: 2024-13-45\nbase: &b {lr: 1e-3, n: 0x10}\nrun: {<<: *b, n: 2}\nx: .inf"
    )
    runs = {"base": {"lr": "1e-3", "n": 16}, "run": {"lr": "1e-3", "n": 2}}
    assert read_yaml(path) == {"day": "2024-01-01", "bad": "2024-13-45", **runs, "x": float("inf")}
    path.write_text("")
    assert read_yaml(path) is None


def test_a_long_list_of_class_names_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names:\n" + "".join(f"  {i}: class number {i}\n" for i in range(5000)))
    assert len(read_yaml(tmp_path / "data.yaml")["names"]) == 5000


@settings(max_examples=150, deadline=None)
@given(content=st.text(alphabet="[]{}:,&*!<> \n-ab01'\"|>%@`?#.~", max_size=40))
@pytest.mark.parametrize("read", [read_json, read_yaml, read_xml])
def test_any_text_gives_values_or_a_document_error(
    tmp_path_factory: pytest.TempPathFactory, read: Callable[[Path], Any], content: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_text(content)
    try:
        message = str(read(path))
    except DocumentError as error:
        message = str(error)
        assert "\n" not in message


def test_numbers() -> None:
    assert [whole_number(each) for each in (3, 3.0, "3", " -3 ", 0)] == [3, 3, 3, -3, 0]
    wrong = (True, None, 3.5, "3.5", "", "x", "9" * 5000, 10**400, float("nan"), float("inf"), [3], "٣", 2**63)
    assert [whole_number(each) for each in wrong] == [None] * len(wrong)
    assert [finite_number(each) for each in (3, 0.5)] == [3.0, 0.5]
    assert [finite_number(each) for each in (True, "3", None, 10**400, float("nan"), float("inf"))] == [None] * 6


def test_what_is_shown_is_one_short_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert shown(ValueError("a\nb")) == "a b"
    assert len(shown("x" * 1000)) == 80
    assert shown(16**10_000) == "a int that is too large to show"


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """A reader of annotations allows 4 GB, and reserved them for every file: under a limit of memory it had none."""
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    tracemalloc.start()
    try:
        assert read_json(path, MAX_ANNOTATION_BYTES) == [1, 2]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
