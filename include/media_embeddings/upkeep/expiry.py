"""Deletes what runs have left behind and no promise rests on any more: raw outputs, run folders, intents, tickets.

A raw output is what makes lost tables again without paying. It goes only when it is older than its retention, when the ledger
has said for as long that the object is embedded by that very request, and when all its rows are in the table. Of a text in
parts the ledger names the attempt, and the rows their requests: their outputs go when all rows are there. An intent keeps
a request from being started twice. It goes only long after the end of its request was recorded. Everything is listed before
anything is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from media_embeddings.storage import Storage
from media_embeddings.upkeep.evidence import Evidence
from media_embeddings.upkeep.objects import delete_objects, list_objects

logger = logging.getLogger(__name__)

TICKETS_RETENTION = timedelta(days=7)
"""A ticket belongs to nobody that was not written for a few minutes; people may still want to look at it."""
_AT_ONCE = 10_000
_STORED_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("belongs_to", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("written_at", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What was deleted of one kind, or would be in a dry run, and what is kept."""

    objects: int
    bytes: int
    kept_objects: int
    kept_bytes: int

    def __add__(self, other: Expiry) -> Expiry:
        """Return both together."""
        return Expiry(
            self.objects + other.objects,
            self.bytes + other.bytes,
            self.kept_objects + other.kept_objects,
            self.kept_bytes + other.kept_bytes,
        )


NOTHING = Expiry(0, 0, 0, 0)

_OUTPUTS = """
    SELECT uri, bytes FROM stored WHERE kind = ? AND belongs_to IN (
        SELECT belongs_to FROM stored WHERE kind = ? GROUP BY belongs_to HAVING max(written_at) < ?
    ) AND belongs_to IN (
        WITH settled AS (
            SELECT l.model, l.media_uri, l.request_id, o.request_id <> o.other_request AS in_parts
            FROM ledger l JOIN objects o ON l.model = o.model AND l.media_uri = o.media_uri
            WHERE l.status = 'embedded' AND l.updated_at < ? AND l.etag = o.etag AND l.etag = o.other_etag
              AND l.segments = o.rows AND o.embedded_at < ?
              AND (CASE WHEN o.request_id = o.other_request THEN l.request_id = o.request_id
                   ELSE l.embedding_key = o.embedding_key AND l.embedding_key = o.other_key END)
        )
        SELECT request_id FROM settled WHERE NOT in_parts
        UNION ALL
        SELECT t.request_id FROM text_requests t JOIN settled s ON t.model = s.model AND t.media_uri = s.media_uri
        WHERE s.in_parts
    )
"""
_RUNS = """
    SELECT uri, bytes FROM stored WHERE kind = ? AND NOT regexp_matches(uri, '/report\\.(json|md)$') AND belongs_to IN (
        SELECT belongs_to FROM stored WHERE kind = ? GROUP BY belongs_to HAVING max(written_at) < ?
    )
"""
_INTENTS = """
    SELECT uri, bytes FROM stored WHERE kind = ? AND written_at < ? AND belongs_to IN (
        SELECT request_id FROM invocations GROUP BY request_id
        HAVING max(recorded_at) < ? AND arg_max(outcome, recorded_at) IN ('embedded', 'failed')
    ) AND belongs_to NOT IN (SELECT request_id FROM ledger WHERE status = 'deferred' AND request_id IS NOT NULL)
"""
_TICKETS = "SELECT uri, bytes FROM stored WHERE kind = ? AND written_at < ?"
_ALL = "SELECT count(*), coalesce(sum(bytes), 0) FROM stored WHERE kind = ?"


class Expirer:
    """Expires what lies on S3 beside what the evidence says.

    :param evidence: with ledger and embeddings; for intents with the invocations as well.
    :param dry_run: count what would be deleted, and delete nothing.
    """

    def __init__(self, evidence: Evidence, *, dry_run: bool, now: datetime | None = None) -> None:
        self._evidence = evidence
        self._dry_run = dry_run
        self._now = now or datetime.now(UTC)

    def outputs(self, storage: Storage, work: str, days: int) -> Expiry:
        """Expire raw outputs, ``<work>/outputs/<request id>/...``."""
        base = f"{work.rstrip('/')}/outputs/"
        before = self._now - timedelta(days=days)
        kind = self._list(storage, base, lambda uri: uri.removeprefix(base).partition("/")[0])
        return self._expire(storage, kind, _OUTPUTS, kind, kind, before, before, before)

    def runs(self, storage: Storage, work: str, library: str, days: int) -> Expiry:
        """Expire the folders of a library's runs, ``<work>/runs/<library>/<run>/...``; the reports in them stay."""
        base = f"{work.rstrip('/')}/runs/{library}/"
        kind = self._list(storage, base, lambda uri: uri.removeprefix(base).partition("/")[0])
        return self._expire(storage, kind, _RUNS, kind, kind, self._now - timedelta(days=days))

    def intents(self, storage: Storage, intents_uri: str, days: int) -> Expiry:
        """Expire intents of requests whose end was recorded long ago, and that nothing in the ledger waits for."""
        before = self._now - timedelta(days=days)
        kind = self._list(storage, f"{intents_uri.rstrip('/')}/", lambda uri: uri.rsplit("/", 1)[1])
        return self._expire(storage, kind, _INTENTS, kind, before, before)

    def tickets(self, storage: Storage, submitter_uri: str) -> Expiry:
        """Expire tickets that nobody waits for."""
        kind = self._list(storage, f"{submitter_uri.rstrip('/')}/tickets/", lambda uri: uri)
        return self._expire(storage, kind, _TICKETS, kind, self._now - TICKETS_RETENTION)

    def _list(self, storage: Storage, prefix_uri: str, belongs_to: Callable[[str], str]) -> str:
        """Take in the objects below a prefix, and return the kind under which they are known."""
        for page in list_objects(storage, prefix_uri):
            # Some S3 servers keep empty markers of the folders.
            objects = [one for one in page if not one.uri.endswith("/")]
            columns: list[Sequence[object]] = [
                [one.uri for one in objects],
                [belongs_to(one.uri) for one in objects],
                [one.size_bytes for one in objects],
                [one.written_at for one in objects],
            ]
            self._evidence.add_stored(
                prefix_uri,
                pa.table(
                    [pa.array(each, field.type) for each, field in zip(columns, _STORED_SCHEMA, strict=True)],
                    schema=_STORED_SCHEMA,
                ),
            )
        return prefix_uri

    def _expire(self, storage: Storage, kind: str, statement: str, *arguments: object) -> Expiry:
        connection = self._evidence.connection
        everything = connection.execute(_ALL, [kind]).fetchone() or (0, 0)
        objects = size = 0
        found = connection.execute(statement, arguments)
        while rows := found.fetchmany(_AT_ONCE):
            if not self._dry_run:
                delete_objects(storage, (uri for uri, _ in rows))
            objects += len(rows)
            size += sum(one for _, one in rows)
        logger.info("%s: %d of %d objects %s", kind, objects, everything[0], "expire" if self._dry_run else "expired")
        return Expiry(objects, size, int(everything[0]) - objects, int(everything[1]) - size)
