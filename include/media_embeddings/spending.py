"""What was spent, and how long it took: read from the invocations table, which all libraries of a tables' root share."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from media_embeddings.costs import TIMED, Rate
from media_embeddings.media import MediaType
from media_embeddings.relations import Relation, database
from media_embeddings.schemas import INVOCATIONS_SCHEMA, columns_of
from media_embeddings.tables import Tables

_COLUMNS = (
    "request_id",
    "invocation_arn",
    "media_type",
    "media_sec",
    "model",
    "library",
    "run_id",
    "outcome",
    "submitted_at",
    "ended_at",
    "recorded_at",
    "estimated_cost_usd",
    "actual_cost_usd",
)
_LEARNT_FROM = timedelta(days=30)
LEAST_LEARNT_FROM = 20
"""With fewer invocations of a media type, the settings say how long they take."""

# One attempt may have several rows: one of a merge that found it in progress, others of those that found its output. It was
# paid for once, at what the latest knows of it. An output that was there already is named without its account.
_ATTEMPTS = """
    CREATE TEMP TABLE attempts AS
        SELECT request_id, split_part(coalesce(invocation_arn, ''), '/', 2) AS invocation,
               arg_max(coalesce(actual_cost_usd, estimated_cost_usd, 0), recorded_at)
                   FILTER (outcome != 'deferred') AS ended_usd,
               arg_max(coalesce(actual_cost_usd, estimated_cost_usd, 0), recorded_at) AS last_usd,
               min(coalesce(submitted_at, recorded_at)) AS paid_at,
               arg_min(library = ? AND run_id = ?, recorded_at) AS is_of_run
        FROM invocations GROUP BY ALL
"""
_SPENT = """
    SELECT coalesce(sum(coalesce(ended_usd, last_usd)) FILTER (paid_at >= ?), 0),
           coalesce(sum(coalesce(ended_usd, last_usd)) FILTER (is_of_run), 0)
    FROM attempts
"""
_RATES = """
    SELECT media_type, count(*), sum(epoch(ended_at - submitted_at)), sum(media_sec)
    FROM invocations
    WHERE model = ? AND outcome = 'embedded' AND ended_at > submitted_at AND submitted_at >= ? AND media_type IS NOT NULL
    GROUP BY media_type
"""


@dataclass(frozen=True, slots=True)
class Spending:
    """What the invocations table says of money and time."""

    month: str
    """The calendar month in UTC, for example ``2026-11``."""
    month_usd: float = 0.0
    """Spent in it, below the whole root of the tables."""
    run_usd: float = 0.0
    """By this run so far: of the attempts that it was the first to record."""
    rates: Mapping[MediaType, Rate] = field(default_factory=dict)
    """How long invocations of this model take, of the media types of which enough were seen."""


def read_spending(tables: Tables, model_name: str, library_name: str, run_id: str, now: datetime) -> Spending:
    """Read what was spent in the month of ``now``, and by a run that is going on.

    What is in progress counts with its estimate.
    """
    month_began = datetime(now.year, now.month, 1, tzinfo=UTC)
    learnt_since = now - _LEARNT_FROM
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "invocations.parquet"
        schema = columns_of(INVOCATIONS_SCHEMA, _COLUMNS)
        with pq.ParquetWriter(path, schema, compression="lz4", write_statistics=False) as writer:
            tables.copy_invocations(min(month_began, learnt_since), writer.write_table, _COLUMNS)
        return spending(path, model_name, library_name, run_id, now)


def spending(invocations: Relation, model_name: str, library_name: str, run_id: str, now: datetime) -> Spending:
    """Return what rows of the invocations table come to; see :func:`read_spending`."""
    month_began = datetime(now.year, now.month, 1, tzinfo=UTC)
    with database(invocations=invocations) as connection:
        connection.execute(_ATTEMPTS, [library_name, run_id])
        month_usd, run_usd = connection.execute(_SPENT, [month_began]).fetchall()[0]
        found = connection.execute(_RATES, [model_name, now - _LEARNT_FROM]).fetchall()
    rates = {
        MediaType(name): _rate(MediaType(name), jobs, seconds, media_seconds or 0.0)
        for name, jobs, seconds, media_seconds in found
        if jobs >= LEAST_LEARNT_FROM
    }
    return Spending(f"{now:%Y-%m}", month_usd, run_usd, rates)


def _rate(media_type: MediaType, jobs: int, seconds: float, media_seconds: float) -> Rate:
    """Return how long invocations took: by the second of media where they have any, else each as long as the others."""
    if media_type in TIMED and media_seconds > 0:
        return Rate(0.0, seconds / media_seconds, is_measured=True)
    return Rate(seconds / jobs, is_measured=True)


def paid_requests(tables: Tables, uris: list[str], request_ids: frozenset[str]) -> frozenset[str]:
    """Return the requests that have an invocation, by the rows of earlier merges.

    :param uris: of their media objects, sorted.
    """
    rows: pa.Table = tables.read_invocations(uris, ("request_id", "invocation_arn"))
    pairs = zip(rows["request_id"].to_pylist(), rows["invocation_arn"].to_pylist(), strict=True)
    return frozenset(name for name, arn in pairs if arn is not None and name in request_ids)
