"""Videos are made here by the library itself, so that reading and writing are tested apart."""

import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.stream import VideoStream
from PIL import Image

from cyclemlp.data import videos
from cyclemlp.data.videos import open_video, written_video
from cyclemlp.errors import DataError, MissingExtraError


def write_clip(path: Path, frames: int = 12, *, encoder: str = "libx264", turned: int = 0, options: str = "") -> Path:
    """Frames of 64 x 48 pixels at 10 a second, grey as 10, 25, 40, ...; white at the upper left, noise below."""
    with av.open(str(path), "w", options={"movflags": options} if options else {}) as container:
        stream = cast("VideoStream", container.add_stream(encoder, rate=10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if turned:
            stream.set_display_rotation(turned)
        container.start_encoding()
        for number in range(frames):
            pixels = np.full((48, 64, 3), 10 + 15 * number, dtype=np.uint8)
            pixels[:24, :32] = 255
            pixels[24:, :32] = np.random.default_rng(number).integers(0, 256, (24, 32, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def grey(pixels: npt.NDArray[np.uint8]) -> float:
    return float(pixels[30:, 40:].mean())


@pytest.mark.parametrize(("suffix", "encoder"), [(".mp4", "libx264"), (".mkv", "libx264"), (".avi", "mpeg4")])
def test_frames_come_in_order_with_their_times(tmp_path: Path, suffix: str, encoder: str) -> None:
    with open_video(write_clip(tmp_path / f"clip{suffix}", encoder=encoder)) as video:
        assert (video.rate, video.length) == (Fraction(10), 12)
        frames = list(video.frames())
    assert [frame.number for frame in frames] == list(range(1, 13))
    assert [frame.seconds for frame in frames] == pytest.approx([i / 10 for i in range(12)], abs=2e-3)
    assert [grey(frame.pixels) for frame in frames] == pytest.approx([10 + 15 * i for i in range(12)], abs=4)
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3)}


def test_every_fifth_frame_keeps_its_number_and_time(clip: Path) -> None:
    with open_video(clip) as video:
        frames = list(video.frames(every=5))
    assert [(frame.number, round(frame.seconds, 3)) for frame in frames] == [(1, 0.0), (6, 0.5), (11, 1.0)]
    assert [grey(frame.pixels) for frame in frames] == pytest.approx([10, 85, 160], abs=4)


@pytest.mark.parametrize(("turned", "corner"), [(90, (40, 8)), (-90, (8, 40)), (180, (40, 56))])
def test_frames_are_turned_as_players_do(tmp_path: Path, turned: int, corner: tuple[int, int]) -> None:
    with open_video(write_clip(tmp_path / "clip.mp4", 1, turned=turned)) as video:
        (frame,) = video.frames()
    assert frame.pixels.shape == ((48, 64, 3) if turned == 180 else (64, 48, 3))
    assert frame.pixels[corner].min() > 240  # where the white quarter ends up


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught, open_video(path) as video:
        for _ in video.frames():
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", bytes(range(256)) * 20])
def test_what_is_not_a_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    message = refusal(tmp_path / "a.mp4")
    assert message.startswith(f"{tmp_path / 'a.mp4'} is not a video, or is incomplete (")
    assert message.endswith("; convert it to MP4")


def test_a_photograph_with_the_name_of_a_video(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.mp4", format="JPEG")
    assert "is not a video, or is incomplete" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("suffix", "encoder", "options", "message"),
    [
        (".mp4", "libx264", "", "incomplete"),
        # The encoder cuts frames into as many slices as it has processors: the last one is missing, or damaged.
        (".mp4", "libx264", "faststart", "of 12 frames; copy it again|is damaged or incomplete"),
        (".mkv", "libx264", "", "of 12 frames; copy it again"),
        (".avi", "mpeg4", "", "of 12 frames; copy it again"),
    ],
)
def test_cut_off_files(tmp_path: Path, suffix: str, encoder: str, options: str, message: str) -> None:
    path = write_clip(tmp_path / f"clip{suffix}", encoder=encoder, options=options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    assert re.search(message, refusal(path))


def test_damaged_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", options="faststart")
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + b"\xff" * (len(content) - half))
    assert refusal(path) == f"{path} is damaged or incomplete (Invalid data found when processing input); copy it again"


def test_a_video_without_frames(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_video: videos.Video) -> Iterator[av.VideoFrame]:
        return iter(())

    monkeypatch.setattr(videos.Video, "_decoded", nothing)
    assert refusal(clip) == f"{clip} has no frames; record it again"


def test_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert "has no images in it, only sound or text; give a video" in refusal(tmp_path / "a.mp4")


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.mp4") == f"{tmp_path / 'a.mp4'} does not exist or is not a file; give a video"


def test_frames_over_the_limit(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "MAX_PIXELS", 64 * 48 - 1)
    assert "has frames over the limit of 0 million pixels; scale it down" in refusal(clip)


def test_without_the_library(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with (
        pytest.raises(MissingExtraError, match=r"this needs av, .*: pip install 'cyclemlp\[video\]'"),
        open_video(clip),
    ):
        pass


def decoded(path: Path) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        return [cast("npt.NDArray[np.uint8]", frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_written_frames_have_the_size_of_the_first(tmp_path: Path) -> None:
    with written_video(tmp_path / "out.mp4", Fraction(30000, 1001)) as writer:
        for number, size in enumerate([(61, 41), (61, 41), (80, 30)]):
            writer.add(Image.new("RGB", size, (60 * number, 0, 0)))
    frames = decoded(tmp_path / "out.mp4")
    assert [frame.shape for frame in frames] == [(42, 62, 3)] * 3  # even edges
    assert [frame[..., 0].mean() for frame in frames] == pytest.approx([0, 60, 120], abs=8)


def test_a_stopped_video_leaves_nothing(tmp_path: Path) -> None:
    def write_and_stop() -> None:
        with written_video(tmp_path / "out.mp4", Fraction(10)) as writer:
            for _ in range(3):
                writer.add(Image.new("RGB", (64, 48)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert list(tmp_path.iterdir()) == []
