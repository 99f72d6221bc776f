"""Merges a batch: reads the outputs of its completed invocations, checks them, and commits what became of every object.

The order of the commits is rows, then ledger, then invocations, then the batch's outcomes: whatever the moment at which
a merge is killed, the next one finds either nothing of a step or all of it, and repeating a step changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from media_embeddings.batches import read_batch
from media_embeddings.completeness import judge
from media_embeddings.ledger import (
    InvocationEntry,
    LedgerEntry,
    invocations_table,
    ledger_table,
    reason_columns,
)
from media_embeddings.library import Library
from media_embeddings.media import MediaObject
from media_embeddings.models import model_named
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.outcomes import Invocation, InvocationStatus, verdict
from media_embeddings.planning import PlannedObject, Status
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.results import OutputInvalidError, SegmentRows, parse_output
from media_embeddings.run_folder import BatchFolder
from media_embeddings.schemas import embeddings_schema
from media_embeddings.storage import ObjectNotFoundError, ObjectUnreadableError, Storage, join_uri
from media_embeddings.tables import Tables

logger = logging.getLogger(__name__)

_PARALLEL_READS = 8
OUTCOMES_SCHEMA = pa.schema(
    [
        pa.field("media_uri", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason_code", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("segments", pa.int32(), nullable=False),
        pa.field("start_outcome", pa.string()),
    ]
)
"""One row an object of a batch: what became of it."""


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """What a merge did: small enough for an XCom."""

    batch: str
    embedded: int
    failed: int
    deferred: int
    segments: int
    committed_version: int | None
    """The version of the embeddings table that holds the rows; None where there were none."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    planned: PlannedObject
    invocation: Invocation | None
    ended: InvocationStatus | None
    status: Status
    reason: Reason | None = None
    rows: SegmentRows | None = None
    version_id: str | None = None
    absent_options: tuple[str, ...] = ()


class _UnusableError(Exception):
    """A completed invocation has nothing that may be merged."""

    def __init__(self, code: ReasonCode, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


def merge_batch(storage: Storage, library: Library, model_name: str, run_id: str, folder: BatchFolder) -> MergeSummary:
    """Commit what became of every object of a batch, and return how many there are of each kind.

    An object without a usable output is ``failed`` or ``deferred`` with its reason; the others land.
    """
    model = model_named(model_name)
    tables = Tables(library.tables, storage.table_options)
    planned, listed_at = read_batch(storage, folder)
    waiting_until = time.monotonic() + library.output_grace_seconds
    outcomes = _outcomes(storage, model, folder, planned, waiting_until)
    embedded_at = datetime.now(UTC)

    entries = ledger_table([_ledger_entry(one, library, model, run_id, embedded_at) for one in outcomes])
    # Rows go where their ledger row goes: those of an old plan must not replace what another run has bought since.
    superseded = tables.superseded(entries, listed_at)
    version = _commit_rows(
        tables, model, [one for one in outcomes if one.planned.media.uri not in superseded], run_id, embedded_at
    )
    tables.update_ledger(entries, _commit_id("ledger", run_id, outcomes), listed_at=listed_at)
    attempts = [_invocation_entry(one, library, model, run_id, embedded_at) for one in outcomes if one.invocation]
    if attempts:
        tables.append_invocations(invocations_table(attempts), commit_id=_commit_id("invocations", run_id, outcomes))
    _write_outcomes(storage, folder, outcomes)
    _log(folder, outcomes)
    return MergeSummary(
        batch=folder.name,
        embedded=_count(outcomes, Status.EMBEDDED),
        failed=_count(outcomes, Status.FAILED),
        deferred=_count(outcomes, Status.DEFERRED),
        segments=sum(len(one.rows.embedding) for one in outcomes if one.rows),
        committed_version=version,
    )


def _outcomes(
    storage: Storage, model: EmbeddingModel, folder: BatchFolder, planned: Sequence[PlannedObject], waiting_until: float
) -> list[_Outcome]:
    invocations = {
        value["request_id"]: Invocation.from_dict(value) for value in _read_lines(storage, folder.invocations_uri)
    }
    statuses = {
        value["request_id"]: InvocationStatus.from_dict(value) for value in _read_lines(storage, folder.statuses_uri)
    }

    def outcome(one: PlannedObject) -> _Outcome:
        invocation, ended = invocations.get(one.request_id), statuses.get(one.request_id)
        if (found := verdict(invocation, ended)) is not None:
            return _Outcome(one, invocation, ended, found.status, found.reason)
        assert ended is not None  # noqa: S101 - a request without a verdict has a completed invocation
        try:
            rows = _read_output(storage, model, one.media, ended, waiting_until)
            absent = _absent_options(rows, model, one)
            version_id = _unchanged_version(storage, one.media)
        except _UnusableError as error:
            return _Outcome(one, invocation, ended, Status.FAILED, error.reason)
        return _Outcome(
            one, invocation, ended, Status.EMBEDDED, rows=rows, version_id=version_id, absent_options=absent
        )

    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        return list(pool.map(outcome, planned))


def _read_lines(storage: Storage, uri: str) -> Iterable[Mapping[str, Any]]:
    """Return the lines of a file that an earlier task writes, and nothing where that task did not come so far."""
    try:
        return list(storage.read_json_lines(uri))
    except ObjectNotFoundError:
        logger.warning("%s is not there: the task that writes it ended before", uri)
        return []


def _absent_options(rows: SegmentRows, model: EmbeddingModel, planned: PlannedObject) -> tuple[str, ...]:
    """Return the options that the media have no track for, of rows that hold what was asked for otherwise."""
    rules = model.segment_rules(planned.media.media_type, json.loads(planned.parameters))
    judgement = judge(rows, rules)
    if judgement.violation is not None:
        raise _UnusableError(judgement.violation.code, judgement.violation.message)
    return judgement.absent_options


def _read_late(storage: Storage, uri: str, waiting_until: float) -> bytes:
    """Read an output that may come a little later than its invocation says."""
    while True:
        try:
            return storage.read(uri)
        except ObjectNotFoundError:
            left = waiting_until - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(left, 1.0))


