"""Bedrock and S3 as a task or trigger works with them, shared by everything in a process that has the same connection."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config
from botocore.exceptions import ClientError

from bedrock_async_invoke.errors import explain
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook

_LIFETIME_SECONDS = 900.0
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound"})


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
            if error.response.get("Error", {}).get("Code") in _NOT_FOUND:
                return None
            raise
        return content

    def write(self, uri: str, content: bytes) -> None:
        """Write an object whole."""
        bucket, key = _split(uri)
        self._s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/jsonl")

    def etag(self, uri: str) -> str | None:
        """Return an object's ETag without its quotes, or None where S3 says that there is none.

        :raises AsyncInvokeError: where S3 can't say.
        """
        bucket, key = _split(uri)
        try:
            return str(self._s3.head_object(Bucket=bucket, Key=key)["ETag"]).strip('"')
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code in _NOT_FOUND:
                return None
            if code == "403":
                # HeadObject has no body, so S3 can't name its error.
                error.response["Error"] = {"Code": "AccessDeniedException", "Message": f"S3 refuses to show {uri}"}
            raise explain(error) from error
        except Exception as error:
            raise explain(error) from error


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
