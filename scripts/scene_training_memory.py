"""Peak memory of `cyclemlp train segmentation` on a scene with its mask, by the size of the scene.

    python scripts/scene_training_memory.py --edges 4000 20000 --steps 20 --out results/scene-training-memory.json

Scenes are noise in tiles of 512 x 512 pixels with squares as the second class; a scene of 3072 x 3072 is held out. The
peak is that of all processes of the run together (proportional set size), looked at every tenth of a second.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from cyclemlp.files import write_json
from cyclemlp.machine import environment

TILE, HELD_OUT, EVERY = 512, 3072, 0.1


def write_scene(folder: Path, part: str, edge: int) -> None:
    """RGB noise that is brighter in squares of class 1, in a projected coordinate system, and its mask."""
    draw = np.random.default_rng(edge)
    profile = {"driver": "GTiff", "width": edge, "height": edge, "dtype": "uint8", "tiled": True, "compress": "deflate"}
    profile |= {"blockxsize": TILE, "blockysize": TILE, "crs": "EPSG:32633", "zlevel": 1}
    profile["transform"] = rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)
    paths = [folder / kind / part / "scene.tif" for kind in ("images", "masks")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.arange(edge) // 100 % 2
    with (
        rasterio.open(paths[0], "w", count=3, **profile) as image,
        rasterio.open(paths[1], "w", count=1, **profile) as mask,
    ):
        for top in range(0, edge, TILE):
            rows = min(TILE, edge - top)
            numbers = ((np.arange(top, top + rows)[:, None] // 100 + columns) % 2).astype(np.uint8)
            noise = draw.integers(0, 156, (3, rows, edge), dtype=np.uint8) + numbers * np.uint8(100)
            image.write(noise, window=Window(0, top, edge, rows))
            mask.write(numbers[None], window=Window(0, top, edge, rows))


def family(process: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


def resident(process: int) -> int:
    """Bytes of memory of a process, shared ones divided among those that share them."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def measured(folder: Path, edge: int, steps: int) -> dict[str, Any]:
    """Peak memory in bytes, and seconds, of a whole run on a scene of this size."""
    data = folder / f"data-{edge}"
    write_scene(data, "train", edge)
    write_scene(data, "val", HELD_OUT)
    line = f"train segmentation --data {data} --out {folder / f'run-{edge}'} --model cyclemlp_nano --steps {steps}"
    started, peak = time.monotonic(), 0
    running = subprocess.Popen([sys.executable, "-m", "cyclemlp", *line.split()], stderr=subprocess.DEVNULL)
    while running.poll() is None:
        with suppress(OSError, StopIteration):  # a process that has just ended
            peak = max(peak, sum(map(resident, family(running.pid))))
        time.sleep(EVERY)
    if running.returncode:
        raise SystemExit(f"the run on {edge} x {edge} pixels failed")
    return {"edge": edge, "seconds": time.monotonic() - started, "peak_bytes": peak}


def main() -> None:
    """Measure every size that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, nargs="+", default=[4000, 20000], help="pixels")
    parser.add_argument("--steps", type=int, default=20, help="training steps")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    options = parser.parse_args()
    command = shlex.join(["python", "scripts/scene_training_memory.py", *sys.argv[1:-1], f"results/{options.out.name}"])
    made = environment(command, torch.get_num_threads(), [])
    with tempfile.TemporaryDirectory() as name:
        rows = [measured(Path(name), edge, options.steps) for edge in options.edges]
    record = {"model": "cyclemlp_nano", "head": "semantic-fpn", "steps": options.steps, "held_out": HELD_OUT}
    write_json(options.out, {**record, "rows": rows, "environment": made})


if __name__ == "__main__":
    main()
