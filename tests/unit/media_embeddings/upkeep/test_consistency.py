from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from media_embeddings.planning import Status
from media_embeddings.upkeep import consistency
from media_embeddings.upkeep.consistency import check
from tests.unit.media_embeddings.test_tables import MODEL, commit, entry, files, ledger_table
from tests.unit.media_embeddings.test_tables import rows as rows_of
from tests.unit.media_embeddings.upkeep.conftest import with_time

LONG_AGO = datetime(2026, 9, 1, tzinfo=UTC)
RIGHT = {"s3://b/a": 3, "s3://b/b": 2}


def rows(objects: dict[str, int], *, tag: str = "e1", at: datetime = LONG_AGO) -> pa.Table:
    return with_time(rows_of(objects, tag=tag), "embedded_at", at)


def embedded(uri: str, segments: int, **others) -> object:
    return replace(entry(uri), etag="e1", request_id="r", segments=segments, **others)


def record(tables, *entries) -> None:
    tables.update_ledger(ledger_table(list(entries)))


@pytest.fixture
def right(tables) -> None:
    """Make tables that agree."""
    commit(tables, rows(RIGHT), "1")
    record(tables, *(embedded(uri, segments) for uri, segments in RIGHT.items()))


@pytest.fixture
def found(tables, table, ledger, right):
    """Give a function that checks and returns the findings, by defect."""

    def found(**options) -> dict[str, list[str]]:
        made = check([table, ledger], tables, **{"settle_seconds": 0, **options})
        by_defect: dict[str, list[str]] = {}
        for one in made.findings:
            by_defect.setdefault(one.defect, []).append(one.what)
        assert {name: len(several) for name, several in by_defect.items()} == made.counts
        assert len(made.problems) == len(made.counts)
        return by_defect

    return found


def test_tables_that_agree_have_no_findings(tables, table, ledger, right):
    made = check([table, ledger], tables, settle_seconds=0)

    assert (made.objects, made.rows, made.ledger_rows, made.in_flight, made.counts) == (2, 5, 2, 0, {})


def test_an_embedded_object_without_rows_is_found(tables, found):
    record(tables, embedded("s3://b/c", 1))

    assert found() == {"rows_missing": ["s3://b/c"]}


def test_rows_that_the_ledger_does_not_know_are_found(tables, found):
    commit(tables, rows({"s3://b/c": 1}), "2")

    assert found() == {"not_in_ledger": ["s3://b/c"]}


def test_rows_that_a_run_has_just_written_are_left_to_it(tables, table, ledger, right):
    commit(tables, rows({"s3://b/c": 1, "s3://b/a": 1}, at=datetime.now(UTC)), "2")

    made = check([table, ledger], tables, settle_seconds=0)

    assert (made.in_flight, made.counts) == (2, {})


def test_what_was_written_long_ago_is_no_longer_in_flight(tables, found):
    at = datetime.now(UTC) - timedelta(hours=25)
    commit(tables, rows({"s3://b/c": 1}, at=at), "2")

    assert found() == {"not_in_ledger": ["s3://b/c"]}


@pytest.mark.parametrize(
    ("changed", "defect"),
    [
        ({"request_id": "another"}, "other_request"),
        ({"etag": "another"}, "other_content"),
        ({"segments": 4}, "other_count"),
        ({"status": Status.DELETED}, "deleted_with_rows"),
    ],
)
def test_a_ledger_row_that_says_otherwise_is_found(tables, found, changed, defect):
    record(tables, replace(embedded("s3://b/a", 3), **changed))

    assert found() == {defect: ["s3://b/a"]}


@pytest.mark.parametrize("status", [Status.FAILED, Status.QUARANTINED, Status.DEFERRED, Status.REJECTED])
def test_an_object_whose_new_content_is_not_embedded_keeps_its_former_rows(tables, found, status):
    record(tables, replace(embedded("s3://b/a", 3), status=status, etag="e2", request_id="r2", segments=None))

    assert found() == {}


def append(table, given: pa.Table) -> None:
    """Add rows beside those that are there, as no merge does."""
    opened = table.open()
    adds = table.files.write(given)
    opened.create_write_transaction(adds, "append", opened.schema(), partition_by=list(table.layout.partitions))


def test_a_segment_that_is_there_twice_is_found(table, found):
    append(table, rows({"s3://b/a": 1}))

    assert found() == {"wrong_segments": ["s3://b/a"]}


def test_a_segment_that_is_twice_there_while_another_lacks_is_found(table, found, tables):
    tables.delete_embeddings(MODEL, 4, ["s3://b/a"], "deletion")
    append(table, rows({"s3://b/a": 3}).take([0, 2]))
    append(table, rows({"s3://b/a": 1}))

    assert found() == {"wrong_segments": ["s3://b/a"]}


