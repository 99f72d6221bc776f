from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from media_embeddings.deleting import delete_objects
from media_embeddings.ledger import LedgerEntry, ledger_table
from media_embeddings.models import model_named
from media_embeddings.planning import Status
from media_embeddings.tables import Tables
from tests.unit.media_embeddings import test_tables

MODEL, OTHER = "marengo-2-7", "marengo-3-0"
LISTED = datetime(2026, 11, 23, 2, tzinfo=UTC)
BEFORE, AFTER = LISTED - timedelta(hours=24), LISTED + timedelta(minutes=1)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path), {})


def embed(tables: Tables, model: str, *uris: str, at: datetime = BEFORE, status: Status = Status.EMBEDDED) -> None:
    dimension = model_named(model).dimension
    rows = test_tables.rows(dict.fromkeys(uris, 1))
    position = rows.schema.get_field_index("embedding")
    field = rows.schema.field(position)
    rows = rows.set_column(position, field, pa.array([[0.5] * dimension] * len(uris), field.type))
    tables.commit_embeddings(model, dimension, rows, f"{model} {uris} {at}")
    entries = [
        LedgerEntry(
            media_uri=uri,
            model=model,
            media_type="video",
            status=status,
            first_seen_at=at,
            etag="e1",
            size_bytes=1,
            last_modified=at,
            library="films",
            run_id="run-1",
            updated_at=at,
        )
        for uri in uris
    ]
    tables.update_ledger(ledger_table(entries))


def delete(tables: Tables, *uris: str, run_id: str = "run-2") -> None:
    delete_objects(tables, MODEL, uris, run_id=run_id, listed_at=LISTED)


def content(tables: Tables, model: str = MODEL) -> set[str]:
    table = DeltaTable(tables.embeddings_uri(model)).to_pyarrow_dataset().to_table(columns=["media_uri"])
    return set(table["media_uri"].to_pylist())


def statuses(tables: Tables, model: str = MODEL) -> dict[str, str]:
    rows = tables.read_ledger(model, None, ["media_uri", "status"]).to_pylist()
    return {row["media_uri"]: row["status"] for row in rows}


def test_rows_go_from_the_tables_of_every_model_and_the_ledger_says_so(tables):
    embed(tables, MODEL, "s3://b/a", "s3://b/b")
    embed(tables, OTHER, "s3://b/a", "s3://b/c")
    delete(tables, "s3://b/a")

    assert (content(tables), content(tables, OTHER)) == ({"s3://b/b"}, {"s3://b/c"})
    assert statuses(tables) == {"s3://b/a": "deleted", "s3://b/b": "embedded"}
    assert statuses(tables, OTHER) == {"s3://b/a": "deleted", "s3://b/c": "embedded"}


def test_what_another_model_has_embedded_since_the_listing_is_there_and_stays(tables):
    embed(tables, MODEL, "s3://b/a")
    embed(tables, OTHER, "s3://b/a", at=AFTER)
    delete(tables, "s3://b/a")

    assert (content(tables), content(tables, OTHER)) == (set(), {"s3://b/a"})


def test_what_came_back_and_is_gone_again_is_deleted_again_also_by_the_run_that_deleted_it_before(tables):
    embed(tables, MODEL, "s3://b/a")
    delete(tables, "s3://b/a", run_id="night")
    embed(tables, MODEL, "s3://b/a", at=BEFORE + timedelta(hours=1))
    delete(tables, "s3://b/a", run_id="night")

    assert content(tables) == set()
    assert statuses(tables) == {"s3://b/a": "deleted"}


def test_a_deletion_that_is_repeated_makes_no_commit(tables):
    embed(tables, MODEL, "s3://b/a")
    delete(tables, "s3://b/a")
    before = DeltaTable(tables.ledger_uri).version(), DeltaTable(tables.embeddings_uri(MODEL)).version()
    delete(tables, "s3://b/a")

    assert (DeltaTable(tables.ledger_uri).version(), DeltaTable(tables.embeddings_uri(MODEL)).version()) == before
