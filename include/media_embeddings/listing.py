"""Lists the media of a library's sources into one Parquet file: nothing is downloaded, no source is written."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from media_embeddings.bucket_regions import check_bucket_regions
from media_embeddings.inventory import InventoryUnusableError, covers, find_inventory, read_objects
from media_embeddings.key_ranges import list_ranges
from media_embeddings.library import DeletionMode, Library
from media_embeddings.media import MediaType
from media_embeddings.s3_pages import PageReader
from media_embeddings.selected_columns import ColumnSelection
from media_embeddings.spool import Spool
from media_embeddings.storage import Storage, error_code, split_uri

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
_PARALLEL_CALLS = 16
# Keys in their order have long beginnings in common, which this encoding leaves out.
_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["bucket", "media_type"],
    "column_encoding": {"media_uri": "DELTA_BYTE_ARRAY", "key": "DELTA_BYTE_ARRAY"},
}
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
    """When it was begun, or when S3 began the inventory, in UTC: of what came later it says nothing."""
    failures: tuple[SourceFailure, ...] = ()
    notices: tuple[str, ...] = ()
    """What a person should know of the listing, though nothing failed."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "listed_at": self.listed_at.isoformat()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Listing:
        """Return the listing of :meth:`as_dict`."""
        failures = tuple(SourceFailure(**failure) for failure in value["failures"])
        listed_at = datetime.fromisoformat(value["listed_at"])
        notices = tuple(value.get("notices", ()))
        return cls(**{**value, "failures": failures, "listed_at": listed_at, "notices": notices})


