"""Whether images have an up and a down: photographs have, scenes from above and images of microscopes have none."""

from pathlib import Path

from cyclemlp.data.georeference import georeference
from cyclemlp.data.image_errors import ImageError, named_errors
from cyclemlp.data.images import is_tiff
from cyclemlp.data.tiff_tags import first_page

_TIFF = frozenset({".tif", ".tiff"})
_DESCRIPTION = 270
_OF_MICROSCOPES = ("ImageJ=", "<OME", "Aperio")
"""What the descriptions of ImageJ, of OME-TIFF and of slide scanners contain."""
_TAGS_OF_MICROSCOPES = (34412, 33628)
"""Zeiss LSM, and MetaMorph STK."""


def has_no_direction(path: Path) -> bool:
    """Whether a file is a TIFF that says where on the Earth it lies, or that was made by a microscope's program.

    Tags alone are read. False for a damaged file: reading the image says what is wrong with it.
    """
    if path.suffix.lower() not in _TIFF:
        return False
    try:
        if not is_tiff(path):
            return False
        with named_errors(path), path.open("rb") as file:
            tags = first_page(file)
        description = str(tags.get(_DESCRIPTION, ""))
        if any(word in description for word in _OF_MICROSCOPES) or any(tag in tags for tag in _TAGS_OF_MICROSCOPES):
            return True
        return georeference(path) is not None
    except ImageError:
        return False
