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


def make_report(listing: Listing, plan: Plan, results: Sequence[BatchResult], *, max_failed_share: float) -> Report:
    """Balance the books of a run.

    ``problems`` is empty exactly when the run succeeded: every source was listed, every batch was merged, the books
    balance, and of the attempted objects at most ``max_failed_share``, and not all, failed or were left unfinished.
    """
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
        reasons=_reasons(plan, results),
        segments=sum(result.segments for result in results),
        submitted=sum(result.submitted for result in results),
        adopted=sum(result.adopted for result in results),
        reused=sum(result.reused for result in results),
        lost_answers=sum(result.lost_answers for result in results),
        recovered=plan.recovered,
        retried=sum(len(result.retried) for result in results),
        batches=sum(bool(result.name) for result in results),
        problems=tuple(problems),
        notices=plan.notices,
        notes=_notes(plan, results),
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
        ),
    )


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


def _reasons(plan: Plan, results: Sequence[BatchResult]) -> dict[str, dict[str, int]]:
    reasons: dict[str, Counter[str]] = {}
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
) -> Report:
    """Balance the books of a run from what its tasks wrote, write the report, and log it.

    :param round_uris: the rounds of retries that were planned, in their order.
    :param next_model: what was planned for the model that the library crosses to; None where nothing was.
    :param problems: why else the run has failed.
    """
    listed = Listing.from_dict(listing)

    def books(planned: PlannedModel) -> Report:
        plan = Plan.read(storage, planned.plan_uri)
        results = _read_results(storage, plan, planned.round_uris)
        return make_report(listed, plan, results, max_failed_share=library.max_failed_share)

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
    results = _read_results(storage, plan, round_uris)
    objects = sum(
        by_status.get(Status.EMBEDDED, 0) for result in results for by_status in (result.counts or {}).values()
    )
    deleted = sum(by_status.get(Status.DELETED, 0) for by_status in plan.counts.values())
    segments = sum(result.segments for result in results)
    return {"objects": objects, "segments": segments, "deleted": deleted} if objects or deleted else None


def _read_results(storage: Storage, plan: Plan, round_uris: Sequence[str]) -> list[BatchResult]:
    folders = [BatchFolder.of_manifest(manifest_uri) for manifest_uri in plan.all_manifests]
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        results = list(pool.map(lambda folder: read_batch_result(storage, folder), folders))
        for uri in round_uris:
            made = RetryRound.read(storage, uri)
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
        for one in report.models:
            lines += [f"## {one.model}", "", _headline(one), "", *_model_lines(one, "###")]
    return "\n".join(lines)


def _model_lines(report: Report, heading: str) -> Iterable[str]:
    yield from _books(report)
    yield ""
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


def _books(report: Report) -> Iterable[str]:
    shown = [status for status in Status if report.totals[status]]
    yield _row("media type", *shown, "total")
    yield "|---" * (len(shown) + 2) + "|"
    for media_type, counts in report.by_media_type.items():
        yield _row(media_type, *(counts.get(status, 0) for status in shown), sum(counts.values()))
    yield _row("all", *(report.totals[status] for status in shown), sum(report.totals.values()))
    if report.excluded:
        yield ""
        yield f"{report.excluded} more objects lie below the sources; the library's settings leave them out."


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


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
