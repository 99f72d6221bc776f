"""Bedrock and S3 in memory, with a clock that tests move."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

from bedrock_async_invoke.clients import StoredObject
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning

MODEL = "twelvelabs.marengo-embed-3-0-v1:0"
FOLDER = "s3://work/runs/run-1/batches/video-001"
MANIFEST = f"{FOLDER}/requests.jsonl"
ACCOUNT = "arn:aws:bedrock:us-east-1:123456789012:async-invoke"

THROTTLED = AsyncInvokeError(Meaning.THROTTLED, "ThrottlingException", "too many requests")
UNAVAILABLE = AsyncInvokeError(Meaning.UNAVAILABLE, "InternalServerException", "try again")
TIMED_OUT = AsyncInvokeError(Meaning.UNAVAILABLE, "ReadTimeoutError", "no answer", is_lost=True)


def refusal(code: str, message: str = "no") -> AsyncInvokeError:
    return AsyncInvokeError(Meaning.REFUSED, code, message)


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def datetime(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)


@dataclass
class Job:
    arn: str
    token: str
    model: str
    submitted: float
    ends: float
    status: str = "Completed"
    failure_message: str | None = None
    s3_uri: str = ""
    hidden: bool = False
    """Whether the list never shows it."""


@dataclass
class LostAnswer:
    """The call has its effect, its answer does not come."""

    error: AsyncInvokeError


class FakeBedrock:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.job_seconds = 30.0
        self.quota: int | None = None
        self.list_delay = 0.0
        self.forgets_tokens = False
        self.jobs: dict[str, Job] = {}
        self.start_faults: deque[AsyncInvokeError | LostAnswer | None] = deque()
        self.start_errors: dict[str, AsyncInvokeError] = {}
        """Errors that strike every Start of a token."""
        self.list_faults: deque[AsyncInvokeError | None] = deque()
        self.get_error: AsyncInvokeError | None = None
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.most_in_progress = 0
        self.accepted: list[str] = []
        """The token of each invocation that a Start has made."""

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.calls)

    def add(self, token: str, *, model: str = MODEL, **changes: Any) -> Job:
        now = self.clock.now
        arn = f"{ACCOUNT}/{len(self.jobs):012d}"
        job = Job(
            arn, token, model, now, now + self.job_seconds, s3_uri=f"s3://work/outputs/{token}/{len(self.jobs):012d}"
        )
        for name, value in changes.items():
            setattr(job, name, value)
        self.jobs[token] = job
        return job

    def start_async_invoke(self, **request: Any) -> str:
        self.calls.append(("start", request))
        token = request["client_request_token"]
        fault = self.start_faults.popleft() if self.start_faults else self.start_errors.get(token)
        if isinstance(fault, AsyncInvokeError):
            raise fault
        if token not in self.jobs or self.forgets_tokens:
            if self.quota is not None and self._in_progress() >= self.quota:
                raise THROTTLED
            self.add(token, model=request["model_id"])
            self.accepted.append(token)
            self.most_in_progress = max(self.most_in_progress, self._in_progress())
        if isinstance(fault, LostAnswer):
            raise fault.error
        return self.jobs[token].arn

    def get_async_invoke(self, arn: str) -> dict[str, Any]:
        self.calls.append(("get", {"arn": arn}))
        if self.get_error is not None:
            raise self.get_error
        for job in self.jobs.values():
            if job.arn == arn:
                return self._describe(job)
        raise refusal("ValidationException", "The provided ARN is unknown")

    def list_async_invokes(self, *, submitted_after: datetime | None = None, status: str | None = None):
        self.calls.append(("list", {"submitted_after": submitted_after, "status": status}))
        if self.list_faults and (fault := self.list_faults.popleft()) is not None:
            raise fault
        described = [
            self._describe(job)
            for job in self.jobs.values()
            if not job.hidden
            and self.clock.now >= job.submitted + self.list_delay
            and (submitted_after is None or job.submitted > submitted_after.timestamp())
        ]
        found = [one for one in described if status is None or one["status"] == status]
        for first in range(0, max(len(found), 1), 3):
            yield found[first : first + 3]

    @property
    def conn_region_name(self) -> str:
        return "us-east-1"

    def _in_progress(self) -> int:
        return sum(self.clock.now < job.ends for job in self.jobs.values())

    def _describe(self, job: Job) -> dict[str, Any]:
        ended = self.clock.now >= job.ends
        answer = {
            "invocationArn": job.arn,
            "modelArn": f"arn:aws:bedrock:us-east-1::foundation-model/{job.model}",
            "clientRequestToken": job.token,
            "status": job.status if ended else "InProgress",
            "submitTime": datetime.fromtimestamp(job.submitted, UTC),
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": job.s3_uri}},
        }
        if ended:
            answer["endTime"] = datetime.fromtimestamp(job.ends, UTC)
            if job.failure_message is not None:
                answer["failureMessage"] = job.failure_message
        return answer


class FakeRuntime:
    """Stands in for :class:`bedrock_async_invoke.runtime.BedrockRuntime`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = 0.5
        self.quota_per_second: float | None = None
        self.faults: deque[AsyncInvokeError | LostAnswer | None] = deque()
        self.errors: dict[str, AsyncInvokeError | LostAnswer] = {}
        """Errors that strike every call of a body's ``name``."""
        self.bodies: list[dict[str, Any]] = []
        """Of the calls that were answered, and so are paid for, whether their answer came or not."""
        self.calls = 0
        self.most_under_way = 0
        self.renewed = 0
        self._under_way = 0
        # A second's calls may come at once.
        self._left = inf
        self._left_at = clock.now

    @property
    def paid(self) -> list[str]:
        return sorted(body["name"] for body in self.bodies)

    async def invoke_model(self, model_id: str, body: bytes) -> bytes:
        self.calls += 1
        value = json.loads(body)
        fault = self.faults.popleft() if self.faults else self.errors.get(value.get("name", ""))
        if not self._has_room():
            raise THROTTLED
        if isinstance(fault, AsyncInvokeError):
            raise fault
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self._under_way -= 1
        self.bodies.append(value)
        if isinstance(fault, LostAnswer):
            raise fault.error
        return b'{"data": []}'

    async def renew(self) -> None:
        self.renewed += 1

    def _has_room(self) -> bool:
        if self.quota_per_second is None:
            return True
        passed, self._left_at = self.clock.now - self._left_at, self.clock.now
        self._left = min(self.quota_per_second, self._left + passed * self.quota_per_second)
        if self._left < 1:
            return False
        self._left -= 1
        return True


