"""Merges a batch: reads the outputs of its completed invocations, checks them, and commits what became of every object.

Rows go into files of the table as their outputs arrive, so that memory does not grow with the batch, and into one commit
when all are there. The order of the commits is rows, then ledger, then invocations, then the batch's outcomes: whatever the
moment at which a merge is killed, the next one finds either nothing of a step or all of it, and repeating a step changes
nothing.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from media_embeddings.attempt_costs import AttemptCosts
from media_embeddings.batch_outputs import BatchOutputs, Outcome
from media_embeddings.batches import read_batch
from media_embeddings.ledger import invocations_table, ledger_table
from media_embeddings.library import Library
from media_embeddings.merge_records import (
    embedding_rows,
    invocation_entries,
    ledger_entry,
    outcomes_file,
)
from media_embeddings.models import model_named
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.new_embeddings import NewEmbeddings
from media_embeddings.planning import Status
from media_embeddings.run_folder import BatchFolder
from media_embeddings.schemas import embeddings_schema
from media_embeddings.storage import Storage
from media_embeddings.tables import Tables

__all__ = ["MergeSummary", "merge_batch"]

logger = logging.getLogger(__name__)


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
class _Merged:
    """What a merge has found, with its rows in the table."""

    outcomes: Sequence[Outcome]
    entries: pa.Table
    version: int | None


def merge_batch(storage: Storage, library: Library, model_name: str, run_id: str, folder: BatchFolder) -> MergeSummary:
    """Commit what became of every object of a batch, and return how many there are of each kind.

    An object without a usable output is ``failed`` or ``deferred`` with its reason; the others land.
    """
    tables = Tables(library.tables, storage.table_options)
    planned, listed_at = read_batch(storage, folder)
    model = model_named(model_name)
    waiting_until = time.monotonic() + library.output_grace_seconds
    outputs = BatchOutputs(storage, model, folder, planned, waiting_until)
    merge = _Merge(library, model, tables, run_id, folder, outputs, listed_at, datetime.now(UTC))
    merged = merge.made_before() or merge.made()

    outcomes = merged.outcomes
    tables.update_ledger(merged.entries, _commit_id("ledger", run_id, outcomes), listed_at=listed_at)
    costs = AttemptCosts(library.price_list(model).price(library.region), library.cost_assumptions, listed_at)
    attempts = [
        entry for one in outcomes for entry in invocation_entries(one, library, model, run_id, merge.embedded_at, costs)
    ]
    if attempts:
        tables.append_invocations(invocations_table(attempts), commit_id=_commit_id("invocations", run_id, outcomes))
    storage.write(folder.outcomes_uri, outcomes_file(outcomes, costs))
    _log(folder, outcomes)
    return MergeSummary(
        batch=folder.name,
        embedded=_count(outcomes, Status.EMBEDDED),
        failed=_count(outcomes, Status.FAILED),
        deferred=_count(outcomes, Status.DEFERRED),
        segments=sum(one.segments or 0 for one in outcomes),
        committed_version=merged.version,
    )


@dataclass(frozen=True, slots=True)
class _Merge:
    """The first step of a merge: from outputs to rows in the table."""

    library: Library
    model: EmbeddingModel
    tables: Tables
    run_id: str
    folder: BatchFolder
    outputs: BatchOutputs
    listed_at: datetime
    embedded_at: datetime

    def made(self) -> _Merged:
        """Write the rows as they come, and commit them."""
        with self.tables.new_embeddings(self.model.name, self.model.dimension) as new:
            outcomes, entries = self._read(new)
            # Rows go where their ledger row goes: those of an old plan must not replace what another run has bought since.
            superseded = self.tables.superseded(entries, self.listed_at)
            new.drop(superseded)
            commit = new.commit([self._rows_id(outcomes, superseded), self._id])
        return _Merged(outcomes, entries, None if commit is None else commit.version)

    def made_before(self) -> _Merged | None:
        """Return what an earlier try of this merge has committed, without writing it again; None if it is not this."""
        if self.tables.embeddings_commit(self.model.name, self._id) is None:
            return None
        outcomes, entries = self._read(None)
        rows_id = self._rows_id(outcomes, self.tables.superseded(entries, self.listed_at))
        version = self.tables.embeddings_commit(self.model.name, rows_id)
        return None if version is None else _Merged(outcomes, entries, version)

    @property
    def _id(self) -> str:
        """Name the merge, whatever it will find."""
        return f"merge-{hashlib.sha256(f'{self.run_id} {self.folder.uri}'.encode()).hexdigest()[:40]}"

    def _rows_id(self, outcomes: Sequence[Outcome], superseded: frozenset[str]) -> str:
        landing = [one for one in outcomes if one.status is Status.EMBEDDED and one.planned.media.uri not in superseded]
        return _commit_id("embeddings", self.run_id, landing)

    def _read(self, new: NewEmbeddings | None) -> tuple[list[Outcome], pa.Table]:
        """Return what became of the objects, and their ledger rows; their rows are added where there is something to."""
        schema = embeddings_schema(self.model.dimension)
        outcomes = []
        with closing(self.outputs.read()) as read:
            for outcome, rows in read:
                if new is not None and rows is not None:
                    new.add(embedding_rows(outcome, rows, schema, self.run_id, self.embedded_at))
                outcomes.append(outcome)
        entries = [ledger_entry(one, self.library, self.model, self.run_id, self.embedded_at) for one in outcomes]
        return outcomes, ledger_table(entries)


def _commit_id(table: str, run_id: str, outcomes: Sequence[Outcome]) -> str:
    """Name a commit by what it says, so that a merge that is repeated commits nothing twice.

    What became of the objects is part of it: a merge that was cleared after more of its invocations had ended has more to
    say. So is the run: content that goes back to what it was has the request id of then, and has to be committed again.
    """
    digest = hashlib.sha256(run_id.encode())
    lines = [f"{one.planned.request_id} {one.status} {one.reason and one.reason.code}" for one in outcomes]
    lines += [
        f"{part.part.request_id} {part.status} {part.reason and part.reason.code}"
        for one in outcomes
        if len(one.parts) > 1
        for part in one.parts
    ]
    for line in sorted(lines):
        digest.update(line.encode())
    return f"{table}-{digest.hexdigest()[:40]}"


def _log(folder: BatchFolder, outcomes: Sequence[Outcome]) -> None:
    for one in outcomes:
        if one.reason is not None:
            logger.warning("%s %s: %s: %s", one.planned.media.uri, one.status, one.reason.code, one.reason.message)
    logger.info("batch %s: %d of %d embedded", folder.name, _count(outcomes, Status.EMBEDDED), len(outcomes))


def _count(outcomes: Sequence[Outcome], status: Status) -> int:
    return sum(one.status is status for one in outcomes)
