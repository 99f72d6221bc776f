"""Jobs: what the simulator remembers of each StartAsyncInvoke."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from .faults import Fault

IN_PROGRESS, COMPLETED, FAILED = "InProgress", "Completed", "Failed"

_ALPHABET = string.ascii_lowercase + string.digits
_ARN = re.compile(r"arn:aws(?:-[^:]+)?:bedrock:([a-z0-9-]+):([0-9]{12}):async-invoke/([a-z0-9]{12})")


def new_invocation_id() -> str:
    """Return twelve random lower-case letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(12))


def invocation_arn(region: str, account_id: str, invocation_id: str) -> str:
    """Return the ARN of an invocation."""
    return f"arn:aws:bedrock:{region}:{account_id}:async-invoke/{invocation_id}"


def model_arn(region: str, model_id: str) -> str:
    """Return the ARN of a foundation model."""
    return f"arn:aws:bedrock:{region}::foundation-model/{model_id}"


def arn_parts(arn: str) -> tuple[str, str, str] | None:
    """Return region, account and invocation id of an invocation's ARN, or None where it is none."""
    match = _ARN.fullmatch(arn)
    return (match[1], match[2], match[3]) if match else None


# A list shows the same jobs again and again: this was a sixth of the simulator's work with a thousand in progress.
@lru_cache(maxsize=10_000)
def iso_time(milliseconds: int) -> str:
    """Return a moment as ISO-8601 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    ``output_uri`` ends in the invocation id, without a slash. Times are milliseconds since 1970 (UTC). ``due_ms`` is
    when it ends; None until its media were probed. ``faults`` are the job and output faults that it drew.
    """

    invocation_id: str
    account_id: str
    token: str
    fingerprint: str
    model_id: str
    model_input: dict[str, Any]
    output_uri: str
    kms_key_id: str | None
    bucket_owner: str | None
    status: str
    submitted_ms: int
    modified_ms: int
    failure_message: str | None = None
    ended_ms: int | None = None
    due_ms: int | None = None
    faults: tuple[Fault, ...] = ()

    def arn(self, region: str) -> str:
        """Return its ARN."""
        return invocation_arn(region, self.account_id, self.invocation_id)

    def summary(self, region: str) -> dict[str, Any]:
        """Return it as GetAsyncInvoke and ListAsyncInvokes show it."""
        s3_config = {"s3Uri": self.output_uri}
        if self.kms_key_id:
            s3_config["kmsKeyId"] = self.kms_key_id
        if self.bucket_owner:
            s3_config["bucketOwner"] = self.bucket_owner
        summary: dict[str, Any] = {
            "invocationArn": self.arn(region),
            "modelArn": model_arn(region, self.model_id),
            "clientRequestToken": self.token,
            "status": self.status,
            "submitTime": iso_time(self.submitted_ms),
            "lastModifiedTime": iso_time(self.modified_ms),
            "outputDataConfig": {"s3OutputDataConfig": s3_config},
        }
        if self.failure_message is not None:
            summary["failureMessage"] = self.failure_message
        if self.ended_ms is not None:
            summary["endTime"] = iso_time(self.ended_ms)
        return summary


def fault_seconds(faults: tuple[Fault, ...], kind: str) -> float:
    """Return the seconds of a job's faults of a kind together; 0 without one."""
    return sum(fault.seconds or 0.0 for fault in faults if fault.kind == kind)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends."""

    status: str
    failure_message: str | None = None

    @classmethod
    def of(cls, faults: tuple[Fault, ...]) -> Outcome | None:
        """Return the end that the job's faults dictate before its media are read, or None where they don't."""
        for fault in faults:
            if fault.kind == "failed":
                return cls(FAILED, fault.message)
            if fault.kind == "unknown_status":
                return cls(fault.status)
        return None


def stuck_seconds(faults: tuple[Fault, ...]) -> float | None:
    """Return how much longer a job's faults keep it in progress: 0 without such a fault, None for ever."""
    stuck = [fault.seconds for fault in faults if fault.kind == "stuck"]
    if None in stuck:
        return None
    return sum(seconds for seconds in stuck if seconds is not None)
