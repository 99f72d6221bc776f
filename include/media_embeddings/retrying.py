"""Tries again, within a run, what failed for a reason that may pass: under a new attempt number, in batches of its own.

A round is made of what the merges of the round before wrote, not of the ledger, which may have moved on; and its files are
named by their content, so that a round that was cleared and made again can't change one that has been started.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from media_embeddings.batches import read_batch, write_batch
from media_embeddings.budgets import Allotment, Budget, allot
from media_embeddings.identity import part_request_id, request_id
from media_embeddings.library import Library
from media_embeddings.media import Processing
from media_embeddings.parts import Part
from media_embeddings.planner import Plan
from media_embeddings.planning import PlannedObject, Status, cut_batches
from media_embeddings.reasons import ReasonCode
from media_embeddings.run_folder import BatchFolder, PlanFolder
from media_embeddings.spending import read_spending
from media_embeddings.storage import ObjectNotFoundError, Storage, join_uri
from media_embeddings.tables import Tables

logger = logging.getLogger(__name__)

MOST_BATCHES = 10
"""The most batches of all rounds of a run together."""
_MOST_OF_EACH_MODEL = 4
"""Where a library crosses to another model, and has rounds for both."""
_PARALLEL_READS = 8

Counts = dict[str, dict[str, int]]
"""Objects by media type and the reason code of the attempt before."""


@dataclass(frozen=True, slots=True)
class RetryRound:
    """The batches of one more attempt at what failed before."""

    manifests: tuple[str, ...]
    """Those of the batches that go through StartAsyncInvoke."""
    invoke_manifests: tuple[str, ...]
    """Those of the batches that go through InvokeModel."""
    failed: tuple[Counts, ...]
    """What the objects of each batch had failed for, in the order of both."""
    notices: tuple[str, ...] = ()
    """What a person should know."""
    pending_usd: float = 0.0
    """What batches before this round cost by estimate that were not merged: they may be in progress."""

    @property
    def all_manifests(self) -> tuple[str, ...]:
        """Return the manifests of all batches, whichever way they go."""
        return (*self.manifests, *self.invoke_manifests)

    @classmethod
    def read(cls, storage: Storage, uri: str) -> RetryRound:
        """Read the round that lies at ``uri``."""
        value = storage.read_json(uri)
        return cls(
            tuple(value["manifests"]),
            tuple(value.get("invoke_manifests", ())),
            tuple(value["failed"]),
            tuple(value.get("notices", ())),
            value.get("pending_usd", 0.0),
        )


@dataclass(frozen=True, slots=True)
class _Failed:
    """One object to be tried again, with the request of the attempt before."""

    planned: PlannedObject
    reason_code: ReasonCode
    lines: tuple[dict[str, Any], ...]
    """One for each request, in their order."""
    outputs: tuple[str | None, ...]
    """The folder of each request's output, None where it is to be asked for again."""


def plan_retries(
    storage: Storage,
    library: Library,
    plan_uri: str,
    number: int,
    earlier_uri: str | None = None,
    *,
    planned_usd: float = 0.0,
) -> tuple[RetryRound, str]:
    """Write the batches of a round and return it with its URI; it has none where nothing is to be tried again.

    What the budget does not take any more stays failed: the next run makes the attempt.

    :param number: of the round, from 1.
    :param earlier_uri: the round before; None where that is the plan itself.
    :param planned_usd: what other plans of this run are going to spend under the same budget.
    """
    plan = Plan.read(storage, plan_uri)
    earlier_round = None if earlier_uri is None else RetryRound.read(storage, earlier_uri)
    before = plan if earlier_round is None else earlier_round
    folders = [
        (BatchFolder.of_manifest(manifest_uri), processing)
        for processing, manifests in ((Processing.ASYNC, before.manifests), (Processing.SYNC, before.invoke_manifests))
        for manifest_uri in manifests
    ]
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        failed = [one for found in pool.map(lambda each: _failed(storage, library, *each), folders) for one in found]
    again = {one.planned.embedding_key: _next_attempt(one, library, plan) for one in failed}
    earlier = {one.planned.embedding_key: one for one in failed}
    pending_usd = (earlier_round.pending_usd if earlier_round else 0.0) + _unmerged_usd(
        storage, library, [folder for folder, _ in folders]
    )
    budget = _budget(storage, library, plan, pending_usd + planned_usd) if again else Budget()
    allotment = allot([one.planned for one in again.values()], budget)
    batches = cut_batches(allotment.taken, library.batch_size, most_batches_of_a_round(library))
    names = (part.request_id for batch in batches for one in batch.objects for part in one.requests)
    digest = hashlib.sha256("".join(names).encode())
    folder = PlanFolder(join_uri(plan_uri.rsplit("/", 1)[0], "retries", f"{number}-{digest.hexdigest()[:16]}"))
    for batch in batches:
        lines = (
            json.dumps(line, ensure_ascii=False) + "\n"
            for one in batch.objects
            for line in again[one.embedding_key].lines
        )
        listed_at = datetime.fromisoformat(plan.listed_at)
        write_batch(storage, folder.batch(batch.name), batch.objects, lines, listed_at)
    ways = {way: [batch for batch in batches if batch.processing is way] for way in (Processing.ASYNC, Processing.SYNC)}
    made = RetryRound(
        manifests=tuple(folder.batch(batch.name).manifest_uri for batch in ways[Processing.ASYNC]),
        invoke_manifests=tuple(folder.batch(batch.name).manifest_uri for batch in ways[Processing.SYNC]),
        failed=tuple(
            _counts([earlier[one.embedding_key] for one in batch.objects])
            for several in ways.values()
            for batch in several
        ),
        notices=tuple(_notices(allotment)),
        pending_usd=pending_usd,
    )
    storage.write_json(folder.plan_uri, asdict(made))
    logger.info("round %d: %d of the %d objects that failed are tried again", number, len(allotment.taken), len(failed))
    return made, folder.plan_uri


