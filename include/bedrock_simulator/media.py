"""Decodes media with PyAV and Pillow into what the vectors need: small frames, and a coarse picture of the sound.

Nothing is kept at full size: frames are scaled to ``FRAME_SIZE`` squared, sound is reduced window by window.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import BinaryIO, ParamSpec, TypeVar

import av
import av.container
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from .embedding_task import MediaKind
from .vectors import picture_of_sound

FRAME_SIZE = 32
FRAMES_PER_SECOND = 4.0
# Longer stretches are sampled at their key frames only; encoders put one at most scene cuts.
DECODE_EVERY_FRAME_UP_TO_SECONDS = 120.0
SOUND_RATE = 8000
SOUND_WINDOW_SECONDS = 0.5

# FFmpeg demuxers that read text or single pictures as if they were video.
_NO_VIDEO_FORMATS = ("_pipe", "image2", "gif", "apng", "ico", "tty", "srt", "ass", "webvtt", "lrc")

Pixels = npt.NDArray[np.uint8]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class UnusableMediaError(Exception):
    """The content can't be decoded, or is not what was said; the message becomes the job's failureMessage."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the header of a video or audio file says. ``duration_sec`` is None where it says nothing."""

    kind: MediaKind
    duration_sec: float | None
    has_audio: bool
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Frames:
    """Small frames: ``times`` in seconds, ascending, shape (n,); ``pixels`` (n, FRAME_SIZE, FRAME_SIZE, 3)."""

    times: npt.NDArray[np.float64]
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Sampled:
    """Something along time: ``times`` in seconds, ascending, shape (n,), n >= 1; ``rows`` one each, shape (n, m)."""

    times: npt.NDArray[np.float64]
    rows: npt.NDArray[np.float32]

    def within(self, start: float, end: float) -> npt.NDArray[np.float32]:
        """Return the rows from ``start`` to before ``end``, or the nearest one where there is none."""
        first, last = np.searchsorted(self.times, (start, end))
        if first < last:
            return self.rows[first:last]
        nearest = int(np.argmin(np.abs(self.times - (start + end) / 2)))
        return self.rows[nearest : nearest + 1]


