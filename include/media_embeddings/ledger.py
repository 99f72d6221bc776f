"""Rows of the ledger and of the invocations table, one data class each, and their way into Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow as pa

from media_embeddings.planning import Status
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.schemas import INVOCATIONS_SCHEMA, LEDGER_SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """What became of a media object with a model. ``first_seen_at`` is kept where the ledger has the object already."""

    media_uri: str
    model: str
    media_type: str | None
    status: Status
    reason_code: ReasonCode | None = None
    reason: str | None = None
    attempts: int = 0
    first_seen_at: datetime
    etag: str
    version_id: str | None = None
    size_bytes: int
    last_modified: datetime
    duration_sec: float | None = None
    segments: int | None = None
    absent_options: str | None = None
    embedding_key: str | None = None
    request_id: str | None = None
    invocation_arn: str | None = None
    estimated_cost_usd: float | None = None
    parameters: str | None = None
    library: str
    run_id: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationEntry:
    """One attempt to embed a media object: what was asked, what Bedrock made of it, and when."""

    embedding_key: str
    request_id: str
    attempt: int
    invocation_arn: str | None
    manifest_request_id: str | None = None
    media_uri: str
    model: str
    library: str
    outcome: Status
    reason_code: ReasonCode | None = None
    reason: str | None = None
    submitted_at: datetime | None
    ended_at: datetime | None
    recorded_at: datetime
    estimated_cost_usd: float | None = None
    actual_cost_usd: float | None = None
    """What it has cost as far as that is known; None while it is in progress."""
    media_type: str | None = None
    media_sec: float | None = None
    """Seconds of media that its output covers."""
    run_id: str


def reason_columns(reason: Reason | None) -> tuple[ReasonCode | None, str | None]:
    """Return a reason as the two columns that both tables have for it."""
    return (reason.code, reason.message) if reason else (None, None)


def ledger_table(entries: Sequence[LedgerEntry]) -> pa.Table:
    """Return rows of :data:`~media_embeddings.schemas.LEDGER_SCHEMA`."""
    return pa.Table.from_pylist([asdict(entry) for entry in entries], schema=LEDGER_SCHEMA)


def invocations_table(entries: Sequence[InvocationEntry]) -> pa.Table:
    """Return rows of :data:`~media_embeddings.schemas.INVOCATIONS_SCHEMA`."""
    return pa.Table.from_pylist([asdict(entry) for entry in entries], schema=INVOCATIONS_SCHEMA)
