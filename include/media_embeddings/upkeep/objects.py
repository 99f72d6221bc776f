"""Objects on S3 with their sizes and ages, listed page by page and deleted in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice

from media_embeddings.storage import Storage, split_uri

_MOST_A_CALL = 1000


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it."""

    uri: str
    size_bytes: int
    written_at: datetime


class NotDeletedError(Exception):
    """S3 has refused to delete some objects; the others are gone."""


def list_objects(storage: Storage, prefix_uri: str) -> Iterator[list[StoredObject]]:
    """Yield the objects below a prefix, a page of at most 1,000 at a time."""
    bucket, prefix = split_uri(prefix_uri)
    for page in storage.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield [
            StoredObject(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["LastModified"])
            for entry in page.get("Contents", ())
        ]


def delete_objects(storage: Storage, uris: Iterable[str]) -> None:
    """Delete objects, 1,000 a call; one that is gone already is no error.

    A listing must not go on meanwhile: some servers leave out of its next page what lies behind a deleted object.

    :raises NotDeletedError: naming the first of those that S3 refused to delete.
    """
    for bucket, objects in groupby((split_uri(uri) for uri in uris), lambda one: one[0]):
        while batch := list(islice(objects, _MOST_A_CALL)):
            answer = storage.client.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for _, key in batch], "Quiet": True}
            )
            if refused := answer.get("Errors"):
                first = refused[0]
                raise NotDeletedError(
                    f"S3 refused to delete {len(refused)} objects, first s3://{bucket}/{first.get('Key')}: "
                    f"{first.get('Code')} {first.get('Message')}; allow s3:DeleteObject there"
                )
