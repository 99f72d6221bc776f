from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from media_embeddings.ledger_rules import amended_ledger
from media_embeddings.schemas import LEDGER_SCHEMA

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def row(uri: str = "s3://films/a", **members) -> dict:
    return {
        "media_uri": uri,
        "model": "marengo-3-0",
        "media_type": "video",
        "status": "embedded",
        "attempts": 1,
        "first_seen_at": NOON,
        "etag": "e1",
        "size_bytes": 1,
        "last_modified": NOON,
        "parameters": "{}",
        "library": "films",
        "run_id": "run-1",
        "updated_at": NOON,
        **members,
    }


def amended(new: list[dict], there: list[dict], listed_at: datetime | None = None) -> list[dict]:
    tables = [pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA) for rows in (new, there)]
    return amended_ledger(*tables, listed_at).to_pylist()


def test_a_new_object_is_as_it_is_said_to_be():
    assert [one["status"] for one in amended([row(status="failed")], [])] == ["failed"]


def test_first_seen_is_kept_and_the_rest_is_new():
    [found] = amended([row(first_seen_at=NOON + timedelta(days=1), etag="e2", attempts=2)], [row()])
    assert (found["first_seen_at"], found["etag"], found["attempts"]) == (NOON, "e2", 2)


@pytest.mark.parametrize("status", ["failed", "quarantined"])
def test_what_is_embedded_is_not_failed_by_another_attempt_at_the_same_content(status):
    [found] = amended([row(status=status, attempts=2, run_id="forced")], [row()])
    assert (found["status"], found["attempts"], found["run_id"]) == ("embedded", 1, "run-1")


@pytest.mark.parametrize("change", [{"etag": "e2"}, {"parameters": "other"}])
def test_an_attempt_at_other_content_or_with_other_parameters_fails_it(change):
    [found] = amended([row(status="failed", **change)], [row()])
    assert found["status"] == "failed"


def test_a_forced_attempt_that_is_not_finished_is_remembered():
    assert amended([row(status="deferred")], [row()])[0]["status"] == "deferred"


@pytest.mark.parametrize("there", [{"etag": "e2", "status": "failed"}, {"etag": "e1"}, {"etag": "e2"}])
def test_who_merges_an_old_plan_does_not_take_back_what_another_run_has_found_out_since(there):
    later = row(run_id="run-9", updated_at=NOON + timedelta(hours=2), **there)
    assert amended([row(status="failed", reason="old")], [later], NOON) == [later | _nulls(later)]


def test_the_run_itself_and_whoever_comes_later_may_write_over_it():
    earlier = row(run_id="run-0", updated_at=NOON - timedelta(hours=2))
    own = row(updated_at=NOON + timedelta(hours=2), status="deferred")
    assert amended([row(etag="e2", status="failed")], [earlier], NOON)[0]["etag"] == "e2"
    assert amended([row()], [own], NOON)[0]["status"] == "embedded"


def test_an_unfinished_attempt_of_another_run_at_the_same_content_is_finished_by_this_one():
    deferred = row(run_id="run-9", updated_at=NOON + timedelta(hours=2), status="deferred")
    assert amended([row()], [deferred], NOON)[0]["status"] == "embedded"


LATER = NOON + timedelta(hours=2)


def test_a_new_embedding_of_the_same_content_is_taken_since_its_vectors_are_in_the_table():
    later = row(run_id="run-9", updated_at=LATER, request_id="theirs")
    assert amended([row(request_id="ours")], [later], NOON)[0]["request_id"] == "ours"


@pytest.mark.parametrize("change", [{"etag": "e2"}, {"parameters": "other"}])
def test_an_embedding_of_an_old_plan_does_not_replace_a_later_one_of_other_content_or_parameters(change):
    later = row(run_id="run-9", updated_at=LATER, **change)
    assert amended([row()], [later], NOON)[0]["run_id"] == "run-9"


@pytest.mark.parametrize(("status", "stays"), [("failed", True), ("deferred", True), ("embedded", False)])
def test_what_another_run_has_deleted_since_stays_deleted_unless_it_is_embedded_again(status, stays):
    deleted = row(status="deleted", run_id="run-9", updated_at=LATER)
    assert amended([row(status=status)], [deleted], NOON)[0]["status"] == ("deleted" if stays else status)


def test_runs_of_one_name_in_two_libraries_are_two_runs():
    later = row(library="clips", updated_at=LATER, etag="e2")
    assert amended([row(status="failed")], [later], NOON)[0]["library"] == "clips"


def _nulls(row: dict) -> dict:
    return {name: None for name in LEDGER_SCHEMA.names if name not in row}
