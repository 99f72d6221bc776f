import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from local_stack.processes import wait_until
from media_embeddings import part_parsers
from media_embeddings.output_rows import NotAPartError, OutputInvalidError, OutputPart, Place, RowRules
from media_embeddings.part_messages import TEXT_BYTES
from media_embeddings.part_parsers import PartParsers
from media_embeddings.row_cuts import Wrapper

RULES = RowRules(dimension=4, embedding_options=frozenset({"visual", "audio"}), is_timed=True)


def row(number: int, **other) -> dict[str, object]:
    vector = [number + 0.125, -0.5, 1e-3, 0]
    return {"embedding": vector, "embeddingOption": "visual", "startSec": number, "endSec": number + 1} | other


def part(place: Place = Place.END, first: int = 3) -> OutputPart:
    return OutputPart(Wrapper(b'{"data": ['), RULES, first, place)


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


def parsed(parsers: PartParsers, content: bytes, place: Place = Place.MIDDLE):
    """Return the rows, or the error."""
    try:
        rows = parsers.parse([content[:7], memoryview(content)[7:]], part(place))
    except (OutputInvalidError, NotAPartError) as error:
        return type(error), str(error), getattr(error, "reason", None)
    return rows.embedding.tolist(), rows.start_sec, rows.end_sec, rows.embedding_option, rows.embedding_scope


def processes() -> list[psutil.Process]:
    """Return the processes that parse for this one."""
    return [one for one in psutil.Process().children() if "media_embeddings.part_parser_process" in one.cmdline()]


def started(parsers: PartParsers, processes: int = 1) -> PartParsers:
    """Return parsers when their processes are ready."""
    parsers.start()
    wait_until(lambda: parsers.ready == processes, seconds=60, what="the processes were ready")
    return parsers


@pytest.fixture
def parsers():
    """Give parsers that have a process, which is ready."""
    with PartParsers(1) as made:
        started(made)
        yield made


@pytest.mark.parametrize("place", [Place.MIDDLE, Place.END])
@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_a_process_says_of_a_text_what_is_said_of_it_here(parsers, content, place):
    assert parsed(parsers, content, place) == parsed(PartParsers(0), content, place)
    # Nothing of it is left for the next one.
    assert parsed(parsers, TEXTS["rows"]) == parsed(PartParsers(0), TEXTS["rows"])


