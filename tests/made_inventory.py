"""Inventories in the form in which S3 delivers them: Parquet, a manifest, and its checksum."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        pa.field("bucket", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("version_id", pa.string()),
        pa.field("is_latest", pa.bool_()),
        pa.field("is_delete_marker", pa.bool_()),
        pa.field("size", pa.int64()),
        pa.field("last_modified_date", pa.timestamp("ms", tz="UTC")),
        pa.field("e_tag", pa.string()),
        pa.field("storage_class", pa.string()),
    ]
)
VERSIONS = {"version_id", "is_latest", "is_delete_marker"}


def data_file(rows: Iterable[Mapping[str, Any]], *, leaving_out: Iterable[str] = VERSIONS) -> bytes:
    """Return a data file; without the columns of versions, as where only current ones are taken in."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA).drop_columns(list(leaving_out))
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def deliver(
    put: Callable[[str, bytes], None],
    bucket: str,
    scanned_at: datetime,
    files: Iterable[bytes],
    *,
    destination: str = "inventories",
    configuration: str = "nightly",
    is_complete: bool = True,
    **manifest: Any,
) -> str:
    """Write an inventory of a bucket as S3 does, the checksum last, and return the manifest's key.

    :param manifest: entries of the manifest that differ.
    """
    base = f"{destination}/{bucket}/{configuration}"
    entries = []
    for content in files:
        digest = hashlib.md5(content).hexdigest()
        entries.append({"key": f"{base}/data/{digest}.parquet", "size": len(content), "MD5checksum": digest})
        put(entries[-1]["key"], content)
    value = {
        "sourceBucket": bucket,
        "destinationBucket": "arn:aws:s3:::inventories",
        "version": "2016-11-30",
        "creationTimestamp": str(int(scanned_at.timestamp() * 1000)),
        "fileFormat": "Parquet",
        "fileSchema": "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); }",
        "files": entries,
    } | manifest
    content = json.dumps(value).encode()
    folder = f"{base}/{scanned_at:%Y-%m-%dT%H-%MZ}"
    put(f"{folder}/manifest.json", content)
    if is_complete:
        put(f"{folder}/manifest.checksum", hashlib.md5(content).hexdigest().encode())
    return f"{folder}/manifest.json"
