"""Small media made for the tests: every pixel and sample is known."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (215, 30, 35), (40, 150, 50), (35, 75, 205), (245, 245, 245)
SAMPLE_RATE = 16_000
STORY = "A red boat lay in the blue water. " * 50


def image(colour: tuple[int, int, int], image_format: str = "PNG", size: tuple[int, int] = (160, 128)) -> bytes:
    """Return an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, image_format)
    return file.getvalue()


def video(
    shots: Sequence[tuple[tuple[int, int, int], float]], *, with_sound: bool = True, frames_per_second: int = 12
) -> bytes:
    """Return an MP4 whose shots are each of one colour and so many seconds long, with a tone as its sound."""
    file = io.BytesIO()
    with av.open(file, mode="w", format="mp4") as container:
        pictures = container.add_stream("libx264", rate=frames_per_second, options={"preset": "ultrafast"})
        pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if with_sound else None
        for colour, seconds in shots:
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), colour, dtype=np.uint8), format="rgb24")
            for _ in range(round(seconds * frames_per_second)):
                container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        if sound is not None:
            _encode_tone(container, sound, sum(seconds for _, seconds in shots))
    return file.getvalue()


def audio(seconds: float, audio_format: str = "wav", frequency: float = 440.0) -> bytes:
    """Return a tone."""
    codec = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame"}[audio_format]
    file = io.BytesIO()
    with av.open(file, mode="w", format=audio_format) as container:
        sound = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        _encode_tone(container, sound, seconds, frequency)
    return file.getvalue()


def _encode_tone(container, sound, seconds: float, frequency: float = 440.0) -> None:
    total = round(seconds * SAMPLE_RATE)
    tone = (0.3 * np.sin(2 * np.pi * frequency * np.arange(total) / SAMPLE_RATE) * 32767).astype(np.int16)
    resampler = av.AudioResampler(format=sound.format, layout="mono", rate=SAMPLE_RATE)
    for start in range(0, total, 1024):
        frame = av.AudioFrame.from_ndarray(tone[np.newaxis, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        for resampled in resampler.resample(frame):
            container.mux(sound.encode(resampled))
    container.mux(sound.encode(None))


def silence(seconds: int, sample_rate: int = 1000) -> bytes:
    """Return a WAV of so many seconds of silence, small enough for hours."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(sample_rate)
        sound.writeframes(b"\x80" * (seconds * sample_rate))
    return file.getvalue()
