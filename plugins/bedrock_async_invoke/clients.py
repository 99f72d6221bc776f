"""Bedrock and S3 as a task or trigger works with them, shared by everything in a process that has the same connection."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config
from botocore.exceptions import ClientError

from bedrock_async_invoke.errors import explain
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook

_LIFETIME_SECONDS = 900.0
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound"})
# What S3 answers to a conditional PUT that lost: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
_LOST = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was read."""

    content: bytes
    etag: str
    written_at: datetime
    """By S3's clock."""
    age_seconds: float
    """How long ago that was, by S3's clock too, so that no two machines' clocks have to agree."""


@dataclass(frozen=True)
class AwsParameters:
    """The four parameters that say how AWS is reached, as operators and triggers of the amazon provider have them."""

    aws_conn_id: str | None = "aws_default"
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return them by name."""
        return dict(vars(self))


class Clients:
    """Bedrock and S3 as one connection reaches them. The clients are thread-safe and made on first use."""

    def __init__(self, parameters: AwsParameters) -> None:
        self._parameters = parameters

    @cached_property
    def bedrock(self) -> BedrockAsyncInvokeHook:
        """Return the hook for Bedrock."""
        return BedrockAsyncInvokeHook(**self._hook_arguments)

    @property
    def region_name(self) -> str:
        """Return the region that Bedrock is asked in."""
        return str(self.bedrock.conn_region_name)

    @cached_property
    def _s3(self) -> Any:
        return S3Hook(**self._hook_arguments).get_conn()

    @property
    def _hook_arguments(self) -> dict[str, Any]:
        config = self._parameters.botocore_config
        return {
            "aws_conn_id": self._parameters.aws_conn_id,
            "region_name": self._parameters.region_name,
            "verify": self._parameters.verify,
            "config": Config(**config) if config else None,
        }

    def read(self, uri: str) -> bytes | None:
        """Return an object's content, or None where S3 says that there is none; that it can't say is an error."""
        bucket, key = _split(uri)
        try:
            content: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if _code(error) in _NOT_FOUND:
                return None
            raise
        return content

    def read_object(self, uri: str) -> StoredObject | None:
        """Return an object with its ETag and age, or None where S3 says that there is none."""
        bucket, key = _split(uri)
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            content = answer["Body"].read()
        except ClientError as error:
            if _code(error) in _NOT_FOUND:
                return None
            raise
        return StoredObject(content, answer["ETag"], answer["LastModified"], _age(answer["LastModified"], answer))

    def write_if(self, uri: str, content: bytes, *, etag: str | None) -> str | None:
        """Write an object if its ETag is still this one, or, for None, if there is none; return its new ETag.

        Return None where somebody else was faster, and nothing was written.
        """
        bucket, key = _split(uri)
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            return str(self._s3.put_object(Bucket=bucket, Key=key, Body=content, **condition)["ETag"])
        except ClientError as error:
            # One that is to be replaced and is gone has been changed as well.
            if _code(error) in _LOST | _NOT_FOUND:
                return None
            raise

    def delete(self, uri: str) -> None:
        """Delete an object; one that is not there is no error."""
        bucket, key = _split(uri)
        self._s3.delete_object(Bucket=bucket, Key=key)

    def ages(self, prefix_uri: str) -> dict[str, float]:
        """Return the URIs of the objects below a prefix, each with the seconds since it was written."""
        bucket, prefix = _split(prefix_uri)
        found = {}
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                found[f"s3://{bucket}/{entry['Key']}"] = _age(entry["LastModified"], page)
        return found

    def renew(self) -> None:
        """Make the clients anew on their next use, so that a connection's new credentials are taken up."""
        for name in ("bedrock", "_s3"):
            self.__dict__.pop(name, None)

    def write(self, uri: str, content: bytes) -> None:
        """Write an object whole."""
        bucket, key = _split(uri)
        self._s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/jsonl")

    def write_output(
        self, uri: str, content: bytes, *, kms_key_id: str | None = None, bucket_owner: str | None = None
    ) -> None:
        """Write a model's answer whole, as Bedrock writes those of its asynchronous invocations.

        :param kms_key_id: the full ARN of the key to encrypt it with; None leaves that to the bucket.
        :param bucket_owner: the account that has to own the bucket.
        """
        bucket, key = _split(uri)
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}
        owner = {"ExpectedBucketOwner": bucket_owner} if bucket_owner else {}
        self._s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/json", **encryption, **owner)

    def content(self, uri: str) -> tuple[bytes, str] | None:
        """Return an object's content and its ETag without quotes, or None where S3 says that there is none.

        :raises AsyncInvokeError: where S3 can't say.
        """
        bucket, key = _split(uri)
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            return answer["Body"].read(), str(answer["ETag"]).strip('"')
        except ClientError as error:
            if _code(error) in _NOT_FOUND:
                return None
            if _code(error) == "AccessDenied":
                error.response["Error"]["Code"] = "AccessDeniedException"
            raise explain(error) from error
        except Exception as error:
            raise explain(error) from error

    def etag(self, uri: str) -> str | None:
        """Return an object's ETag without its quotes, or None where S3 says that there is none.

        :raises AsyncInvokeError: where S3 can't say.
        """
        bucket, key = _split(uri)
        try:
            return str(self._s3.head_object(Bucket=bucket, Key=key)["ETag"]).strip('"')
        except ClientError as error:
            code = _code(error)
            if code in _NOT_FOUND:
                return None
            if code == "403":
                # HeadObject has no body, so S3 can't name its error.
                error.response["Error"] = {"Code": "AccessDeniedException", "Message": f"S3 refuses to show {uri}"}
            raise explain(error) from error
        except Exception as error:
            raise explain(error) from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))


def _age(written_at: datetime, answer: Mapping[str, Any]) -> float:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    asked_at = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
    return max(0.0, (asked_at - written_at).total_seconds())


def _split(uri: str) -> tuple[str, str]:
    # By hand: a key may hold what a URL parser takes for a query or a fragment.
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise ValueError(f"{uri!r} is no URI of an S3 object; it starts with s3://bucket/ and goes on with a key")
    return bucket, key


_lock = threading.Lock()
_shared: dict[str, tuple[float, Clients]] = {}


def shared_clients(parameters: AwsParameters) -> Clients:
    """Return the clients of a connection that everything in this process shares.

    Making a client takes tenths of a second, too long for each of a triggerer's triggers. They are made anew from time to
    time, so that a connection's new credentials are taken up.
    """
    key = json.dumps(parameters.as_dict(), sort_keys=True, default=str)
    now = time.monotonic()
    with _lock:
        made = _shared.get(key)
        if made is None or now - made[0] > _LIFETIME_SECONDS:
            made = _shared[key] = (now, Clients(parameters))
        return made[1]
