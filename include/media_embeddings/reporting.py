"""The balanced books of a run: every listed object stands in exactly one place, and the report says so or fails.

``listed + gone = unchanged + embedded + failed + rejected + quarantined + deferred + deleted + retained``

A library that crosses to another model has books for each of the two; those of its own model stand at the top.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from media_embeddings.cost_tables import estimate_lines, spending_lines, table_row
from media_embeddings.costs import Estimates
from media_embeddings.crossing import Crossing
from media_embeddings.library import Library
from media_embeddings.listing import Listing
from media_embeddings.planner import PLANNED, Plan
from media_embeddings.planning import Status
from media_embeddings.reasons import ReasonCode
from media_embeddings.retrying import RetryRound
from media_embeddings.run_folder import BatchFolder, RunFolder
from media_embeddings.storage import ObjectNotFoundError, Storage

logger = logging.getLogger(__name__)

_SHOWN = 100
_PARALLEL_READS = 8
# What is said of the run, and not of one of its models.
_OF_THE_RUN = ("library", "run_id", "dry_run", "excluded", "models", "crossing")


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """What a run has planned for one of its models."""

    plan_uri: str
    round_uris: tuple[str, ...] = ()
    """The rounds of retries, in their order."""


@dataclass(frozen=True, slots=True)
class ObjectNote:
    """A media object that a person should know of, and why."""

    media_uri: str
    status: str
    reason_code: str
    reason: str


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of the objects of a batch; None in ``counts`` where its merge wrote nothing."""

    name: str
    counts: Mapping[str, Mapping[str, int]] | None
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: tuple[ObjectNote, ...] = ()
    segments: int = 0
    submitted: int = 0
    adopted: int = 0
    reused: int = 0
    lost_answers: int = 0
    retried: frozenset[str] = frozenset()
    """The URIs of objects that were tried again: what earlier results say of them no longer holds."""
    spent_usd: Mapping[str, float] = field(default_factory=dict)
    """By media type, what the run has spent on them."""
    unsettled_usd: float = 0.0
    """How much of it is an estimate, since the invocations have not ended."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A person has not approved what a run would have spent."""

    usd: float
    """What it would have."""
    by: str | None = None
    """Who said no; None where nobody answered in time."""

    @property
    def notice(self) -> str:
        """Return what the report says of it."""
        cost = f"the estimated cost of {self.usd:.2f} USD"
        said = f"{self.by} rejected {cost}" if self.by else f"nobody approved {cost} in time"
        return f"{said}: nothing was submitted. Clear approve_cost to be asked again; the next run asks as well"


@dataclass(frozen=True, slots=True)
class Report:
    """The run report, as it stands in ``report.json``: the books of the library's model, and beside them those of each model.

    ``balanced``, ``succeeded``, ``problems`` and ``notices`` are those of the whole run.
    """

    library: str
    run_id: str
    model: str
    dry_run: bool
    force: bool
    balanced: bool
    succeeded: bool
    listed: int
    gone: int
    excluded: int
    totals: dict[str, int]
    by_media_type: dict[str, dict[str, int]]
    reasons: dict[str, dict[str, int]]
    segments: int
    submitted: int
    adopted: int
    """Invocations that were started earlier, or by another run at the same moment."""
    reused: int
    """Outputs that were there already."""
    lost_answers: int
    """Calls of InvokeModel that may have been made and of which no answer is there: each may be paid for as well."""
    recovered: int
    """Objects among the unchanged whose rows were there already, though the ledger did not say so."""
    retried: int
    """Further attempts within the run."""
    batches: int
    problems: tuple[str, ...]
    """Why the run failed, or what else a person should look at."""
    notices: tuple[str, ...]
    """What a person should know, though it failed nothing."""
    notes: tuple[ObjectNote, ...]
    estimates: Estimates = field(default_factory=Estimates)
    """What the plan was to cost."""
    spent_usd: dict[str, float] = field(default_factory=dict)
    """What was spent, by media type."""
    unsettled_usd: float = 0.0
    """How much of that is an estimate, since the invocations have not ended."""
    models: tuple[Report, ...] = ()
    """Of a run with two models, the report of each by itself."""
    crossing: Crossing | None = None
    """How far the crossing to the next model is; None in a run with one model."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; ``models`` holds the books of every model of the run by its name."""
        value = asdict(replace(self, models=()))
        value["models"] = {one.model: one._books() for one in self.models or (self,)}
        if self.crossing is not None:
            value["crossing"] |= {
                name: getattr(self.crossing, name) for name in ("taken", "remaining", "has_caught_up")
            }
        return value

    def _books(self) -> dict[str, Any]:
        value = asdict(replace(self, models=()))
        return {name: value[name] for name in value if name not in _OF_THE_RUN}


