"""What ledger, tables and invocations say of every object, side by side in DuckDB, which spills to disk what is too much.

The ledger is looked at before the embeddings: a merge commits in the other order, so that whatever the ledger says is
embedded has its rows by then.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from media_embeddings.upkeep.kept_tables import KeptTable
from media_embeddings.upkeep.reading import read_ahead

logger = logging.getLogger(__name__)

_EMBEDDINGS = "embeddings/"
_MEMORY_LIMIT = "256MB"
LEDGER_COLUMNS = ("model", "media_uri", "status", "etag", "embedding_key", "request_id", "segments", "updated_at")
SEGMENT_COLUMNS = ("media_uri", "media_type", "segment_index", "etag", "embedding_key", "request_id", "embedded_at")
_INVOCATION_COLUMNS = ("request_id", "outcome", "recorded_at")

_SCHEMA = """
CREATE TABLE ledger (model VARCHAR, media_uri VARCHAR, status VARCHAR, etag VARCHAR, embedding_key VARCHAR,
                     request_id VARCHAR, segments INTEGER, updated_at TIMESTAMPTZ);
CREATE TABLE held (model VARCHAR, media_uri VARCHAR, is_text BOOLEAN, rows BIGINT, numbers BIGINT, last_number BIGINT,
                   number_sum BIGINT, first_request VARCHAR, last_request VARCHAR, first_etag VARCHAR,
                   last_etag VARCHAR, first_key VARCHAR, last_key VARCHAR, embedded_at TIMESTAMPTZ);
CREATE TABLE text_requests (model VARCHAR, media_uri VARCHAR, request_id VARCHAR);
CREATE TABLE invocations (request_id VARCHAR, outcome VARCHAR, recorded_at TIMESTAMPTZ);
CREATE TABLE stored (kind VARCHAR, uri VARCHAR, belongs_to VARCHAR, bytes BIGINT, written_at TIMESTAMPTZ);
CREATE VIEW objects AS
    SELECT model, media_uri, bool_and(is_text) AS is_text, sum(rows)::BIGINT AS rows, sum(numbers)::BIGINT AS numbers,
           max(last_number) AS last_number,
           sum(number_sum)::BIGINT AS number_sum, min(first_request) AS request_id, max(last_request) AS other_request,
           min(first_etag) AS etag, max(last_etag) AS other_etag, min(first_key) AS embedding_key,
           max(last_key) AS other_key, max(embedded_at) AS embedded_at
    FROM held GROUP BY model, media_uri;
"""
_HELD = """
INSERT INTO held
    SELECT ?, media_uri, bool_and(media_type = 'text'), count(*), count(DISTINCT segment_index), max(segment_index),
           sum(segment_index), min(request_id), max(request_id), min(etag), max(etag), min(embedding_key),
           max(embedding_key), max(embedded_at)
    FROM given GROUP BY media_uri
"""
# A text may have rows of several requests; all other objects have one.
_TEXT_REQUESTS = (
    "INSERT INTO text_requests SELECT DISTINCT ?, media_uri, request_id FROM given WHERE media_type = 'text'"
)


class Evidence:
    """A database of what is known. The views and tables are those of ``_SCHEMA``.

    ``held`` has a row for each object and file, ``objects`` one for each object with rows, ``text_requests`` every request
    that rows of texts are of, ``stored`` objects on S3.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        connection.execute(_SCHEMA)

    def add_ledger(self, rows: pa.Table) -> None:
        """Take in rows of the ledger, with the columns of :data:`LEDGER_COLUMNS`."""
        self._insert("INSERT INTO ledger SELECT * FROM given", rows)

    def add_segments(self, model_name: str, rows: pa.Table) -> None:
        """Take in rows of an embeddings table, with the columns of :data:`SEGMENT_COLUMNS`."""
        self._insert(_HELD, rows, model_name)
        self._insert(_TEXT_REQUESTS, rows, model_name)

    def add_invocations(self, rows: pa.Table) -> None:
        """Take in rows of the invocations table, with request id, outcome and time."""
        self._insert("INSERT INTO invocations SELECT * FROM given", rows)

    def add_stored(self, kind: str, rows: pa.Table) -> None:
        """Take in objects on S3: URI, the request or run that they belong to, bytes, and when they were written."""
        self._insert("INSERT INTO stored SELECT ?, * FROM given", rows, kind)

    def _insert(self, statement: str, rows: pa.Table, *arguments: object) -> None:
        self.connection.register("given", rows)
        self.connection.execute(statement, arguments)
        self.connection.unregister("given")


@contextmanager
def no_evidence() -> Iterator[Evidence]:
    """Give an empty database on disk, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": str(Path(directory) / "spilled"),
            "preserve_insertion_order": False,
            "TimeZone": "UTC",
        }
        with duckdb.connect(str(Path(directory) / "evidence.duckdb")) as connection:
            for name, value in settings.items():
                connection.execute(f"SET {name} = '{value}'")
            connection.execute("SET enable_progress_bar = false")
            yield Evidence(connection)


@contextmanager
def collected(tables: Sequence[KeptTable], *, absent: frozenset[str] = frozenset()) -> Iterator[Evidence]:
    """Give what ledger and embeddings say of every object, a few files in memory at a time.

    :param absent: URIs of files that are not to be read, since they are not there.
    """
    with no_evidence() as evidence:
        for table in sorted(tables, key=lambda one: one.name.startswith(_EMBEDDINGS)):
            for rows in _rows(table, absent):
                if table.name == "media":
                    evidence.add_ledger(rows)
                elif table.name == "invocations":
                    evidence.add_invocations(rows)
                else:
                    evidence.add_segments(model_of(table), rows)
        yield evidence


def model_of(table: KeptTable) -> str:
    """Return the model whose embeddings a table holds."""
    return table.name.removeprefix(_EMBEDDINGS)


def is_embeddings(table: KeptTable) -> bool:
    """Return whether a table holds embeddings."""
    return table.name.startswith(_EMBEDDINGS)


def _rows(table: KeptTable, absent: frozenset[str]) -> Iterator[pa.Table]:
    opened = table.open()
    if opened is None:
        return
    columns = {"media": LEDGER_COLUMNS, "invocations": _INVOCATION_COLUMNS}.get(table.name, SEGMENT_COLUMNS)
    files = (file for file in table.files.of(opened) if f"{table.uri}/{file.path}" not in absent)
    yield from read_ahead(lambda file: table.files.read(file, columns), files)
