"""The four small pictures of the README: what each task's network makes of an image that it has not seen.

    python scripts/task_pictures.py NAME=RUN:IMAGE... --out docs/images

NAME is that of the picture, such as `mask`; RUN a run folder; IMAGE a file. All pictures have the same size: the middle
of the drawing, which is resized to fill it, or for a class the whole.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageOps

from cyclemlp import Predictor
from cyclemlp.files import atomic_write
from cyclemlp.tasks.classification.predict import ClassificationResult
from cyclemlp.tasks.detection.predict import DetectionResult
from cyclemlp.tasks.segmentation.predict import SegmentationResult

SIZE = (300, 220)


def picture(run: Path, image: Path) -> Image.Image:
    """What the network of `run` draws on `image`."""
    result = Predictor.load(run).predict(image)
    if isinstance(result, ClassificationResult):
        return ImageOps.pad(result.draw().convert("RGB"), SIZE, Image.Resampling.LANCZOS, color="white")
    if isinstance(result, DetectionResult):
        drawn = result.above(result.shown_score).draw()
    else:
        assert isinstance(result, SegmentationResult)
        drawn = result.draw(legend=False)
    return ImageOps.fit(drawn.convert("RGB"), SIZE, Image.Resampling.LANCZOS)


def main() -> None:
    """Write the pictures that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", metavar="NAME=RUN:IMAGE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    options = parser.parse_args()
    for each in options.pictures:
        name, _, places = each.partition("=")
        run, _, image = places.partition(":")
        if not (name and run and image):
            parser.error(f"{each}: give NAME=RUN:IMAGE")
        drawn = picture(Path(run), Path(image))
        with atomic_write(options.out / f"task-{name}.jpg") as file:
            drawn.save(file, "JPEG", quality=85)


if __name__ == "__main__":
    main()
