"""Cuts the text of an object into the parts that are embedded, each by a request of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from media_embeddings.media import TextSegment
from media_embeddings.texts.object_text import Form, ObjectText, Stretch
from media_embeddings.texts.splitting import DEFAULT_OVERLAP, Fit, split


def cut(read: ObjectText, fit: Fit, overlap: float = DEFAULT_OVERLAP) -> Iterator[TextSegment]:
    """Yield the parts of a text in their order. What one request takes is left as it is.

    :param overlap: as :func:`media_embeddings.texts.splitting.split`; cues do not overlap, nor do two records.
    """
    if read.form is Form.CUES:
        yield from _cues(read, fit)
    elif read.form is Form.RECORDS:
        for one in read.stretches:
            yield from _prose(read.text, one.start_char, one.end_char, fit, overlap)
    else:
        yield from _prose(read.text, 0, len(read.text), fit, overlap)


def whole(read: ObjectText) -> TextSegment:
    """Return a text as one part, whatever its length."""
    times = _times(read.stretches)
    return TextSegment(read.text, 0, len(read.text), *times)


def _prose(text: str, start: int, end: int, fit: Fit, overlap: float) -> Iterator[TextSegment]:
    ranges = [(start, end)] if fit.takes(text, start, end) else split(text, start, end, fit, overlap)
    for at, to in ranges:
        yield TextSegment(text[at:to], at, to)


def _cues(read: ObjectText, fit: Fit) -> Iterator[TextSegment]:
    group: list[Stretch] = []
    for cue in read.stretches:
        if group and not fit.takes(read.text, group[0].start_char, cue.end_char):
            yield _grouped(read.text, group)
            group = []
        if fit.takes(read.text, cue.start_char, cue.end_char):
            group.append(cue)
        else:
            yield from _split_cue(read.text, cue, fit)
    if group:
        yield _grouped(read.text, group)


def _grouped(text: str, group: Sequence[Stretch]) -> TextSegment:
    start, end = group[0].start_char, group[-1].end_char
    return TextSegment(text[start:end], start, end, *_times(group))


def _split_cue(text: str, cue: Stretch, fit: Fit) -> Iterator[TextSegment]:
    """Yield the parts of a cue that is too long, which share its time in proportion to their characters."""
    first, last = cue.start_sec or 0.0, cue.end_sec or 0.0
    a_character = (last - first) / (cue.end_char - cue.start_char)
    for start, end in split(text, cue.start_char, cue.end_char, fit, overlap=0.0):
        times = (min(last, first + a_character * (place - cue.start_char)) for place in (start, end))
        yield TextSegment(text[start:end], start, end, *times)


def _times(stretches: Sequence[Stretch]) -> tuple[float | None, float | None]:
    starts = [one.start_sec for one in stretches if one.start_sec is not None]
    ends = [one.end_sec for one in stretches if one.end_sec is not None]
    return (min(starts) if starts else None, max(ends) if ends else None)
