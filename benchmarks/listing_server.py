"""Stands in for the listing pages of S3, of as many objects as wanted: all of them are rendered before the first is asked for.

    .venv/bin/python benchmarks/listing_server.py 1000000

prints its port. It answers ``HeadBucket`` and ``ListObjectsV2`` (``start-after``, ``continuation-token``, ``max-keys``) with
the XML that S3 sends, and nothing else; the keys are those of :func:`key_of`, whatever prefix is asked for.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote_plus

LAST_MODIFIED = "2026-11-01T00:00:00.000Z"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
_OPENING = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>large-media</Name><Prefix></Prefix><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>"
    "<KeyCount>{count}</KeyCount><IsTruncated>{truncated}</IsTruncated>"
)


def key_of(number: int) -> str:
    """Return the key of an object; the keys are in the order of the numbers."""
    return f"library/2026/{number // 1000:05d}/interview with guest {number:08d}.mp4"


def etag_of(number: int) -> str:
    """Return the ETag of an object, without quotes."""
    return f"{number:032x}"


def size_of(number: int) -> int:
    """Return the bytes of an object."""
    return 10_000_000 + number


class Pages:
    """All pages of a bucket, one after the other in memory."""

    def __init__(self, objects: int) -> None:
        self._objects = objects
        rendered = bytearray()
        self._begins = array("Q")
        for number in range(objects):
            self._begins.append(len(rendered))
            rendered += (
                f"<Contents><Key>{quote_plus(key_of(number), safe='/')}</Key><LastModified>{LAST_MODIFIED}</LastModified>"
                f"<ETag>&quot;{etag_of(number)}&quot;</ETag><Size>{size_of(number)}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            ).encode()
        self._begins.append(len(rendered))
        self._rendered = memoryview(bytes(rendered))

    def page(self, asked: Mapping[str, str]) -> tuple[bytes, memoryview, bytes]:
        """Return the page that a query asks for, in three parts."""
        begin = 0
        if "continuation-token" in asked:
            begin = int(asked["continuation-token"])
        elif "start-after" in asked:
            begin = bisect_right(range(self._objects), asked["start-after"], key=key_of)
        end = min(begin + min(int(asked.get("max-keys", 1000)), 1000), self._objects)
        is_truncated = end < self._objects
        opening = _OPENING.format(count=end - begin, truncated=str(is_truncated).lower())
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if is_truncated else ""
        rows = self._rendered[self._begins[begin] : self._begins[end]]
        return opening.encode(), rows, f"{token}</ListBucketResult>".encode()


class Connection(asyncio.Protocol):
    """A connection that is kept open for one request after the other; none of them has a body."""

    def __init__(self, pages: Pages) -> None:
        self._pages, self._received = pages, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer the requests that have arrived whole."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            self._answer(request.split(b"\r\n", 1)[0].decode())

    def _answer(self, request_line: str) -> None:
        method, target, _ = request_line.split(" ")
        if method == "HEAD":
            self._transport.write(_HEAD % 0)
            return
        parts = self._pages.page(dict(parse_qsl(target.partition("?")[2])))
        self._transport.writelines([_HEAD % sum(map(len, parts)), *parts])


async def serve(objects: int) -> None:
    """Serve until the process is ended."""
    pages = Pages(objects)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(pages), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