def _read_output(
    storage: Storage, model: EmbeddingModel, media: MediaObject, ended: InvocationStatus, waiting_until: float
) -> SegmentRows:
    # The invocation's own prefix is read, never a shared one searched.
    uri = join_uri(ended.output_uri, "output.json")
    try:
        return parse_output(_read_late(storage, uri, waiting_until), model, media.media_type)
    except ObjectNotFoundError as error:
        message = f"invocation {ended.invocation_arn} is Completed, but there is no {uri}"
        raise _UnusableError(ReasonCode.OUTPUT_MISSING, message) from error
    except OutputInvalidError as error:
        raise _UnusableError(error.reason.code, f"{uri}: {error.reason.message}") from error


def _unchanged_version(storage: Storage, media: MediaObject) -> str | None:
    """Return the version id of an object that is still the one that was listed: Bedrock takes no version id."""
    try:
        head = storage.head(media.uri)
    except ObjectUnreadableError as error:
        raise _UnusableError(ReasonCode.ACCESS_DENIED, str(error)) from error
    except ObjectNotFoundError as error:
        message = "the object was deleted while it was being embedded"
        raise _UnusableError(ReasonCode.SOURCE_GONE, message) from error
    if head.etag != media.etag:
        message = f"the object was replaced while it was being embedded (ETag {media.etag}, now {head.etag})"
        raise _UnusableError(ReasonCode.CHANGED_DURING_RUN, message)
    return head.version_id


def _commit_rows(
    tables: Tables, model: EmbeddingModel, outcomes: Sequence[_Outcome], run_id: str, embedded_at: datetime
) -> int | None:
    embedded = [one for one in outcomes if one.rows is not None]
    if not embedded:
        return None
    schema = embeddings_schema(model.dimension)
    rows = pa.concat_tables([_arrow_rows(one, schema, run_id, embedded_at) for one in embedded])
    commit = tables.commit_embeddings(
        model.name, model.dimension, rows, commit_id=_commit_id("embeddings", run_id, embedded)
    )
    return commit.version


def _commit_id(table: str, run_id: str, outcomes: Sequence[_Outcome]) -> str:
    """Name a commit by what it says, so that a merge that is repeated commits nothing twice.

    What became of the objects is part of it: a merge that was cleared after more of its invocations had ended has more to
    say. So is the run: content that goes back to what it was has the request id of then, and has to be committed again.
    """
    digest = hashlib.sha256(run_id.encode())
    for line in sorted(f"{one.planned.request_id} {one.status} {one.reason and one.reason.code}" for one in outcomes):
        digest.update(line.encode())
    return f"{table}-{digest.hexdigest()[:40]}"


