"""Decides of every listed object what is to be done, and cuts what is to be embedded into batches.

The comparison with the ledger is done column-wise; Python sees only the objects that are not settled. Nothing here
reads or writes S3: :mod:`media_embeddings.planner` does that around it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import groupby, pairwise
from math import ceil

import duckdb
import pyarrow as pa

from media_embeddings.headers.standing import header_rejection_stands
from media_embeddings.identity import embedding_key, request_id
from media_embeddings.media import MediaFacts, MediaObject, MediaType, Processing
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.parts import Part
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.relations import Relation, database
from media_embeddings.texts.suffixes import TABLE_SUFFIXES


class Status(StrEnum):
    """What became of a media object. All but ``unchanged`` and ``retained`` are statuses of the ledger as well."""

    UNCHANGED = "unchanged"
    EMBEDDED = "embedded"
    FAILED = "failed"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    DEFERRED = "deferred"
    DELETED = "deleted"
    RETAINED = "retained"


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a plan is made for: everything that identity and decisions depend on beside listing and ledger."""

    tables: str
    model: EmbeddingModel
    parameters: Mapping[MediaType, str]
    """Canonical parameters of each media type."""
    run_id: str
    force: bool = False
    limit: int | None = None
    dry_run: bool = False
    max_attempts: int = 3
    retry_failed: bool = False
    """Whether what failed for good or is quarantined is tried again."""
    release: tuple[str, ...] = ()
    """Globs of URIs: what failed for good or is quarantined and matches is tried again."""
    reads_headers: bool = True
    """Whether headers are read, and what they have ruled out is left out."""
    rejects_unconfirmed: bool = False
    """Whether the limits that AWS does not state rule objects out as well."""
    table_parameters: str | None = None
    """Parameters of texts in tables, of which a column is read; None for the same as of other texts."""

    def parameters_of(self, media_type: MediaType, key: str) -> str | None:
        """Return the canonical parameters of an object; None where the model embeds no such media."""
        if self.table_parameters is not None and media_type is MediaType.TEXT and key.lower().endswith(TABLE_SUFFIXES):
            return self.table_parameters
        return self.parameters.get(media_type)

    def tries_again(self, media_uri: str) -> bool:
        """Return whether a person wants another attempt at an object, whatever became of the earlier ones."""
        return self.retry_failed or any(fnmatchcase(media_uri, glob) for glob in self.release)


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """A media object that is to be embedded, with the identity of the attempt."""

    media: MediaObject
    embedding_key: str
    request_id: str
    attempt: int
    parameters: str
    finished_output_uri: str | None = None
    """The folder of an output of this attempt that is there already: then nothing is started."""
    first_seen_at: datetime | None = None
    """When the ledger first knew of it; None for what no earlier run has known in this content."""
    deferred_for: ReasonCode | None = None
    """Why an earlier run has left this very attempt; None where none has."""
    is_paid_for: bool = False
    """Whether Bedrock has taken this very attempt already, so that to go on with it costs nothing."""
    facts: MediaFacts | None = None
    """What its header says; None where it was not looked at."""
    processing: Processing = Processing.ASYNC
    estimated_cost_usd: float | None = None
    """What the attempt costs, whoever pays for it; None where the model has no price for it."""
    parts: Sequence[Part] = ()
    """Of a text that was read: its parts, of which each is a request. All other objects are one request, as a whole."""

    @property
    def requests(self) -> Sequence[Part]:
        """Return the requests that it takes, at least one."""
        return self.parts or (Part(self.request_id, finished_output_uri=self.finished_output_uri),)

    @property
    def to_pay_usd(self) -> float:
        """Return what this run pays for the attempt, by estimate."""
        return 0.0 if self.is_paid_for or self.finished_output_uri is not None else self.estimated_cost_usd or 0.0


@dataclass(frozen=True, slots=True)
class SettledObject:
    """A media object that this run does not embed, and why. ``attempts`` counts those already made for its content."""

    media_uri: str
    media_type: str | None
    status: Status
    reason: Reason
    etag: str
    size_bytes: int
    last_modified: datetime
    embedding_key: str | None
    attempts: int
    is_news: bool
    """Whether the ledger does not say so yet."""
    duration_sec: float | None = None
    """As its header says; None where it was not read."""
    request_id: str | None = None
    """Of an attempt that a later run is to go on with."""
    estimated_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """What is to be done with every object of a listing: each is in exactly one of the three."""

    unchanged: dict[str, int]
    """Objects whose rows in the table are those of their present content, counted by media type."""
    planned: tuple[PlannedObject, ...]
    settled: tuple[SettledObject, ...]


