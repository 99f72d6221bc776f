from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from media_embeddings.schemas import (
    EMBEDDINGS_PARTITIONS,
    INVOCATIONS_SCHEMA,
    LEDGER_PARTITIONS,
    LEDGER_SCHEMA,
    embeddings_schema,
)
from media_embeddings.table_files import Layout
from media_embeddings.tables import Tables
from media_embeddings.upkeep.kept_tables import KeptTable
from tests.unit.media_embeddings.test_tables import DIMENSION, MODEL


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"), {})


@pytest.fixture
def table(tables) -> KeptTable:
    layout = Layout(embeddings_schema(DIMENSION), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))
    return KeptTable(f"embeddings/{MODEL}", tables.embeddings_uri(MODEL), layout, {})


@pytest.fixture
def ledger(tables) -> KeptTable:
    return KeptTable("media", tables.ledger_uri, Layout(LEDGER_SCHEMA, LEDGER_PARTITIONS, ("media_uri",)), {})


@pytest.fixture
def invocations(tables) -> KeptTable:
    return KeptTable("invocations", tables.invocations_uri, Layout(INVOCATIONS_SCHEMA, (), ("media_uri",)), {})


def with_time(rows, name: str, at: datetime):
    """Return rows with another time in a column."""
    import pyarrow as pa

    field = rows.schema.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, pa.repeat(pa.scalar(at, field.type), len(rows)))
