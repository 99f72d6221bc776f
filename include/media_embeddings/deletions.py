"""Decides what becomes of objects that the ledger knows and the listing does not hold. Pure.

Only the raw and complete listing of a source says that an object is gone, and only of what the ledger knew when it was made.
What a library's globs or media types leave out is still there, and its rows are retained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import duckdb

from media_embeddings.library import DeletionMode
from media_embeddings.relations import Relation, database

LISTING_HOLDS = timedelta(hours=24)
"""How old a listing may be to say that an object is gone: one of a run that was cleared later may have been overtaken."""


@dataclass(frozen=True, slots=True)
class Deletions:
    """What becomes of the ledger's objects that were not listed: each is in exactly one of the two counts."""

    uris: tuple[str, ...] = ()
    """What is to be deleted now."""
    deleted: dict[str, int] = field(default_factory=dict)
    """Objects that this run deletes or has deleted, counted by media type."""
    retained: dict[str, int] = field(default_factory=dict)
    """Objects whose rows stay, counted by media type."""
    notices: tuple[str, ...] = ()
    """What a person should know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionPolicy:
    """What may be deleted, by which run, and by how old a listing."""

    mode: DeletionMode
    max_deleted_share: float
    run_id: str
    """What this run has deleted before it was repeated is deleted by it still."""
    listed_at: datetime
    now: datetime
    dry_run: bool = False


_SHOWN = 5
_UNSUPPORTED = "unsupported"


def decide_deletions(
    listing: Relation, ledger: Relation, complete_below: Sequence[str], policy: DeletionPolicy
) -> Deletions:
    """Decide what becomes of the ledger's objects that were not listed.

    What another run has found out after the listing was made is left to the next run: the listing knows nothing of it.

    :param listing: columns ``media_uri`` and ``taken``: whether the library takes the object.
    :param ledger: columns ``media_uri``, ``media_type``, ``status``, ``run_id``, ``updated_at``.
    :param complete_below: the URI prefixes of which the listing holds everything there is; nothing is decided elsewhere.
    """
    if not complete_below:
        return Deletions()
    with database(listing=listing, ledger=ledger) as connection:
        known = _compare(connection, complete_below, policy)
        missing = [_Missing(*row) for row in connection.execute(_COUNTED).fetchall()]
        done = [one for one in missing if one.status == "deleted"]
        absent = [one for one in missing if one.is_absent and one.status != "deleted"]
        retained = [one for one in missing if not one.is_absent and one.status != "deleted"]
        if (
            absent
            and (obstacle := _obstacle(policy, known, done, absent, _absent_uris(connection, _SHOWN + 1))) is not None
        ):
            notices = () if policy.mode is DeletionMode.OFF else (obstacle,)
            return Deletions((), _count(done), _count([*retained, *absent]), notices)
        uris = _absent_uris(connection) if absent else ()
    return Deletions(uris, _count([*done, *absent]), _count(retained))


@dataclass(frozen=True, slots=True)
class _Missing:
    """Objects of which the ledger says the same and that the library does not take any more."""

    media_type: str
    status: str
    is_absent: bool
    objects: int


@dataclass(frozen=True, slots=True)
class _Known:
    """How many objects the ledger has below the sources."""

    objects: int
    embedded: int


def _obstacle(
    policy: DeletionPolicy, known: _Known, done: Sequence[_Missing], absent: Sequence[_Missing], uris: Sequence[str]
) -> str | None:
    """Return why nothing is deleted, and what to do if it should be; None where nothing stands against it.

    :param uris: the first of the absent objects, one more than are shown.
    """
    first = ", ".join(uris[:_SHOWN]) + (", ..." if len(uris) > _SHOWN else "")
    number_absent, number_done = _number(absent), _number(done)
    if policy.mode is not DeletionMode.ON:
        return (
            f"{number_absent} objects are no longer in the sources and their rows stay ({first}); "
            "set deletions to on to have such rows removed"
        )
    gone = number_done + number_absent
    embedded = number_done + _number([one for one in absent if one.status == "embedded"])
    # What was never embedded loses nothing, so that many failures must not make the loss of all rows look like a small one.
    for number, of, what in ((gone, known.objects, "objects"), (embedded, known.embedded, "embedded objects")):
        if number > policy.max_deleted_share * of:
            return (
                f"{number} of {of} {what} are no longer in the sources, more than max_deleted_share "
                f"{policy.max_deleted_share:g} allows, so nothing was deleted ({first}); if they are to go, raise it for a run"
            )
    if policy.now - policy.listed_at > LISTING_HOLDS:
        return (
            f"{number_absent} objects were not in the sources when they were listed at {policy.listed_at:%Y-%m-%d %H:%M} UTC; "
            f"that is too long ago, so nothing was deleted ({first}); the next run looks again"
        )
    if policy.dry_run:
        return (
            f"{number_absent} objects are no longer in the sources and their rows would be deleted ({first}); the run was a "
            "dry run"
        )
    return None


_COUNTED = "SELECT media_type, status, is_absent, count(*) FROM missing GROUP BY ALL ORDER BY ALL"
_ABSENT = "SELECT media_uri FROM missing WHERE is_absent AND status <> 'deleted' ORDER BY media_uri LIMIT ?"


def _compare(connection: duckdb.DuckDBPyConnection, complete_below: Sequence[str], policy: DeletionPolicy) -> _Known:
    """Find the objects that the library does not take any more, and return how many the ledger has there."""
    within = " OR ".join("starts_with(media_uri, ?)" for _ in complete_below)
    # Only the number of placeholders is put into the statements.
    there = f"({within}) AND CASE WHEN status = 'deleted' THEN run_id = ? ELSE updated_at <= ? END"
    arguments = [*complete_below, policy.run_id, policy.listed_at]
    # What this run has deleted counts as embedded, so that a repeated plan finds the same shares.
    counts = connection.execute(
        f"""SELECT count(*), count(*) FILTER (status IN ('embedded', 'deleted')) FROM ledger
            WHERE {there}""",  # noqa: S608
        arguments,
    ).fetchone()
    connection.execute(
        f"""CREATE TEMP TABLE not_taken AS
            SELECT media_uri, coalesce(media_type, '{_UNSUPPORTED}') AS media_type, status
            FROM ledger ANTI JOIN (SELECT media_uri FROM listing WHERE taken) USING (media_uri)
            WHERE {there}""",  # noqa: S608
        arguments,
    )
    # Few, as a rule: so that only they are looked up among all that is there.
    connection.execute(
        """CREATE TEMP TABLE missing AS
           SELECT not_taken.*, there.media_uri IS NULL AS is_absent
           FROM not_taken LEFT JOIN (SELECT media_uri FROM listing SEMI JOIN not_taken USING (media_uri)) AS there
           USING (media_uri)"""
    )
    return _Known(*(counts or (0, 0)))


def _absent_uris(connection: duckdb.DuckDBPyConnection, most: int | None = None) -> tuple[str, ...]:
    return tuple(uri for (uri,) in connection.execute(_ABSENT, [most]).fetchall())


def _number(missing: Sequence[_Missing]) -> int:
    return sum(one.objects for one in missing)


def _count(missing: Sequence[_Missing]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in missing:
        counts[one.media_type] = counts.get(one.media_type, 0) + one.objects
    return counts
