"""The simulator's S3 side, on whatever server the AWS environment variables name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .embedding_task import MediaSource
from .media import UnusableMediaError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from typing_extensions import Buffer

MAX_CONNECTIONS = 64
BUFFER_BYTES = 4 << 20


class StorageError(Exception):
    """S3 did not answer, or refused what should have worked."""


class MissingError(Exception):
    """The bucket or object does not exist."""


class Storage:
    """Reads media and writes outputs.

    Thread-safe. Methods raise :class:`StorageError` when S3 can't be used.
    """

    def __init__(self, region: str) -> None:
        self._client: S3Client = boto3.client(
            "s3",
            region_name=region,
            config=Config(
                max_pool_connections=MAX_CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": 3},
                connect_timeout=5,
                read_timeout=60,
            ),
        )

    def check_bucket(self, bucket: str) -> None:
        """Look whether the bucket exists.

        :raises MissingError: if it does not, or is not ours to see.
        """
        try:
            self._client.head_bucket(Bucket=bucket)
        except (ClientError, BotoCoreError) as error:
            raise _translated(error, f"s3://{bucket}") from error

    def object_size(self, bucket: str, key: str) -> int:
        """Return the object's size in bytes.

        :raises MissingError: if it does not exist.
        """
        try:
            return self._client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        except (ClientError, BotoCoreError) as error:
            raise _translated(error, f"s3://{bucket}/{key}") from error

    @contextmanager
    def opened(self, source: MediaSource) -> Iterator[BinaryIO]:
        """Open a media source as a seekable file.

        :raises UnusableMediaError: if the object is gone.
        """
        if source.content is not None:
            yield io.BytesIO(source.content)
            return
        bucket, key = source.bucket_and_key
        try:
            beginning, size = _read_range(self._client, bucket, key, 0, BUFFER_BYTES)
            if len(beginning) == size:
                yield io.BytesIO(beginning)
                return
            with io.BufferedReader(_RemoteFile(self._client, bucket, key, size), BUFFER_BYTES) as file:
                yield cast(BinaryIO, file)
        except MissingError as error:
            raise UnusableMediaError(f"The input {source.uri} can't be read any more.") from error

    def write(self, uri: str, content: bytes) -> None:
        """Write an object; ``uri`` is ``s3://bucket/key``, unescaped."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/json")
        except (ClientError, BotoCoreError) as error:
            raise StorageError(f"{uri} can't be written: {error}") from error


class _RemoteFile(io.RawIOBase):
    """An object on S3 as a file: each read is a range request, so the header of a large file costs little."""

    def __init__(self, client: S3Client, bucket: str, key: str, size: int) -> None:
        super().__init__()
        self._client = client
        self._bucket = bucket
        self._key = key
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readall(self) -> bytes:
        """Return what is left in one request; the inherited method makes one for every few kilobytes."""
        content = b""
        if self._position < self._size:
            content, _ = _read_range(self._client, self._bucket, self._key, self._position, self._size)
        self._position = self._size
        return content

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        end = min(self._position + len(view), self._size)
        if end <= self._position:
            return 0
        content, _ = _read_range(self._client, self._bucket, self._key, self._position, end)
        view[: len(content)] = content
        self._position += len(content)
        return len(content)


def _read_range(client: S3Client, bucket: str, key: str, start: int, end: int) -> tuple[bytes, int]:
    """Return the bytes of an object from ``start`` to before ``end``, and the size of the whole object."""
    try:
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")
        content = answer["Body"].read()
    except (ClientError, BotoCoreError) as error:
        raise _translated(error, f"s3://{bucket}/{key}") from error
    return content, int(answer["ContentRange"].rpartition("/")[2])


def _translated(error: Exception, uri: str) -> Exception:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (403, 404):
            return MissingError(uri)
    return StorageError(f"{uri} can't be read: {error}")
