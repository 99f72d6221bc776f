"""Lists the media of a library's sources into one Parquet file: nothing is downloaded, no source is written."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from media_embeddings.library import DeletionMode, Library
from media_embeddings.media import MediaType
from media_embeddings.storage import Storage, etag_of, split_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LISTING_SCHEMA = pa.schema(
    [
        pa.field("media_uri", pa.string(), nullable=False),
        pa.field("bucket", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("media_type", pa.string()),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("last_modified", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("taken", pa.bool_(), nullable=False),
    ]
)
"""One row a media object; ``media_type`` is null where the key's suffix tells none.

Where deletions are looked for, what the library does not take has a row as well, with ``taken`` false: it is still there.
"""

UNSUPPORTED = "unsupported"
"""Counts objects whose suffix tells no media type."""

_EXCLUDED = "excluded"
_ROW_GROUP = 50_000
_PARALLEL_SOURCES = 16
# Errors that another try doesn't change: each names what the owner of the bucket has to do.
_REMEDIES = {
    "NoSuchBucket": "the bucket does not exist; correct the library's sources",
    "AccessDenied": "access is denied; allow s3:ListBucket on the bucket and s3:GetObject on its objects",
    "403": "access is denied; allow s3:ListBucket on the bucket and s3:GetObject on its objects",
    "404": "the bucket does not exist; correct the library's sources",
    "InvalidAccessKeyId": "the access key is unknown; correct the Airflow connection",
    "SignatureDoesNotMatch": "the secret key is wrong; correct the Airflow connection",
    "InvalidBucketName": "the bucket's name is invalid; correct the library's sources",
    "PermanentRedirect": "the bucket is in another region; Bedrock reads only buckets of the model's region",
}


class SourceUnavailableError(Exception):
    """A source can't be listed, and another try would not change that."""


class SourceUnreachableError(Exception):
    """S3 did not answer for a source; another try may help."""


