"""Whatever a header does to the process that reads it, only that header is lost."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from media_embeddings.headers import parsers
from media_embeddings.headers.parsers import HeaderBytes, ParserDiedError, Parsers
from media_embeddings.headers.ranged_reading import MOST_BYTES, MOST_REQUESTS, read_header
from media_embeddings.media import MediaObject, MediaType
from tests.unit.media_embeddings.headers import made_files

PNG = made_files.image("PNG")


def media(key: str = "a.png", media_type: MediaType = MediaType.IMAGE, size_bytes: int = len(PNG)) -> MediaObject:
    return MediaObject("films", key, "e1", size_bytes, datetime(2026, 11, 1, tzinfo=UTC), media_type)


IMAGE = HeaderBytes(media(), [(0, PNG)], is_final=False)


def processes(given: Parsers) -> list[int]:
    return [place._running.process.pid for place in given._all if place._running is not None]


def with_parse(monkeypatch, body: str) -> None:
    """Let the process run this instead of parsing."""
    code = (
        "import os, time\n"
        "import media_embeddings.headers.parser_process as process\n"
        f"def parse(*_):\n    {body}\n"
        "process.parse, process.MOST_SECONDS = parse, 0.2\n"
        "process.main()"
    )
    monkeypatch.setattr(parsers, "_COMMAND", [sys.executable, "-P", "-c", code])


def test_a_few_processes_serve_many_threads():
    with Parsers(2) as made, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(made.parse, [IMAGE] * 40))
        assert len(processes(made)) <= 2

    assert {(one.facts.width, one.facts.kind) for one in found} == {(160, MediaType.IMAGE)}


def test_no_process_is_started_before_it_is_needed_and_none_is_left():
    with Parsers(2) as made:
        assert processes(made) == []
        made.parse(IMAGE)
        (pid,) = processes(made)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_dies_is_replaced():
    with Parsers(1) as made:
        made.parse(IMAGE)
        os.kill(processes(made)[0], signal.SIGKILL)
        with pytest.raises(ParserDiedError, match="-9"):
            made.parse(IMAGE)
        assert made.parse(IMAGE).facts.width == 160


@pytest.mark.parametrize(
    ("body", "status"),
    [("time.sleep(60)", -signal.SIGALRM), ("os.abort()", -signal.SIGABRT), ("bytearray(3 * 1024**3)", 1)],
    ids=["hangs", "crashes", "takes all memory"],
)
def test_a_header_that_breaks_its_parser_is_embedded_without_having_been_checked(monkeypatch, body, status, caplog):
    with_parse(monkeypatch, body)
    with Parsers(1) as made:
        header = read_header(media(), lambda _, span: PNG[span.start : span.end], made)

    assert (header.facts, header.damage) == (None, None)
    assert f"ended with status {status}" in caplog.text


def test_the_process_has_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with_parse(monkeypatch, "raise SystemExit(7 if any('AWS' in name for name in os.environ) else 3)")
    with Parsers(1) as made, pytest.raises(ParserDiedError, match="status 3"):
        made.parse(IMAGE)


def test_what_libraries_print_does_not_get_among_the_answers(monkeypatch):
    with_parse(monkeypatch, "print('a word', flush=True); return process.Parsed(damage='none of it')")
    with Parsers(1) as made:
        assert made.parse(IMAGE).damage == "none of it"


@pytest.mark.parametrize("step", [1, 300_000])
def test_a_parser_that_asks_without_end_is_stopped_by_the_budget(monkeypatch, step):
    asks_on = (
        "content = _[2]; last = max(start + len(known) for start, known in content._ranges); "
        f"return process.Parsed() if content.is_final else process.Parsed(missing=process.Span(last, last + {step}))"
    )
    with_parse(monkeypatch, "from media_embeddings.headers.content import Span; process.Span = Span; " + asks_on)
    fetched = []

    def fetch(_, span):
        fetched.append(span.length)
        return bytes(span.length)

    with Parsers(1) as made:
        header = read_header(media(size_bytes=10**9), fetch, made)

    assert header.facts is None
    assert len(fetched) <= MOST_REQUESTS
    assert sum(fetched) <= MOST_BYTES
    assert (header.requests, header.bytes_read) == (len(fetched), sum(fetched))
