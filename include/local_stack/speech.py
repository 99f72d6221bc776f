"""Synthesised speech, through the eSpeak NG library that comes in the ``espeakng-loader`` wheel."""

from __future__ import annotations

import ctypes
import io
import os
import subprocess
import sys
import wave
from pathlib import Path

import espeakng_loader

from local_stack.processes import LocalStackError

# https://github.com/espeak-ng/espeak-ng/blob/1.52.0/src/include/espeak-ng/speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_CHARACTERS_ARE_UTF8 = 1
_POSITION_IN_CHARACTERS = 1
_RATE_PARAMETER = 1
_WORDS_PER_MINUTE = 140
_SEED = 1

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str, language: str) -> bytes:
    """Return the text read aloud as a WAV file: one channel, 16 bits, 22,050 samples a second.

    Each text is spoken in a process of its own: what the library has spoken before changes the noise of its consonants,
    and the same text is to give the same file.

    :param language: a voice of eSpeak NG, such as ``en`` or ``de``.
    :raises LocalStackError: if the library has no such voice or can't be used.
    """
    spoken = subprocess.run(  # noqa: S603 (this module)
        [sys.executable, "-m", __spec__.name, language],
        input=text.encode(),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    if spoken.returncode != 0:
        raise LocalStackError(f"eSpeak NG could not speak {language}: {spoken.stderr.decode(errors='replace').strip()}")
    return spoken.stdout


def _speak(text: str, language: str) -> bytes:
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    samples = bytearray()

    def collect(chunk: ctypes._Pointer[ctypes.c_short], count: int, _events: object) -> int:
        if chunk and count > 0:
            samples.extend(ctypes.string_at(chunk, count * ctypes.sizeof(ctypes.c_short)))
        return 0

    callback = _Callback(collect)
    rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate <= 0:
        raise OSError(f"espeak_Initialize answered {rate}")
    try:
        library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(language.encode()) != 0:
            raise ValueError(f"there is no voice {language}")
        library.espeak_SetParameter(_RATE_PARAMETER, _WORDS_PER_MINUTE, 0)
        encoded = text.encode() + b"\0"
        answer = library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POSITION_IN_CHARACTERS, 0, _CHARACTERS_ARE_UTF8, None, None
        )
        if answer != 0 or not samples:
            raise OSError(f"espeak_Synth answered {answer}")
    finally:
        library.espeak_Terminate()
    return wav(bytes(samples), rate)


def wav(samples: bytes, rate: int) -> bytes:
    """Return 16-bit samples of one channel as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(samples)
    return file.getvalue()


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(_speak(sys.stdin.buffer.read().decode(), sys.argv[1]))
    except (OSError, ValueError) as problem:
        sys.exit(str(problem))