def _arrow_rows(outcome: _Outcome, schema: pa.Schema, run_id: str, embedded_at: datetime) -> pa.Table:
    rows, planned = outcome.rows, outcome.planned
    assert rows is not None  # noqa: S101
    media = planned.media
    number, dimension = rows.embedding.shape
    offsets = pa.array(np.arange(0, (number + 1) * dimension, dimension, dtype=np.int32))
    vectors = pa.ListArray.from_arrays(
        offsets, pa.array(rows.embedding.reshape(-1)), type=schema.field("embedding").type
    )
    constants: dict[str, object] = {
        "media_uri": media.uri,
        "media_type": media.media_type.value,
        "embedded_month": f"{embedded_at:%Y-%m}",
        "etag": media.etag,
        "version_id": outcome.version_id,
        "size_bytes": media.size_bytes,
        "last_modified": media.last_modified,
        "embedding_key": planned.embedding_key,
        "request_id": planned.request_id,
        "invocation_arn": outcome.ended.invocation_arn if outcome.ended else None,
        "run_id": run_id,
        "embedded_at": embedded_at,
        "start_char": None,
        "end_char": None,
    }
    columns: dict[str, Any] = {
        "segment_index": rows.segment_index,
        "start_sec": rows.start_sec,
        "end_sec": rows.end_sec,
        "embedding_option": rows.embedding_option,
        "embedding_scope": rows.embedding_scope,
        "embedding": vectors,
    }
    return pa.table(
        [
            pa.repeat(pa.scalar(constants[field.name], field.type), number)
            if field.name in constants
            else pa.array(columns[field.name], field.type)
            if field.name != "embedding"
            else vectors
            for field in schema
        ],
        schema=schema,
    )


def _ledger_entry(
    outcome: _Outcome, library: Library, model: EmbeddingModel, run_id: str, now: datetime
) -> LedgerEntry:
    media = outcome.planned.media
    code, message = reason_columns(outcome.reason)
    return LedgerEntry(
        media_uri=media.uri,
        model=model.name,
        media_type=media.media_type,
        status=outcome.status,
        reason_code=code,
        reason=message,
        attempts=outcome.planned.attempt,
        first_seen_at=now,
        etag=media.etag,
        version_id=outcome.version_id,
        size_bytes=media.size_bytes,
        last_modified=media.last_modified,
        duration_sec=outcome.rows.duration_sec if outcome.rows else None,
        segments=len(outcome.rows.embedding) if outcome.rows else None,
        absent_options=",".join(outcome.absent_options) or None,
        embedding_key=outcome.planned.embedding_key,
        request_id=outcome.planned.request_id,
        invocation_arn=outcome.invocation.invocation_arn if outcome.invocation else None,
        parameters=outcome.planned.parameters,
        library=library.name,
        run_id=run_id,
        updated_at=now,
    )


def _invocation_entry(
    outcome: _Outcome, library: Library, model: EmbeddingModel, run_id: str, now: datetime
) -> InvocationEntry:
    code, message = reason_columns(outcome.reason)
    invocation, ended = outcome.invocation, outcome.ended
    return InvocationEntry(
        embedding_key=outcome.planned.embedding_key,
        request_id=outcome.planned.request_id,
        attempt=outcome.planned.attempt,
        invocation_arn=invocation.invocation_arn if invocation else None,
        media_uri=outcome.planned.media.uri,
        model=model.name,
        library=library.name,
        outcome=outcome.status,
        reason_code=code,
        reason=message,
        submitted_at=(ended and ended.submitted_at) or (invocation and invocation.submitted_at) or None,
        ended_at=ended.ended_at if ended else None,
        recorded_at=now,
        run_id=run_id,
    )


def _write_outcomes(storage: Storage, folder: BatchFolder, outcomes: Sequence[_Outcome]) -> None:
    rows = [
        {
            "media_uri": one.planned.media.uri,
            "media_type": one.planned.media.media_type,
            "status": one.status,
            "reason_code": one.reason.code if one.reason else None,
            "reason": one.reason.message if one.reason else None,
            "segments": len(one.rows.embedding) if one.rows else 0,
            "start_outcome": one.invocation.outcome if one.invocation else None,
        }
        for one in outcomes
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=OUTCOMES_SCHEMA), sink, compression="zstd")
    storage.write(folder.outcomes_uri, sink.getvalue().to_pybytes())


def _log(folder: BatchFolder, outcomes: Sequence[_Outcome]) -> None:
    for one in outcomes:
        if one.reason is not None:
            logger.warning("%s %s: %s: %s", one.planned.media.uri, one.status, one.reason.code, one.reason.message)
    logger.info("batch %s: %d of %d embedded", folder.name, _count(outcomes, Status.EMBEDDED), len(outcomes))


def _count(outcomes: Sequence[_Outcome], status: Status) -> int:
    return sum(one.status is status for one in outcomes)