def make_report(
    listing: Listing,
    plan: Plan,
    results: Sequence[BatchResult],
    *,
    max_failed_share: float,
    refusal: Refusal | None = None,
    notices: Sequence[str] = (),
) -> Report:
    """Balance the books of a run.

    ``problems`` is empty exactly when the run succeeded: every source was listed, every batch was merged, the books
    balance, and of the attempted objects at most ``max_failed_share``, and not all, failed or were left unfinished.

    :param refusal: if a person has not approved the costs: batches that were not merged were not submitted then.
    :param notices: what a person should know beside what the plan says.
    """
    if refusal is not None:
        results = [result for result in results if result.counts is not None]
        notices = (*notices, refusal.notice)
    by_media_type = _by_media_type(plan, results)
    totals = {str(status): sum(counts.get(status, 0) for counts in by_media_type.values()) for status in Status}
    balanced = sum(totals.values()) == listing.objects + plan.gone
    problems = [*plan.problems, *_problems(results, totals, max_failed_share)]
    if not balanced:
        problems.append(
            f"the books do not balance: {listing.objects} listed and {plan.gone} gone, but {sum(totals.values())} "
            "accounted for; nothing was undone, please report this as a defect with the run's report.json"
        )
    return Report(
        library=plan.library,
        run_id=plan.run_id,
        model=plan.model,
        dry_run=plan.dry_run,
        force=plan.force,
        balanced=balanced,
        succeeded=not problems,
        listed=listing.objects,
        gone=plan.gone,
        excluded=listing.excluded,
        totals=totals,
        by_media_type=by_media_type,
        reasons=_reasons(plan, results, _unmerged(plan, results) if refusal else 0),
        segments=sum(result.segments for result in results),
        submitted=sum(result.submitted for result in results),
        adopted=sum(result.adopted for result in results),
        reused=sum(result.reused for result in results),
        lost_answers=sum(result.lost_answers for result in results),
        recovered=plan.recovered,
        retried=sum(len(result.retried) for result in results),
        batches=sum(bool(result.name) for result in results),
        problems=tuple(problems),
        notices=(*plan.notices, *notices),
        notes=_notes(plan, results),
        estimates=plan.estimates,
        spent_usd=_spent(results),
        unsettled_usd=sum(result.unsettled_usd for result in results),
    )


def joined(report: Report, next_report: Report, *, is_whole: bool) -> Report:
    """Return the report of a run with two models.

    :param is_whole: whether the whole library was listed.
    """
    of_next = [one for one in next_report.problems if one not in report.problems]
    return replace(
        report,
        balanced=report.balanced and next_report.balanced,
        succeeded=report.succeeded and next_report.succeeded,
        problems=(*report.problems, *(f"{next_report.model}: {one}" for one in of_next)),
        notices=tuple(dict.fromkeys((*report.notices, *next_report.notices))),
        models=(report, next_report),
        crossing=Crossing.of_books(
            (report.model, next_report.model),
            report.totals,
            next_report.totals,
            next_report.listed,
            is_whole=is_whole,
            remaining_cost_usd=next_report.estimates.usd_of(next_report.totals[Status.DEFERRED]),
        ),
    )


def _spent(results: Sequence[BatchResult]) -> dict[str, float]:
    spent: dict[str, float] = {}
    for result in results:
        for media_type, usd in result.spent_usd.items():
            spent[media_type] = spent.get(media_type, 0.0) + usd
    return spent


def _unmerged(plan: Plan, results: Sequence[BatchResult]) -> int:
    """Return how many planned objects no merge has accounted for."""
    planned = sum(by_status.get(PLANNED, 0) for by_status in plan.counts.values())
    return planned - sum(n for result in results for counts in (result.counts or {}).values() for n in counts.values())