def test_a_long_text_is_parsed_in_pieces_with_the_same_rows(parsers):
    long = text(*(row(number, note="x" * 1000) for number in range(TEXT_BYTES // 1300)))
    assert TEXT_BYTES // 2 < len(long) < TEXT_BYTES
    assert parsed(parsers, long) == parsed(PartParsers(0), long)
    wrong = long.replace(b'"startSec": 2000', b'"startSec": -200')
    kind, message, _ = parsed(parsers, wrong)
    assert (kind, message[:9]) == (OutputInvalidError, "row 2003 ")


def test_vectors_stay_when_the_memory_is_used_again(parsers):
    first = parsers.parse([text(row(1))], part())
    parsers.parse([text(row(2))], part())
    assert first.embedding[0, 0] == 1.125


def test_a_text_too_long_for_the_memory_is_parsed_here(parsers):
    long = text(*(row(number, note="x" * 1000) for number in range(TEXT_BYTES // 1000)))
    assert len(long) > TEXT_BYTES
    assert parsed(parsers, long) == parsed(PartParsers(0), long)


def test_the_largest_number_of_shortest_numbers_has_room(parsers):
    rules = RowRules(1024, frozenset(), is_timed=False)
    vector = b'{"embedding":[%s]}' % b",".join([b"0"] * 1024)
    content = b"[%s]" % b",".join([vector] * (TEXT_BYTES // (len(vector) + 1)))
    rows = parsers.parse([content], OutputPart(Wrapper(b"["), rules, 0, Place.END))

    assert TEXT_BYTES - 3000 < len(content) <= TEXT_BYTES
    assert not np.any(rows.embedding)
    assert len(processes()) == parsers.ready == 1


def test_no_process_is_started_for_little_and_none_for_a_single_core():
    content = TEXTS["rows"]
    with PartParsers(1, bytes_before=2 * len(content)) as few, PartParsers(0, bytes_before=0) as none:
        assert parsed(few, content) == parsed(none, content)
        assert processes() == []
        assert parsed(few, content) == parsed(none, content)
        wait_until(lambda: few.ready, seconds=60, what="a process was ready")
        assert len(processes()) == 1
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
    with PartParsers(1) as parsers:
        parsers.start()
        wait_until(lambda: caplog.records, seconds=60, what="it was said that the process had ended")
        assert "has ended with status 7" in caplog.records[0].message
        assert parsed(parsers, TEXTS["rows"]) == parsed(PartParsers(0), TEXTS["rows"])


def test_a_process_is_given_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "secret")
    with PartParsers(1) as parsers:
        started(parsers)
        [process] = processes()
        assert "secret" not in process.environ().values()


def test_those_who_wait_for_a_process_that_dies_parse_here(parsers):
    [process] = processes()
    process.suspend()
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(parsed, parsers, TEXTS["rows"]) for _ in range(4)]
        process.kill()
        assert {repr(one.result(60)) for one in found} == {repr(parsed(PartParsers(0), TEXTS["rows"]))}


def test_a_process_whose_answer_was_not_taken_is_given_no_other_text(parsers, monkeypatch):
    """Its answer would be taken for that of the next text."""
    with monkeypatch.context() as interrupted:
        interrupted.setattr(part_parsers, "vectors_in", raised(MemoryError()))
        with pytest.raises(MemoryError):
            parsed(parsers, TEXTS["rows"])
    assert parsers.ready == 0
    assert processes() == []
    assert parsed(parsers, TEXTS["no rows"]) == parsed(PartParsers(0), TEXTS["no rows"])


def raised(error: BaseException):
    def function(*_, **__):
        raise error

    return function


def test_one_process_is_enough_where_a_second_one_can_not_be_started(monkeypatch, caplog):
    original, descriptors = os.memfd_create, [None]

    def memory_for_one(name: str) -> int:
        if not descriptors:
            raise OSError("too many open files")
        descriptors.pop()
        return original(name)

    monkeypatch.setattr(os, "memfd_create", memory_for_one)
    with PartParsers(2) as parsers:
        started(parsers)
        assert "too many open files" in caplog.text
        assert parsed(parsers, TEXTS["rows"]) == parsed(PartParsers(0), TEXTS["rows"])
    assert processes() == []


def test_what_is_closed_while_it_starts_leaves_no_process_and_parses_here():
    parsers = PartParsers(2)
    parsers.start()
    parsers.close()
    assert processes() == []
    assert parsed(parsers, TEXTS["rows"]) == parsed(PartParsers(0), TEXTS["rows"])


def test_what_is_closed_while_it_parses_goes_on_here(parsers):
    [process] = processes()
    process.suspend()
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(parsed, parsers, TEXTS["rows"]) for _ in range(3)]
        parsers.close()
        assert {repr(one.result(60)) for one in found} == {repr(parsed(PartParsers(0), TEXTS["rows"]))}
    assert processes() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_task_leaves_the_task_to_decide(parsers, number):
    [process] = processes()
    process.send_signal(number)
    assert parsed(parsers, TEXTS["rows"]) == parsed(PartParsers(0), TEXTS["rows"])
    assert parsers.ready == len(processes()) == 1


SCRIPT = """
import time
from media_embeddings.part_parsers import PartParsers
parsers = PartParsers(2)
parsers.start()
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
    ended = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    wait_until(
        lambda: all(not one.is_running() or one.status() in ended for one in children),
        seconds=60,
        what="the processes had ended",
    )
    task.stdout.close()
