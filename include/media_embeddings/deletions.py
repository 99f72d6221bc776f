"""Decides what becomes of objects that the ledger knows and the listing does not hold. Pure.

Only the raw and complete listing of a source says that an object is gone. What a library's globs or media types leave out is
still there, and its rows are retained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from media_embeddings.library import DeletionMode


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


@dataclass(frozen=True, slots=True)
class DeletionPolicy:
    """What may be deleted."""

    mode: DeletionMode
    max_deleted_share: float
    run_id: str
    """What this run has deleted before it was repeated is deleted by it still."""


_SHOWN = 5
_UNSUPPORTED = "unsupported"


def decide_deletions(
    listing: pa.Table, ledger: pa.Table, complete_below: Sequence[str], policy: DeletionPolicy
) -> Deletions:
    """Decide what becomes of the ledger's objects that were not listed.

    :param listing: columns ``media_uri`` and ``taken``: whether the library takes the object.
    :param ledger: columns ``media_uri``, ``media_type``, ``status``, ``run_id``.
    :param complete_below: the URI prefixes of which the listing holds everything there is; nothing is decided elsewhere.
    """
    if not complete_below:
        return Deletions()
    known, missing = _compare(listing, ledger, complete_below, policy.run_id)
    done = [one for one in missing if one.status == "deleted"]
    absent = sorted(
        (one for one in missing if one.is_absent and one.status != "deleted"), key=lambda one: one.media_uri
    )
    retained = [one for one in missing if not one.is_absent and one.status != "deleted"]
    gone = len(done) + len(absent)
    if not absent:
        return Deletions((), _count(done), _count(retained))
    if policy.mode is DeletionMode.ON and gone <= policy.max_deleted_share * known:
        return Deletions(tuple(one.media_uri for one in absent), _count([*done, *absent]), _count(retained))
    return Deletions((), _count(done), _count([*retained, *absent]), _notices(policy, absent, gone, known))


@dataclass(frozen=True, slots=True)
class _Missing:
    media_uri: str
    media_type: str
    status: str
    is_absent: bool


def _compare(
    listing: pa.Table, ledger: pa.Table, complete_below: Sequence[str], run_id: str
) -> tuple[int, list[_Missing]]:
    """Return how many objects the ledger has there, and those of them that the library does not take any more."""
    within = " OR ".join("starts_with(media_uri, ?)" for _ in complete_below)
    # Only the number of placeholders is put into the statement.
    there = f"({within}) AND (status <> 'deleted' OR run_id = ?)"
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("listing", listing)
        connection.register("ledger", ledger)
        arguments = [*complete_below, run_id]
        found = connection.execute(f"SELECT count(*) FROM ledger WHERE {there}", arguments).fetchone()  # noqa: S608
        missing = connection.execute(
            f"""SELECT media_uri, coalesce(media_type, '{_UNSUPPORTED}'), status,
                       media_uri NOT IN (SELECT media_uri FROM listing)
                FROM ledger ANTI JOIN (SELECT media_uri FROM listing WHERE taken) USING (media_uri)
                WHERE {there}""",  # noqa: S608
            arguments,
        ).fetchall()
    return (found or (0,))[0], [_Missing(*row) for row in missing]


def _count(missing: Sequence[_Missing]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in missing:
        counts[one.media_type] = counts.get(one.media_type, 0) + 1
    return counts


def _notices(policy: DeletionPolicy, absent: Sequence[_Missing], gone: int, known: int) -> tuple[str, ...]:
    first = ", ".join(one.media_uri for one in absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
    if policy.mode is DeletionMode.REPORT:
        return (
            f"{len(absent)} objects are no longer in the sources and their rows stay ({first}); "
            "set deletions to on to have such rows removed",
        )
    if policy.mode is DeletionMode.ON:
        return (
            f"{gone} of {known} objects are no longer in the sources, more than max_deleted_share "
            f"{policy.max_deleted_share:g} allows, so nothing was deleted ({first}); if they are to go, raise it for a run",
        )
    return ()
