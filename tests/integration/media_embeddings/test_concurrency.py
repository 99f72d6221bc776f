"""Processes at the same moment: two libraries over the same objects into the same tables, upkeep, and readers."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import boto3
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from media_embeddings.library import Library
from media_embeddings.storage import Storage
from media_embeddings.table_options import current
from tests.integration.media_embeddings.conftest import Pipeline, film, picture, starts

COLOURS = ("red", "green", "blue")


def run_library(settings: dict, run_id: str, answers: multiprocessing.Queue) -> None:
    """Make a run in a process of its own, and put its report."""
    report = Pipeline(Library(**settings), Storage.of_session(boto3.Session())).run(run_id=run_id)
    answers.put((run_id, report.succeeded, report.balanced, report.submitted, report.adopted, dict(report.totals)))


def run_at_once(*runs: tuple[Library, str]) -> dict[str, tuple]:
    """Make runs in as many processes at the same moment, and return their reports by run id."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=run_library, args=(library.model_dump(mode="json"), run_id, answers))
        for library, run_id in runs
    ]
    for process in processes:
        process.start()
    reports = [answers.get(timeout=240) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return {run_id: answer for run_id, *answer in reports}


@contextmanager
def going_on(action: Callable[[], None]) -> Iterator[list[int]]:
    """Do something again and again in a thread; count how often it was done, and raise what it raised."""
    ended, failures, count = threading.Event(), [], [0]

    def loop() -> None:
        try:
            while not ended.is_set():
                action()
                count[0] += 1
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the thread
            failures.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield count
    finally:
        ended.set()
        thread.join()
    assert not failures, failures[0]


@pytest.fixture
def shared(pipeline) -> Pipeline:
    """Give a library whose objects another one embeds as well, into the same tables."""
    for number in range(9):
        pipeline.put(f"{number}.png", picture(COLOURS[number % 3], (64 + number, 64)))
    pipeline.put("film.mp4", film())
    pipeline.configure(batch_size=3)
    return pipeline


def read_whole_objects(pipeline: Pipeline) -> None:
    """Read the table as it stands, and see that of no object a part is there, or two contents."""
    try:
        table = DeltaTable(
            f"{pipeline.library.tables}/embeddings/marengo-2-7", storage_options=current(pipeline.storage.table_options)
        )
    except TableNotFoundError:
        return
    columns = ["media_uri", "segment_index", "etag", "media_type"]
    segments: dict[str, list[int]] = {}
    contents: dict[str, set[str]] = {}
    films = 0
    for row in table.to_pyarrow_dataset().to_table(columns=columns).to_pylist():
        segments.setdefault(row["media_uri"], []).append(row["segment_index"])
        contents.setdefault(row["media_uri"], set()).add(row["etag"])
        films += row["media_type"] == "video"
    assert all(len(etags) == 1 for etags in contents.values())
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in segments.values())
    assert films in {0, len(segments.get(pipeline.uri("film.mp4"), []))}


def compact(pipeline: Pipeline) -> None:
    """Merge small files into larger ones, as an owner of the table may do at any time."""
    try:
        uri = f"{pipeline.library.tables}/embeddings/marengo-2-7"
        DeltaTable(uri, storage_options=current(pipeline.storage.table_options)).optimize.compact()
    except (TableNotFoundError, CommitFailedError):
        # Another writer was faster; upkeep gives way.
        return


def test_two_libraries_over_the_same_objects_into_the_same_tables_pay_once(shared, simulator):
    simulator.settings(token_lifetime_seconds=0.0, list_delay_seconds=0.5, seconds_per_job=0.3)
    other = shared.library.model_copy(update={"name": "others", "work": f"{shared.library.work}-of-others"})
    before = len(simulator.charges())

    reports = run_at_once((shared.library, "first"), (other, "second"))

    assert [report[:2] for report in reports.values()] == [[True, True], [True, True]]
    charges = Counter(charge["token"] for charge in simulator.charges()[before:])
    assert len(charges) == 10
    assert set(charges.values()) == {1}
    assert {key: row["status"] for key, row in shared.ledger().items()} == dict.fromkeys(shared.ledger(), "embedded")
    assert len(shared.rows()) == 10
    read_whole_objects(shared)


def test_readers_see_whole_objects_while_runs_replace_them_and_the_table_is_compacted(shared, simulator):
    shared.run()
    other = shared.library.model_copy(update={"name": "others", "work": f"{shared.library.work}-of-others"})
    for number in range(9):
        shared.put(f"{number}.png", picture(COLOURS[(number + 1) % 3], (64 + number, 64)))
    count = starts(simulator)

    with going_on(lambda: read_whole_objects(shared)) as reads, going_on(lambda: compact(shared)):
        reports = run_at_once((shared.library, "manual"), (other, "nightly"))

    assert reads[0] > 5
    assert all(report[0] for report in reports.values())
    assert starts(simulator) == count + 9
    read_whole_objects(shared)
    assert len(shared.rows()) == 10