def list_media(
    storage: Storage,
    library: Library,
    uri: str,
    *,
    prefix: str | None = None,
    media_types: Sequence[MediaType] | None = None,
) -> Listing:
    """List the library's sources, in parallel, and write the rows of :data:`LISTING_SCHEMA` to ``uri``.

    Where the library has an ``inventory``, that is read instead of listing.

    :param prefix: list only what lies below this ``s3://bucket/prefix``, which must be within a source.
    :param media_types: list only these; objects whose suffix tells no media type are then left out as well.
    :raises NothingListedError: when no source can be listed. A source that can't be listed beside others that can is
        returned in ``failures``.
    :raises WrongRegionError: when one of the library's buckets is in another region.
    :raises SourceUnreachableError: when S3 fails in a way that may pass (time-outs, 5xx).
    """
    listed_at = datetime.now(UTC)
    sources = _narrowed(library.sources, prefix)
    notices = check_bucket_regions(storage.client, library)
    # More at once than there are connections would only be thrown away.
    calls = min(_PARALLEL_CALLS, getattr(storage.client.meta.config, "max_pool_connections", 10))
    wanted = None if media_types is None else frozenset(media_types)
    reader = _SourceReader(storage, library, wanted, max(1, calls // len(sources)))
    with tempfile.TemporaryDirectory() as directory:
        parts = [Path(directory) / f"{number}.arrows" for number in range(len(sources))]
        with ThreadPoolExecutor(min(calls, len(sources))) as pool:
            results = list(pool.map(reader.list_source, sources, parts))
        failures = tuple(result for result in results if isinstance(result, SourceFailure))
        if len(failures) == len(sources):
            raise NothingListedError(
                f"library {library.name}: no source could be listed; nothing was changed. "
                + "; ".join(f"{failure.source}: {failure.message}" for failure in failures)
            )
        listed = [(source, one) for source, one in zip(sources, results, strict=True) if isinstance(one, _Listed)]
        path = Path(directory) / "listing.parquet"
        _join(listed, path)
        storage.upload(path, uri)
    total = sum((one.counts for _, one in listed), Counter[str]())
    excluded = total.pop(_EXCLUDED, 0)
    return Listing(
        uri=uri,
        objects=total.total(),
        excluded=excluded,
        by_media_type=dict(sorted(total.items())),
        filtered=prefix is not None
        or media_types is not None
        or bool(failures)
        or not all(one.is_complete for _, one in listed),
        listed_at=min([listed_at, *(one.inventory_of for _, one in listed if one.inventory_of is not None)]),
        failures=failures,
        notices=notices
        + tuple(
            f"{source}: the inventory may be limited to a part of it, so nothing there counts as gone; allow "
            "s3:GetInventoryConfiguration on the bucket, so that this can be told"
            for source, one in listed
            if not one.is_complete
        ),
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
class _Listed:
    """The rows of a source and what they are."""

    rows: Spool
    parts: Sequence[int]
    """The parts of the spool, in the order of their keys."""
    counts: Counter[str]
    inventory_of: datetime | None
    """When the inventory was begun that was read; None where the source was listed."""
    is_complete: bool
    """Whether everything there is below the source is known to be among what was read."""


@dataclass(frozen=True, slots=True)
class _SourceReader:
    storage: Storage
    library: Library
    wanted: frozenset[MediaType] | None
    calls: int
    """The most calls at once for one source."""

    def list_source(self, source: str, path: Path) -> _Listed | SourceFailure:
        """Put the media of a source into a spool and return it with how many there are of each media type."""
        bucket, prefix = split_uri(source)
        rows = Spool(path)
        counts: dict[int, Counter[str]] = {}
        selection = ColumnSelection(self.library.selection, self._base_of(source), self.wanted)

        def write(part: int, objects: pa.Table) -> None:
            counted, kept = self._selected(selection, objects)
            counts[part] = counts.get(part, Counter()) + counted
            rows.write(part, kept)

        try:
            self._check_bucket(source)
            with _explained_errors():
                if self.library.inventory is None:
                    inventory_of, is_complete = None, True
                    pages = PageReader(self.storage.client, bucket, prefix)
                    parts: Sequence[int] = list_ranges(pages.read, write, prefix, self.calls)
                else:
                    parts, inventory_of, is_complete = self._read_inventory(self.library.inventory, source, write)
        except (SourceUnavailableError, InventoryUnusableError) as error:
            return SourceFailure(source, str(error))
        except (ClientError, BotoCoreError) as error:
            raise SourceUnreachableError(
                f"{source} could not be listed: {error}. Nothing was changed; the task tries again"
            ) from error
        counted = sum((counts[part] for part in parts), Counter[str]())
        return _Listed(rows, parts, counted, inventory_of, is_complete)

    def _read_inventory(
        self, destination: str, source: str, write: Callable[[int, pa.Table], None]
    ) -> tuple[Sequence[int], datetime, bool]:
        """Read a source's inventory; return its parts, when it was begun, and whether it is known to be complete."""
        bucket, prefix = split_uri(source)
        max_age = timedelta(hours=self.library.max_inventory_age_hours)
        found = find_inventory(self.storage, destination, bucket, max_age=max_age, now=datetime.now(UTC))
        is_covered = covers(self.storage, found, prefix)
        if is_covered is False:
            raise InventoryUnusableError(
                f"the inventory configuration {found.configuration} is limited to a part of {source}; widen its prefix, "
                "correct the setting inventory, or remove it to have the source listed"
            )
        return read_objects(self.storage, found, prefix, write), found.scanned_at, is_covered is True

    def _check_bucket(self, source: str) -> None:
        bucket, _ = split_uri(source)
        with _explained_errors():
            self.storage.client.head_bucket(Bucket=bucket)

    @property
    def _records_all(self) -> bool:
        return self.wanted is None and self.library.deletions is not DeletionMode.OFF

    def _selected(self, selection: ColumnSelection, objects: pa.Table) -> tuple[Counter[str], pa.Table]:
        """Return how many objects there are of each media type, and the rows of those that are recorded."""
        media_types = selection.media_types(objects["key"])
        taken = selection.taken(objects["key"], media_types)
        rows = objects.append_column("media_type", media_types).append_column("taken", taken)
        counts = Counter({_EXCLUDED: rows.num_rows - pc.sum(taken, min_count=0).as_py()})
        for pair in rows["media_type"].filter(taken).value_counts().to_pylist():
            counts[pair["values"] or UNSUPPORTED] += pair["counts"]
        return +counts, rows if self._records_all else rows.filter(taken)

    def _base_of(self, source: str) -> str:
        """Return the key prefix that the library's globs are relative to, also when a parameter narrows the source."""
        for whole in self.library.sources:
            if source.startswith(whole):
                return split_uri(whole)[1]
        return split_uri(source)[1]


@contextmanager
def _explained_errors() -> Iterator[None]:
    """Turn the errors that another try doesn't change into one that says what to do; let the others pass."""
    try:
        yield
    except NoCredentialsError as error:
        raise SourceUnavailableError("there are no AWS credentials; set the library's aws_conn_id") from error
    except ClientError as error:
        code = error_code(error)
        if (remedy := _REMEDIES.get(code)) is None:
            raise
        raise SourceUnavailableError(f"{remedy} ({code})") from error


def _join(sources: Sequence[tuple[str, _Listed]], path: Path) -> None:
    with pq.ParquetWriter(path, LISTING_SCHEMA, **_PARQUET) as writer:
        for source, listed in sources:
            bucket, _ = split_uri(source)
            # Pages are small, and a row group of each would make the file large and slow.
            for rows in _gathered(listed.rows.read(listed.parts), _ROW_GROUP):
                writer.write_table(_complete(rows, bucket))


def _complete(rows: pa.Table, bucket: str) -> pa.Table:
    columns = {name: rows[name] for name in rows.column_names}
    columns["bucket"] = pa.repeat(pa.scalar(bucket), rows.num_rows)
    columns["media_uri"] = pc.binary_join_element_wise(f"s3://{bucket}/", rows["key"], "")
    return pa.table([columns[name] for name in LISTING_SCHEMA.names], schema=LISTING_SCHEMA)


def _gathered(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of many small tables in fewer ones of about so many rows."""
    gathered: list[pa.Table] = []
    for table in tables:
        gathered.append(table)
        if sum(one.num_rows for one in gathered) >= rows:
            yield pa.concat_tables(gathered)
            gathered.clear()
    if gathered:
        yield pa.concat_tables(gathered)
