"""The files of a manifest: what is to be started, what was, and how it ended. One JSON object a line.

``requests.jsonl`` is written by whoever wants embeddings; ``invocations.jsonl`` and ``statuses.jsonl`` are written beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self, TypeVar

INVOCATIONS, STATUSES = "invocations.jsonl", "statuses.jsonl"

_Record = TypeVar("_Record")


class ManifestError(ValueError):
    """A file holds a line that is not what it should be."""


class Outcome(StrEnum):
    """What became of the attempt to start a request."""

    STARTED = "started"
    ADOPTED = "adopted"
    """There was an invocation under its token already."""
    REUSED = "reused"
    """Its output was there already, so nothing was asked of Bedrock."""
    REFUSED = "refused"
    """Bedrock, or the look at its source, said no to this one request; no invocation exists."""
    UNANSWERED = "unanswered"
    """No Start of it had an answer to rely on; no invocation is known, and the same token may be tried again."""


@dataclass(frozen=True, slots=True)
class AsyncInvokeRequest:
    """A request that is ready to be sent."""

    request_id: str
    """The ``clientRequestToken``: 1 to 256 printable ASCII characters."""
    model_input: dict[str, Any]
    output_uri: str
    """The prefix that Bedrock writes below, in a folder named by the invocation."""
    source_uri: str | None = None
    """The object that the request is made from; looked at before Start."""
    source_etag: str | None = None
    """Its ETag without quotes, if it must still be the same."""
    priority: float = 0.0
    """The higher, the earlier it is started."""
    finished_output_uri: str | None = None
    """The folder of an output that is there already, named by its invocation: then nothing is started."""
    content_member: tuple[str, ...] | None = None
    """Where in ``model_input`` the content of the source goes, base64-encoded, as the names on the way to it; None where the
    request is complete as it stands, and names the source by its S3 location. InvokeModel alone can fill it in."""

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Return the request of a line; members of other names are the writer's own."""
        return cls(
            request_id=value["request_id"],
            model_input=value["model_input"],
            output_uri=value["output_uri"],
            source_uri=value.get("source_uri"),
            source_etag=value.get("source_etag"),
            priority=float(value.get("priority", 0.0)),
            finished_output_uri=value.get("finished_output_uri"),
            content_member=None if (member := value.get("content_member")) is None else tuple(member),
        )


@dataclass(frozen=True, slots=True)
class Invocation:
    """What became of the attempt to start a request."""

    request_id: str
    invocation_arn: str | None
    outcome: Outcome
    submitted_at: str | None = None
    """ISO 8601, UTC; of one that was refused, when it was."""
    error_code: str | None = None
    error_message: str | None = None
    output_uri: str | None = None
    """The folder of its output, where that was there already."""
    lost_answers: int = 0
    """Calls of InvokeModel that may have been made and of which no answer is there: each of them may be paid for as well."""

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Return the invocation of a line."""
        return cls(
            request_id=value["request_id"],
            invocation_arn=value["invocation_arn"],
            outcome=Outcome(value["outcome"]),
            submitted_at=value.get("submitted_at"),
            error_code=value.get("error_code"),
            error_message=value.get("error_message"),
            output_uri=value.get("output_uri"),
            lost_answers=int(value.get("lost_answers", 0)),
        )


@dataclass(frozen=True, slots=True)
class InvocationStatus:
    """How an invocation ended, or where it stood when it was last looked at."""

    request_id: str
    invocation_arn: str
    status: str
    failure_message: str | None
    submitted_at: str | None
    ended_at: str | None
    output_uri: str
    """The folder of the invocation's output; its name is the invocation's."""

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Return the status of a line."""
        return cls(**value)


def beside(manifest_uri: str, name: str) -> str:
    """Return the URI of a file in the manifest's folder."""
    return f"{manifest_uri.rsplit('/', 1)[0]}/{name}"


def batch_name(manifest_uri: str) -> str:
    """Return the name of the manifest's folder, by which people know the batch."""
    parts = manifest_uri.rsplit("/", 2)
    return parts[-2] if len(parts) > 1 else manifest_uri


def output_folder(output_uri: str, invocation_arn: str) -> str:
    """Return the folder of an invocation's output; Bedrock's answers name it with or without the invocation's id."""
    invocation_id = invocation_arn.rsplit("/", 1)[-1]
    folder = output_uri.rstrip("/")
    return folder if folder.endswith(f"/{invocation_id}") else f"{folder}/{invocation_id}"


def invoke_id(request_id: str) -> str:
    """Return what stands for the invocation id of a request that is sent through InvokeModel, which knows none.

    It is made of the request id, so that every try of a request names the same output, and looks like Bedrock's own: 12 of
    ``[a-z0-9]``.
    """
    number, letters = int.from_bytes(hashlib.sha256(f"InvokeModel {request_id}".encode()).digest()), ""
    for _ in range(12):
        number, rest = divmod(number, 36)
        letters += "0123456789abcdefghijklmnopqrstuvwxyz"[rest]
    return letters


def invocation_arn(region_name: str, request_id: str, invocation_id: str) -> str:
    """Return what stands for the ARN of an invocation of which only region and id are known.

    Nothing says which account made it, so that part is empty. One of InvokeModel, which AWS has no ARN for, is told by
    ``invoke-model`` where Bedrock's have ``async-invoke``.
    """
    kind = "invoke-model" if invocation_id == invoke_id(request_id) else "async-invoke"
    return f"arn:aws:bedrock:{region_name}::{kind}/{invocation_id}"


def read_requests(content: bytes, uri: str) -> list[AsyncInvokeRequest]:
    """Return the requests of a ``requests.jsonl``.

    :raises ManifestError: naming the line that is no request.
    """
    return list(_read(content, uri, AsyncInvokeRequest.from_dict))


def read_invocations(content: bytes, uri: str) -> list[Invocation]:
    """Return the invocations of an ``invocations.jsonl``.

    :raises ManifestError: naming the line that is no invocation.
    """
    return list(_read(content, uri, Invocation.from_dict))


def read_statuses(content: bytes, uri: str) -> list[InvocationStatus]:
    """Return the statuses of a ``statuses.jsonl``.

    :raises ManifestError: naming the line that is no status.
    """
    return list(_read(content, uri, InvocationStatus.from_dict))


def format_lines(records: Iterable[Invocation | InvocationStatus]) -> bytes:
    """Return records as the lines of a file."""
    return "".join(f"{json.dumps(asdict(record), ensure_ascii=False)}\n" for record in records).encode()


def _read(content: bytes, uri: str, from_dict: Callable[[dict[str, Any]], _Record]) -> Iterator[_Record]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"line {number} of {uri} can't be read ({type(error).__name__}: {error})") from error
