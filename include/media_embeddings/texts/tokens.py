"""Estimates how many tokens a text has, rather too many than too few.

No tokenizer of the models is published. Tokenizers make about four characters of English prose one token, fewer of rare
words and names; most take digits and signs one by one; and those that work on bytes make up to one token of every byte of
UTF-8 of a script that they have seen little of. So here, with ``characters_per_token`` of 3,

- every 3 letters of ASCII that a word begins with are a token, and so are those that are left of it;
- every digit and sign is one;
- any other character is one for every 1.5 bytes that it takes: two for a Chinese one, an accented letter or a Greek or
  Cyrillic one, three for an emoji.

A text that is taken for longer than it is costs a request more; one that is taken for shorter is refused by Bedrock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

DEFAULT_CHARACTERS_PER_TOKEN = 3
LEAST_CHARACTERS_PER_TOKEN, MOST_CHARACTERS_PER_TOKEN = 2, 8
MARKER_TOKENS = 2
"""For the start and the end of a text, as tokenizers of the kind that CLIP has add them."""


def token_count(text: str, characters_per_token: int = DEFAULT_CHARACTERS_PER_TOKEN) -> int:
    """Return the estimated number of tokens of a text, its start and end included."""
    return MARKER_TOKENS + sum(tokens for _, _, tokens in pieces(text, 0, len(text), characters_per_token))


def pieces(text: str, start: int, end: int, characters_per_token: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and tokens of each piece of a stretch of text.

    Cut between two pieces, a text has as many tokens as its two halves: pieces are the same whatever stands before them.
    """
    for found in _pattern(characters_per_token).finditer(text, start, end):
        at, to = found.span()
        yield at, to, _tokens(text[at], characters_per_token)


@cache
def _pattern(characters_per_token: int) -> re.Pattern[str]:
    # White space beyond ASCII counts like other characters: some tokenizers have no token for it.
    return re.compile(rf"[A-Za-z]{{1,{characters_per_token}}}|\S", re.ASCII)


def _tokens(character: str, characters_per_token: int) -> int:
    code = ord(character)
    if code < 0x80:
        return 1
    size = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    return -(-2 * size // characters_per_token)
