"""The stand-in vectors: not Marengo's, but of the right shape and with a meaning that can be tested.

Content becomes features in four blocks (how much of each of twelve colours, a coarse picture, words, sound); the blocks
become a vector by a fixed matrix with orthonormal columns, so that the cosine of two vectors is exactly the cosine of
their features. Equal content gives equal vectors, similar frames near ones, and "red" lies where red pictures lie.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (240, 130, 20),
    "yellow": (245, 220, 40),
    "green": (40, 150, 50),
    "cyan": (40, 200, 215),
    "blue": (35, 75, 205),
    "purple": (125, 45, 165),
    "pink": (245, 135, 180),
    "brown": (115, 70, 35),
    "black": (15, 15, 15),
    "grey": (128, 128, 128),
    "white": (245, 245, 245),
}
"""The colours by name, with a typical RGB value of each."""

COLOUR_WORDS = {
    **{name: name for name in COLOURS},
    "gray": "grey",
    "silver": "grey",
    "crimson": "red",
    "scarlet": "red",
    "gold": "yellow",
    "golden": "yellow",
    "turquoise": "cyan",
    "teal": "cyan",
    "navy": "blue",
    "violet": "purple",
    "magenta": "pink",
    "dark": "black",
    "bright": "white",
}

PICTURE_GRID = 8
WORD_BUCKETS = 128
SOUND_BANDS = 64
SOUND_BEATS = 64
SOUND_FEATURES = SOUND_BANDS + SOUND_BEATS

_PICTURE_FEATURES = PICTURE_GRID * PICTURE_GRID * 3
PICTURE_ROW = len(COLOURS) + _PICTURE_FEATURES
_BLOCKS = (len(COLOURS), _PICTURE_FEATURES, WORD_BUCKETS, SOUND_BANDS, SOUND_BEATS)
_OFFSETS = np.concatenate([[0], np.cumsum(_BLOCKS)])
FEATURES = int(_OFFSETS[-1])

_COLOUR, _PICTURE, _WORDS, _BANDS, _BEATS = (slice(int(start), int(end)) for start, end in pairwise(_OFFSETS))

# How much each block counts, by embedding option; "" is for text and images.
_WEIGHTS: dict[str, tuple[float, float, float, float, float]] = {
    "": (1.0, 0.5, 0.5, 0.0, 0.0),
    "visual": (1.0, 0.5, 0.0, 0.0, 0.0),
    "visual-text": (1.0, 0.3, 0.0, 0.0, 0.0),
    "visual-image": (0.8, 0.8, 0.0, 0.0, 0.0),
    "audio": (0.0, 0.0, 0.0, 1.0, 0.3),
    "transcription": (0.0, 0.0, 0.0, 0.3, 1.0),
}


LEAST_DIMENSION = 512
"""The features are more numbers than a shorter vector has."""


@lru_cache(maxsize=8)
def _matrix(dimension: int) -> npt.NDArray[np.float64]:
    if dimension < FEATURES:
        raise ValueError(f"A vector needs at least {FEATURES} dimensions, not {dimension}.")
    random = np.random.default_rng(20231130)
    orthonormal, _ = np.linalg.qr(random.standard_normal((dimension, FEATURES)))
    return orthonormal


def _unit(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = float(np.linalg.norm(values))
    return values / length if length > 1e-12 else values


def pictures_of_frames(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return colour shares and a coarse picture, shape (n, PICTURE_ROW), of frames (n, height, width, 3)."""
    count, rows, columns, _ = pixels.shape
    # A quarter of the samples tells the colours as well.
    colours = pixels[:, ::2, ::2].reshape(-1, 3).astype(np.float32)
    centres = np.array(list(COLOURS.values()), dtype=np.float32)
    distances = (colours**2).sum(axis=1, keepdims=True) - 2 * colours @ centres.T + (centres**2).sum(axis=1)
    nearness = np.exp((distances.min(axis=1, keepdims=True) - distances) / (2 * 40.0**2))
    shares = (nearness / nearness.sum(axis=1, keepdims=True)).reshape(count, -1, len(COLOURS)).mean(axis=1)
    height, width = rows // PICTURE_GRID, columns // PICTURE_GRID
    fitting = pixels[:, : height * PICTURE_GRID, : width * PICTURE_GRID].astype(np.float32)
    coarse = fitting.reshape(count, PICTURE_GRID, height, PICTURE_GRID, width, 3).mean(axis=(2, 4))
    return np.concatenate([shares, coarse.reshape(count, -1) / 255.0 - 0.5], axis=1).astype(np.float32)


def features_of_pictures(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the features, shape (FEATURES,), of the mean of pictures (n, PICTURE_ROW)."""
    mean = pictures.astype(np.float64).mean(axis=0)
    result = np.zeros(FEATURES)
    result[_COLOUR] = _unit(mean[: len(COLOURS)])
    result[_PICTURE] = _unit(mean[len(COLOURS) :])
    return result


def features_of_text(text: str) -> npt.NDArray[np.float64]:
    """Return the features, shape (FEATURES,), of a text: its colour words where colours lie, every word in a bucket."""
    result = np.zeros(FEATURES)
    names = list(COLOURS)
    # A text of signs alone must have a direction too.
    for word in re.findall(r"\w+", text.lower()) or [text]:
        if word in COLOUR_WORDS:
            result[_COLOUR.start + names.index(COLOUR_WORDS[word])] += 1.0
        result[_WORDS.start + zlib.crc32(word.encode()) % WORD_BUCKETS] += 1.0
    result[_COLOUR] = _unit(result[_COLOUR])
    result[_WORDS] = _unit(result[_WORDS])
    return result


def picture_of_sound(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return loudness by frequency band and by moment, shape (SOUND_FEATURES,), of one window of mono sound."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    edges = np.geomspace(2, len(spectrum) - 1, SOUND_BANDS + 1)
    cumulative = np.concatenate([[0.0], np.cumsum(spectrum)])
    bands = np.diff(np.interp(edges, np.arange(len(cumulative)), cumulative)) / np.diff(edges)
    usable = len(samples) // SOUND_BEATS * SOUND_BEATS
    beats = np.sqrt((samples[:usable].reshape(SOUND_BEATS, -1).astype(np.float64) ** 2).mean(axis=1))
    return np.concatenate([np.log1p(bands), np.log1p(100 * beats)]).astype(np.float32)


def features_of_sound(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the features, shape (FEATURES,), of the mean of windows (n, SOUND_FEATURES)."""
    mean = windows.astype(np.float64).mean(axis=0)
    result = np.zeros(FEATURES)
    # Silence too must have a direction.
    result[_BANDS] = _unit(mean[:SOUND_BANDS] + 1e-3)
    result[_BEATS] = _unit(mean[SOUND_BANDS:] + 1e-3)
    return result


def weighted(features: npt.NDArray[np.float64], option: str) -> npt.NDArray[np.float64]:
    """Return the features as an embedding option sees them."""
    result: npt.NDArray[np.float64] = features * np.repeat(_WEIGHTS[option], _BLOCKS)
    return result


def vector(features: npt.NDArray[np.float64], dimension: int) -> Vector:
    """Return the unit vector of ``dimension`` for weighted features; a short one is the beginning of a longer one."""
    numbers = _matrix(max(dimension, LEAST_DIMENSION)) @ _unit(features)
    result: Vector = (numbers if dimension >= LEAST_DIMENSION else _unit(numbers[:dimension])).astype(np.float32)
    return result
