"""How near vectors are: fast in float32 with a known error, then exactly, in float64, for the few that may be hits.

What a matrix product gives for a row depends on where the row stands in the matrix, by a few units in the last place. So
it only tells which rows may be hits; their scores are computed one row like another, so that equal vectors have equal
scores wherever they lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Scores = NDArray[np.float64]

# The squares of smaller or larger numbers leave the range of float32.
_LEAST_LENGTH, _GREATEST_LENGTH = 1e-15, 1e15


def exact_cosines(vectors: Vectors, queries: Vectors) -> Scores:
    """Return the cosine of each vector with the nearest of the queries; -inf for a vector of zeros, which has none.

    :param vectors: shape (segments, dimension), of finite numbers.
    :param queries: shape (queries, dimension), none of zeros.
    """
    wide = vectors.astype(np.float64)
    lengths = np.sqrt((wide * wide).sum(axis=1))
    nearest = np.full(len(wide), -np.inf)
    for query in queries.astype(np.float64):
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = (wide * query).sum(axis=1) / (lengths * np.sqrt((query * query).sum()))
        nearest = np.maximum(nearest, np.where(lengths > 0, np.clip(cosines, -1.0, 1.0), -np.inf))
    return nearest


def margin(dimension: int) -> float:
    """Return how far a cosine of :func:`quick_cosines` may be from the exact one.

    A sum of n products in float32 is off by at most n units of 2^-24, times the vectors' lengths; so is a length.
    """
    return float(4 * (dimension + 8) * 2.0**-24)


def quick_cosines(vectors: Vectors, queries: Vectors) -> NDArray[np.float32]:
    """Return the cosines of :func:`exact_cosines` up to :func:`margin`, by a matrix product.

    :param queries: of unit length.
    """
    with np.errstate(all="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        products = vectors @ queries.T
        cosines: NDArray[np.float32] = products.max(axis=1) / lengths
    # Written so that infinity and NaN are outside as well.
    outside = ~((lengths > _LEAST_LENGTH) & (lengths < _GREATEST_LENGTH))
    if outside.any():
        cosines[outside] = exact_cosines(vectors[outside], queries)
    return cosines


def unit(queries: NDArray[np.floating[Any]]) -> Vectors:
    """Return vectors of the same directions and of length 1.

    :raises ValueError: where one has no direction, or a number that is not finite.
    """
    wide = np.asarray(queries, dtype=np.float64)
    # By its greatest number first, so that no square leaves the range.
    greatest = np.abs(wide).max(axis=1, keepdims=True)
    if not np.isfinite(greatest).all() or not (greatest > 0).all():
        raise ValueError("a query's vector must have finite numbers, and not only zeros")
    wide = wide / greatest
    units: Vectors = (wide / np.sqrt((wide * wide).sum(axis=1, keepdims=True))).astype(np.float32)
    return units
