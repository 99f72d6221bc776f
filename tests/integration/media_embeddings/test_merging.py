"""Merging as streams: cut outputs, late ones, small budgets, and merges that are killed and done again."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from local_stack.processes import wait_until
from media_embeddings import batch_outputs, file_writing, output_folder, part_parsers
from media_embeddings.listing import list_media
from media_embeddings.merging import MergeSummary, merge_batch
from media_embeddings.part_parsers import PartParsers
from media_embeddings.planner import Plan, PlanOptions, make_plan
from media_embeddings.planning import Status
from media_embeddings.run_folder import BatchFolder, RunFolder
from media_embeddings.storage import split_uri
from media_embeddings.tables import Tables
from tests.integration.media_embeddings.conftest import Pipeline, film, picture, vectors

COLOURS = ("red", "green", "blue")


class KilledError(Exception):
    """Stands for a process that ends at this very call."""


def outputs(pipeline: Pipeline) -> list[str]:
    uris = pipeline.storage.list_uris(f"{pipeline.library.work}/outputs/")
    return sorted(uri for uri in uris if uri.endswith("output.json"))


def files(pipeline: Pipeline) -> set[str]:
    uris = pipeline.storage.list_uris(f"{pipeline.library.tables}/embeddings/")
    return {uri for uri in uris if uri.endswith(".parquet") and "_delta_log" not in uri}


@pytest.fixture
def pictures(pipeline: Pipeline) -> Pipeline:
    for colour in COLOURS:
        pipeline.put(f"{colour}.png", picture(colour))
    return pipeline


def killed_before(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KilledError(method)

    monkeypatch.setattr(Tables, method, killed)


def planned(pipeline: Pipeline) -> tuple[Plan, str]:
    """Return a plan and the only batch of it."""
    folder = RunFolder(pipeline.library.work, pipeline.library.name, "night")
    listing = list_media(pipeline.storage, pipeline.library, folder.listing_uri)
    plan, _ = make_plan(pipeline.storage, pipeline.library, "night", listing, PlanOptions())
    [manifest_uri] = plan.manifests
    return plan, manifest_uri


def merge(pipeline: Pipeline, plan: Plan, manifest_uri: str) -> MergeSummary:
    return merge_batch(pipeline.storage, pipeline.library, plan.model, "night", BatchFolder.of_manifest(manifest_uri))


def test_a_merge_that_was_killed_after_its_rows_were_committed_writes_none_again(pictures: Pipeline) -> None:
    plan, manifest_uri = planned(pictures)
    with pytest.MonkeyPatch.context() as monkeypatch:
        killed_before(monkeypatch, "update_ledger")
        with pytest.raises(KilledError):
            pictures.embed(plan, manifest_uri)
    there, rows, version = files(pictures), pictures.rows(), pictures.table().version()
    assert len(rows) == 3
    assert pictures.ledger() == {}

    summary = merge(pictures, plan, manifest_uri)

    assert (summary.embedded, summary.segments, summary.committed_version) == (3, 3, version)
    assert (files(pictures), pictures.rows(), pictures.table().version()) == (there, rows, version)
    assert {row["status"] for row in pictures.ledger().values()} == {"embedded"}


def test_a_merge_that_is_done_again_with_more_to_say_commits_what_is_new(pictures: Pipeline) -> None:
    content: dict[str, bytes] = {}

    def take_one_away() -> None:
        uri = outputs(pictures)[0]
        content[uri] = pictures.storage.read(uri)
        bucket, key = split_uri(uri)
        pictures.storage.client.delete_object(Bucket=bucket, Key=key)

    plan, manifest_uri = planned(pictures)
    pictures.between["wait_for_async_invoke"] = take_one_away
    pictures.embed(plan, manifest_uri)
    assert sorted(row["status"] for row in pictures.ledger().values()) == ["embedded", "embedded", "failed"]
    assert len(pictures.rows()) == 2

    for uri, found in content.items():
        pictures.storage.write(uri, found)
    summary = merge(pictures, plan, manifest_uri)

    assert (summary.embedded, summary.committed_version) == (3, 2)
    assert len(pictures.rows()) == 3
    assert {row["status"] for row in pictures.ledger().values()} == {"embedded"}


def test_late_outputs_are_waited_for_after_all_others_and_land_in_the_same_commit(pictures: Pipeline) -> None:
    pictures.configure(output_grace_seconds=30)

    def delay_all_but_the_last() -> None:
        late = {uri: pictures.storage.read(uri) for uri in outputs(pictures)[:-1]}
        for uri in late:
            bucket, key = split_uri(uri)
            pictures.storage.client.delete_object(Bucket=bucket, Key=key)
        threading.Timer(2.0, lambda: [pictures.storage.write(*one) for one in late.items()]).start()

    pictures.between["wait_for_async_invoke"] = delay_all_but_the_last
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Room for one of them at a time.
        monkeypatch.setattr(batch_outputs, "_BYTES_UNDER_WAY", 1)
        report = pictures.run()

    assert report.totals[Status.EMBEDDED] == 3
    assert len(pictures.rows()) == 3
    assert pictures.table().version() == 1


@pytest.mark.parametrize("chunk_bytes", [30_000, 60_000])
def test_an_output_that_is_read_in_parts_gives_the_same_rows(pipeline: Pipeline, chunk_bytes: int) -> None:
    pipeline.put("film.mp4", film())
    pipeline.run()
    rows = pipeline.rows()["film.mp4"]
    assert len(rows) * 20_000 > chunk_bytes

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(output_folder, "_CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(file_writing, "ROW_GROUP_BYTES", 10_000)
        pipeline.run(force=True)

    again = pipeline.rows()["film.mp4"]
    assert (vectors(again) == vectors(rows)).all()
    columns = ("segment_index", "start_sec", "end_sec", "embedding_option", "embedding_scope")
    assert [[row[name] for name in columns] for row in again] == [[row[name] for name in columns] for row in rows]


class ReadyParsers(PartParsers):
    """Parsers whose process is there before anything is parsed."""

    def __init__(self) -> None:
        super().__init__(1)
        self.start()
        wait_until(lambda: self.ready, seconds=60, what="the process was ready")


def test_an_output_that_is_parsed_in_a_process_of_its_own_gives_the_same_rows(pipeline: Pipeline) -> None:
    pipeline.put("film.mp4", film())
    pipeline.run()
    rows = pipeline.rows()["film.mp4"]

    def not_here(*_: Any, **__: Any) -> None:
        raise AssertionError("it was parsed in this process")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(batch_outputs, "PartParsers", ReadyParsers)
        monkeypatch.setattr(part_parsers, "parse_part", not_here)
        monkeypatch.setattr(output_folder, "_CHUNK_BYTES", 30_000)
        pipeline.run(force=True)

    again = pipeline.rows()["film.mp4"]
    assert (vectors(again) == vectors(rows)).all()


def test_an_output_that_can_not_be_read_in_parts_is_read_as_a_whole(pipeline: Pipeline) -> None:
    def with_a_note() -> None:
        [uri] = outputs(pipeline)
        document = json.loads(pipeline.storage.read(uri))
        rows = [{**row, "note": 'as in {"a":1},{"b":2}'} for row in document["data"]]
        pipeline.storage.write(uri, json.dumps({"data": rows}, separators=(",", ":")).encode())

    pipeline.put("film.mp4", film())
    pipeline.between["wait_for_async_invoke"] = with_a_note
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(output_folder, "_CHUNK_BYTES", 30_000)
        report = pipeline.run()

    assert report.totals[Status.EMBEDDED] == 1
    assert pipeline.ledger()["film.mp4"]["segments"] == len(pipeline.rows()["film.mp4"])


def test_what_another_run_has_bought_while_outputs_were_read_is_not_replaced(pictures: Pipeline) -> None:
    """A run of other parameters lands between the last output that is read and the commit."""
    original, ran = Tables.superseded, []

    def after_another_run(tables: Tables, *arguments: Any) -> frozenset[str]:
        if not ran:
            ran.append(True)
            pictures.configure(model_parameters={"image": {}})
            pictures.delete("red.png")
            pictures.put("red.png", picture("blue"))
            pictures.run(run_id="another", prefix=pictures.uri("red"))
        return original(tables, *arguments)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Tables, "superseded", after_another_run)
        pictures.run(run_id="night")

    rows = pictures.rows()
    assert {key: row["run_id"] for key, (row,) in rows.items()} == {
        "red.png": "another",
        "green.png": "night",
        "blue.png": "night",
    }
    assert pictures.ledger()["red.png"]["etag"] == rows["red.png"][0]["etag"]