def most_batches_of_a_round(library: Library) -> int:
    """Return how many batches one round of one model has at most; but each media type has at least one."""
    most = MOST_BATCHES if library.next_model is None else _MOST_OF_EACH_MODEL
    return max(1, most // max(1, library.retries_in_run))


def _budget(storage: Storage, library: Library, plan: Plan, pending_usd: float) -> Budget:
    """Return what is left of the budget after what the run has spent, and what it may still be spending."""
    limits = library.max_cost_usd_per_run, library.max_cost_usd_per_month
    if limits == (None, None):
        return Budget()
    tables = Tables(library.tables, storage.table_options)
    spending = read_spending(tables, plan.model, library.name, plan.run_id, datetime.now(UTC))
    return Budget(*limits, spending.run_usd + pending_usd, spending.month_usd + pending_usd)


def _unmerged_usd(storage: Storage, library: Library, folders: Sequence[BatchFolder]) -> float:
    """Return what batches cost by estimate that were not merged; only what a budget is to know."""
    if library.max_cost_usd_per_run is None and library.max_cost_usd_per_month is None:
        return 0.0

    def unmerged_usd(folder: BatchFolder) -> float:
        try:
            storage.head(folder.outcomes_uri)
        except ObjectNotFoundError:
            return sum(one.to_pay_usd for one in read_batch(storage, folder)[0])
        return 0.0

    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        return sum(pool.map(unmerged_usd, folders))


def _notices(allotment: Allotment) -> Iterable[str]:
    if allotment.left_out:
        usd = sum(one.to_pay_usd for one in allotment.left_out)
        yield (
            f"{len(allotment.left_out)} objects that failed are not tried again in this run, as further attempts for about "
            f"{usd:.2f} USD do not fit into the budget; the next run makes them"
        )


def _failed(storage: Storage, library: Library, folder: BatchFolder, processing: Processing) -> list[_Failed]:
    """Return what failed in a batch and may be tried again in the run, in the same way."""
    try:
        rows = pq.read_table(pa.BufferReader(storage.read(folder.outcomes_uri))).to_pylist()
    except ObjectNotFoundError:
        # Its merge failed: the next run goes on with it.
        return []
    failed = {
        row["media_uri"]: row
        for row in rows
        if row["status"] == Status.FAILED and ReasonCode(row["reason_code"]).is_tried_again_in_the_run
    }
    if not failed:
        return []
    lines = {line["request_id"]: line for line in storage.read_json_lines(folder.manifest_uri)}
    return [
        _Failed(
            replace(one, processing=processing),
            ReasonCode(row["reason_code"]),
            lines=tuple(lines[part.request_id] for part in one.requests),
            outputs=tuple(row["outputs"] or [None] * len(one.requests)),
        )
        for one in read_batch(storage, folder)[0]
        if (row := failed.get(one.media.uri)) is not None and one.attempt < library.max_attempts
    ]


def _next_attempt(failed: _Failed, library: Library, plan: Plan) -> _Failed:
    key, attempt = failed.planned.embedding_key, failed.planned.attempt + 1
    new_id = request_id(key, attempt, forced_by=plan.run_id if plan.force else None)
    planned = replace(failed.planned, attempt=attempt, request_id=new_id, finished_output_uri=None, is_paid_for=False)
    parts = tuple(
        _next_part(part, new_id, output, is_only=len(failed.outputs) == 1)
        for part, output in zip(failed.planned.requests, failed.outputs, strict=True)
    )
    lines = tuple(_line(line, part, library) for line, part in zip(failed.lines, parts, strict=True))
    return replace(failed, planned=replace(planned, parts=parts if failed.planned.parts else ()), lines=lines)


def _next_part(part: Part, new_id: str, output_uri: str | None, *, is_only: bool) -> Part:
    """Return a request of the next attempt; one whose output is there is taken as it is, and not asked for again."""
    if output_uri is not None:
        return replace(part, finished_output_uri=output_uri)
    if not is_only:
        assert part.start_char is not None  # noqa: S101 - only texts have several parts
        assert part.end_char is not None  # noqa: S101
        new_id = part_request_id(new_id, part.start_char, part.end_char)
    return replace(part, request_id=new_id, finished_output_uri=None)


def _line(line: dict[str, Any], part: Part, library: Library) -> dict[str, Any]:
    line = {name: value for name, value in line.items() if name != "finished_output_uri"}
    line |= {"request_id": part.request_id, "output_uri": join_uri(library.work, "outputs", part.request_id)}
    return line if part.finished_output_uri is None else line | {"finished_output_uri": part.finished_output_uri}


def _counts(failed: Sequence[_Failed]) -> Counts:
    counts: Counts = {}
    for one in failed:
        by_reason = counts.setdefault(str(one.planned.media.media_type), {})
        by_reason[one.reason_code] = by_reason.get(one.reason_code, 0) + 1
    return counts
