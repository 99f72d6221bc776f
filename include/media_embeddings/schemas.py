"""The columns of the three tables, as Arrow schemas."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

_TIME = pa.timestamp("us", tz="UTC")


def columns_of(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """Return some columns of a table, in the order of their names."""
    return pa.schema([schema.field(name) for name in names])


def embeddings_schema(dimension: int) -> pa.Schema:
    """Return the columns of an embeddings table: one row a segment, all rows of an object in one commit.

    ``embedding`` has exactly ``dimension`` finite numbers. (media_uri, segment_index) is unique; segments are numbered
    in the order of (start_sec, embedding_scope, embedding_option). Times are null for images; texts use characters.
    """
    return pa.schema(
        [
            pa.field("media_uri", pa.string(), nullable=False),
            pa.field("media_type", pa.string(), nullable=False),
            pa.field("embedded_month", pa.string(), nullable=False),
            pa.field("etag", pa.string(), nullable=False),
            pa.field("version_id", pa.string()),
            pa.field("size_bytes", pa.int64(), nullable=False),
            pa.field("last_modified", _TIME, nullable=False),
            pa.field("segment_index", pa.int32(), nullable=False),
            pa.field("start_sec", pa.float64()),
            pa.field("end_sec", pa.float64()),
            pa.field("start_char", pa.int32()),
            pa.field("end_char", pa.int32()),
            pa.field("embedding_option", pa.string()),
            pa.field("embedding_scope", pa.string()),
            pa.field("embedding", pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False),
            pa.field("embedding_key", pa.string(), nullable=False),
            pa.field("request_id", pa.string(), nullable=False),
            pa.field("invocation_arn", pa.string(), nullable=False),
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("embedded_at", _TIME, nullable=False),
        ],
        # Readers find the length of the vectors here without reading one.
        metadata={"embedding_dimension": str(dimension)},
    )


EMBEDDINGS_PARTITIONS = ("media_type", "embedded_month")

LEDGER_SCHEMA = pa.schema(
    [
        pa.field("media_uri", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("media_type", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason_code", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("first_seen_at", _TIME, nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("version_id", pa.string()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("last_modified", _TIME, nullable=False),
        pa.field("duration_sec", pa.float64()),
        pa.field("segments", pa.int32()),
        pa.field("absent_options", pa.string()),
        pa.field("embedding_key", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("invocation_arn", pa.string()),
        pa.field("estimated_cost_usd", pa.float64()),
        pa.field("parameters", pa.string()),
        pa.field("library", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("updated_at", _TIME, nullable=False),
    ]
)
"""The ledger, ``<tables>/media``: one row a (media_uri, model). ``parameters`` is canonical JSON."""

LEDGER_PARTITIONS = ("model",)

INVOCATIONS_SCHEMA = pa.schema(
    [
        pa.field("embedding_key", pa.string(), nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("invocation_arn", pa.string()),
        pa.field("manifest_request_id", pa.string()),
        pa.field("media_uri", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("library", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason_code", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("submitted_at", _TIME),
        pa.field("ended_at", _TIME),
        pa.field("recorded_at", _TIME, nullable=False),
        pa.field("estimated_cost_usd", pa.float64()),
        pa.field("actual_cost_usd", pa.float64()),
        pa.field("media_type", pa.string()),
        pa.field("media_sec", pa.float64()),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""``<tables>/invocations``: append-only, one row an attempt and merge."""
