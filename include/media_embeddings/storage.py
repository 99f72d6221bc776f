"""The S3 side of a run: objects by URI, and the options under which the table writer reaches the same store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import ClientError

from media_embeddings.table_options import TableOptions

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

# What S3 answers where there is no such object: GetObject names it, HeadObject has no body to name it in.
_NOT_FOUND = frozenset({"NoSuchKey", "404", "NotFound"})
# Denied, archived, or encrypted with a key that may not be used; HeadObject has no body to name its error in.
_UNREADABLE = frozenset({"AccessDenied", "403", "InvalidObjectState", "400"})


MOST_CONNECTIONS = 32
"""How many requests at once a client should have connections for: as many as headers are read side by side."""


class ObjectNotFoundError(Exception):
    """There is no object at a URI. Never raised when S3 could not be asked."""


class ObjectUnreadableError(Exception):
    """S3 refuses to give this one object, and another try would not change that."""


class ObjectChangedError(Exception):
    """The object at a URI has another ETag than the one asked for."""


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``; the key is taken as it stands, without any unescaping."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator or not bucket:
        raise ValueError(f"{uri!r} is not an S3 URI of the form s3://bucket/key")
    return bucket, key


def join_uri(base: str, *parts: str) -> str:
    """Return ``base`` and ``parts`` with exactly one slash between them."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def is_below(uri: str, base: str) -> bool:
    """Return whether ``uri`` is ``base`` itself or lies under it as a folder."""
    return f"{uri.rstrip('/')}/".startswith(f"{base.rstrip('/')}/")


def etag_of(header: str) -> str:
    """Return an ETag without the double quotes that S3 puts around it."""
    return header.strip('"')


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What an object is, without its content; ``version_id`` is None in a bucket without versioning."""

    etag: str
    version_id: str | None


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An object that is being read."""

    size_bytes: int
    body: StreamingBody

    def chunks(self, size_bytes: int) -> Iterator[bytes]:
        """Yield the content in chunks of this size, the last one smaller."""
        while chunk := self.body.read(size_bytes):
            yield chunk

    def close(self) -> None:
        """Give up what has not been read."""
        self.body.close()


