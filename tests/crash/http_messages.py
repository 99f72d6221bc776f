"""As much of HTTP/1.1 as it takes to find where a message ends (RFC 9112, section 6). Nothing is changed on the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

_PIECE = 65_536


class Reader(Protocol):
    """What bytes are read from; an asyncio.StreamReader is one."""

    async def read(self, n: int) -> bytes: ...

    async def readuntil(self, separator: bytes) -> bytes: ...


class Writer(Protocol):
    """What bytes are written to; an asyncio.StreamWriter is one."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...


@dataclass(frozen=True)
class BodyEnd:
    """How the end of a body is known: after ``length`` bytes, by chunks, or (neither) by the end of the connection."""

    length: int | None = None
    is_chunked: bool = False

    @classmethod
    def none(cls) -> Self:
        """Return the end of a message without a body."""
        return cls(length=0)

    @property
    def is_close(self) -> bool:
        """Whether the body ends with the connection."""
        return self.length is None and not self.is_chunked


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a request or an answer."""

    raw: bytes

    @cached_property
    def _words(self) -> list[str]:
        return self.raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @cached_property
    def _headers(self) -> dict[str, str]:
        lines = self.raw.decode("latin-1").split("\r\n")[1:]
        fields = (line.partition(":") for line in lines if line)
        return {name.strip().lower(): value.strip().lower() for name, _, value in fields}

    @property
    def _is_answer(self) -> bool:
        return self._words[0].startswith("HTTP/")

    @property
    def method(self) -> str:
        """The method of a request."""
        return self._words[0]

    @property
    def path(self) -> str:
        """The path and query of a request, as they were sent."""
        return self._words[1]

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self._words[1])

    @property
    def is_interim(self) -> bool:
        """Whether another answer follows, as after ``100 Continue``."""
        return self.status < 200

    @property
    def is_success(self) -> bool:
        """Whether the answer says that the request was carried out."""
        return 200 <= self.status < 300

    @property
    def closes(self) -> bool:
        """Whether the connection ends after this message."""
        return "HTTP/1.0" in self._words or self._headers.get("connection") == "close"

    @property
    def body_end(self) -> BodyEnd:
        """How the end of the body is known; an answer to HEAD has no body, whatever it says of its length."""
        if self._is_answer and self.status in (204, 304):
            return BodyEnd.none()
        if self._headers.get("transfer-encoding", "").endswith("chunked"):
            return BodyEnd(is_chunked=True)
        if "content-length" in self._headers:
            return BodyEnd(length=int(self._headers["content-length"]))
        return BodyEnd() if self._is_answer else BodyEnd.none()


async def read_head(reader: Reader) -> Head | None:
    """Return the head of the next message, or None where the connection ended before one."""
    try:
        return Head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None


async def pass_body(end: BodyEnd, reader: Reader, writer: Writer) -> None:
    """Pass a body on as it comes in.

    :raises asyncio.IncompleteReadError: if the connection ends before the body does.
    """
    if end.is_chunked:
        await _pass_chunks(reader, writer)
    elif end.length is not None:
        await _pass_bytes(end.length, reader, writer)
    else:
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()


async def _pass_bytes(length: int, reader: Reader, writer: Writer) -> None:
    while length:
        piece = await reader.read(min(length, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(piece)
        writer.write(piece)
        await writer.drain()


async def _pass_chunks(reader: Reader, writer: Writer) -> None:
    size = -1
    while size != 0:
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
        size = int(line.split(b";")[0], 16)
        if size:
            await _pass_bytes(size + len(b"\r\n"), reader, writer)
    # Trailers, up to an empty line.
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        writer.write(line)
    writer.write(b"\r\n")
    await writer.drain()
