"""What `benchmarks.fuzz` damages: files that people get from others, and how the package reads each of them."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.fuzz_rasters import read_mask, read_values, write_arrays, write_map, write_mask_tiffs, write_rasters
from benchmarks.mutations import Mutator, chunks, cut, entries, flip, header, move, tags, text
from cyclemlp.data.contact_sheet import contact_sheet
from cyclemlp.data.images import exif_orientation, image_size, read_image
from cyclemlp.data.inspect import inspect_dataset
from cyclemlp.files import write_json, write_text
from cyclemlp.heads.network import SizeRule
from cyclemlp.inference.predictor import Predictor
from cyclemlp.inference.runtimes.facts import INPUT_NAME, PREFIX, Facts
from cyclemlp.inference.runtimes.openvino import FACTS_SECTION
from cyclemlp.inference.runtimes.pt2_archive import FACTS_FILE
from cyclemlp.models.checkpoints import read_state_dict
from cyclemlp.tasks.build_config import build_config
from cyclemlp.tasks.card import ModelCard, build_model, load_model, save_model
from cyclemlp.training.checkpoints import FORMAT, LAST, checkpoint_path, read_checkpoint
from cyclemlp.training.recorder import Recorder, read_metrics

EDGE = 32
_CARD = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("ground", "water"), head_width=8)
_VOC = """<annotation><size><width>32</width><height>32</height><depth>3</depth></size><object><name>boat</name>
<difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>18</xmax><ymax>28.5</ymax></bndbox></object></annotation>
"""
_RECIPE = """task: segmentation
model: cyclemlp_nano
head-width: 16
lr: 0.001
epochs: 3
batch-size: 4
class-weights: sqrt-inverse
vertical-flip: 0.5
"""


@dataclass(frozen=True)
class Subject:
    """A kind of file."""

    name: str
    weight: int
    """Share of the cases."""
    write: Callable[[Path], None]
    """Writes intact files into an empty folder."""
    targets: str
    """Pattern of those that are damaged."""
    mutators: tuple[Mutator, ...]
    read: Callable[[Path, Path], list[str]]
    """What the package does with the folder and the damaged file in it: returns messages; raises as its commands do."""


def _pixels(seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (EDGE, EDGE, 3), np.uint8)


def _write_images(folder: Path) -> None:
    image = Image.fromarray(_pixels())
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "an image"
    for suffix in ("jpg", "webp", "png", "tif"):
        image.save(folder / f"exif.{suffix}", exif=exif)
    image.convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(_pixels()[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    for suffix in ("gif", "bmp"):
        image.save(folder / f"plain.{suffix}")
    image.save(folder / "progressive.jpg", progressive=True)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        image.save(folder / f"{compression}.tif", compression=compression)
    image.convert("LA").save(folder / "alpha.tif")


def _read_image(_: Path, path: Path) -> list[str]:
    image_size(path)
    exif_orientation(path)
    read_image(path)
    return []


def _write_masks(folder: Path) -> None:
    numbers = Image.fromarray(_pixels()[..., 0] % 3)
    numbers.save(folder / "grey.png")
    palette = numbers.convert("P")
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.save(folder / "palette.png", transparency=b"\0\xff\xff")
    numbers.point(lambda value: value > 1, "1").save(folder / "bits.png")


def _inspect(folder: Path, _: Path) -> list[str]:
    """As `cyclemlp data FOLDER --sheet`; problems that it lists are one line each."""
    report = inspect_dataset(folder)
    if not report.problems:
        contact_sheet(report.dataset, 4)
    return [str(each) for each in (*report.problems, *report.notes)]


def _write_coco(folder: Path) -> None:
    ring, rle = [2, 2, 20, 2, 20, 20, 2.5, 20], {"size": [EDGE, EDGE], "counts": [66, 18, 526, 18, EDGE * EDGE - 628]}
    shapes = [{"segmentation": [ring], "iscrowd": 0}, {"segmentation": rle, "iscrowd": 1}]
    objects = [{"id": i + 1, "image_id": 1, "category_id": 3, "bbox": [2, 2, 18, 18], "area": 324.0} for i in range(2)]
    for split in ("train", "val"):
        (folder / split).mkdir()
        Image.fromarray(_pixels()).save(folder / split / "a.png")
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": EDGE, "height": EDGE}],
            "annotations": [each | shape for each, shape in zip(objects, shapes, strict=True)],
            "categories": [{"id": 3, "name": "boat"}],
        }
        write_json(folder / f"{split}.json", content)


def _write_voc(folder: Path) -> None:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for split in ("train", "val"):
        Image.fromarray(_pixels()).save(folder / f"JPEGImages/{split}.jpg")
        write_text(folder / f"Annotations/{split}.xml", _VOC)
        write_text(folder / f"ImageSets/Main/{split}.txt", f"{split}\n")


def _write_yolo(folder: Path) -> None:
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        Image.fromarray(_pixels()).save(folder / f"images/{split}/a.png")
        write_text(folder / f"labels/{split}/a.txt", "0 0.5 0.5 0.2 0.25\n1 0.3 0.3 0.1 0.1\n")
    write_text(
        folder / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: boat\n  1: car\n"
    )


def _write_pairs(folder: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(_pixels()).save(folder / f"{name}.jpg")
        colours = np.array([[0, 0, 0], [0, 0, 200]], np.uint8)
        Image.fromarray(colours[_pixels()[..., 0] % 2]).save(folder / f"{name}_mask.png")
    write_text(folder / "pairs.csv", "image,mask,split\na.jpg,a_mask.png,train\nb.jpg,b_mask.png,val\n")
    write_text(folder / "classes.txt", "ground 0 0 0\nwater 0 0 200\n")


def _write_pair_yaml(folder: Path) -> None:
    _write_pairs(folder)
    (folder / "pairs.csv").unlink()
    rows = [f"- image: {name}.jpg\n  mask: {name}_mask.png\n" for name in ("a", "b")]
    write_text(folder / "pairs.yaml", f"train:\n{rows[0]}val:\n{rows[1]}")


def _write_metrics(folder: Path) -> None:
    rows = [
        "step,epoch,seconds,lr,images_per_second,loss,mIoU,IoU/land",
        "1,0,2.5,0.001,4,0.7,,",
        "2,1,5,0.001,4,0.6,0.5,0.5",
    ]
    write_text(folder / "metrics.csv", "\n".join(rows) + "\n")


def _continue_metrics(folder: Path, _: Path) -> list[str]:
    """As a run does that continues."""
    rows = read_metrics(folder)
    recorder = Recorder(folder, list(rows[0]) if rows else ["step", "loss"], after_step=1)
    recorder.add(2, {"loss": 0.5} if not rows or "loss" in rows[0] else {})
    recorder.close()
    for path in (folder / "tensorboard").iterdir():
        path.unlink()
    return []


def _write_recipe(folder: Path) -> None:
    write_text(folder / "recipe.yaml", _RECIPE)


def _read_recipe(folder: Path, path: Path) -> list[str]:
    build_config("segmentation", {"data": folder, "out": folder / "run"}, str(path))
    return []


def _write_model(folder: Path) -> None:
    save_model(folder, build_model(_CARD), _CARD)


def _load_model(folder: Path, _: Path) -> list[str]:
    load_model(folder)
    return []


def _write_torch_files(folder: Path) -> None:
    weights = {"stem.weight": torch.ones(4, 3), "stem.bias": torch.zeros(4)}
    torch.save({"model": weights, "epoch": 3}, folder / "weights.pth")
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    checkpoint_path(folder).parent.mkdir()
    torch.save({"format": FORMAT, "step": 3, "model": weights, "evaluations": {}}, checkpoint_path(folder))


def _read_torch_file(folder: Path, path: Path) -> list[str]:
    if path.name == LAST:
        read_checkpoint(folder)
    else:
        read_state_dict(path)
    return []


class _Colours(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images)
        return logits


def _facts() -> dict[str, str]:
    return Facts(_CARD, SizeRule(), ("logits",)).to_entries()


def _write_pt2(folder: Path) -> None:
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(_Colours().eval(), (torch.zeros(1, 3, EDGE, EDGE + 8),), dynamic_shapes=(sizes,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS_FILE: json.dumps(_facts())})
    (folder / "network.pt2").write_bytes(buffer.getvalue())


def _write_onnx(folder: Path) -> None:
    from onnx import TensorProto, helper, save_model

    kernel = helper.make_tensor("kernel", TensorProto.FLOAT, (2, 3, 1, 1), [0.5] * 6)
    given = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, (1, 3, "height", "width"))
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 2, "height", "width"))
    node = helper.make_node("Conv", [INPUT_NAME, "kernel"], ["logits"])
    graph = helper.make_graph([node], "network", [given], [made], [kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, _facts())
    save_model(model, folder / "network.onnx")


def _write_openvino(folder: Path) -> None:
    """Without an `openvino.Core`, whose threads would not survive that the process is forked."""
    import openvino
    from openvino import opset13 as ops

    images = ops.parameter([1, 3, -1, -1], dtype=np.float32, name=INPUT_NAME)
    images.output(0).set_names({INPUT_NAME})
    kernel = ops.constant(np.full((2, 3, 1, 1), 0.5, np.float32))
    logits = ops.convolution(images, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    logits.output(0).set_names({"logits"})
    model = openvino.Model([logits], [images], "network")
    for key, text_of in _facts().items():
        model.set_rt_info(text_of, [FACTS_SECTION, key.removeprefix(PREFIX)])
    openvino.serialize(model, folder / "network.xml")


def _predict(_: Path, path: Path) -> list[str]:
    path = path.with_suffix(".xml") if path.suffix == ".bin" else path
    Predictor.load(path, "cpu").predict(_pixels())
    return []


_BYTES = (flip, flip, cut, move)

SUBJECTS = {
    each.name: each
    for each in (
        Subject("image", 26, _write_images, "*", (*_BYTES, tags, tags, tags), _read_image),
        Subject("png", 6, _write_images, "*.png", (chunks,), _read_image),
        Subject("mask", 8, _write_masks, "*", (*_BYTES, chunks, chunks), read_mask),
        Subject("array", 6, write_arrays, "*", (*_BYTES, text, entries, entries), read_values),
        Subject("raster", 16, write_rasters, "*", (*_BYTES, tags, tags, tags, tags), read_values),
        Subject("mask raster", 5, write_mask_tiffs, "*", (*_BYTES, tags, tags), read_mask),
        Subject("map", 5, write_map, "**/*.geojson", (text, text, text, flip), _inspect),
        Subject("geopackage", 2, write_map, "**/*.gpkg", _BYTES, _inspect),
        Subject("pairs", 4, _write_pairs, "*[vt]", (text, text, text, flip), _inspect),
        Subject("pair list", 2, _write_pair_yaml, "*.yaml", (text, text, text, flip), _inspect),
        Subject("metrics", 3, _write_metrics, "*.csv", (text, text, flip, cut, move), _continue_metrics),
        Subject("coco", 10, _write_coco, "*.json", (text, text, text, flip), _inspect),
        Subject("voc", 8, _write_voc, "*/**/*[lt]", (text, text, text, flip), _inspect),
        Subject("yolo", 10, _write_yolo, "**/*[lt]", (text, text, text, flip), _inspect),
        Subject("recipe", 8, _write_recipe, "*", (text, text, text, flip), _read_recipe),
        Subject("card", 5, _write_model, "*.json", (text, text, text, flip), _load_model),
        Subject("safetensors", 3, _write_model, "*.safetensors", (header, header, header, flip, cut), _load_model),
        Subject("torch", 10, _write_torch_files, "**/*[ht]", (*_BYTES, entries, entries), _read_torch_file),
        Subject("onnx", 4, _write_onnx, "*", (*_BYTES, text), _predict),
        Subject("openvino", 3, _write_openvino, "*", (text, text, *_BYTES), _predict),
        Subject("pt2", 2, _write_pt2, "*", (flip, cut, entries, entries), _predict),
    )
}