class NothingListedError(Exception):
    """None of the sources can be listed, or a parameter names none of them."""


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """A source that could not be listed, and why."""

    source: str
    message: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What was listed: small enough for an XCom; the rows are in the Parquet file at ``uri``."""

    uri: str
    objects: int
    excluded: int
    """Objects that the library's globs or media types leave out; they stand in no book."""
    by_media_type: dict[str, int]
    filtered: bool
    """Whether only a part of the library was listed, by a parameter or because a source failed."""
    listed_at: datetime
    """When it was begun, in UTC: of what came later it says nothing."""
    failures: tuple[SourceFailure, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "listed_at": self.listed_at.isoformat()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Listing:
        """Return the listing of :meth:`as_dict`."""
        failures = tuple(SourceFailure(**failure) for failure in value["failures"])
        listed_at = datetime.fromisoformat(value["listed_at"])
        return cls(**{**value, "failures": failures, "listed_at": listed_at})


def list_media(
    storage: Storage,
    library: Library,
    uri: str,
    *,
    prefix: str | None = None,
    media_types: Sequence[MediaType] | None = None,
) -> Listing:
    """List the library's sources, in parallel, and write the rows of :data:`LISTING_SCHEMA` to ``uri``.

    :param prefix: list only what lies below this ``s3://bucket/prefix``, which must be within a source.
    :param media_types: list only these; objects whose suffix tells no media type are then left out as well.
    :raises NothingListedError: when no source can be listed. A source that can't be listed beside others that can is
        returned in ``failures``.
    :raises SourceUnreachableError: when S3 fails in a way that may pass (time-outs, 5xx).
    """
    listed_at = datetime.now(UTC)
    sources = _narrowed(library.sources, prefix)
    reader = _SourceReader(storage.client, library, None if media_types is None else frozenset(media_types))
    with tempfile.TemporaryDirectory() as directory:
        parts = [Path(directory) / f"{number}.parquet" for number in range(len(sources))]
        with ThreadPoolExecutor(min(_PARALLEL_SOURCES, len(sources))) as pool:
            results = list(pool.map(reader.list_source, sources, parts))
        failures = tuple(result for result in results if isinstance(result, SourceFailure))
        if len(failures) == len(sources):
            raise NothingListedError(
                f"library {library.name}: no source could be listed; nothing was changed. "
                + "; ".join(f"{failure.source}: {failure.message}" for failure in failures)
            )
        counts = [result for result in results if isinstance(result, Counter)]
        path = Path(directory) / "listing.parquet"
        _join(parts, path)
        storage.upload(path, uri)
    total = sum(counts, Counter[str]())
    excluded = total.pop(_EXCLUDED, 0)
    return Listing(
        uri=uri,
        objects=total.total(),
        excluded=excluded,
        by_media_type=dict(sorted(total.items())),
        filtered=prefix is not None or media_types is not None or bool(failures),
        listed_at=listed_at,
        failures=failures,
    )


def _narrowed(sources: Sequence[str], prefix: str | None) -> Sequence[str]:
    if prefix is None:
        return sources
    if not any(prefix.startswith(source) for source in sources):
        raise NothingListedError(
            f"the parameter prefix, {prefix!r}, lies in none of the library's sources {', '.join(sources)}; "
            "give an S3 URI that begins with one of them, or leave it empty"
        )
    return [prefix]


@dataclass(frozen=True, slots=True)
class _SourceReader:
    client: S3Client
    library: Library
    wanted: frozenset[MediaType] | None

    def list_source(self, source: str, path: Path) -> Counter[str] | SourceFailure:
        """Write the media of a source to a Parquet file and return how many there are of each media type."""
        counts: Counter[str] = Counter()
        try:
            self._check_region(source)
            with pq.ParquetWriter(path, LISTING_SCHEMA, compression="zstd") as writer:
                rows: list[dict[str, Any]] = []
                for row in self._rows(source):
                    counts[(row["media_type"] or UNSUPPORTED) if row["taken"] else _EXCLUDED] += 1
                    if row["taken"] or self._records_all:
                        rows.append(row)
                    if len(rows) == _ROW_GROUP:
                        writer.write_table(pa.Table.from_pylist(rows, schema=LISTING_SCHEMA))
                        rows.clear()
                writer.write_table(pa.Table.from_pylist(rows, schema=LISTING_SCHEMA))
        except SourceUnavailableError as error:
            path.unlink(missing_ok=True)
            return SourceFailure(source, str(error))
        except (ClientError, BotoCoreError) as error:
            raise SourceUnreachableError(
                f"{source} could not be listed: {error}. Nothing was changed; the task tries again"
            ) from error
        return counts

    def _check_region(self, source: str) -> None:
        bucket, _ = split_uri(source)
        with _explained_errors():
            region = self.client.head_bucket(Bucket=bucket).get("BucketRegion")
        if region and region != self.library.region:
            raise SourceUnavailableError(
                f"the bucket is in {region}, the library in {self.library.region}; Bedrock reads only buckets of the "
                "model's region: give the bucket a library of its own in its region"
            )

    @property
    def _records_all(self) -> bool:
        return self.wanted is None and self.library.deletions is not DeletionMode.OFF

    def _rows(self, source: str) -> Iterator[dict[str, Any]]:
        """Yield the row of every object that is there."""
        bucket, prefix = split_uri(source)
        base = self._base_of(source)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        with _explained_errors():
            for page in pages:
                for entry in page.get("Contents", ()):
                    key = entry["Key"]
                    media_type = self.library.selection.media_type(key)
                    yield {
                        "media_uri": f"s3://{bucket}/{key}",
                        "bucket": bucket,
                        "key": key,
                        "media_type": media_type,
                        "etag": etag_of(entry["ETag"]),
                        "size_bytes": entry["Size"],
                        "last_modified": entry["LastModified"],
                        "taken": self._takes(key.removeprefix(base).lstrip("/"), media_type),
                    }

    def _base_of(self, source: str) -> str:
        """Return the key prefix that the library's globs are relative to, also when a parameter narrows the source."""
        for whole in self.library.sources:
            if source.startswith(whole):
                return split_uri(whole)[1]
        return split_uri(source)[1]

    def _takes(self, relative_key: str, media_type: MediaType | None) -> bool:
        if self.wanted is not None and media_type not in self.wanted:
            return False
        return self.library.selection.takes(relative_key)


@contextmanager
def _explained_errors() -> Iterator[None]:
    """Turn the errors that another try doesn't change into one that says what to do; let the others pass."""
    try:
        yield
    except NoCredentialsError as error:
        raise SourceUnavailableError("there are no AWS credentials; set the library's aws_conn_id") from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if (remedy := _REMEDIES.get(code)) is None:
            raise
        raise SourceUnavailableError(f"{remedy} ({code})") from error


def _join(parts: Sequence[Path], path: Path) -> None:
    with pq.ParquetWriter(path, LISTING_SCHEMA, compression="zstd") as writer:
        for part in parts:
            if not part.exists():
                continue
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(_ROW_GROUP):
                    writer.write_batch(batch)
