"""The files of a batch that say what is asked for: the requests, and the media objects that they are for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from media_embeddings.media import MediaObject, MediaType
from media_embeddings.parts import Part
from media_embeddings.planning import PlannedObject
from media_embeddings.run_folder import BatchFolder
from media_embeddings.storage import Storage

_LISTED_AT = "listed_at"
_PART = pa.struct(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("start_char", pa.int32()),
        pa.field("end_char", pa.int32()),
        pa.field("start_sec", pa.float64()),
        pa.field("end_sec", pa.float64()),
        pa.field("finished_output_uri", pa.string()),
    ]
)
OBJECTS_SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("embedding_key", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("bucket", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("last_modified", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("parameters", pa.string(), nullable=False),
        pa.field("parts", pa.list_(_PART)),
        pa.field("estimated_cost_usd", pa.float64()),
        pa.field("is_paid_for", pa.bool_()),
    ]
)
"""One row a media object of a batch, with the parts of a text, each of which is a request."""


def write_batch(
    storage: Storage,
    folder: BatchFolder,
    objects: Sequence[PlannedObject],
    lines: Iterable[str],
    listed_at: datetime,
) -> None:
    """Write a batch: a line of JSON for each request, and a row for each media object.

    :param listed_at: when the listing was made from which the batch was planned.
    """
    content = b"".join(line.encode() for line in lines)
    storage.write(folder.manifest_uri, content, content_type="application/jsonl")
    rows = [
        {
            "request_id": one.request_id,
            "embedding_key": one.embedding_key,
            "attempt": one.attempt,
            "parameters": one.parameters,
            "parts": [asdict(part) for part in one.parts] or None,
            "estimated_cost_usd": one.estimated_cost_usd,
            "is_paid_for": one.is_paid_for or one.finished_output_uri is not None,
            **asdict(one.media),
        }
        for one in objects
    ]
    # What another run finds out later than this stands, whenever this batch is merged.
    schema = OBJECTS_SCHEMA.with_metadata({_LISTED_AT: listed_at.isoformat()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    storage.write(folder.objects_uri, sink.getvalue().to_pybytes())


def read_batch(storage: Storage, folder: BatchFolder) -> tuple[list[PlannedObject], datetime]:
    """Return the media objects of a batch, in the order of its requests, and when they were listed."""
    table = pq.read_table(pa.BufferReader(storage.read(folder.objects_uri)))
    listed_at = datetime.fromisoformat(table.schema.metadata[_LISTED_AT.encode()].decode())
    objects = [
        PlannedObject(
            media=MediaObject(
                bucket=row["bucket"],
                key=row["key"],
                etag=row["etag"],
                size_bytes=row["size_bytes"],
                last_modified=row["last_modified"],
                media_type=MediaType(row["media_type"]),
            ),
            embedding_key=row["embedding_key"],
            request_id=row["request_id"],
            attempt=row["attempt"],
            parameters=row["parameters"],
            parts=tuple(Part(**part) for part in row["parts"] or ()),
            # A batch of an earlier version of the project has neither.
            estimated_cost_usd=row.get("estimated_cost_usd"),
            is_paid_for=row.get("is_paid_for") or False,
        )
        for row in table.to_pylist()
    ]
    return objects, listed_at
