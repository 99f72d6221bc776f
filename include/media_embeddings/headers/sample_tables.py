"""Finds what need not be read of an MP4 or MOV: the tables of its samples, megabytes in a film of two hours.

A file of the ISO base media format is a tree of boxes, each with its length and type in front
(https://developer.apple.com/documentation/quicktime-file-format/atoms, ISO/IEC 14496-12). What is asked here stands in
small boxes beside the tables that say where each sample lies. PyAV would read those tables whole, so they are shown to
it as free space. Where anything is not as expected, nothing is left out, and PyAV judges the file as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from media_embeddings.headers.content import Blank, Content, Span

# A header of less than this is read as it is: further requests would take longer.
_SMALL_HEADER = 256 * 1024
# What is fetched behind a table that was left out: the small boxes up to the next one.
_BEHIND_A_TABLE = 4 * 1024
_MOST_BOXES = 2_000
_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_TABLES = frozenset(
    {b"stts", b"ctts", b"cslg", b"stsc", b"stsz", b"stz2", b"stco", b"co64", b"stss", b"stps", b"sdtp", b"sbgp"}
    | {b"sgpd", b"subs", b"saiz", b"saio", b"udta", b"meta"}
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file of the ISO base media format is to be read."""

    blanks: tuple[Blank, ...] = ()
    is_fragmented: bool = False
    """Whether its samples are told piece by piece along the file, so that its length is known only at its end."""


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    span: Span
    header: bytes

    @property
    def content(self) -> Span:
        return Span(self.span.start + len(self.header), self.span.end)


def layout(content: Content) -> Layout:
    """Return how to read a file, by the boxes of its header; that of any other file as it is."""
    if content.bytes_at(4, 4) not in {b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"}:
        return Layout()
    whole = Span(0, content.size_bytes)
    header = next((box for box in _boxes(content, whole, _SMALL_HEADER) if box.kind == b"moov"), None)
    if header is None:
        return Layout()
    if header.span.length <= _SMALL_HEADER:
        # All of it in one request.
        content.bytes_at(header.span.start, header.span.length)
        return Layout(is_fragmented=any(box.kind == b"mvex" for box in _boxes(content, header.content)))
    tables: list[_Box] = []
    is_fragmented = _find_tables(content, header.content, tables)
    return Layout(
        tuple(Blank(table.span, table.header[:4] + b"free" + table.header[8:]) for table in tables), is_fragmented
    )


def _find_tables(content: Content, within: Span, found: list[_Box]) -> bool:
    """Collect the tables in their order; return whether the file is fragmented."""
    is_fragmented = False
    for box in _boxes(content, within):
        if box.kind in _TABLES:
            found.append(box)
        elif box.kind in _CONTAINERS:
            _find_tables(content, box.content, found)
        is_fragmented |= box.kind == b"mvex"
    return is_fragmented


def _boxes(content: Content, within: Span, fetched: int = _BEHIND_A_TABLE) -> Iterator[_Box]:
    """Yield the boxes that follow one another in a span, up to the first that can't be one."""
    position = within.start
    for _ in range(_MOST_BOXES):
        if position + 8 > within.end:
            return
        start = content.bytes_at(position, min(16, within.end - position), fetched)
        if len(start) < 8:
            return
        length, header = int.from_bytes(start[:4], "big"), start[:8]
        if length == 1:
            length, header = int.from_bytes(start[8:16], "big"), start
        elif length == 0:
            length = within.end - position
        if length < len(header) or position + length > within.end:
            return
        yield _Box(start[4:8], Span(position, position + length), header)
        position += length
