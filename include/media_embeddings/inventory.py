"""Reads what lies below a prefix from S3 Inventory instead of listing it: for libraries where listing takes too long.

S3 delivers an inventory as ``<destination>/<source bucket>/<configuration>/<time>/manifest.json`` with the MD5 of that file in
``manifest.checksum`` beside it, which is written last, and with data files of their own MD5 each
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html). Only CSV has its keys URL-encoded; in
Parquet they stand as they are (https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html).

An inventory tells what there was when S3 began to scan, and whatever is wrong with it makes the source one that could not be
listed: it is never taken for a source that is empty.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from media_embeddings.s3_pages import OBJECTS_SCHEMA
from media_embeddings.storage import (
    ObjectNotFoundError,
    ObjectUnreadableError,
    Storage,
    error_code,
    join_uri,
    split_uri,
)

_REQUIRED = {
    "bucket": "Bucket",
    "key": "Key",
    "size": "Size",
    "last_modified_date": "LastModifiedDate",
    "e_tag": "ETag",
}
_VERSIONS = ("is_latest", "is_delete_marker")
_ROWS_AT_ONCE = 50_000
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}Z")
_DENIED = frozenset({"AccessDenied", "403", "NoSuchBucket", "404", "InvalidBucketName", "PermanentRedirect"})


class InventoryUnusableError(Exception):
    """There is no inventory that tells what a source holds; says which setting or configuration to correct."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """A complete inventory of one bucket."""

    uri: str
    """Of its manifest."""
    bucket: str
    """The bucket that was scanned."""
    configuration: str
    """The name of the inventory configuration."""
    scanned_at: datetime
    """When S3 began to scan, in UTC: of what came later it says nothing."""
    files: tuple[DataFile, ...]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of an inventory, as the manifest names it."""

    uri: str
    size_bytes: int
    md5: str


def find_inventory(storage: Storage, destination: str, bucket: str, *, max_age: timedelta, now: datetime) -> Inventory:
    """Return the newest complete inventory of a bucket.

    :param destination: the prefix that inventories are delivered to, or the folder of one configuration below it.
    :raises InventoryUnusableError: when there is none, or the newest is too old, damaged, not Parquet, or of another bucket.
    """
    with _explained_errors(destination):
        for folder in _folders(storage, destination, bucket):
            manifest_uri = join_uri(folder, "manifest.json")
            try:
                checksum = storage.read(join_uri(folder, "manifest.checksum")).decode(errors="replace").strip()
            except ObjectNotFoundError:
                # Still being delivered.
                continue
            content = storage.read(manifest_uri)
            _check_sum(manifest_uri, hashlib.md5(content, usedforsecurity=False).hexdigest(), checksum)
            found = _parse(manifest_uri, content, bucket)
            if now - found.scanned_at > max_age:
                raise InventoryUnusableError(
                    f"the newest complete inventory, {manifest_uri}, is of {found.scanned_at:%Y-%m-%d %H:%M} UTC, older than "
                    f"max_inventory_age_hours {max_age / timedelta(hours=1):g} allows; see why S3 delivers none, raise the "
                    "setting, or remove `inventory` to have the bucket listed"
                )
            return found
    raise InventoryUnusableError(
        f"the setting inventory names {destination}, where no complete inventory of bucket {bucket} lies; name the "
        "destination of its inventory configuration, wait for the first delivery (up to 48 hours), or remove the setting"
    )


def covers(storage: Storage, inventory: Inventory, prefix: str) -> bool | None:
    """Return whether an inventory's configuration takes in all that lies below a prefix; None where S3 does not tell.

    A manifest does not name the prefix that its configuration is limited to; asking for that takes
    ``s3:GetInventoryConfiguration``.
    """
    try:
        answer = storage.client.get_bucket_inventory_configuration(Bucket=inventory.bucket, Id=inventory.configuration)
    except ClientError:
        return None
    configuration = answer.get("InventoryConfiguration")
    if not configuration or configuration.get("Id") != inventory.configuration:
        return None
    return prefix.startswith(configuration.get("Filter", {}).get("Prefix", ""))


def read_objects(
    storage: Storage, inventory: Inventory, prefix: str, write: Callable[[int, pa.Table], None]
) -> list[int]:
    """Hand over the present objects below a prefix, file by file, and return the numbers of the files.

    At most one row group and 50,000 rows are in memory at once.

    :param write: takes a file's number and rows of :data:`~media_embeddings.s3_pages.OBJECTS_SCHEMA`.
    :raises InventoryUnusableError: when a file is missing, damaged or lacks a field, or no object lies below the prefix.
    """
    found = 0
    for number, file in enumerate(inventory.files):
        with tempfile.TemporaryDirectory() as directory, _explained_errors(file.uri):
            path = Path(directory) / "data.parquet"
            storage.download(file.uri, path)
            _check_sum(file.uri, _md5_of(path), file.md5)
            write(number, OBJECTS_SCHEMA.empty_table())
            for rows in _rows(file.uri, path, inventory.bucket, prefix):
                found += rows.num_rows
                write(number, rows)
    if not found:
        raise InventoryUnusableError(
            f"the inventory {inventory.uri} holds no object below s3://{inventory.bucket}/{prefix}; widen the prefix of its "
            "configuration, correct the library's sources, or remove the setting `inventory`"
        )
    return list(range(len(inventory.files)))