def decide(listing: Relation, ledger: Relation, purpose: Purpose) -> Decisions:
    """Decide what is to be done with every object of a listing that the library takes.

    :param listing: rows of :data:`~media_embeddings.listing.LISTING_SCHEMA`.
    :param ledger: rows of the ledger for this model.
    """
    planned: list[PlannedObject] = []
    settled: list[SettledObject] = []
    with database(listing=listing, ledger=ledger) as connection:
        compared = _Comparison.of(connection, purpose)
        unchanged = compared.unchanged()
        for row in compared.unsettled():
            outcome = _decide_one(row, purpose)
            if isinstance(outcome, PlannedObject):
                planned.append(outcome)
            else:
                settled.append(outcome)
    planned.sort(key=longest_first)
    if purpose.limit is not None and len(planned) > purpose.limit:
        settled += [_deferred(one, ReasonCode.LIMIT) for one in planned[purpose.limit :]]
        planned = planned[: purpose.limit]
    return Decisions(
        unchanged=dict(unchanged),
        planned=tuple(planned),
        settled=tuple(settled),
    )


def as_dry_run(decisions: Decisions) -> Decisions:
    """Return the decisions with everything that is planned left for a run that is none."""
    settled = (_deferred(one, ReasonCode.DRY_RUN) for one in decisions.planned)
    return replace(decisions, planned=(), settled=(*decisions.settled, *settled))


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests that one instance of the mapped task group handles."""

    name: str
    """Media type and number, for example ``video-001``."""
    objects: tuple[PlannedObject, ...]
    processing: Processing = Processing.ASYNC


def cut_batches(planned: Iterable[PlannedObject], batch_size: int, max_batches: int) -> list[Batch]:
    """Cut planned objects into batches of one media type and one way of processing each, in the order given.

    A batch holds at most ``batch_size`` requests, unless a single object has more, or there would be more than
    ``max_batches`` batches: then all grow alike. Every media type present has at least one batch of each way in which it is
    processed, and its batches are numbered through, whichever way they go. All requests of an object are in one.
    """
    media_types, processings = list(MediaType), list(Processing)

    def kind(one: PlannedObject) -> tuple[int, int]:
        return media_types.index(one.media.media_type), processings.index(one.processing)

    groups = {key: tuple(group) for key, group in groupby(sorted(planned, key=kind), kind)}
    requests = {key: [len(one.requests) for one in group] for key, group in groups.items()}
    most = max(max_batches, len(groups))
    while sum(_least_batches(several, batch_size) for several in requests.values()) > most:
        batch_size += ceil(batch_size / 50)
    while sum(len(_cuts(several, batch_size)) for several in requests.values()) > most:
        batch_size += ceil(batch_size / 50)
    numbers = Counter[int]()
    batches = []
    for (media_type, processing), group in groups.items():
        for start, end in _cuts(requests[media_type, processing], batch_size):
            numbers[media_type] += 1
            name = f"{media_types[media_type]}-{numbers[media_type]:03d}"
            batches.append(Batch(name, group[start:end], processings[processing]))
    return batches


def _least_batches(requests: Sequence[int], batch_size: int) -> int:
    """Return how many batches objects need at least, without cutting them: one that has more requests has one of its own."""
    total = sum(requests) if max(requests) <= batch_size else sum(min(one, batch_size) for one in requests)
    return ceil(total / batch_size)


def _cuts(requests: Sequence[int], batch_size: int) -> list[tuple[int, int]]:
    """Return where batches begin and end in a sequence of objects.

    :param requests: how many each object has.
    """
    starts, filled = [0], 0
    for place, number in enumerate(requests):
        if filled and filled + number > batch_size:
            starts.append(place)
            filled = 0
        filled += number
    return list(pairwise([*starts, len(requests)]))


@dataclass(frozen=True, slots=True)
class _Known:
    """What the ledger says of the present content of an object."""

    status: Status
    reason_code: str | None
    reason: str | None
    attempts: int
    request_id: str | None
    first_seen_at: datetime | None
    run_id: str | None

    @property
    def goes_on(self) -> bool:
        """Whether its attempt stands, so that it is gone on with and no other is made.

        Of an object that was deleted and came back, the output may still be there.
        """
        if self.status is Status.DEFERRED:
            return self.reason_code != ReasonCode.RELEASED
        return self.status is Status.DELETED


@dataclass(frozen=True, slots=True)
class _Row:
    """A listed object that is not unchanged, with what the ledger knows of this very content."""

    media_uri: str
    bucket: str
    key: str
    media_type: str | None
    etag: str
    size_bytes: int
    last_modified: datetime
    known: _Known | None


def _decide_one(row: _Row, purpose: Purpose) -> PlannedObject | SettledObject:
    known = row.known
    if row.media_type is None:
        suffix_message = "the key's suffix tells no media type of the library; add it to media_types or exclude it"
        return _settle(row, Status.REJECTED, Reason(ReasonCode.UNSUPPORTED_MEDIA, suffix_message))
    media = MediaObject(
        bucket=row.bucket,
        key=row.key,
        etag=row.etag,
        size_bytes=row.size_bytes,
        last_modified=row.last_modified,
        media_type=MediaType(row.media_type),
    )
    parameters = purpose.parameters_of(media.media_type, row.key)
    if parameters is None:
        message = f"{purpose.model.name} embeds no {media.media_type}"
        return _settle(row, Status.REJECTED, Reason(ReasonCode.UNSUPPORTED_MEDIA, message))
    key = embedding_key(purpose.tables, media, purpose.model.model_id, parameters)
    if (rejection := purpose.model.rejection(media)) is not None:
        return _settle(row, Status.REJECTED, rejection, key)
    is_tried_anyway = purpose.force or purpose.tries_again(row.media_uri)
    if known is not None and not is_tried_anyway and (verdict := _standing_verdict(known, media, purpose)) is not None:
        return _settle(row, *verdict, key)
    attempt = _next_attempt(known)
    # An attempt that was deferred has its token already, a forced one among them: another would be paid for again.
    goes_on = known is not None and known.goes_on and not purpose.force
    deferred = known.request_id if known is not None and goes_on else None
    return PlannedObject(
        media=media,
        embedding_key=key,
        request_id=deferred or request_id(key, attempt, forced_by=purpose.run_id if purpose.force else None),
        attempt=attempt,
        parameters=parameters,
        first_seen_at=_waiting_since(known, purpose),
        deferred_for=_deferred_for(known) if goes_on else None,
    )


def _deferred_for(known: _Known | None) -> ReasonCode | None:
    if known is None or known.status is not Status.DEFERRED or known.reason_code is None:
        return None
    return ReasonCode(known.reason_code)


def _waiting_since(known: _Known | None, purpose: Purpose) -> datetime | None:
    """Return since when an object has waited for an earlier run.

    What an earlier try of this very plan has left has not: it comes behind what that try has planned, which may have been
    submitted since.
    """
    return None if known is None or known.run_id == purpose.run_id else known.first_seen_at


def _standing_verdict(known: _Known, media: MediaObject, purpose: Purpose) -> tuple[Status, Reason] | None:
    """Return what an earlier run has settled for this content, or None where it is to be tried again."""
    if known.status is Status.REJECTED and known.reason_code is not None:
        reason = Reason(ReasonCode(known.reason_code), known.reason or "")
        return (Status.REJECTED, reason) if _is_still_rejected(reason, media, purpose) else None
    if known.status not in (Status.FAILED, Status.QUARANTINED):
        return None
    reason = Reason(ReasonCode(known.reason_code or ReasonCode.SERVICE_ERROR), known.reason or "")
    if known.status is Status.QUARANTINED:
        return Status.QUARANTINED, reason
    if not reason.code.is_transient:
        return Status.FAILED, reason
    if known.attempts >= purpose.max_attempts:
        return Status.QUARANTINED, reason
    return None


def _is_still_rejected(reason: Reason, media: MediaObject, purpose: Purpose) -> bool:
    if reason.code is ReasonCode.EMPTY_OBJECT:
        return True
    return purpose.reads_headers and header_rejection_stands(
        reason, media.media_type, purpose.model.limits, rejects_unconfirmed=purpose.rejects_unconfirmed
    )


def _next_attempt(known: _Known | None) -> int:
    """Return the number of the attempt to make; one that was deferred is gone on with, not made again."""
    if known is None:
        return 1
    if known.goes_on:
        return max(known.attempts, 1)
    return known.attempts + 1


def _settle(row: _Row, status: Status, reason: Reason, key: str | None = None) -> SettledObject:
    known = row.known
    return SettledObject(
        media_uri=row.media_uri,
        media_type=row.media_type,
        status=status,
        reason=reason,
        etag=row.etag,
        size_bytes=row.size_bytes,
        last_modified=row.last_modified,
        embedding_key=key,
        attempts=known.attempts if known else 0,
        is_news=known is None or (known.status, known.reason_code) != (status, reason.code),
    )


def _deferred(planned: PlannedObject, code: ReasonCode) -> SettledObject:
    message = {
        ReasonCode.LIMIT: "left for another run by the parameter limit",
        ReasonCode.DRY_RUN: "would be embedded; the run was a dry run",
    }[code]
    media = planned.media
    return SettledObject(
        media_uri=media.uri,
        media_type=media.media_type,
        status=Status.DEFERRED,
        reason=Reason(code, message),
        etag=media.etag,
        size_bytes=media.size_bytes,
        last_modified=media.last_modified,
        embedding_key=planned.embedding_key,
        attempts=planned.attempt - 1,
        # A trial run leaves no trace in the ledger: the object is as new to the next run as it was to this one.
        is_news=False,
    )


def longest_first(planned: PlannedObject) -> tuple[int, str]:
    """Order by size, the best estimate of duration that a listing gives: the longest job should not start last."""
    return (-planned.media.size_bytes, planned.media.uri)


_SAME_PARAMETERS = """
    CREATE TEMP TABLE numbered AS
        SELECT parameters, row_number() OVER () AS number FROM (SELECT DISTINCT parameters FROM wanted);
    CREATE VIEW known AS
        SELECT ledger.*, CASE WHEN parameters IS NULL THEN 0 ELSE coalesce(number, -1) END AS same
        FROM ledger LEFT JOIN numbered USING (parameters);
    CREATE VIEW listed AS
        SELECT listing.*, coalesce(number, 0) AS same
        FROM (SELECT *, {is_table} AS is_table FROM listing) AS listing
        LEFT JOIN wanted USING (media_type, is_table) LEFT JOIN numbered USING (parameters)
        WHERE taken;
