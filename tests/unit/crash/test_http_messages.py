from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crash.http_messages import BodyEnd, Head, pass_body, read_head


class Sink:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        return None


def reader(content: bytes) -> asyncio.StreamReader:
    filled = asyncio.StreamReader()
    filled.feed_data(content)
    filled.feed_eof()
    return filled


def head(first: str, *headers: str) -> Head:
    return Head("\r\n".join([first, *headers, "", ""]).encode())


async def passed(end: BodyEnd, content: bytes) -> tuple[bytes, bytes]:
    """Return what was passed on of the content, and what is left of it."""
    source, sink = reader(content), Sink()
    await pass_body(end, source, sink)
    return sink.written, await source.read()


def test_a_request_tells_its_method_and_its_path_as_it_was_sent() -> None:
    request = head("PUT /bucket/a%20b%2Bc?x-id=PutObject HTTP/1.1", "Host: 127.0.0.1:1234")

    assert (request.method, request.path) == ("PUT", "/bucket/a%20b%2Bc?x-id=PutObject")


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (head("GET / HTTP/1.1"), BodyEnd.none()),
        (head("PUT / HTTP/1.1", "content-LENGTH: 12"), BodyEnd(length=12)),
        (head("PUT / HTTP/1.1", "Transfer-Encoding: chunked"), BodyEnd(is_chunked=True)),
        (head("PUT / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 3"), BodyEnd(is_chunked=True)),
        (head("HTTP/1.1 200 OK", "Content-Length: 7"), BodyEnd(length=7)),
        (head("HTTP/1.1 200 OK"), BodyEnd()),
        (head("HTTP/1.1 204 No Content"), BodyEnd.none()),
        (head("HTTP/1.1 304 Not Modified", "Content-Length: 7"), BodyEnd.none()),
    ],
)
def test_the_end_of_a_body_is_known_from_the_head(message: Head, end: BodyEnd) -> None:
    assert message.body_end == end


@pytest.mark.parametrize(
    ("message", "closes"),
    [
        (head("GET / HTTP/1.1"), False),
        (head("GET / HTTP/1.1", "Connection: close"), True),
        (head("GET / HTTP/1.0"), True),
        (head("HTTP/1.0 200 OK"), True),
    ],
)
def test_a_message_says_whether_the_connection_ends_with_it(message: Head, closes: bool) -> None:
    assert message.closes is closes


def test_another_answer_follows_a_continue() -> None:
    assert head("HTTP/1.1 100 Continue").is_interim
    assert not head("HTTP/1.1 412 Precondition Failed").is_interim


async def test_messages_are_read_one_by_one_up_to_the_end_of_the_connection() -> None:
    source = reader(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")

    assert [found.path for found in (await read_head(source), await read_head(source)) if found] == ["/a", "/b"]
    assert await read_head(source) is None


async def test_a_connection_that_ends_within_a_head_is_an_error() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        await read_head(reader(b"GET /a HTT"))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.binary(max_size=20))
def test_chunks_are_passed_on_as_they_are_and_nothing_beyond_them(chunks: list[bytes], rest: bytes) -> None:
    body = b"".join(b"%x;x=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nTrailer: 1\r\n\r\n"

    assert asyncio.run(passed(BodyEnd(is_chunked=True), body + rest)) == (body, rest)


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_as_many_bytes_are_passed_on_as_were_announced(body: bytes, rest: bytes) -> None:
    assert asyncio.run(passed(BodyEnd(length=len(body)), body + rest)) == (body, rest)


async def test_a_body_without_an_announced_end_goes_on_to_the_end_of_the_connection() -> None:
    assert await passed(BodyEnd(), b"abc") == (b"abc", b"")


@pytest.mark.parametrize("end", [BodyEnd(length=9), BodyEnd(is_chunked=True)])
async def test_a_body_that_breaks_off_is_an_error(end: BodyEnd) -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        await passed(end, b"5\r\nabc")
