"""Small files in which every fact is known, and long ones whose samples are tiny."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import av.container
import numpy as np
from PIL import Image

RATE = 16_000


@contextmanager
def _made(
    container: str, options: tuple[tuple[str, str], ...]
) -> Iterator[tuple[av.container.OutputContainer, Callable[[], bytes]]]:
    """Yield a container to fill, and what returns its content afterwards: to move a header FFmpeg needs a real file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "made"
        content = io.BytesIO()
        with av.open(str(path), mode="w", format=container, options=dict(options)) as made:
            yield made, content.getvalue
        content.write(path.read_bytes())


@cache
def video(
    container: str = "mp4",
    codec: str = "libx264",
    sound: str | None = "aac",
    *,
    seconds: float = 5.0,
    size: tuple[int, int] = (64, 48),
    frames_per_second: int = 10,
    options: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """Return a film of one colour, with noise as its sound, interleaved as a recorder would write it."""
    with _made(container, options) as (made, content):
        pictures = made.add_stream(codec, rate=frames_per_second)
        pictures.width, pictures.height, pictures.pix_fmt = *size, "yuv420p"
        if codec == "libx264":
            pictures.options = {"preset": "ultrafast", "crf": "51"}
        track = made.add_stream(sound, rate=RATE, layout="mono") if sound else None
        noise = np.random.default_rng(0).normal(scale=2000, size=(1, 1024)).astype(np.int16)
        resampler = av.AudioResampler(format=track.format, layout="mono", rate=RATE) if track else None
        frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 90, np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        at = 0
        for number in range(int(seconds * frames_per_second)):
            frame.pts, frame.time_base = number, Fraction(1, frames_per_second)
            made.mux(pictures.encode(frame))
            while track is not None and at / RATE < number / frames_per_second:
                samples = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
                samples.sample_rate, samples.pts, samples.time_base = RATE, at, Fraction(1, RATE)
                for resampled in resampler.resample(samples):
                    made.mux(track.encode(resampled))
                at += 1024
        made.mux(pictures.encode(None))
        if track is not None:
            made.mux(track.encode(None))
    return content()


@cache
def long_film(seconds: int, *, options: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return a film of 30 pictures a second, of which only the first is one: nobody decodes the others."""
    with _made("mp4", options) as (made, content):
        pictures = made.add_stream("libx264", rate=30)
        pictures.width, pictures.height, pictures.pix_fmt = 16, 16, "yuv420p"
        pictures.options = {"preset": "ultrafast", "tune": "zerolatency"}
        pictures.time_base = Fraction(1, 30)
        frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 90, np.uint8), format="rgb24").reformat(
            format="yuv420p"
        )
        frame.pts, frame.time_base = 0, Fraction(1, 30)
        (first,) = pictures.encode(frame)
        # Of two sizes, so that each has to stand in the table.
        samples = [b"\x00\x00\x00\x01\x41\x9a" + b"\x80" * length for length in (2, 3)]
        for number in range(seconds * 30):
            packet = av.Packet(samples[number % 2] if number else bytes(first))
            packet.stream, packet.time_base = pictures, Fraction(1, 30)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            made.mux(packet)
    return content()


@cache
def audio(container: str, codec: str, *, seconds: float = 5.0, options: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return noise."""
    file = io.BytesIO()
    with av.open(file, mode="w", format=container, options=dict(options)) as made:
        track = made.add_stream(codec, rate=RATE, layout="mono")
        resampler = av.AudioResampler(format=track.format, layout="mono", rate=RATE)
        noise = np.random.default_rng(0).normal(scale=2000, size=(1, int(seconds * RATE))).astype(np.int16)
        for start in range(0, noise.shape[1], RATE):
            samples = av.AudioFrame.from_ndarray(noise[:, start : start + RATE].copy(), format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = RATE, start, Fraction(1, RATE)
            for resampled in resampler.resample(samples):
                made.mux(track.encode(resampled))
        made.mux(track.encode(None))
    return file.getvalue()


def image(image_format: str = "PNG", size: tuple[int, int] = (160, 120), **options) -> bytes:
    """Return an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, image_format, **options)
    return file.getvalue()


def with_cover(music: bytes, cover_bytes: int) -> bytes:
    """Return an MP3 with an ID3 tag before it that holds a cover of so many bytes."""
    picture = b"\x00image/jpeg\x00\x03\x00" + bytes(cover_bytes)
    frame = b"APIC" + _synchsafe(len(picture)) + b"\x00\x00" + picture
    return b"ID3\x04\x00\x00" + _synchsafe(len(frame)) + frame + music


def _synchsafe(number: int) -> bytes:
    return bytes((number >> shift) & 0x7F for shift in (21, 14, 7, 0))


def boxes(content: bytes) -> list[tuple[bytes, int, int]]:
    """Return kind, begin and end of the outermost boxes of an MP4."""
    found, position = [], 0
    while position + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        found.append((kind, position, position + length))
        position += length
    return found