"""
# Parameters are long and few: they are compared by number, so that a comparison of millions holds them once.

_IS_TABLE = " OR ".join(f"(media_type = 'text' AND ends_with(lower(key), '{suffix}'))" for suffix in TABLE_SUFFIXES)
_UNSETTLED = """
    CREATE TEMP TABLE unsettled AS SELECT * FROM listed ANTI JOIN (
        SELECT media_uri, etag, same FROM known WHERE status = 'embedded' AND (? OR run_id = ?)
    ) USING (media_uri, etag, same)
"""

_COUNTED = "SELECT media_type, count(*) FROM {} GROUP BY ALL"

_WITH_LEDGER = """
    SELECT media_uri, bucket, key, unsettled.media_type, etag, size_bytes, last_modified,
           known.status, known.reason_code, known.reason, known.attempts, known.request_id,
           known.first_seen_at, known.run_id
    FROM unsettled LEFT JOIN known USING (media_uri, etag, same)
"""


@dataclass(frozen=True, slots=True)
class _Comparison:
    connection: duckdb.DuckDBPyConnection

    @classmethod
    def of(cls, connection: duckdb.DuckDBPyConnection, purpose: Purpose) -> _Comparison:
        """Find out which listed objects are not unchanged."""
        connection.register("wanted", _wanted(purpose))
        is_table = "false" if purpose.table_parameters is None else _IS_TABLE
        connection.execute(_SAME_PARAMETERS.format(is_table=is_table))
        # A forced run embeds everything again, but not what it has itself embedded before it was cleared.
        connection.execute(_UNSETTLED, [not purpose.force, purpose.run_id])
        return cls(connection)

    def unchanged(self) -> Counter[str]:
        """Return how many listed objects are unchanged, by media type."""
        counts = Counter(dict(self.connection.execute(_COUNTED.format("listed")).fetchall()))
        counts.subtract(dict(self.connection.execute(_COUNTED.format("unsettled")).fetchall()))
        return +counts

    def unsettled(self) -> Iterator[_Row]:
        """Yield the listed objects that are not unchanged."""
        cursor = self.connection.execute(_WITH_LEDGER)
        while rows := cursor.fetchmany(10_000):
            for row in rows:
                *listed, status, code, reason, attempts, known_id, first_seen_at, run_id = row
                known = (
                    None
                    if status is None
                    else _Known(Status(status), code, reason, attempts or 0, known_id, first_seen_at, run_id)
                )
                yield _Row(*[*listed, known])


def _wanted(purpose: Purpose) -> pa.Table:
    rows = [(str(name), False, parameters) for name, parameters in purpose.parameters.items()]
    if purpose.table_parameters is not None:
        rows.append((str(MediaType.TEXT), True, purpose.table_parameters))
    names = ("media_type", "is_table", "parameters")
    schema = pa.schema([("media_type", pa.string()), ("is_table", pa.bool_()), ("parameters", pa.string())])
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)