class FakeClients:
    """Stands in for :class:`bedrock_async_invoke.clients.Clients`."""

    def __init__(self, bedrock: FakeBedrock) -> None:
        self.bedrock = bedrock
        self.objects: dict[str, bytes] = {}
        self.written_at: dict[str, float] = {}
        self.etags: dict[str, str] = {}
        self.outputs: list[str] = []
        """The URIs of the outputs that were kept, in their order."""
        self.unwritable = 0
        """How many of the next outputs can't be kept."""
        self.region_name = "us-east-1"
        self.renewed = 0
        self.parameters: Any = None

    def reached_with(self, parameters: Any) -> FakeClients:
        self.parameters = parameters
        return self

    def read(self, uri: str) -> bytes | None:
        return self.objects.get(uri)

    def write(self, uri: str, content: bytes) -> None:
        self.objects[uri] = content
        self.written_at[uri] = self.bedrock.clock.now

    def read_object(self, uri: str) -> StoredObject | None:
        if uri not in self.objects:
            return None
        content, at = self.objects[uri], self.written_at.get(uri, self.bedrock.clock.now)
        return StoredObject(content, etag_of(content), datetime.fromtimestamp(at, UTC), self.bedrock.clock.now - at)

    def write_if(self, uri: str, content: bytes, *, etag: str | None) -> str | None:
        found = self.objects.get(uri)
        if etag != (None if found is None else etag_of(found)):
            return None
        self.write(uri, content)
        return etag_of(content)

    def delete(self, uri: str) -> None:
        self.objects.pop(uri, None)

    def ages(self, prefix_uri: str) -> dict[str, float]:
        now = self.bedrock.clock.now
        return {uri: now - self.written_at[uri] for uri in self.objects if uri.startswith(prefix_uri)}

    def renew(self) -> None:
        self.renewed += 1

    def write_output(self, uri: str, content: bytes, **more: Any) -> None:
        if self.unwritable:
            self.unwritable -= 1
            raise UNAVAILABLE
        self.write(uri, content)
        self.outputs.append(uri)

    def content(self, uri: str) -> tuple[bytes, str] | None:
        found = self.objects.get(uri)
        return None if found is None else (found, self.etags.get(uri) or etag_of(found))

    def etag(self, uri: str) -> str | None:
        found = self.objects.get(uri)
        return self.etags.get(uri) or (None if found is None else etag_of(found))

    def put_requests(self, *requests: dict[str, Any]) -> None:
        self.objects[MANIFEST] = "".join(f"{json.dumps(one)}\n" for one in requests).encode()

    def put_lines(self, uri: str, *lines: dict[str, Any]) -> None:
        self.write(uri, "".join(f"{json.dumps(one)}\n" for one in lines).encode())

    def lines(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the lines of a file beside the manifest by request id."""
        lines = [json.loads(line) for line in self.objects[f"{FOLDER}/{name}"].splitlines()]
        assert len({line["request_id"] for line in lines}) == len(lines)
        return {line["request_id"]: line for line in lines}


def etag_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def request(number: int, **members: Any) -> dict[str, Any]:
    token = f"request-{number}"
    return {
        "request_id": token,
        "model_input": {"inputType": "video"},
        "output_uri": f"s3://work/outputs/{token}",
        **members,
    }
