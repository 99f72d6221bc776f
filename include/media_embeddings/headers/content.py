"""A file of which only some ranges are known: what a parser reads, and what tells which bytes it would need as well."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

# One request of this size costs as much time as a smaller one. PyAV looks at this much of a file that has no long header.
FIRST_BYTES = 96 * 1024
_NEXT_BYTES = 64 * 1024
# A parser that goes on right behind what it has is given twice as much each time, so that it needs few requests.
_MOST_BYTES_AT_ONCE = 256 * 1024


class MissingRangeError(Exception):
    """The parser needs bytes that are not there yet."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of an object: from ``start`` to before ``end``."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Return how many bytes it has."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Blank:
    """A box whose content is not needed: it reads as a free one of zeros."""

    span: Span
    header: bytes


class Content:
    """A seekable file of which some ranges are known.

    To read a byte that is not known raises :class:`MissingRangeError`, and ``missing`` says what to fetch: parsers in C
    turn an exception into errors of their own. With ``is_final`` no more is fetched: what is not known reads as the end
    of the file, and ``is_cut`` tells that this happened.
    """

    def __init__(self, size_bytes: int, ranges: Sequence[tuple[int, bytes]], *, is_final: bool = False) -> None:
        self.size_bytes = size_bytes
        self.is_final = is_final
        self.missing: Span | None = None
        self.is_cut = False
        self._ranges = sorted(ranges)
        self._starts = [start for start, _ in self._ranges]

    def chunk(self, position: int, least_fetched: int = _NEXT_BYTES) -> bytes:
        """Return what is known from a position on, without a gap; nothing at the end.

        :param least_fetched: how much is to be fetched where nothing is known there.
        """
        if position >= self.size_bytes:
            return b""
        if self.missing is not None:
            # A parser that goes on after an error looks in places that it would not have to look in.
            raise MissingRangeError
        index = bisect_right(self._starts, position) - 1
        if index >= 0:
            start, content = self._ranges[index]
            if position < start + len(content):
                return content[position - start :]
        if self.is_final:
            self.is_cut = True
            return b""
        self.missing = self._to_fetch(index, position, least_fetched)
        raise MissingRangeError

    def bytes_at(self, position: int, length: int, least_fetched: int = _NEXT_BYTES) -> bytes:
        """Return so many bytes from a position on; fewer only at the end."""
        found = b""
        while len(found) < length:
            chunk = self.chunk(position + len(found), max(least_fetched, length - len(found)))
            if not chunk:
                break
            found += chunk[: length - len(found)]
        return found

    def _to_fetch(self, index: int, position: int, least: int) -> Span:
        if index >= 0 and sum((self._starts[index], len(self._ranges[index][1]))) == position:
            least = max(least, min(2 * len(self._ranges[index][1]), _MOST_BYTES_AT_ONCE))
        following = self._starts[index + 1] if index + 1 < len(self._starts) else self.size_bytes
        return Span(position, min(position + least, following))


class ContentFile(io.RawIOBase):
    """A content as the file-like object that PyAV and Pillow read, beginning at ``offset`` of it."""

    def __init__(
        self,
        content: Content,
        *,
        name: str = "",
        offset: int = 0,
        blanks: Sequence[Blank] = (),
        can_seek: bool = True,
        reads_short: bool = False,
    ) -> None:
        """Open it.

        :param blanks: boxes that read as free ones, in their order.
        :param reads_short: whether a read may return fewer bytes than asked for, so that no more is fetched than the
            parser can't do without.
        """
        super().__init__()
        self.name = name
        self._content = content
        self._offset = offset
        self._blanks = blanks
        self._can_seek = can_seek
        self._reads_short = reads_short
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Return bytes from the present position on."""
        left = self._content.size_bytes - self._offset - self._position
        wanted = max(0, left if size < 0 else min(size, left))
        found = b""
        while len(found) < wanted:
            chunk = self._chunk(self._offset + self._position, wanted - len(found))
            if not chunk:
                break
            found += chunk
            self._position += len(chunk)
            if self._reads_short:
                break
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position: from the beginning, from here, or from the end."""
        base = (0, self._position, self._content.size_bytes - self._offset)[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the present position."""
        return self._position

    def seekable(self) -> bool:
        """Return whether the parser may look anywhere."""
        return self._can_seek

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def _chunk(self, position: int, wanted: int) -> bytes:
        for blank in self._blanks:
            if blank.span.start <= position < blank.span.end:
                at = position - blank.span.start
                # As many zeros as are asked for, not as there are: a table may have gigabytes.
                return blank.header[at : at + wanted] or bytes(min(wanted, blank.span.end - position))
            if position < blank.span.start:
                wanted = min(wanted, blank.span.start - position)
                break
        return self._content.chunk(position)[:wanted]
