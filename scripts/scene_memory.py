"""Peak memory of `cyclemlp predict` on scenes of one width and several heights.

    python scripts/scene_memory.py --width 20000 --heights 2048 4096 --out results/scene-memory.json
    python scripts/scene_memory.py --heights 2048 --exact-heights 2048 20000 --out results/scene-memory.json

The heights of `--exact-heights` are predicted with `--exact`, block by block over the whole scene; the bytes of its
temporary files are those that the command asks the disk for beforehand.

The scenes are noise in tiles of 512 x 512 pixels, the network is cyclemlp_nano with a Semantic FPN and two classes, as
it is drawn: memory does not depend on what is seen.
"""

import argparse
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

import cyclemlp
from cyclemlp import Predictor
from cyclemlp.files import write_json
from cyclemlp.inference.exact import estimated
from cyclemlp.inference.runtimes.torch import TorchNetwork
from cyclemlp.machine import environment
from cyclemlp.tasks.card import ModelCard, build_model, save_model

CARD = ModelCard("segmentation", "cyclemlp_nano", "semantic-fpn", ("background", "object"), head_width=64)
TILE = 512


def write_scene(path: Path, width: int, height: int) -> None:
    """RGB noise in a projected coordinate system, 10 metres a pixel."""
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "crs": "EPSG:32633"}
    profile["transform"] = rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)
    draw = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as target:
        for top in range(0, height, TILE):
            rows = min(TILE, height - top)
            target.write(draw.integers(0, 256, (3, rows, width), dtype=np.uint8), window=Window(0, top, width, rows))


def measured(run: Path, folder: Path, width: int, height: int, *, exact: bool) -> dict[str, Any]:
    """Peak memory in bytes, and seconds, of the command on a scene of this size."""
    scene = folder / f"{height}.tif"
    write_scene(scene, width, height)
    out = folder / f"out-{height}{'-exact' * exact}"
    command = [sys.executable, __file__, "--child", str(run), str(scene), str(out), *(["exact"] if exact else [])]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = time.monotonic() - started, int(done.stdout)
    row = {"width": width, "height": height, "seconds": seconds, "peak_bytes": peak}
    return row | ({"exact": True, "file_bytes": needed_bytes(run, width, height)} if exact else {})


def needed_bytes(run: Path, width: int, height: int) -> int:
    """The temporary files of --exact."""
    predictor = Predictor.load(run)
    assert isinstance(predictor.network, TorchNetwork)
    nothing = np.broadcast_to(np.uint8(0), (1, 3, height, width))
    return estimated(predictor.network, predictor.card, nothing, (height, width)).peak_bytes


def child(run: str, scene: str, out: str, exact: str = "") -> None:
    """Predict, and print the peak memory of this process."""
    cyclemlp.predict(run, scene, out=out, exact=bool(exact))
    sys.stdout.write(str(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def main() -> None:
    """Measure every height that the command line names."""
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=20000, help="pixels")
    parser.add_argument("--heights", type=int, nargs="*", default=[2048, 4096, 20000], help="pixels")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    parser.add_argument("--exact-heights", type=int, nargs="*", default=[], help="pixels, predicted with --exact")
    options = parser.parse_args()
    command = shlex.join(["python", "scripts/scene_memory.py", *sys.argv[1:-1], f"results/{options.out.name}"])
    made = environment(command, torch.get_num_threads(), [])
    with tempfile.TemporaryDirectory() as name:
        run = Path(name, "run")
        save_model(run, build_model(CARD), CARD)
        wanted = [*((height, False) for height in options.heights), *((each, True) for each in options.exact_heights)]
        rows = [measured(run, Path(name), options.width, height, exact=exact) for height, exact in wanted]
    record = {"model": CARD.model, "head": CARD.head, "classes": len(CARD.classes), "rows": rows}
    write_json(options.out, {**record, "environment": made})
    return None


if __name__ == "__main__":
    main()