def _as_unusable(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn what FFmpeg says of a broken file into an :class:`UnusableMediaError`."""

    @wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except av.error.FFmpegError as error:
            raise UnusableMediaError(f"The media can't be decoded: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise UnusableMediaError("The media can't be decoded: their header is no text.") from error

    return wrapper


@contextmanager
def _opened(file: BinaryIO) -> Iterator[av.container.InputContainer]:
    file.seek(0)
    with av.open(file, mode="r", metadata_errors="ignore") as container:
        yield container


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _video_stream(container: av.container.InputContainer) -> VideoStream | None:
    if any(name.endswith(_NO_VIDEO_FORMATS) for name in container.format.name.split(",")):
        return None
    return next((stream for stream in container.streams.video if not _is_cover(stream)), None)


def _audio_stream(container: av.container.InputContainer) -> AudioStream | None:
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


@_as_unusable
def probe(file: BinaryIO, expected: MediaKind) -> Probe:
    """Read the header of a video or audio file.

    :raises UnusableMediaError: if it can't be read, or is of another kind than expected.
    """
    with _opened(file) as container:
        video, audio = _video_stream(container), _audio_stream(container)
        if video is None and audio is None:
            raise UnusableMediaError(f"The content is not {expected}: it has neither a video nor an audio track.")
        kind = MediaKind.VIDEO if video is not None else MediaKind.AUDIO
        if kind is not expected:
            raise UnusableMediaError(f"The content is {kind}, but the inputType is {expected}.")
        stream = video or audio
        duration = container.duration / av.time_base if container.duration else None
        if duration is None and stream is not None and stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        return Probe(
            kind=kind,
            duration_sec=duration,
            has_audio=audio is not None,
            width=video.width if video else 0,
            height=video.height if video else 0,
        )


@_as_unusable
def read_frames(file: BinaryIO, start: float, end: float) -> Frames:
    """Decode small frames of a video from ``start`` to ``end``, at least one.

    :raises UnusableMediaError: if not one frame can be decoded.
    """
    times: list[float] = []
    frames: list[Pixels] = []
    with _opened(file) as container:
        stream = _video_stream(container)
        if stream is None:
            raise UnusableMediaError("The content has no video track.")
        stream.thread_type = "AUTO"
        if end - start > DECODE_EVERY_FRAME_UP_TO_SECONDS:
            stream.codec_context.skip_frame = "NONKEY"
        _seek(container, start)
        origin = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
        for frame in container.decode(stream):
            time = max(0.0, (frame.time or 0.0) - origin)
            if time >= end and times:
                break
            if time < start - 1 / FRAMES_PER_SECOND or (times and time - times[-1] < 0.999 / FRAMES_PER_SECOND):
                continue
            times.append(time)
            frames.append(_small(frame))
    if not frames:
        raise UnusableMediaError("The media can't be decoded: its video track has no readable frame.")
    return Frames(np.array(times), np.stack(frames))


def _small(frame: VideoFrame) -> Pixels:
    small = frame.reformat(width=FRAME_SIZE, height=FRAME_SIZE, format="rgb24", interpolation="AREA")
    return np.asarray(small.to_ndarray(), dtype=np.uint8)


def _seek(container: av.container.InputContainer, start: float) -> None:
    if start > 1.0:
        container.seek(int(start * av.time_base), backward=True)


@_as_unusable
def read_sound(file: BinaryIO, start: float, end: float) -> Sampled:
    """Decode the sound from ``start`` to ``end``: one row of SOUND_FEATURES a window.

    :raises UnusableMediaError: if there is no sound to decode.
    """
    window = int(SOUND_RATE * SOUND_WINDOW_SECONDS)
    rows: list[npt.NDArray[np.float32]] = []
    first: float | None = None
    rest = np.zeros(0, dtype=np.float32)
    with _opened(file) as container:
        stream = _audio_stream(container)
        if stream is None:
            raise UnusableMediaError("The content has no audio track.")
        resampler = AudioResampler(format="flt", layout="mono", rate=SOUND_RATE)
        _seek(container, start)
        for frame in container.decode(stream):
            time = frame.time or 0.0
            if time >= end:
                break
            if time + frame.samples / frame.sample_rate <= start:
                continue
            first = time if first is None else first
            chunks = [resampled.to_ndarray()[0] for resampled in resampler.resample(frame)]
            rest = np.concatenate([rest, *chunks])
            while len(rest) >= window:
                rows.append(picture_of_sound(rest[:window]))
                rest = rest[window:]
    if len(rest) and (not rows or len(rest) >= window // 2):
        rows.append(picture_of_sound(np.pad(rest, (0, window - len(rest)))))
    if first is None or not rows:
        raise UnusableMediaError("The media can't be decoded: its audio track has no readable sound.")
    times = max(0.0, first) + SOUND_WINDOW_SECONDS * np.arange(len(rows), dtype=np.float64)
    return Sampled(times, np.stack(rows))


def read_image(content: bytes, formats: Collection[str]) -> tuple[Pixels, tuple[int, int]]:
    """Decode an image.

    :param formats: the formats that are taken, by Pillow's names.
    :return: pixels of shape (FRAME_SIZE, FRAME_SIZE, 3), and the image's width and height.
    :raises UnusableMediaError: if it is no image of these formats.
    """
    try:
        with Image.open(io.BytesIO(content), formats=list(formats)) as image:
            size = image.size
            image.draft("RGB", (4 * FRAME_SIZE, 4 * FRAME_SIZE))
            small = image.convert("RGB").resize((FRAME_SIZE, FRAME_SIZE), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnusableMediaError(f"The content is not an image of the formats {', '.join(formats)}.") from error
    return np.asarray(small, dtype=np.uint8), size
