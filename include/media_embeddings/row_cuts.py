"""Where an ``output.json`` may be cut between two rows, so that each part is given the wrapper of the whole.

A cut is made where ``}``, a comma and ``{`` follow each other. Where that is not between two rows, but within a text or a
deeper list, the part is no JSON; where it is in another list of the wrapper, the part has another key: who parses a part
looks whether it is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

# Up to a first row, a list of them in the wrappers that output_rows.py knows.
_WRAPPER = re.compile(rb'\s*(?:\{\s*"(?:data|embeddings)"\s*:\s*){0,2}\[\s*(?=\{)')
# The white space of JSON: what is cut out here nobody else sees.
_BETWEEN_ROWS = re.compile(rb"\}[ \t\n\r]*,[ \t\n\r]*(?=\{)")
_LONGEST_BETWEEN = 64
# It has to have room in front of any piece.
_LONGEST_OPENING = 1024
# An output is made of rows that are all alike: where so many braces are no ends of rows, none is.
_MOST_BRACES = 64
# What it takes to be parsed stays in the processor's cache.
_PIECE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Wrapper:
    """What stands around the rows of an output."""

    opening: bytes

    @classmethod
    def of(cls, beginning: bytes) -> Self | None:
        """Return the wrapper of an output that begins so; None if it is not known."""
        found = _WRAPPER.match(beginning, 0, _LONGEST_OPENING)
        return None if found is None else cls(found.group())

    @property
    def closing(self) -> bytes:
        """Return what closes the opening."""
        return b"]" + b"}" * self.opening.count(b"{")


def last_cut(text: bytes) -> tuple[int, int] | None:
    """Return where the last row but one ends and the last one begins, of those that may be told apart."""
    end = len(text)
    for _ in range(_MOST_BRACES):
        start = text.rfind(b"}", 0, end)
        if start < 0:
            break
        found = _BETWEEN_ROWS.match(text, start, start + _LONGEST_BETWEEN)
        if found is not None:
            return start + 1, found.end()
        end = start
    return None


def pieces(text: memoryview, wrapper: Wrapper) -> Iterator[tuple[memoryview, bool]]:
    """Yield a part of an output in as many parts as are parsed the fastest, each with whether it is the last.

    Each has the wrapper, as the given text does. All but the last hold nothing but rows; the last ends as the given text does.

    :param text: whose memory has each part in its turn, so that none is copied; of no use afterwards.
    """
    opening, closing = wrapper.opening, wrapper.closing
    # What is cut off may end right behind a cut: there has to be room for the closing.
    start, last = 0, len(text) - len(closing)
    while (found := _BETWEEN_ROWS.search(text, start + _PIECE_BYTES, last)) is not None:
        end = found.start() + 1
        behind = text[end : end + len(closing)]
        kept = bytes(behind)
        behind[:] = closing
        yield text[start : end + len(closing)], False
        behind[:] = kept
        start = found.end() - len(opening)
        text[start : found.end()] = opening
    yield text[start:], True