@dataclass(frozen=True)
class Storage:
    """An S3 client together with the options under which ``deltalake`` reaches the same endpoint as the same principal.

    Reads raise :class:`ObjectNotFoundError` only where S3 says so; every other failure keeps its own error, since
    "could not be read" must never be taken for "is not there".
    """

    client: S3Client
    # Holds credentials, so it must not reach a log by way of a representation.
    table_options: TableOptions = field(repr=False)

    @classmethod
    def of_session(cls, session: Session, client: S3Client | None = None) -> Self:
        """Return the storage that a boto3 session reaches, through ``client`` where one was already made."""
        client = client or session.client("s3")
        return cls(client=client, table_options=partial(_table_options, session, client))

    def read(self, uri: str, *, etag: str | None = None) -> bytes:
        """Return the content of an object, only if it still has ``etag`` where one is given."""
        return self._get(uri, etag)["Body"].read()

    def read_range(self, uri: str, start: int, end: int, *, etag: str) -> bytes:
        """Return the bytes of an object from ``start`` to before ``end``, only if it still has ``etag``."""
        return self._get(uri, etag, Range=f"bytes={start}-{end - 1}")["Body"].read(end - start)

    def open(self, uri: str) -> OpenObject:
        """Return the content of an object as it arrives. It has to be read to its end, or closed."""
        answer = self._get(uri, None)
        return OpenObject(answer["ContentLength"], answer["Body"])

    def _get(self, uri: str, etag: str | None, **part: Any) -> GetObjectOutputTypeDef:
        bucket, key = split_uri(uri)
        condition: dict[str, Any] = part if etag is None else {"IfMatch": f'"{etag}"', **part}
        try:
            return self.client.get_object(Bucket=bucket, Key=key, **condition)
        except ClientError as error:
            code = error_code(error)
            if code in _NOT_FOUND:
                raise ObjectNotFoundError(uri) from error
            if code in {"PreconditionFailed", "412"}:
                raise ObjectChangedError(uri) from error
            if _is_unreadable(code):
                raise ObjectUnreadableError(f"S3 refuses to give {uri} ({code}); {_REMEDY}") from error
            raise

    def write(self, uri: str, content: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write an object whole."""
        bucket, key = split_uri(uri)
        self.client.put_object(Bucket=bucket, Key=key, Body=content, ContentType=content_type)

    def download(self, uri: str, path: Path) -> None:
        """Copy an object into a local file."""
        bucket, key = split_uri(uri)
        try:
            self.client.download_file(bucket, key, str(path))
        except ClientError as error:
            if error_code(error) in _NOT_FOUND:
                raise ObjectNotFoundError(uri) from error
            raise

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file into an object."""
        bucket, key = split_uri(uri)
        self.client.upload_file(str(path), bucket, key)

    def list_uris(self, prefix_uri: str) -> Iterator[str]:
        """Yield the URIs of the objects below a prefix."""
        bucket, prefix = split_uri(prefix_uri)
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                yield f"s3://{bucket}/{entry['Key']}"

    def folders(self, prefix_uri: str) -> Iterator[list[str]]:
        """Yield the names of the folders right below a prefix that ends in a slash, a page at a time."""
        bucket, prefix = split_uri(prefix_uri)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        for page in pages:
            yield [entry["Prefix"].removeprefix(prefix).rstrip("/") for entry in page.get("CommonPrefixes", ())]

    def head(self, uri: str) -> ObjectHead:
        """Return what an object is at present."""
        bucket, key = split_uri(uri)
        try:
            answer = self.client.head_object(Bucket=bucket, Key=key)
            return ObjectHead(etag_of(answer["ETag"]), answer.get("VersionId"))
        except ClientError as error:
            code = error_code(error)
            if code in _NOT_FOUND:
                raise ObjectNotFoundError(uri) from error
            if _is_unreadable(code):
                raise ObjectUnreadableError(f"S3 refuses to show {uri} ({code}); {_REMEDY}") from error
            raise

    def read_json(self, uri: str) -> dict[str, Any]:
        """Return the content of a JSON object."""
        value: dict[str, Any] = json.loads(self.read(uri))
        return value

    def write_json(self, uri: str, value: object) -> None:
        """Write a value as indented JSON."""
        content = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False)
        self.write(uri, content.encode(), content_type="application/json")

    def read_json_lines(self, uri: str) -> Iterator[dict[str, Any]]:
        """Yield the values of a JSON-lines object."""
        for line in self.read(uri).splitlines():
            if line:
                yield json.loads(line)


_REMEDY = "allow s3:GetObject and the use of its key, or restore it from the archive"


def _is_unreadable(code: str) -> bool:
    return code in _UNREADABLE or code.startswith("KMS.")


def error_code(error: ClientError) -> str:
    """Return the code that S3 answers with, or an empty string where it gives none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _table_options(session: Session, client: S3Client) -> dict[str, str]:
    """Translate a boto3 session into the ``object_store`` options that ``deltalake`` takes."""
    options: dict[str, str] = {"AWS_REGION": client.meta.region_name}
    if (credentials := session.get_credentials()) is not None:
        frozen = credentials.get_frozen_credentials()
        keys = {
            "AWS_ACCESS_KEY_ID": frozen.access_key,
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
            "AWS_SESSION_TOKEN": frozen.token,
        }
        options |= {name: value for name, value in keys.items() if value}
    # AWS's own endpoints are derived from the region: naming one would switch virtual-hosted addressing off.
    if ".amazonaws." not in client.meta.endpoint_url:
        # Of all the names that the table writer knows, this one is not overruled by the environment.
        options["AWS_ENDPOINT_URL_S3"] = client.meta.endpoint_url
        options["AWS_ALLOW_HTTP"] = str(client.meta.endpoint_url.startswith("http://")).lower()
    return options
