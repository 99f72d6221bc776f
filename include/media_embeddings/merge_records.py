"""What a merge writes of each object: rows of the three tables, and of the batch's own file of outcomes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from media_embeddings.attempt_costs import AttemptCosts, estimated_usd
from media_embeddings.batch_outputs import Outcome, PartOutcome
from media_embeddings.ledger import InvocationEntry, LedgerEntry, reason_columns
from media_embeddings.library import Library
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.planning import Status
from media_embeddings.results import SegmentRows

OUTCOMES_SCHEMA = pa.schema(
    [
        pa.field("media_uri", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason_code", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("segments", pa.int32(), nullable=False),
        # How many of its requests were started, found under way, and found done.
        pa.field("started", pa.int32(), nullable=False),
        pa.field("adopted", pa.int32(), nullable=False),
        pa.field("reused", pa.int32(), nullable=False),
        pa.field("lost_answers", pa.int32(), nullable=False),
        # Of an object of several requests that is not embedded: the folder of each one's output, null where it is no use.
        pa.field("outputs", pa.list_(pa.string())),
        pa.field("spent_usd", pa.float64(), nullable=False),
        pa.field("unsettled_usd", pa.float64(), nullable=False),
    ]
)
"""One row an object of a batch: what became of it."""
_START_OUTCOMES = ("started", "adopted", "reused")


def embedding_rows(
    outcome: Outcome, rows: SegmentRows, schema: pa.Schema, run_id: str, embedded_at: datetime
) -> pa.Table:
    """Return the rows of the embeddings table for an object; the vectors are not copied."""
    planned, media = outcome.planned, outcome.planned.media
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
        "run_id": run_id,
        "embedded_at": embedded_at,
    }
    invocation_arns = [one.ended.invocation_arn if one.ended else None for one in outcome.parts]
    if len(outcome.parts) == 1:
        constants |= {"request_id": planned.requests[0].request_id, "invocation_arn": invocation_arns[0]}
    columns: dict[str, Any] = {
        "segment_index": rows.segment_index,
        "start_sec": rows.start_sec,
        "end_sec": rows.end_sec,
        "embedding_option": rows.embedding_option,
        "embedding_scope": rows.embedding_scope,
        "embedding": vectors,
    }
    if len(outcome.parts) > 1:
        # A request for a part gives one row.
        columns |= {"request_id": [one.part.request_id for one in outcome.parts], "invocation_arn": invocation_arns}
    for name, characters in (("start_char", rows.start_char), ("end_char", rows.end_char)):
        (constants if characters is None else columns)[name] = characters
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


def ledger_entry(outcome: Outcome, library: Library, model: EmbeddingModel, run_id: str, now: datetime) -> LedgerEntry:
    """Return the row of the ledger for what became of an object."""
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
        duration_sec=outcome.duration_sec,
        segments=outcome.segments,
        absent_options=",".join(outcome.absent_options) or None,
        embedding_key=outcome.planned.embedding_key,
        request_id=outcome.planned.request_id,
        invocation_arn=outcome.invocation_arn,
        estimated_cost_usd=outcome.planned.estimated_cost_usd,
        parameters=outcome.planned.parameters,
        library=library.name,
        run_id=run_id,
        updated_at=now,
    )


def invocation_entries(
    outcome: Outcome, library: Library, model: EmbeddingModel, run_id: str, now: datetime, costs: AttemptCosts
) -> list[InvocationEntry]:
    """Return the rows of the invocations table for an attempt: one for each request of it that was made."""
    made = [one for one in outcome.parts if one.invocation is not None]
    return [_invocation_entry(outcome, one, library, model, run_id, now, costs) for one in made]


def _invocation_entry(
    outcome: Outcome,
    part: PartOutcome,
    library: Library,
    model: EmbeddingModel,
    run_id: str,
    now: datetime,
    costs: AttemptCosts,
) -> InvocationEntry:
    code, message = reason_columns(part.reason)
    invocation, ended = part.invocation, part.ended
    return InvocationEntry(
        embedding_key=outcome.planned.embedding_key,
        request_id=part.part.request_id,
        attempt=outcome.planned.attempt,
        invocation_arn=invocation.invocation_arn if invocation else None,
        media_uri=outcome.planned.media.uri,
        model=model.name,
        library=library.name,
        outcome=part.status,
        reason_code=code,
        reason=message,
        submitted_at=(ended and ended.submitted_at) or (invocation and invocation.submitted_at) or None,
        ended_at=ended.ended_at if ended else None,
        recorded_at=now,
        estimated_cost_usd=estimated_usd(outcome),
        actual_cost_usd=costs.actual_usd(outcome, part),
        media_type=outcome.planned.media.media_type,
        media_sec=outcome.duration_sec,
        run_id=run_id,
    )


def outcomes_file(outcomes: Sequence[Outcome], costs: AttemptCosts) -> bytes:
    """Return what became of the objects of a batch as Parquet, of :data:`OUTCOMES_SCHEMA`."""
    spent = [costs.spent(one) for one in outcomes]
    rows = [
        {
            "media_uri": one.planned.media.uri,
            "media_type": one.planned.media.media_type,
            "status": one.status,
            "reason_code": one.reason.code if one.reason else None,
            "reason": one.reason.message if one.reason else None,
            "segments": one.segments or 0,
            **_starts(one),
            "lost_answers": sum(part.invocation.lost_answers for part in one.parts if part.invocation is not None),
            "outputs": _outputs(one),
            "spent_usd": paid.usd,
            "unsettled_usd": paid.unsettled_usd,
        }
        for one, paid in zip(outcomes, spent, strict=True)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=OUTCOMES_SCHEMA), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _starts(outcome: Outcome) -> dict[str, int]:
    counts = Counter(one.invocation.outcome for one in outcome.parts if one.invocation is not None)
    return {name: counts[name] for name in _START_OUTCOMES}


def _outputs(outcome: Outcome) -> list[str | None] | None:
    if outcome.status is Status.EMBEDDED or len(outcome.parts) == 1:
        return None
    return [one.usable_output_uri for one in outcome.parts]
