"""Cuts a stretch of time into segments. Pure: times in seconds in, (start, end) pairs out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .embedding_task import Segmentation

Span = tuple[float, float]

# A cut is a change of the picture by so much (mean absolute difference of 8-bit samples), and by so many times more
# than what is usual around it: fast motion alone is no cut.
CUT_DIFFERENCE = 22.0
CUT_RATIO = 2.5
CUT_NEIGHBOURS = 4


def text_spans(text: str, most: int) -> list[tuple[int, int]]:
    """Cut a text into parts of at most so many characters, at the end of a word where there is one."""
    spans: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = min(start + most, len(text))
        if end < len(text):
            end = next((place for place in range(end, start, -1) if text[place - 1].isspace()), end)
        spans.append((start, end))
        start = end
    return spans


def shot_boundaries(times: npt.NDArray[np.float64], pixels: npt.NDArray[np.uint8]) -> list[float]:
    """Find where one shot ends and the next begins.

    :param times: seconds of each sampled frame, ascending, shape (n,).
    :param pixels: the frames, shape (n, height, width, 3).
    :return: the time of the first frame of every shot but the first.
    """
    if len(times) < 2:
        return []
    flat = pixels.reshape(len(pixels), -1).astype(np.int16)
    differences = np.abs(np.diff(flat, axis=0)).mean(axis=1)
    boundaries = []
    for index, difference in enumerate(differences):
        around = np.concatenate(
            [differences[max(0, index - CUT_NEIGHBOURS) : index], differences[index + 1 : index + 1 + CUT_NEIGHBOURS]]
        )
        usual = float(np.median(around)) if len(around) else 0.0
        if difference >= CUT_DIFFERENCE and difference >= CUT_RATIO * usual:
            boundaries.append(float(times[index + 1]))
    return boundaries


def segments(segmentation: Segmentation, start: float, end: float, boundaries: Sequence[float] = ()) -> list[Span]:
    """Cut ``start`` to ``end``; ``boundaries`` are the shots' for the method ``shots``."""
    if end <= start:
        return []
    if segmentation.method == "fixed":
        return fixed(start, end, segmentation.length)
    if segmentation.method == "even":
        return even(start, end, segmentation.length)
    return by_shots(start, end, boundaries, segmentation.minimum, segmentation.maximum)


def fixed(start: float, end: float, length: float) -> list[Span]:
    """Cut every ``length`` seconds; the last segment is what remains."""
    # A remainder of less than a millisecond is rounding of the duration, not a segment.
    count = max(1, math.ceil((end - start - 0.001) / length))
    cuts = [start + index * length for index in range(count)]
    return list(pairwise([*cuts, end]))


def even(start: float, end: float, length: float) -> list[Span]:
    """Cut into equal parts whose length is as close to ``length`` as can be: 50 s are 5 x 10 s, 16 s are 2 x 8 s."""
    total = end - start
    fewer = max(1, math.floor(total / length))
    count = min((fewer, fewer + 1), key=lambda parts: abs(total / parts - length))
    cuts = [start + total * index / count for index in range(count)]
    return list(pairwise([*cuts, end]))


def by_shots(start: float, end: float, boundaries: Sequence[float], minimum: float, maximum: float) -> list[Span]:
    """Cut at shot boundaries.

    Shots shorter than ``minimum`` join their neighbour, longer than ``maximum`` are cut into equal parts. Every
    segment is ``minimum`` to ``maximum`` long (``maximum`` is at least twice ``minimum``), unless the whole is
    shorter than ``minimum``.
    """
    cuts = [start]
    for boundary in sorted(boundaries):
        if boundary - cuts[-1] >= minimum and end - boundary >= minimum:
            cuts.append(boundary)
    result: list[Span] = []
    for shot_start, shot_end in pairwise([*cuts, end]):
        parts = math.ceil((shot_end - shot_start) / maximum)
        inner = [shot_start + (shot_end - shot_start) * index / parts for index in range(parts)]
        result.extend(pairwise([*inner, shot_end]))
    return result
