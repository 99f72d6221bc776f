"""Estimates how many tokens a text has.

Marengo's tokenizer is not published. A word counts as one token for each started run of six letters, a number for each
three digits, every other visible character as one; one token each stands for the text's start and end, as in CLIP-like
tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LETTERS_PER_TOKEN = 6
DIGITS_PER_TOKEN = 3
MARKER_TOKENS = 2

_PIECE = re.compile(
    rf"[A-Za-z\u00c0-\u024f\u0370-\u052f]{{1,{LETTERS_PER_TOKEN}}}|[0-9]{{1,{DIGITS_PER_TOKEN}}}|[^\s]", re.ASCII
)


def _token_ends(text: str) -> Iterator[int]:
    return (piece.end() for piece in _PIECE.finditer(text))


def token_count(text: str) -> int:
    """Return the estimated number of tokens, the start and end markers included."""
    return MARKER_TOKENS + sum(1 for _ in _token_ends(text))


def truncated(text: str, max_tokens: int) -> str:
    """Return the longest beginning of the text that has at most ``max_tokens`` tokens (at least the two markers)."""
    end = 0
    for count, piece_end in enumerate(_token_ends(text), start=1):
        if count + MARKER_TOKENS > max_tokens:
            return text[:end]
        end = piece_end
    return text


def truncated_at_start(text: str, max_tokens: int) -> str:
    """Return the longest end of the text that has at most ``max_tokens`` tokens."""
    starts = [piece.start() for piece in _PIECE.finditer(text)]
    kept = max(0, max_tokens - MARKER_TOKENS)
    if len(starts) <= kept:
        return text
    return text[starts[-kept] :] if kept else ""
