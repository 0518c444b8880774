"""A .pt2 file from a stranger runs no code: each way in is tried with a harmless payload that would leave a file."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from every_format import needs_pt2

from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.export.run import check_request
from cyclemlp.inference.runtimes.pt2_archive import FACTS_FILE, checked_archive, trusting
from cyclemlp.inference.runtimes.torch import Pt2Network

pytestmark = needs_pt2
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
MODEL, SAMPLE = "models/model.json", "data/sample_inputs/model.pt"
Entries = dict[str, bytes]


class Halves(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images.shape[2] // 2
        maps: torch.Tensor = self.layer(images[:, :, :rows])
        return maps.reshape(images.shape[0], 2, rows * images.shape[3])


@pytest.fixture(scope="module")
def good() -> Entries:
    """The entries of a file whose graph computes with sizes."""
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Halves().eval(), (torch.zeros(2, 3, 6, 8),), dynamic_shapes=(sizes,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS_FILE: "{}"})
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, entries: Entries, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"evil/{name}", content)
    return path


def changed(entries: Entries, name: str, change: Callable[[Any], object]) -> Entries:
    value = json.loads(entries[name])
    change(value)
    return {**entries, name: json.dumps(value).encode()}


class Payload:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def test_a_good_file_computes_the_same(good: Entries, tmp_path: Path) -> None:
    path = write(tmp_path / "good.pt2", good)
    loaded = torch.export.load(checked_archive(path)).module(check_guards=False)
    original = torch.export.load(path).module()
    images = torch.randn(3, 3, 10, 8)
    assert torch.equal(loaded(images), original(images))


def test_the_sample_inputs_are_never_unpickled(good: Entries, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    evil = {**good, SAMPLE: pickle.dumps(Payload(proof))}
    torch.export.load(checked_archive(write(tmp_path / "evil.pt2", evil)))
    assert not proof.exists()


def pickled_weight(entries: Entries, proof: Path) -> Entries:
    buffer = io.BytesIO()
    torch.save(Payload(proof), buffer)
    evil = changed(entries, WEIGHTS, lambda all_: next(iter(all_["config"].values())).update(use_pickle=True))
    return {**evil, "data/weights/weight_0": buffer.getvalue()}


def opaque_constant(entries: Entries, proof: Path) -> Entries:
    meta = next(iter(json.loads(entries[WEIGHTS])["config"].values()))
    item = {**meta, "path_name": "opaque_obj_0", "use_pickle": True}
    evil = changed(entries, CONSTANTS, lambda all_: all_["config"].update(c=item))
    return {**evil, "data/constants/opaque_obj_0": pickle.dumps(Payload(proof))}


def function_by_name(entries: Entries, proof: Path) -> Entries:
    def call_the_shell(graph: Any) -> None:
        text = {"name": "command", "arg": {"as_string": f"touch {proof}"}, "kind": 1}
        graph["graph_module"]["graph"]["nodes"][0].update(target="torch.os.system", inputs=[text])

    return changed(entries, MODEL, call_the_shell)


def text_of_a_size(entries: Entries, proof: Path) -> Entries:
    def with_code(value: Any) -> None:
        for each in value.values() if isinstance(value, dict) else value:
            if isinstance(each, dict | list):
                with_code(each)
        if isinstance(value, dict) and "expr_str" in value:
            value["expr_str"] = f"__import__('os').system('touch {proof}')"

    return changed(entries, MODEL, with_code)


def class_to_import(entries: Entries, _proof: Path) -> Entries:
    return changed(entries, MODEL, lambda graph: graph["graph_module"].update(metadata={"a": '{"__enum__": true}'}))


def compiled_library(entries: Entries, _proof: Path) -> Entries:
    return {**entries, "data/aotinductor/model/evil.so": b"\x7fELF"}


def file_operator(entries: Entries, _proof: Path) -> Entries:
    def open_a_file(graph: Any) -> None:
        graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"

    return changed(entries, MODEL, open_a_file)


@pytest.mark.parametrize(
    ("craft", "reason"),
    [
        (pickled_weight, "has pickled contents"),
        (opaque_constant, "'evil/data/constants/opaque_obj_0' is none that is written"),
        (function_by_name, "its graph calls 'torch.os.system'"),
        (text_of_a_size, "its graph has the size "),
        (class_to_import, "names a class to import"),
        (compiled_library, "is none that is written"),
        (file_operator, "its graph calls 'torch.ops.aten.from_file.default'"),
    ],
)
def test_each_way_in_is_closed(
    craft: Callable[[Entries, Path], Entries], reason: str, good: Entries, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    path = write(tmp_path / "evil.pt2", craft(good, proof))
    with pytest.raises(CheckpointError, match="may run code") as caught:
        Pt2Network(path, "cpu")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not proof.exists()


def test_the_payloads_would_run(good: Entries, tmp_path: Path) -> None:
    """What is refused above is dangerous indeed: torch alone runs the pickles."""
    proof = tmp_path / "proof"
    path = write(tmp_path / "evil.pt2", opaque_constant(good, proof))
    with suppress(Exception):
        torch.export.load(path)
    assert proof.exists()


def test_a_file_is_loaded_as_it_is_only_where_it_is_trusted(good: Entries, tmp_path: Path) -> None:
    path, proof = tmp_path / "own.pt2", tmp_path / "proof"
    write(path, opaque_constant(good, proof))
    with trusting(True), suppress(CheckpointError):
        Pt2Network(path, "cpu")
    assert proof.exists()
    proof.unlink()
    with trusting(False), pytest.raises(CheckpointError, match="give --trust if it is your own"):
        Pt2Network(path, "cpu")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("entries", "compression", "reason"),
    [
        (
            lambda good: {name: content for name, content in good.items() if name != MODEL},
            zipfile.ZIP_STORED,
            "no entry",
        ),
        (lambda good: good, zipfile.ZIP_DEFLATED, "compressed or encrypted"),
        (lambda good: {**good, "models/other.json": b"{}"}, zipfile.ZIP_STORED, "is none that is written"),
        (lambda good: {**good, MODEL: b"[" * 100_000}, zipfile.ZIP_STORED, MODEL),
        (lambda good: {**good, WEIGHTS: b'{"config": 5}'}, zipfile.ZIP_STORED, "lists no tensors"),
    ],
)
def test_other_archives(
    entries: Callable[[Entries], Entries], compression: int, reason: str, good: Entries, tmp_path: Path
) -> None:
    path = write(tmp_path / "other.pt2", entries(good), compression)
    with pytest.raises(CheckpointError) as caught:
        checked_archive(path)
    assert reason in str(caught.value)


def test_no_archive(tmp_path: Path) -> None:
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(CheckpointError, match=r"is not a readable \.pt2 file"):
        checked_archive(tmp_path / "text.pt2")


def test_older_versions_of_torch_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.8.0+cu128")
    wanted = r"^\.pt2 files need torch 2\.9 or newer, and this is torch 2\.8\.0\+cu128, .*: upgrade torch, or export to"
    for refused in (lambda: check_request(tmp_path / "m.pt2", "pt2", 1e-4), lambda: Pt2Network(tmp_path, "cpu")):
        with pytest.raises(ConfigError, match=wanted) as found:
            refused()
        assert len(str(found.value)) <= 200