def _by_media_type(plan: Plan, results: Sequence[BatchResult]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for media_type, by_status in plan.counts.items():
        counts[media_type] = Counter({status: n for status, n in by_status.items() if status != PLANNED})
        merged = Counter[str]()
        for result in results:
            merged.update((result.counts or {}).get(media_type, {}))
        counts[media_type].update(merged)
        # What no merge accounts for is not lost: its request ids stand in the plan, and the next run goes on with them.
        unmerged = by_status.get(PLANNED, 0) - merged.total()
        counts[media_type][Status.DEFERRED] += unmerged
    return {media_type: dict(+by_status) for media_type, by_status in counts.items()}


def _problems(results: Sequence[BatchResult], totals: Mapping[str, int], max_failed_share: float) -> Iterable[str]:
    unmerged = [result.name for result in results if result.counts is None]
    if unmerged:
        yield (
            f"{len(unmerged)} batches were not merged ({', '.join(unmerged[:10])}); see their tasks' logs. What was "
            "submitted is kept: clear those tasks, or let the next run go on with it"
        )
    failed, unfinished = _attempted_without_success(results)
    attempted = totals[Status.EMBEDDED] + failed + unfinished
    lost = failed + unfinished
    if lost and lost == attempted:
        yield f"none of {attempted} attempted objects was embedded: {failed} failed, {unfinished} were not finished"
    elif lost > max_failed_share * attempted:
        yield (
            f"of {attempted} attempted objects {failed} failed and {unfinished} were not finished, more than "
            f"max_failed_share {max_failed_share:g} allows; what succeeded is committed"
        )


def _attempted_without_success(results: Sequence[BatchResult]) -> tuple[int, int]:
    total = Counter[str]()
    for result in results:
        for by_status in (result.counts or {}).values():
            total.update(by_status)
    return total[Status.FAILED], total[Status.DEFERRED]


def _reasons(plan: Plan, results: Sequence[BatchResult], not_approved: int) -> dict[str, dict[str, int]]:
    reasons: dict[str, Counter[str]] = {}
    if not_approved:
        reasons[Status.DEFERRED] = Counter({ReasonCode.NOT_APPROVED: not_approved})
    for source in (plan.reasons, *(result.reasons for result in results)):
        for status, by_code in source.items():
            reasons.setdefault(status, Counter()).update(by_code)
    return {status: dict(sorted((+by_code).items())) for status, by_code in sorted(reasons.items()) if +by_code}


def _notes(plan: Plan, results: Sequence[BatchResult]) -> tuple[ObjectNote, ...]:
    notes = [ObjectNote(**note) for note in plan.news]
    for result in results:
        notes = [note for note in notes if note.media_uri not in result.retried]
        notes.extend(result.notes)
    return tuple(notes[:_SHOWN])


def read_batch_result(storage: Storage, folder: BatchFolder, *, retried: bool = False) -> BatchResult:
    """Read what the merge of a batch wrote of its objects.

    :param retried: whether they were tried before in the same run.
    """
    try:
        rows = pq.read_table(pa.BufferReader(storage.read(folder.outcomes_uri))).to_pylist()
    except ObjectNotFoundError:
        return BatchResult(folder.name, None)
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    notes: list[ObjectNote] = []
    for row in rows:
        counts.setdefault(row["media_type"], Counter())[row["status"]] += 1
        if row["reason_code"] is not None:
            reasons.setdefault(row["status"], Counter())[row["reason_code"]] += 1
            notes.append(ObjectNote(row["media_uri"], row["status"], row["reason_code"], row["reason"]))
    spent: dict[str, float] = {}
    for row in rows:
        spent[row["media_type"]] = spent.get(row["media_type"], 0.0) + (row.get("spent_usd") or 0.0)
    return BatchResult(
        name=folder.name,
        counts=counts,
        reasons=reasons,
        notes=tuple(notes[:_SHOWN]),
        segments=sum(row["segments"] for row in rows),
        submitted=sum(row["started"] for row in rows),
        adopted=sum(row["adopted"] for row in rows),
        reused=sum(row["reused"] for row in rows),
        lost_answers=sum(row.get("lost_answers") or 0 for row in rows),
        retried=frozenset(row["media_uri"] for row in rows) if retried else frozenset(),
        spent_usd=spent,
        unsettled_usd=sum(row.get("unsettled_usd") or 0.0 for row in rows),
    )


def report_run(
    storage: Storage,
    library: Library,
    folder: RunFolder,
    listing: dict[str, Any],
    plan_uri: str,
    round_uris: Sequence[str] = (),
    *,
    next_model: PlannedModel | None = None,
    problems: Sequence[str] = (),
    refusal: Refusal | None = None,
) -> Report:
    """Balance the books of a run from what its tasks wrote, write the report, and log it.

    :param round_uris: the rounds of retries that were planned, in their order.
    :param next_model: what was planned for the model that the library crosses to; None where nothing was.
    :param problems: why else the run has failed.
    :param refusal: if a person was asked, and has not approved the costs.
    """
    listed = Listing.from_dict(listing)

    def books(planned: PlannedModel) -> Report:
        plan = Plan.read(storage, planned.plan_uri)
        rounds = [RetryRound.read(storage, uri) for uri in planned.round_uris]
        return make_report(
            listed,
            plan,
            _read_results(storage, plan, rounds),
            max_failed_share=library.max_failed_share,
            refusal=refusal,
            notices=[notice for made in rounds for notice in made.notices],
        )

    report = books(PlannedModel(plan_uri, tuple(round_uris)))
    if next_model is not None:
        report = joined(report, books(next_model), is_whole=not listed.filtered)
    if problems:
        report = replace(report, succeeded=False, problems=(*report.problems, *problems))
    logger.info("%s", write_report(storage, folder, report))
    return report


def committed_by(storage: Storage, plan_uri: str, round_uris: Sequence[str] = ()) -> dict[str, int] | None:
    """Return how many objects and segments a run has committed and how many objects it deleted, or None if nothing."""
    plan = Plan.read(storage, plan_uri)
    results = _read_results(storage, plan, [RetryRound.read(storage, uri) for uri in round_uris])
    objects = sum(
        by_status.get(Status.EMBEDDED, 0) for result in results for by_status in (result.counts or {}).values()
    )
    deleted = sum(by_status.get(Status.DELETED, 0) for by_status in plan.counts.values())
    segments = sum(result.segments for result in results)
    return {"objects": objects, "segments": segments, "deleted": deleted} if objects or deleted else None


def _read_results(storage: Storage, plan: Plan, rounds: Sequence[RetryRound]) -> list[BatchResult]:
    folders = [BatchFolder.of_manifest(manifest_uri) for manifest_uri in plan.all_manifests]
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        results = list(pool.map(lambda folder: read_batch_result(storage, folder), folders))
        for made in rounds:
            again = [BatchFolder.of_manifest(manifest_uri) for manifest_uri in made.all_manifests]
            for failed, result in zip(
                made.failed,
                pool.map(lambda folder: read_batch_result(storage, folder, retried=True), again),
                strict=True,
            ):
                results += [result] if result.counts is None else [_taken_back(failed), result]
    return results


def _taken_back(failed: Mapping[str, Mapping[str, int]]) -> BatchResult:
    """Return what takes failures out of the books that another attempt has replaced."""
    reasons = Counter[str]()
    for by_reason in failed.values():
        reasons.subtract(by_reason)
    counts = {media_type: {str(Status.FAILED): -sum(codes.values())} for media_type, codes in failed.items()}
    return BatchResult("", counts, {str(Status.FAILED): reasons})


def write_report(storage: Storage, folder: RunFolder, report: Report) -> str:
    """Write the report as JSON and Markdown below the run's folder and return the Markdown."""
    text = as_markdown(report)
    storage.write_json(folder.report_uri, report.as_dict())
    storage.write(folder.report_markdown_uri, text.encode(), content_type="text/markdown; charset=utf-8")
    return text


def as_markdown(report: Report) -> str:
    """Return the report for people."""
    names = (
        f"model {report.model}" if not report.models else "models " + " and ".join(one.model for one in report.models)
    )
    run = f"Run `{report.run_id}`{' (dry run)' if report.dry_run else ''}{' (forced)' if report.force else ''}: " + (
        "succeeded" if report.succeeded else "**failed**"
    )
    lines = [f"# Run report: library {report.library}, {names}", ""]
    if not report.models:
        lines += [f"{run}. {_headline(report)}", "", *_problem_lines(report), *_model_lines(report, "##")]
    else:
        lines += [f"{run}.", "", *_problem_lines(report), *_crossing_lines(report)]
        earlier_usd = 0.0
        for one in report.models:
            lines += [f"## {one.model}", "", _headline(one), "", *_model_lines(one, "###", earlier_usd)]
            earlier_usd += sum(one.spent_usd.values())
    return "\n".join(lines)


def _model_lines(report: Report, heading: str, earlier_usd: float = 0.0) -> Iterable[str]:
    """Yield the books of a model.

    :param earlier_usd: what the run has spent on the models before it.
    """
    yield from _books(report)
    yield ""
    yield from _cost_lines(report, heading, earlier_usd)
    yield (
        f"listed {report.listed} + gone {report.gone} = "
        + " + ".join(f"{status} {report.totals[status]}" for status in Status)
        + (" (balanced)" if report.balanced else " (**does not balance**)")
    )
    yield ""
    yield from _note_lines(report, heading)


def _crossing_lines(report: Report) -> Iterable[str]:
    if report.crossing is not None:
        yield f"## Crossing to {report.crossing.next_model}"
        yield ""
        yield from (f"- {sentence}" for sentence in report.crossing.sentences())
        yield ""


def _headline(report: Report) -> str:
    if report.dry_run:
        pending = report.reasons.get(Status.DEFERRED, {}).get(ReasonCode.DRY_RUN, 0)
        return f"It would embed {pending} objects; nothing was submitted."
    left = report.reasons.get(Status.DEFERRED, {})
    if report.batches == 0 and ReasonCode.NOT_APPROVED in left:
        return f"{left[ReasonCode.NOT_APPROVED]} objects wait for approval of their cost; nothing was submitted."
    if report.batches == 0 and ReasonCode.BUDGET in left:
        return f"The budget left all {left[ReasonCode.BUDGET]} objects to later runs; nothing was submitted."
    if report.batches == 0:
        return "Nothing had to be embedded: nothing was submitted." + ("" if report.notes else " No table was touched.")
    return (
        f"{report.totals[Status.EMBEDDED]} objects were embedded in {report.segments} segments; {report.submitted} "
        f"invocations were submitted and {report.adopted} earlier ones adopted, in {report.batches} batches."
        + (f" {report.reused} outputs were there already and were reused." if report.reused else "")
        + (f" {report.lost_answers} answers were lost, which may be paid for as well." if report.lost_answers else "")
        + (f" {report.retried} objects were tried again in the run." if report.retried else "")
        + (f" {report.recovered} objects had their rows already; the ledger says so now." if report.recovered else "")
    )


def _problem_lines(report: Report) -> Iterable[str]:
    if report.problems or report.notices:
        yield "## What to look at"
        yield ""
        yield from (f"- {one}" for one in (*report.problems, *report.notices))
        yield ""


def _cost_lines(report: Report, heading: str, earlier_usd: float) -> Iterable[str]:
    if report.estimates.by_media_type or report.spent_usd:
        yield f"{heading} Cost"
        yield ""
        yield from estimate_lines(report.estimates)
        yield ""
        yield from spending_lines(report.spent_usd, report.unsettled_usd, report.estimates, earlier_usd)
        yield ""


def _books(report: Report) -> Iterable[str]:
    shown = [status for status in Status if report.totals[status]]
    yield table_row("media type", *shown, "total")
    yield "|---" * (len(shown) + 2) + "|"
    for media_type, counts in report.by_media_type.items():
        yield table_row(media_type, *(counts.get(status, 0) for status in shown), sum(counts.values()))
    yield table_row("all", *(report.totals[status] for status in shown), sum(report.totals.values()))
    if report.excluded:
        yield ""
        yield f"{report.excluded} more objects lie below the sources; the library's settings leave them out."


def _note_lines(report: Report, heading: str) -> Iterable[str]:
    if report.reasons:
        yield f"{heading} Reasons"
        yield ""
        for status, by_code in report.reasons.items():
            yield f"- {status}: " + ", ".join(f"{code} {number}" for code, number in by_code.items())
        yield ""
    if report.notes:
        yield f"{heading} Objects"
        yield ""
        yield from (f"- `{note.media_uri}` {note.status} ({note.reason_code}): {note.reason}" for note in report.notes)
        yield ""
