"""The stand-in vectors are unit vectors with a meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_simulator import vectors
from bedrock_simulator.vectors import COLOURS

DIMENSIONS = [512, 1024]


def picture(colour, noise: int = 0) -> np.ndarray:
    random = np.random.default_rng(7)
    pixels = np.full((1, 32, 32, 3), colour, dtype=np.int16) + random.integers(-noise, noise + 1, (1, 32, 32, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def vector_of_picture(pixels: np.ndarray, dimension: int, option: str = "visual-text") -> np.ndarray:
    features = vectors.features_of_pictures(vectors.pictures_of_frames(pixels))
    return vectors.vector(vectors.weighted(features, option), dimension)


def vector_of_text(text: str, dimension: int) -> np.ndarray:
    return vectors.vector(vectors.weighted(vectors.features_of_text(text), ""), dimension)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@settings(deadline=None)
@given(text=st.text(min_size=1))
def test_every_text_has_a_unit_vector(dimension, text):
    vector = vector_of_text(text, dimension)
    assert vector.shape == (dimension,)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


@settings(deadline=None)
@given(colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_every_picture_has_a_unit_vector(colour):
    assert np.linalg.norm(vector_of_picture(picture(colour), 512)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("word", sorted(COLOURS))
def test_a_colour_word_lies_nearest_to_the_picture_of_its_colour(dimension, word):
    text = vector_of_text(f"a {word} thing", dimension)
    similarities = {name: float(vector_of_picture(picture(rgb), dimension) @ text) for name, rgb in COLOURS.items()}
    assert max(similarities, key=similarities.__getitem__) == word


def test_similar_pictures_are_nearer_than_others():
    red = vector_of_picture(picture((215, 30, 35)), 512)
    noisy_red = vector_of_picture(picture((205, 40, 40), noise=10), 512)
    blue = vector_of_picture(picture((35, 75, 205)), 512)
    assert red @ noisy_red > 0.9
    assert red @ noisy_red > red @ blue + 0.3


def tone(frequency: float, loudness: float = 0.3) -> np.ndarray:
    samples = (loudness * np.sin(2 * np.pi * frequency * np.arange(4000) / 8000)).astype(np.float32)
    features = vectors.features_of_sound(vectors.picture_of_sound(samples)[np.newaxis])
    return vectors.vector(vectors.weighted(features, "audio"), 512)


def test_similar_sounds_are_nearer_than_others():
    assert tone(440) @ tone(445) > tone(440) @ tone(2500) + 0.1


def test_silence_has_a_unit_vector():
    assert np.linalg.norm(tone(440, loudness=0.0)) == pytest.approx(1.0, abs=1e-5)


def test_a_short_vector_is_the_beginning_of_a_longer_one_with_unit_length():
    features = vectors.weighted(vectors.features_of_text("red boat"), "")
    long, short = vectors.vector(features, 512), vectors.vector(features, 256)

    assert np.linalg.norm(short) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(short, long[:256] / np.linalg.norm(long[:256]), atol=1e-6)