def _folders(storage: Storage, destination: str, bucket: str) -> Iterator[str]:
    """Yield the folders of inventories, the newest first."""

    def below(uri: str) -> list[str]:
        return [join_uri(uri, name) for page in storage.folders(f"{uri.rstrip('/')}/") for name in page]

    configurations = [destination, *below(join_uri(destination, bucket))]
    folders = [folder for configuration in configurations for folder in below(configuration)]
    dated = [folder for folder in folders if _TIME.fullmatch(_name(folder))]
    yield from sorted(dated, key=_name, reverse=True)


def _name(folder: str) -> str:
    return folder.rstrip("/").rsplit("/", 1)[1]


def _parse(uri: str, content: bytes, bucket: str) -> Inventory:
    folder = uri.rsplit("/", 1)[0]
    try:
        value: Mapping[str, Any] = json.loads(content)
        source, file_format = value["sourceBucket"], value["fileFormat"]
        begun = datetime.fromtimestamp(int(value["creationTimestamp"]) / 1000, UTC)
        place, _ = split_uri(uri)
        files = tuple(DataFile(f"s3://{place}/{one['key']}", one["size"], one["MD5checksum"]) for one in value["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise InventoryUnusableError(
            f"{uri} is not a manifest of S3 Inventory ({error!r}); name the destination of one in the setting inventory"
        ) from error
    if source != bucket:
        raise InventoryUnusableError(
            f"{uri} is an inventory of bucket {source}, not of {bucket}; correct the setting inventory"
        )
    if file_format != "Parquet":
        raise InventoryUnusableError(
            f"{uri} has files of the format {file_format}; set the inventory configuration's format to Apache Parquet"
        )
    named = datetime.strptime(_name(folder), "%Y-%m-%dT%H-%MZ").replace(tzinfo=UTC)
    # Both tell when the scan began; the earlier one claims less.
    return Inventory(uri, bucket, _name(folder.rsplit("/", 1)[0]), min(begun, named), files)


def _rows(uri: str, path: Path, bucket: str, prefix: str) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            columns = _columns(uri, file.schema_arrow.names)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                yield _objects(uri, pa.table(batch), bucket, prefix)
    except pa.ArrowException as error:
        raise InventoryUnusableError(f"{uri} can't be read as an inventory in Parquet: {error}") from error


def _columns(uri: str, names: Sequence[str]) -> list[str]:
    missing = [field for name, field in _REQUIRED.items() if name not in names]
    if missing:
        raise InventoryUnusableError(
            f"{uri} lacks {', '.join(missing)}; add these fields to the inventory configuration and wait for the next one"
        )
    versions = [name for name in _VERSIONS if name in names]
    if versions != list(_VERSIONS) and (versions or "version_id" in names):
        raise InventoryUnusableError(
            f"{uri} has versions, but not both IsLatest and IsDeleteMarker, so that it does not tell what is present"
        )
    return [*_REQUIRED, *versions]


def _objects(uri: str, rows: pa.Table, bucket: str, prefix: str) -> pa.Table:
    """Return the present objects below a prefix."""
    if pc.any(pc.not_equal(rows["bucket"], bucket), min_count=0).as_py():
        raise InventoryUnusableError(
            f"{uri} has objects of another bucket than {bucket}; correct the setting inventory"
        )
    if _VERSIONS[0] in rows.column_names:
        rows = rows.filter(pc.and_(rows["is_latest"], pc.invert(rows["is_delete_marker"])))
    rows = rows.filter(pc.starts_with(rows["key"], prefix))
    if any(rows[name].null_count for name in _REQUIRED):
        raise InventoryUnusableError(
            f"{uri} has objects without a size, an ETag or a date; wait for the next inventory"
        )
    return pa.table(
        [
            rows["key"].cast(pa.string()),
            pc.utf8_trim(rows["e_tag"].cast(pa.string()), '"'),
            rows["size"].cast(pa.int64()),
            rows["last_modified_date"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("us", tz="UTC")),
        ],
        schema=OBJECTS_SCHEMA,
    )


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _check_sum(uri: str, found: str, expected: str) -> None:
    if found != expected.lower():
        raise InventoryUnusableError(
            f"{uri} has the MD5 {found}, but its inventory says {expected}: it was damaged or replaced; nothing of it was "
            "used. Wait for the next inventory, or remove the setting `inventory` to have the bucket listed"
        )


@contextmanager
def _explained_errors(uri: str) -> Iterator[None]:
    """Turn what another try doesn't change into an error that says what to do; let the rest pass."""
    try:
        yield
    except (ObjectNotFoundError, ObjectUnreadableError) as error:
        raise InventoryUnusableError(
            f"a file of the inventory can't be read: {error}; correct the setting inventory, or allow s3:GetObject there"
        ) from error
    except ClientError as error:
        code = error_code(error)
        if code not in _DENIED:
            raise
        raise InventoryUnusableError(
            f"S3 refuses {uri} ({code}); correct the setting inventory, or allow s3:ListBucket and s3:GetObject there"
        ) from error
