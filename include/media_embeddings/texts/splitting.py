"""Splits a text into parts that one request takes: at the ends of sentences, else between words, else anywhere. Pure.

Parts are ranges of the text. Together they cover every character that is not white space; each begins within the end of
the one before, so that what stands around a cut is in one of the two as a whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from media_embeddings.texts.tokens import DEFAULT_CHARACTERS_PER_TOKEN, MARKER_TOKENS, pieces

Range = tuple[int, int]
"""Where a part begins, and the place behind its last character."""

DEFAULT_OVERLAP = 0.1
MOST_OVERLAP = 0.5
_LEAST_TOKENS = 10
_LEAST_CHARACTERS = 4
# Longer than any sentence's tokens: this bounds the white space within a part.
_MOST_CHARACTERS_A_TOKEN = 32

# Closing quotation marks and brackets, and the full stops of Chinese and Japanese, which no space follows.
_CLOSING = r"\"'\u201d\u2019\u00bb)\]"
_FULL_WIDTH_STOP, _FULL_WIDTH_CLOSING = r"\u3002\uff01\uff1f\uff61", r"\u300d\u300f\u201d\u2019\uff09"
_SENTENCE_END = re.compile(
    # A full stop before a small letter, or behind an initial, is that of an abbreviation.
    rf"(?<![\s.][A-Z])[.!?\u2026]+[{_CLOSING}]*(?=\s+[^\sa-z]|\s*\Z)"
    rf"|[{_FULL_WIDTH_STOP}]+[{_FULL_WIDTH_CLOSING}]*"
    # A blank line, a heading, an item of a list, a line of a table.
    r"|(?<=\S)(?=[^\S\n]*\n[^\S\n]*\n)|(?<=\S)(?=[^\S\n]*\n[#>|*-])"
)
# How far behind a place is looked at to tell whether a sentence ends there.
_AHEAD = 64
_WORD_START = re.compile(r"(?<=\s)\S")
_LONGEST_CLUSTER = 16
_JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class Fit:
    """What one request takes of a text: so many tokens, so many characters, or both."""

    tokens: int | None = None
    characters: int | None = None
    characters_per_token: int = DEFAULT_CHARACTERS_PER_TOKEN

    def __post_init__(self) -> None:
        """Refuse what some single character would not go into."""
        if (self.tokens is None and self.characters is None) or (self.tokens or _LEAST_TOKENS) < _LEAST_TOKENS:
            raise ValueError(f"a text needs a limit, of at least {_LEAST_TOKENS} tokens (found {self})")
        if self.most_characters < _LEAST_CHARACTERS:
            raise ValueError(f"a part of a text has at least {_LEAST_CHARACTERS} characters (found {self})")

    @property
    def most_characters(self) -> int:
        """Return how many characters a part has at most, white space included."""
        by_tokens = None if self.tokens is None else self.tokens * _MOST_CHARACTERS_A_TOKEN
        return min(one for one in (by_tokens, self.characters) if one is not None)

    def takes(self, text: str, start: int, end: int) -> bool:
        """Return whether a stretch of text goes into one request."""
        return self.reach(text, start, end) == end

    def reach(self, text: str, start: int, end: int) -> int:
        """Return how far a part that begins at ``start`` can go."""
        most = min(end, start + self.most_characters)
        if self.tokens is None:
            return most
        left, at = self.tokens - MARKER_TOKENS, start
        for _, piece_end, tokens in pieces(text, start, most, self.characters_per_token):
            left -= tokens
            if left < 0:
                return at
            at = piece_end
        return most

    def reach_back(self, text: str, start: int, end: int, share: float) -> int:
        """Return how far back from ``end``, but not before ``start``, a share of a part goes."""
        least = max(start, end - int(self.most_characters * share))
        if self.tokens is None:
            return least
        left, at = int((self.tokens - MARKER_TOKENS) * share), end
        for piece_start, _, tokens in reversed(list(pieces(text, start, end, self.characters_per_token))):
            left -= tokens
            if left < 0 or piece_start < least:
                break
            at = piece_start
        return at


def split(text: str, start: int, end: int, fit: Fit, overlap: float = DEFAULT_OVERLAP) -> Iterator[Range]:
    """Yield the parts of a stretch of text, in their order; none begins or ends with white space.

    :param overlap: the greatest share of a part that is in the one before as well, 0 to 0.5.
    """
    begin = fresh = _skip_space(text, start, end)
    while fresh < end:
        reach = fit.reach(text, begin, end)
        stop = end if reach == end else _cut(text, begin, fresh, reach, end)
        stop = _without_space(text, begin, stop)
        yield begin, stop
        fresh = _skip_space(text, stop, end)
        begin = _overlapping(text, begin, stop, fit, overlap) or fresh
        # With much white space between, nothing new would go into a part that begins before it.
        if fresh < end and fit.reach(text, begin, end) <= fresh:
            begin = fresh


def _cut(text: str, begin: int, fresh: int, reach: int, end: int) -> int:
    """Return where a part ends that can't go beyond ``reach`` and has to go beyond ``fresh``."""
    ends = [to for to in _sentence_ends(text, begin, reach, end) if to > fresh]
    if ends:
        return ends[-1]
    if text[reach].isspace():
        return reach
    for place in range(reach - 1, fresh, -1):
        if text[place].isspace():
            return place
    return _between_clusters(text, fresh, reach)


def _overlapping(text: str, begin: int, stop: int, fit: Fit, overlap: float) -> int | None:
    """Return where in a part the next one begins: at the first sentence that the overlap has room for, else at a word."""
    least = max(fit.reach_back(text, begin, stop, overlap), begin + 1)
    for to in _sentence_ends(text, begin, stop, stop):
        at = _skip_space(text, to, stop)
        if least <= at < stop:
            return at
    word = _WORD_START.search(text, least, stop)
    return None if word is None else word.start()


def _sentence_ends(text: str, begin: int, reach: int, end: int) -> Iterator[int]:
    for found in _SENTENCE_END.finditer(text, begin, min(end, reach + _AHEAD)):
        if begin < found.end() <= reach:
            yield found.end()


def _between_clusters(text: str, fresh: int, reach: int) -> int:
    """Return a place near ``reach`` that does not part a letter from its marks, nor an emoji from what it is joined to."""
    for place in range(reach, max(fresh, reach - _LONGEST_CLUSTER), -1):
        if not unicodedata.category(text[place]).startswith("M") and _JOINER not in text[place - 1 : place + 1]:
            return place
    return reach


def _skip_space(text: str, start: int, end: int) -> int:
    while start < end and text[start].isspace():
        start += 1
    return start


def _without_space(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1].isspace():
        end -= 1
    return end
