import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from local_stack.processes import wait_until
from media_embeddings.output_rows import NotAPartError, OutputInvalidError, Place, RowRules
from media_embeddings.part_messages import TEXT_BYTES
from media_embeddings.part_parsers import PartParsers

RULES = RowRules(dimension=4, embedding_options=frozenset({"visual", "audio"}), is_timed=True)


def row(number: int, **other) -> dict[str, object]:
    vector = [number + 0.125, -0.5, 1e-3, 0]
    return {"embedding": vector, "embeddingOption": "visual", "startSec": number, "endSec": number + 1} | other


def text(*rows) -> bytes:
    return json.dumps({"data": rows}).encode()


TEXTS = {
    "rows": text(*map(row, range(5))),
    "shortest numbers": json.dumps(
        {"data": [{"embedding": [0] * 4, "startSec": n, "endSec": n + 1} for n in range(9)]}, separators=(",", ":")
    ).encode(),
    "a vector of another length": text(row(0), row(1, embedding=[1.0])),
    "infinity": text(row(0, embedding=[1e300, 0, 0, 0])),
    "an unknown option": text(row(0, embeddingOption="smell")),
    "no JSON": b'{"data":[',
    "two keys": b'{"data":[],"x":1}',
    "nothing": b"",
    "no rows": text(),
}


def parsed(parsers: PartParsers, content: bytes, place: Place = Place.MIDDLE, **given):
    """Return the rows, or the error."""
    try:
        rows = parsers.parse([content[:7], memoryview(content)[7:]], RULES, **{"first": 3, "place": place} | given)
    except (OutputInvalidError, NotAPartError) as error:
        return type(error), str(error), getattr(error, "reason", None)
    return rows.embedding.tolist(), rows.start_sec, rows.end_sec, rows.embedding_option, rows.embedding_scope


def processes() -> list[psutil.Process]:
    """Return the processes that parse for this one."""
    return [one for one in psutil.Process().children() if "media_embeddings.part_parser_process" in one.cmdline()]


@pytest.fixture
def parsers():
    """Give parsers that have a process, which is ready."""
    with PartParsers(1, worth_bytes=0) as made:
        made.expect(1)
        wait_until(lambda: made.ready == 1, seconds=60, what="a process was ready")
        yield made


@pytest.mark.parametrize("place", Place)
@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_a_process_says_of_a_text_what_is_said_of_it_here(parsers, content, place):
    assert parsed(parsers, content, place) == parsed(PartParsers(0), content, place)
    # Nothing of it is left for the next one.
    assert parsed(parsers, TEXTS["rows"]) == parsed(PartParsers(0), TEXTS["rows"])


def test_vectors_stay_when_the_memory_is_used_again(parsers):
    first = parsers.parse([text(row(1))], RULES, first=0, place=Place.WHOLE)
    parsers.parse([text(row(2))], RULES, first=0, place=Place.WHOLE)
    assert first.embedding[0, 0] == 1.125


def test_a_text_too_long_for_the_memory_is_parsed_here(parsers):
    long = text(*(row(number, note="x" * 1000) for number in range(TEXT_BYTES // 1000)))
    assert len(long) > TEXT_BYTES
    assert parsed(parsers, long) == parsed(PartParsers(0), long)


def test_the_largest_number_of_shortest_numbers_has_room(parsers):
    rules = RowRules(1024, frozenset(), is_timed=False)
    vector = b'{"embedding":[%s]}' % b",".join([b"0"] * 1024)
    content = b"[%s]" % b",".join([vector] * (TEXT_BYTES // (len(vector) + 1)))
    rows = parsers.parse([content], rules, first=0, place=Place.WHOLE)

    assert TEXT_BYTES - 3000 < len(content) <= TEXT_BYTES
    assert not np.any(rows.embedding)
    assert len(processes()) == parsers.ready == 1


def test_no_process_is_started_for_little_and_none_for_a_single_core():
    with PartParsers(1, worth_bytes=100) as few, PartParsers(0, worth_bytes=0) as none:
        few.expect(99)
        none.expect(99)
        assert parsed(few, TEXTS["rows"]) == parsed(none, TEXTS["rows"])
        assert processes() == []
        few.expect(1)
        wait_until(lambda: few.ready, seconds=60, what="a process was ready")
    assert processes() == []


def test_a_part_whose_process_was_killed_is_parsed_here(parsers, caplog):
    [process] = processes()
    process.kill()

    assert parsed(parsers, TEXTS["rows"]) == parsed(PartParsers(0), TEXTS["rows"])
    assert parsed(parsers, TEXTS["no rows"]) == parsed(PartParsers(0), TEXTS["no rows"])
    assert parsers.ready == 0
    [record] = caplog.records
    assert "has ended with status -9" in record.message


def test_a_process_that_is_gone_before_it_is_ready_is_done_without(monkeypatch, caplog):
    monkeypatch.setattr("media_embeddings.part_parsers._COMMAND", [sys.executable, "-c", "raise SystemExit(7)"])
    with PartParsers(1, worth_bytes=0) as parsers:
        parsers.expect(1)
        wait_until(lambda: caplog.records, seconds=60, what="it was said that the process had ended")
        assert "has ended with status 7" in caplog.records[0].message
        assert parsed(parsers, TEXTS["rows"]) == parsed(PartParsers(0), TEXTS["rows"])


def test_a_process_is_given_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "secret")
    with PartParsers(1, worth_bytes=0) as parsers:
        parsers.expect(1)
        wait_until(lambda: parsers.ready, seconds=60, what="a process was ready")
        [process] = processes()
        assert "secret" not in process.environ().values()


SCRIPT = """
import time
from media_embeddings.part_parsers import PartParsers
parsers = PartParsers(2, worth_bytes=0)
parsers.expect(1)
while parsers.ready < 2:
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""


def test_processes_end_with_the_one_that_they_parse_for():
    given = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    task = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, env=os.environ | given)
    assert task.stdout.readline() == b"ready\n"
    children = psutil.Process(task.pid).children()
    assert len(children) == 2

    task.send_signal(signal.SIGKILL)
    task.wait()
    wait_until(lambda: not any(one.is_running() for one in children), seconds=60, what="the processes had ended")
    task.stdout.close()
