"""Reads subtitles: SubRip (``.srt``) and WebVTT (``.vtt``, https://www.w3.org/TR/webvtt1/).

What is shown is read, without markup. Files in the field have cues with blank lines in them, commas where there should be
full stops, and numbers or none: all of that is read; a line that belongs to no cue is not passed over in silence.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from media_embeddings.texts.object_text import Form, ObjectText, Piece, UnreadableTextError, joined

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_MARKUP = re.compile(r"</?[A-Za-z][^<>\n]*>|<\d[\d:.]*>|\{\\[^{}\n]*\}")
_NO_CUES = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s.*)?")


def subrip(text: str) -> ObjectText:
    """Return what the cues of a SubRip file show, in the file's order.

    :raises UnreadableTextError: naming the line that is no part of a cue, or whose times are none.
    """
    lines = _lines(text)
    starts = [number for number, line in enumerate(lines) if "-->" in line]
    before = lines[: starts[0]] if starts else lines
    stray = next((number for number, line in enumerate(before, start=1) if _is_words(line)), None)
    if stray is not None:
        raise UnreadableTextError(f"line {stray} of the subtitles belongs to no cue: no line of times stands before it")
    return joined(_subrip_cues(lines, starts), Form.CUES)


def _subrip_cues(lines: Sequence[str], starts: Sequence[int]) -> Iterator[Piece]:
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        shown = lines[start + 1 : following]
        # The next cue's number stands before its times.
        if following is not None and shown and shown[-1].strip().isdecimal():
            shown = shown[:-1]
        yield _cue(start, lines[start], shown)


def webvtt(text: str) -> ObjectText:
    """Return what the cues of a WebVTT file show, in the file's order.

    :raises UnreadableTextError: naming the line that is no part of a cue, or whose times are none.
    """
    lines = _lines(text)
    if not lines[0].startswith("WEBVTT"):
        raise UnreadableTextError("line 1 of a .vtt file begins with WEBVTT, and this one does not")
    return joined((_webvtt_cue(number, block) for number, block in _blocks(lines)), Form.CUES)


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the blocks between blank lines that hold cues, each with the number of its first line, from 0."""
    block: list[str] = []
    for number, line in enumerate([*lines, ""]):
        if line.strip():
            block.append(line)
        elif block:
            first = number - len(block)
            if first > 0 and not _NO_CUES.fullmatch(block[0]):
                yield first, block
            block = []


def _webvtt_cue(first: int, block: Sequence[str]) -> Piece:
    # The line before the times, if any, is the cue's name.
    place = next((number for number, line in enumerate(block[:2]) if "-->" in line), None)
    if place is None:
        raise UnreadableTextError(f"line {first + 1} of the subtitles belongs to no cue: no line of times follows it")
    return _cue(first + place, block[place], block[place + 1 :])


def _cue(number: int, times: str, shown: Sequence[str]) -> Piece:
    found = _TIMES.fullmatch(times)
    if found is None:
        raise UnreadableTextError(f"line {number + 1} of the subtitles has no times of a cue: {times.strip()[:80]!r}")
    start, end = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
    if end < start:
        raise UnreadableTextError(f"line {number + 1} of the subtitles has a cue that ends before it begins")
    words = html.unescape(_MARKUP.sub("", "\n".join(shown)))
    return Piece("\n".join(line.strip() for line in words.split("\n") if line.strip()), start, end)


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(f"0.{fraction or 0}")


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _is_words(line: str) -> bool:
    return bool(line.strip()) and not line.strip().isdecimal()
