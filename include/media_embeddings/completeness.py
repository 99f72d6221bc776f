"""Judges whether an output holds what was asked for. Pure.

What is checked is what the models' pages promise; what they leave open (where offsets count from, whether options share their
segments, which rows a file without sound has) is accepted either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from media_embeddings.models.segments import SegmentRules, Track
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.results import SegmentRows

LEAST_NORM, GREATEST_NORM = 1e-3, 1e3
"""A vector outside of these says nothing; no page states the norm of Marengo's vectors."""


_WITHOUT_GAPS = frozenset({Track.PICTURE, Track.SOUND})


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found: a violation, or options that the media have no track for."""

    violation: Reason | None = None
    absent_options: tuple[str, ...] = ()


def judge(rows: SegmentRows, rules: SegmentRules) -> Judgement:
    """Return what an output violates, the first thing found; or which options it has no rows of."""
    if (unusual := _unusual_norm(rows)) is not None:
        return Judgement(Reason(ReasonCode.OUTPUT_INVALID, unusual))
    if not rules.options:
        number = len(rows.embedding)
        return Judgement(None if number == 1 else _incomplete(f"there are {number} rows, and there is one embedding"))
    present = {option for option in rows.embedding_option if option is not None}
    absent = tuple(option for option in rules.options if option not in present)
    for found in (_torn_track(rules, present), *(_wrong_option(rows, rules, option) for option in rules.options)):
        if found is not None:
            return Judgement(_incomplete(found))
    if (found := _uneven_ends(rows, rules)) is not None:
        return Judgement(_incomplete(found))
    return Judgement(absent_options=absent)


def _incomplete(message: str) -> Reason:
    return Reason(ReasonCode.OUTPUT_INCOMPLETE, message)


def _unusual_norm(rows: SegmentRows) -> str | None:
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", rows.embedding, rows.embedding)
    usual = (squares >= LEAST_NORM**2) & (squares <= GREATEST_NORM**2)
    if usual.all():
        return None
    worst = int(np.argmin(usual))
    norm = float(np.linalg.norm(rows.embedding[worst].astype(np.float64)))
    return f"segment {worst} has a vector of length {norm:g}, which says nothing"


def _torn_track(rules: SegmentRules, present: set[str]) -> str | None:
    """Return that a track has rows of one of its options and not of another."""
    for track in Track:
        options = [option for option, of in rules.options.items() if of is track]
        there = [option for option in options if option in present]
        if there and len(there) < len(options):
            missing = ", ".join(option for option in options if option not in present)
            return f"there are rows of {', '.join(there)}, and none of {missing}, which is made from the same track"
    return None


def _wrong_option(rows: SegmentRows, rules: SegmentRules, option: str) -> str | None:
    track = rules.options[option]
    clips = _stretches(rows, option)
    assets = [scope for scope, of in zip(rows.embedding_scope, rows.embedding_option, strict=True) if of == option]
    number = assets.count("asset")
    if track in _WITHOUT_GAPS and (clips or number):
        if "clip" in rules.scopes and not clips:
            return f"{option} has no rows of clips"
        if "asset" in rules.scopes and number != 1:
            return f"{option} has {number} rows of the whole asset, and there is one"
    return _wrong_times(clips, rules, option) if track in _WITHOUT_GAPS else _overlap(clips, rules, option)


def _stretches(rows: SegmentRows, option: str) -> list[tuple[float, float]]:
    """Return the start and end of an option's clips, in the order of time."""
    return sorted(
        (start, end)
        for start, end, of, scope in zip(
            rows.start_sec, rows.end_sec, rows.embedding_option, rows.embedding_scope, strict=True
        )
        if of == option and scope == "clip" and start is not None and end is not None
    )


def _wrong_times(clips: Sequence[tuple[float, float]], rules: SegmentRules, option: str) -> str | None:
    if not clips:
        return None
    tolerance = rules.tolerance_sec
    first, last = clips[0][0], clips[-1][1]
    # It is not documented whether times count from the file's start or from the requested one.
    if min(abs(first), abs(first - rules.start_sec)) > tolerance:
        return f"{option} begins at {first:g} s, and {rules.start_sec:g} s was asked for"
    if rules.end_sec is not None and last > rules.end_sec + tolerance:
        return f"{option} goes on until {last:g} s, and was asked for until {rules.end_sec:g} s"
    for (_, end), (start, _) in pairwise(clips):
        if start - end > tolerance:
            return f"{option} has nothing between {end:g} s and {start:g} s"
    if rules.fixed_sec is not None:
        for start, end in clips[:-1]:
            if abs(end - start - rules.fixed_sec) > tolerance:
                return f"{option} has a segment from {start:g} s to {end:g} s, and {rules.fixed_sec:g} s each were asked for"
    return _overlap(clips, rules, option)


def _overlap(clips: Sequence[tuple[float, float]], rules: SegmentRules, option: str) -> str | None:
    for (_, end), (start, _) in pairwise(clips):
        if end - start > rules.tolerance_sec:
            return f"{option} has two segments for what is between {start:g} s and {end:g} s"
    return None


def _uneven_ends(rows: SegmentRows, rules: SegmentRules) -> str | None:
    """Return that one option of the pictures ends before another: both are made from the same frames."""
    ends = {
        option: clips[-1][1]
        for option, track in rules.options.items()
        if track is Track.PICTURE and (clips := _stretches(rows, option))
    }
    if not ends or max(ends.values()) - min(ends.values()) <= rules.tolerance_sec:
        return None
    return "the options end at different times: " + ", ".join(f"{option} at {end:g} s" for option, end in ends.items())
