"""Frames are read from videos, and images are written as a video. PyAV (FFmpeg) does the coding; sound is dropped."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from cyclemlp.data.image_errors import MAX_PIXELS
from cyclemlp.data.images import Pixels
from cyclemlp.errors import DataError, MissingExtraError
from cyclemlp.files import atomic_write

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv"})
# FFmpeg's other formats include playlists and devices, which would open whatever they name.
_FORMATS = "mov,matroska,webm,avi,mpeg,mpegts,asf"
_USUAL_RATE = Fraction(25)
_MAX_DENOMINATOR = 1001
"""Rates such as 30000/1001 are exact; MPEG-4 takes no larger denominators than 65535."""
_ENCODERS = ("libx264", "mpeg4")
_MISSING_SHARE = 0.05
"""A file that ends earlier than its header says by this share is treated as cut off; headers may be slightly off."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video."""

    number: int
    """Counted from 1, in the order in which frames are shown."""
    seconds: float
    """When it is shown, counted from the first frame."""
    pixels: Pixels
    """(H, W, 3) RGB, rotated as the camera was held."""


class Video:
    """A video that is open for reading; `open_video` makes it."""

    def __init__(self, path: Path, container: "InputContainer", stream: "VideoStream") -> None:
        self.path = path
        self._container = container
        self._stream = stream
        stream.thread_type = "AUTO"

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        rate = self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE
        return rate.limit_denominator(_MAX_DENOMINATOR)

    @property
    def length(self) -> int | None:
        """Number of frames according to the file's header, None if it does not say."""
        if self._stream.frames:
            return self._stream.frames
        stated = re.fullmatch(r"(\d+):(\d+):([\d.]+)", self._stream.metadata.get("DURATION", ""))
        if stated is None:
            return None
        hours, minutes, seconds = stated.groups()
        return round((3600 * int(hours) + 60 * int(minutes) + float(seconds)) * self.rate)

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every `every`-th frame, from the first on. Raises DataError if the file is damaged or has no frames."""
        count, start = 0, 0.0
        for decoded in self._decoded():
            seconds = float(count / self.rate) if decoded.pts is None else decoded.time
            start = start if count else seconds
            if count % every == 0:
                yield Frame(count + 1, seconds - start, _upright(decoded))
            count += 1
        if not count:
            raise DataError(f"{self.path} has no frames; record it again")
        if self.length and count < (1 - _MISSING_SHARE) * self.length - 1:
            raise DataError(f"{self.path} ends after {count} of {self.length} frames; copy it again")

    def _decoded(self) -> "Iterator[VideoFrame]":
        av = _library()
        try:
            yield from self._container.decode(self._stream)
        except av.FFmpegError as error:
            raise DataError(f"{self.path} is damaged or incomplete ({_reason(error)}); copy it again") from error


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """The video file `path`. Raises DataError if it is not a video, MissingExtraError if PyAV is not installed."""
    av = _library()
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file; give a video")
    try:
        container = av.open(str(path), options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise DataError(f"{path} is not a video, or is incomplete ({_reason(error)}); convert it to MP4") from error
    with container:
        yield Video(path, container, _stream_of(path, container))


def _stream_of(path: Path, container: "InputContainer") -> "VideoStream":
    if not container.streams.video:
        raise DataError(f"{path} has no images in it, only sound or text; give a video")
    stream = container.streams.video[0]
    if stream.codec_context is None:  # the annotations do not say so: there is none where the header is damaged
        raise DataError(f"{path} is damaged or incomplete, or its codec is unknown; convert it to MP4")
    if stream.width * stream.height > MAX_PIXELS:
        raise DataError(f"{path} has frames over the limit of {MAX_PIXELS // 10**6} million pixels; scale it down")
    return stream


class VideoWriter:
    """Writes images as the frames of a video; `written_video` makes it."""

    def __init__(self, container: "OutputContainer", rate: Fraction) -> None:
        self._container = container
        self._rate = rate
        self._stream: VideoStream | None = None

    def add(self, image: Image.Image) -> None:
        """Add a frame. The first one sets the size; later ones are cut or padded to it."""
        av = _library()
        pixels = np.asarray(image.convert("RGB"))
        if self._stream is None:
            self._stream = self._new_stream(*pixels.shape[:2])
        pixels = _fitted(pixels, self._stream.height, self._stream.width)
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))

    def _new_stream(self, height: int, width: int) -> "VideoStream":
        encoder = next(name for name in _ENCODERS if name in _library().codecs_available)
        stream = cast("VideoStream", self._container.add_stream(encoder, rate=self._rate))
        # Colours are coded for 2 x 2 pixels.
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        return stream

    def finish(self) -> None:
        """Write the frames that have not been encoded yet."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))


@contextmanager
def written_video(path: Path, rate: Fraction) -> Iterator[VideoWriter]:
    """An MP4 file (H.264) with `rate` frames a second, which appears when the block succeeds, or not at all."""
    av = _library()
    with (
        atomic_write(path) as part,
        av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        writer = VideoWriter(container, rate)
        yield writer
        writer.finish()


def _library() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("av", "video") from error
    return av


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _upright(frame: "VideoFrame") -> Pixels:
    """RGB, rotated counter-clockwise as the file tells players to."""
    pixels = cast("Pixels", frame.to_ndarray(format="rgb24"))
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def _fitted(pixels: Pixels, height: int, width: int) -> Pixels:
    """Cut at the right and the bottom, or padded by repeating the last pixels."""
    pixels = pixels[:height, :width]
    missing = (0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)
    return np.pad(pixels, missing, mode="edge")