def test_segments_that_do_not_begin_at_zero_are_found(table, found, tables):
    tables.delete_embeddings(MODEL, 4, ["s3://b/a"], "deletion")
    append(table, rows({"s3://b/a": 4}).slice(1))

    assert found() == {"wrong_segments": ["s3://b/a"]}


def test_rows_of_two_contents_of_one_object_are_found(table, found):
    append(table, rows({"s3://b/a": 4}, tag="e2").slice(3))

    assert found() == {"mixed_contents": ["s3://b/a"]}


def with_requests(given: pa.Table, *names: str) -> pa.Table:
    field = given.schema.field("request_id")
    return given.set_column(given.schema.get_field_index("request_id"), field, pa.array(names, field.type))


def test_a_text_has_rows_of_the_requests_for_its_parts(tables, found):
    parts = with_requests(with_time(rows_of({"s3://b/c": 2}, media_type="text"), "embedded_at", LONG_AGO), "r1", "r2")
    commit(tables, parts, "2")
    record(tables, embedded("s3://b/c", 2, embedding_key="k"))
    assert found() == {}

    record(tables, embedded("s3://b/c", 2, embedding_key="another"))
    assert found() == {"other_request": ["s3://b/c"]}


def test_rows_of_two_requests_of_anything_else_are_found(tables, found):
    commit(tables, with_requests(rows({"s3://b/c": 2}), "r1", "r2"), "2")
    record(tables, embedded("s3://b/c", 2))

    assert found() == {"mixed_contents": ["s3://b/c"]}


def test_rows_of_two_purchases_of_one_text_are_found(tables, found):
    given = with_time(rows_of({"s3://b/c": 2}, media_type="text"), "embedded_at", LONG_AGO)
    field = given.schema.field("embedding_key")
    keys = given.set_column(given.schema.get_field_index("embedding_key"), field, pa.array(["k", "other"], field.type))
    commit(tables, with_requests(keys, "r1", "r2"), "2")
    record(tables, embedded("s3://b/c", 2, embedding_key="k"))

    assert found() == {"mixed_contents": ["s3://b/c"]}


def test_a_file_that_is_not_there_is_found_and_what_its_objects_lose(tables, found):
    commit(tables, rows({"s3://b/c": 1}), "2")
    record(tables, embedded("s3://b/c", 1))
    before = files(tables)
    commit(tables, rows({"s3://b/d": 1}), "3")
    record(tables, embedded("s3://b/d", 1))
    (lost,) = files(tables) - before
    Path(lost).unlink()

    assert found() == {"file_absent": [lost], "rows_missing": ["s3://b/d"]}


def test_vectors_of_another_length_are_found_in_the_footer(table, found, tables):
    given = rows({"s3://b/c": 1})
    vectors = pa.array([[1.0, 2.0]], given.schema.field("embedding").type)
    append(table, given.set_column(given.schema.get_field_index("embedding"), given.schema.field("embedding"), vectors))
    record(tables, embedded("s3://b/c", 1))

    (name,) = found()
    assert name == "wrong_vectors"


def test_numbers_that_are_not_finite_are_found_where_vectors_are_read(table, found, tables):
    given = rows({"s3://b/c": 1})
    vectors = pa.array([[1.0, 2.0, float("nan"), 1.0]], given.schema.field("embedding").type)
    append(table, given.set_column(given.schema.get_field_index("embedding"), given.schema.field("embedding"), vectors))
    record(tables, embedded("s3://b/c", 1))

    assert found() == {}
    assert list(found(vectors=True)) == ["wrong_vectors"]


def test_what_a_run_puts_right_while_it_is_looked_at_is_no_finding(tables, found, monkeypatch):
    tables.delete_embeddings(MODEL, 4, ["s3://b/a"], "deletion")
    deleted = replace(embedded("s3://b/a", 3), status=Status.DELETED, segments=None)
    looks = []

    def meanwhile(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            record(tables, deleted)

    monkeypatch.setattr(consistency.time, "sleep", meanwhile)

    assert found() == {}
    assert len(looks) == 2


def test_a_ledger_that_knows_an_object_twice_is_found(ledger, found):
    opened = ledger.open()
    adds = ledger.files.write(ledger_table([embedded("s3://b/a", 3)]))
    opened.create_write_transaction(adds, "append", opened.schema(), partition_by=["model"])

    assert found() == {"twice_in_ledger": ["s3://b/a"]}


def test_tables_that_are_not_there_agree(tmp_path, tables, table, ledger):
    made = check([table, ledger], tables, settle_seconds=0)

    assert (made.objects, made.counts) == (0, {})


def test_only_the_first_of_many_findings_are_shown_and_all_are_counted(tables, table, ledger, right):
    record(tables, *(embedded(f"s3://b/x{number:04}", 1) for number in range(1200)))

    made = check([table, ledger], tables, settle_seconds=0)

    assert made.counts == {"rows_missing": 1200}
    assert len(made.findings) == 20
