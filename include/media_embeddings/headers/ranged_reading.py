"""Reads the header of an object by a few ranged GETs: as many as its parser asks for, within a budget."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from media_embeddings.headers.content import FIRST_BYTES, Span
from media_embeddings.headers.parsers import HeaderBytes, ParserDiedError, Parsers
from media_embeddings.headers.parsing import Parsed
from media_embeddings.media import MediaFacts, MediaObject

logger = logging.getLogger(__name__)

# A film of two hours with its header at the end takes 6 requests and 370 KB, an MPEG program stream 5 and 540 KB: see
# benchmarks/headers.py. What would need more than that is sent without being checked.
MOST_REQUESTS = 16
MOST_BYTES = 1024 * 1024

FetchRange = Callable[[MediaObject, Span], bytes]
"""Gives some bytes of an object, from its store."""


@dataclass(frozen=True, slots=True)
class Header:
    """What was found out of an object."""

    facts: MediaFacts | None
    """None where nothing can be told: neither what it is, nor that it is none."""
    damage: str | None = None
    """Why it is no media at all."""
    requests: int = 0
    bytes_read: int = 0


def read_header(media: MediaObject, fetch: FetchRange, parsers: Parsers) -> Header:
    """Return what the header of an object says. What ``fetch`` raises is passed on."""
    ranges: list[tuple[int, bytes]] = []
    wanted = Span(0, min(FIRST_BYTES, media.size_bytes))
    requests = bytes_read = 0
    while True:
        content = fetch(media, wanted)
        ranges.append((wanted.start, content))
        requests, bytes_read = requests + 1, bytes_read + len(content)
        is_final = requests >= MOST_REQUESTS
        parsed = _parse(parsers, HeaderBytes(media, ranges, is_final))
        if parsed.missing is not None and bytes_read + parsed.missing.length > MOST_BYTES:
            parsed = _parse(parsers, HeaderBytes(media, ranges, is_final=True))
        if parsed.missing is None:
            facts = replace(parsed.facts, bytes_read=bytes_read) if parsed.facts is not None else None
            return Header(facts, parsed.damage, requests, bytes_read)
        wanted = parsed.missing


def _parse(parsers: Parsers, header: HeaderBytes) -> Parsed:
    try:
        return parsers.parse(header)
    except ParserDiedError as error:
        logger.warning("%s: %s; it is embedded without having been checked", header.media.uri, error)
        return Parsed()
