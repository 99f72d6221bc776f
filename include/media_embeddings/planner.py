"""Makes the plan of a run: reads listing and ledger, has every object decided, and writes the batches to be started."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from media_embeddings.batches import write_batch
from media_embeddings.cost_tables import estimate_lines
from media_embeddings.costing import with_costs
from media_embeddings.costs import Estimates
from media_embeddings.deleting import delete_objects
from media_embeddings.deletions import DeletionPolicy, Deletions, decide_deletions
from media_embeddings.headers.checks import check_headers
from media_embeddings.identity import COLUMN_PARAMETER, bedrock_parameters, canonical_parameters
from media_embeddings.ledger import LedgerEntry, ledger_table
from media_embeddings.library import DeletionMode, Library, UnconfirmedLimits
from media_embeddings.listing import UNSUPPORTED, Listing
from media_embeddings.media import MediaType, Processing
from media_embeddings.model_lifecycle import check_models
from media_embeddings.models import model_named
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.planned_texts import ReadTexts, read_texts
from media_embeddings.planning import (
    Batch,
    Decisions,
    PlannedObject,
    Purpose,
    SettledObject,
    Status,
    as_dry_run,
    cut_batches,
    decide,
)
from media_embeddings.processing import MediaSource, with_processing
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.recovery import RecoveredObject, Recovery, recover, with_finished_parts
from media_embeddings.request_bodies import request_body
from media_embeddings.run_folder import PlanFolder, RunFolder
from media_embeddings.schemas import LEDGER_SCHEMA, columns_of
from media_embeddings.storage import Storage, join_uri
from media_embeddings.tables import Tables
from media_embeddings.texts.kept_texts import KeptTexts

logger = logging.getLogger(__name__)

# Rows are dictionaries for a moment, and a budget may leave out millions.
_ENTRIES_AT_ONCE = 20_000
_LEDGER_COLUMNS = (
    "media_uri",
    "media_type",
    "status",
    "reason_code",
    "reason",
    "attempts",
    "etag",
    "parameters",
    "request_id",
    "run_id",
    "updated_at",
    "first_seen_at",
)
# Of few values, so that a copy of the ledger holds each of them once.
_REPEATED = ["media_type", "status", "reason_code", "reason", "parameters", "run_id"]
Counts = dict[str, dict[str, int]]
"""Objects by media type and status."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run: what is settled without Bedrock, and the batches that are to be embedded."""

    library: str
    model: str
    run_id: str
    plan_id: str
    counts: Counts
    """Objects that the plan itself settled, by media type and status; ``planned`` are those in batches."""
    reasons: dict[str, dict[str, int]]
    """Settled objects by status and reason code."""
    listed_at: str
    """When the listing was begun, in ISO 8601."""
    gone: int
    recovered: int
    """Objects among the unchanged whose rows the table had, though the ledger did not say so."""
    batches: tuple[str, ...]
    manifests: tuple[str, ...]
    """Those of the batches that go through StartAsyncInvoke."""
    problems: tuple[str, ...]
    """What a person should look at: sources that could not be listed."""
    notices: tuple[str, ...]
    """What a person should know, though nothing failed."""
    news: tuple[dict[str, str], ...]
    """The first settled objects that the ledger did not know yet, with reason."""
    dry_run: bool
    force: bool
    estimates: Estimates = field(default_factory=Estimates)
    """What the plan costs; of a dry run, what it would."""
    invoke_manifests: tuple[str, ...] = ()
    """Those of the batches that go through InvokeModel."""

    @property
    def all_manifests(self) -> tuple[str, ...]:
        """Return the manifests of all batches, whichever way they go."""
        return (*self.manifests, *self.invoke_manifests)

    @property
    def planned(self) -> int:
        """Return how many objects are in its batches."""
        return sum(by_status.get(PLANNED, 0) for by_status in self.counts.values())

    @classmethod
    def read(cls, storage: Storage, uri: str) -> Plan:
        """Read the plan that lies at ``uri``."""
        # A run that was begun by an earlier version goes on.
        value = {"invoke_manifests": (), **storage.read_json(uri)}
        for name in ("batches", "manifests", "invoke_manifests", "problems", "notices", "news"):
            value[name] = tuple(value[name])
        value["estimates"] = Estimates.from_dict(value.get("estimates"))
        return cls(**value)


def cost_of(plan: Plan) -> dict[str, Any]:
    """Return what a person has to know who approves a plan: small enough for an XCom."""
    # A dry run spends nothing, whatever it says that another one would.
    usd = 0.0 if plan.dry_run else plan.estimates.usd
    return {"usd": usd, "text": "\n".join([f"Model {plan.model}:", "", *estimate_lines(plan.estimates)])}


PLANNED = "planned"
_NEWS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a person may set for one run."""

    model: str | None = None
    force: bool = False
    limit: int | None = None
    dry_run: bool = False
    retry_failed: bool = False
    release: tuple[str, ...] = ()
    planned_usd: float = 0.0
    """What other plans of the same run are going to spend: they share its budget."""


def make_plan(
    storage: Storage,
    library: Library,
    run_id: str,
    listing: Listing,
    options: PlanOptions,
    *,
    before: Plan | None = None,
    today: date | None = None,
) -> tuple[Plan, str]:
    """Make a plan of a run, write it below the work prefix, and return it with its URI.

    A run has one plan for each of its models. What the plan itself settles for the first time (rejected objects, unreadable
    texts and headers) goes to the ledger here, in one commit, unless it is a dry run. Making the same plan again writes the
    same files again.

    :param before: the plan of the library's own model, where this one is for the model that the library crosses to. It gets
        what that one leaves of the limit and of the batches, deletes nothing, and is never forced: what the next model has
        is not paid for again because its predecessor's rows are wanted anew.
    :param today: the day by which the model's end is judged, in UTC; None takes it from the clock.
    :raises ModelEndedError: if AWS has ended the model.
    """
    model = _model(library, options)
    warnings = check_models(library, [model.name], today)
    tables = Tables(library.tables, storage.table_options)
    purpose = _purpose(library, model, run_id, options, before)
    policy = _deletion_policy(library, run_id, listing, options, before)
    complete_below = () if listing.filtered else library.sources
    with tempfile.TemporaryDirectory() as directory:
        listed, known = Path(directory) / "listing.parquet", Path(directory) / "ledger.parquet"
        storage.download(listing.uri, listed)
        _copy_ledger(tables, model.name, library.sources, known)
        decisions = decide(listed, known, purpose)
        deletions = decide_deletions(listed, known, complete_below, policy)
    outputs_uri = join_uri(library.work, "outputs")
    found = recover(storage, tables, model.name, outputs_uri, decisions.planned)
    decisions = _with_recovered(decisions, found)
    with tempfile.TemporaryDirectory() as directory, KeptTexts(Path(directory) / "texts.sqlite") as texts:
        decisions = _with_read(decisions, read_texts(storage, library, model.text_limits, decisions.planned, texts))
        planned = with_finished_parts(storage, tables, model.name, outputs_uri, decisions.planned)
        checks = check_headers(storage, purpose, tuple(planned))
        decisions = replace(decisions, planned=checks.planned, settled=(*decisions.settled, *checks.settled))
        # The tasks of a model that a run names are those of the library's own.
        has_tasks = before is not None or bool(library.invoked_media_types())
        invoked = library.invoked_media_types(model) if has_tasks else frozenset()
        decisions = replace(decisions, planned=with_processing(decisions.planned, invoked, library.media_source))
        costed = with_costs(
            tables,
            library,
            model,
            run_id,
            decisions,
            now=datetime.now(UTC),
            planned_usd=options.planned_usd + (before.estimates.usd if before else 0.0),
        )
        decisions = as_dry_run(costed.decisions) if options.dry_run else costed.decisions

        batches = cut_batches(decisions.planned, library.batch_size, _most_batches(library, model, before))
        folder = RunFolder(library.work, library.name, run_id).plan(_plan_id(model, batches))
        for batch in batches:
            lines = (line for one in batch.objects for line in _request_lines(library, purpose, one, texts))
            write_batch(storage, folder.batch(batch.name), batch.objects, lines, listing.listed_at)
    if not options.dry_run:
        _record_news(tables, library, purpose, decisions.settled, listing.listed_at)
        _record_recovered(tables, library, purpose, found.recovered, listing.listed_at)
        delete_objects(tables, model.name, deletions.uris, run_id=run_id, listed_at=listing.listed_at)
    notices = (*warnings, *checks.notices, *costed.notices)
    plan = _summary(
        library, purpose, folder, listing, decisions, batches, deletions, notices, recovered=len(found.recovered)
    )
    plan = replace(plan, estimates=costed.estimates)
    storage.write_json(folder.plan_uri, asdict(plan))
    logger.info("the plan costs\n%s", "\n".join(estimate_lines(plan.estimates)))
    return plan, folder.plan_uri


def _model(library: Library, options: PlanOptions) -> EmbeddingModel:
    if options.model is None or options.model == library.model:
        return library.embedding_model
    model = model_named(options.model)
    if not library.is_served(model):
        raise ValueError(
            f"the parameter model, {model.name}, has no StartAsyncInvoke in {library.region}, the region of library "
            f"{library.name}; it has in {', '.join(library.regions_of(model))}"
        )
    return model


def _purpose(
    library: Library, model: EmbeddingModel, run_id: str, options: PlanOptions, before: Plan | None
) -> Purpose:
    return Purpose(
        tables=library.tables,
        model=model,
        parameters={
            media_type: canonical_parameters(library.parameters(media_type, model))
            for media_type in library.media_types
            if media_type in model.media_types
        },
        table_parameters=_table_parameters(library, model),
        run_id=run_id,
        force=options.force and before is None,
        limit=options.limit if options.limit is None or before is None else max(0, options.limit - before.planned),
        dry_run=options.dry_run,
        max_attempts=library.max_attempts,
        retry_failed=options.retry_failed,
        release=tuple(options.release),
        reads_headers=library.read_headers,
        rejects_unconfirmed=library.unconfirmed_limits is UnconfirmedLimits.REJECT,
    )


def _deletion_policy(
    library: Library, run_id: str, listing: Listing, options: PlanOptions, before: Plan | None
) -> DeletionPolicy:
    return DeletionPolicy(
        # What the plan before has deleted is counted as such; to decide again, by the shares of another ledger, could delete
        # what it has refused to.
        mode=library.deletions if before is None else DeletionMode.OFF,
        max_deleted_share=library.max_deleted_share,
        run_id=run_id,
        listed_at=listing.listed_at,
        now=datetime.now(UTC),
        dry_run=options.dry_run,
    )


def _most_batches(library: Library, model: EmbeddingModel, before: Plan | None) -> int:
    """Return how many batches a plan may have: the two of a library that crosses share them.

    The first may take half of them, since it can't know what the second needs, and the second takes what is left.
    """
    if before is not None:
        return max(1, library.max_batches - len(before.batches))
    crosses = len(library.models_of_run(model.name)) > 1
    return max(1, library.max_batches // 2) if crosses else library.max_batches


def _table_parameters(library: Library, model: EmbeddingModel) -> str | None:
    """Return the parameters of texts in tables, of which the model is sent one column."""
    is_embedded = MediaType.TEXT in library.media_types and MediaType.TEXT in model.media_types
    is_sent = is_embedded and not model.text_limits.is_read_from_s3
    if library.text_column is None or not is_sent:
        return None
    return canonical_parameters({**library.parameters(MediaType.TEXT, model), COLUMN_PARAMETER: library.text_column})


def _copy_ledger(tables: Tables, model_name: str, sources: Sequence[str], path: Path) -> None:
    schema = columns_of(LEDGER_SCHEMA, _LEDGER_COLUMNS)
    with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=_REPEATED, write_statistics=False) as writer:
        tables.copy_ledger(model_name, sources, writer.write_table, _LEDGER_COLUMNS)


def _with_recovered(decisions: Decisions, found: Recovery) -> Decisions:
    unchanged = Counter(decisions.unchanged)
    unchanged.update(str(one.planned.media.media_type) for one in found.recovered)
    return replace(decisions, planned=found.planned, unchanged=dict(unchanged))


def _with_read(decisions: Decisions, read: ReadTexts) -> Decisions:
    """Return decisions without the texts that can't be read, which are settled: as rejected where there are none in them."""
    unreadable = [_failed(one, reason) for one, reason in read.unreadable]
    return replace(decisions, planned=read.planned, settled=(*decisions.settled, *unreadable))


def _failed(planned: PlannedObject, reason: Reason) -> SettledObject:
    media = planned.media
    return SettledObject(
        media_uri=media.uri,
        media_type=media.media_type,
        status=Status.REJECTED if reason.code is ReasonCode.EMPTY_OBJECT else Status.FAILED,
        reason=reason,
        etag=media.etag,
        size_bytes=media.size_bytes,
        last_modified=media.last_modified,
        embedding_key=planned.embedding_key,
        attempts=planned.attempt,
        is_news=True,
    )


def _plan_id(model: EmbeddingModel, batches: Sequence[Batch]) -> str:
    """Name a plan by its model and content: the empty plans of two models are two plans."""
    digest = hashlib.sha256(model.name.encode())
    for batch in batches:
        digest.update(f"{batch.name} {batch.processing}".encode())
        for one in batch.objects:
            for part in one.requests:
                digest.update(part.request_id.encode())
    return digest.hexdigest()[:16]


def _request_lines(library: Library, purpose: Purpose, planned: PlannedObject, texts: KeptTexts) -> Iterator[str]:
    """Yield a line for each request of an object."""
    media = planned.media
    text = texts.text(planned.request_id) if planned.parts else None
    is_image = media.media_type is MediaType.IMAGE
    is_sent = is_image and planned.processing is Processing.SYNC and library.media_source is MediaSource.BASE64
    for part in planned.requests:
        body = request_body(
            purpose.model,
            media,
            bedrock_parameters(planned.parameters),
            library.bucket_owner,
            text=None if text is None else text[part.start_char : part.end_char],
            with_content=is_sent,
        )
        request = {
            "request_id": part.request_id,
            "model_input": body.model_input,
            "output_uri": join_uri(library.work, "outputs", part.request_id),
            "source_uri": media.uri,
            "source_etag": media.etag,
            # The best estimate of the duration that a listing gives: the longest job should not start last.
            "priority": media.size_bytes // len(planned.requests),
        }
        if part.finished_output_uri is not None:
            request["finished_output_uri"] = part.finished_output_uri
        if body.content_member is not None:
            request["content_member"] = list(body.content_member)
        yield json.dumps(request, ensure_ascii=False) + "\n"


def _record_news(
    tables: Tables, library: Library, purpose: Purpose, settled: Iterable[SettledObject], listed_at: datetime
) -> None:
    now = datetime.now(UTC)
    news = [one for one in settled if one.is_news]
    parts = [
        ledger_table([_news(one, library, purpose, now) for one in news[start : start + _ENTRIES_AT_ONCE]])
        for start in range(0, len(news), _ENTRIES_AT_ONCE)
    ]
    if parts:
        commit_id = _commit_id(purpose, ((one.media_uri, one.etag, one.status, one.reason.code) for one in news))
        tables.update_ledger(pa.concat_tables(parts), commit_id, listed_at=listed_at)


def _news(one: SettledObject, library: Library, purpose: Purpose, now: datetime) -> LedgerEntry:
    return LedgerEntry(
        media_uri=one.media_uri,
        model=purpose.model.name,
        media_type=one.media_type,
        status=one.status,
        reason_code=one.reason.code,
        reason=one.reason.message,
        attempts=one.attempts,
        first_seen_at=now,
        etag=one.etag,
        size_bytes=one.size_bytes,
        last_modified=one.last_modified,
        duration_sec=one.duration_sec,
        embedding_key=one.embedding_key,
        request_id=one.request_id,
        estimated_cost_usd=one.estimated_cost_usd,
        parameters=purpose.parameters_of(MediaType(one.media_type), one.media_uri) if one.media_type else None,
        library=library.name,
        run_id=purpose.run_id,
        updated_at=now,
    )


def _record_recovered(
    tables: Tables, library: Library, purpose: Purpose, recovered: Iterable[RecoveredObject], listed_at: datetime
) -> None:
    now = datetime.now(UTC)
    entries = [
        LedgerEntry(
            media_uri=one.planned.media.uri,
            model=purpose.model.name,
            media_type=one.planned.media.media_type,
            status=Status.EMBEDDED,
            attempts=one.planned.attempt,
            first_seen_at=now,
            etag=one.planned.media.etag,
            version_id=one.version_id,
            size_bytes=one.planned.media.size_bytes,
            last_modified=one.planned.media.last_modified,
            duration_sec=one.duration_sec,
            segments=one.segments,
            embedding_key=one.planned.embedding_key,
            request_id=one.request_id,
            invocation_arn=one.invocation_arn,
            parameters=one.planned.parameters,
            library=library.name,
            run_id=purpose.run_id,
            updated_at=now,
        )
        for one in recovered
    ]
    if entries:
        commit_id = _commit_id(purpose, ((one.media_uri, one.etag, one.status, one.reason_code) for one in entries))
        tables.update_ledger(ledger_table(entries), commit_id, listed_at=listed_at)


def _commit_id(purpose: Purpose, said: Iterable[tuple[object, ...]]) -> str:
    """Name a commit by what it says, so that one whose answer was lost is found to have been made.

    :param said: URI, ETag, status and reason code of each object.
    """
    digest = hashlib.sha256(purpose.run_id.encode())
    for line in sorted(" ".join(map(str, one)) for one in said):
        digest.update(line.encode())
    return f"plan-{purpose.model.name}-{digest.hexdigest()[:40]}"


def _manifests(folder: PlanFolder, batches: Iterable[Batch], processing: Processing) -> tuple[str, ...]:
    return tuple(folder.batch(one.name).manifest_uri for one in batches if one.processing is processing)


def _summary(
    library: Library,
    purpose: Purpose,
    folder: PlanFolder,
    listing: Listing,
    decisions: Decisions,
    batches: Sequence[Batch],
    deletions: Deletions,
    notices: Sequence[str],
    *,
    recovered: int,
) -> Plan:
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}

    def count(media_type: str | None, status: str, number: int = 1) -> None:
        counts.setdefault(media_type or UNSUPPORTED, Counter())[status] += number

    for media_type, number in decisions.unchanged.items():
        count(media_type, Status.UNCHANGED, number)
    for media_type, number in deletions.retained.items():
        count(media_type, Status.RETAINED, number)
    for media_type, number in deletions.deleted.items():
        count(media_type, Status.DELETED, number)
    for one in decisions.planned:
        count(one.media.media_type, PLANNED)
    for settled in decisions.settled:
        count(settled.media_type, settled.status)
        reasons.setdefault(settled.status, Counter())[settled.reason.code] += 1
    # What the budget leaves out is news of no single object, and may be most of the library.
    news = [one for one in decisions.settled if one.is_news and one.reason.code is not ReasonCode.BUDGET]
    return Plan(
        library=library.name,
        model=purpose.model.name,
        run_id=purpose.run_id,
        plan_id=folder.uri.rsplit("/", 1)[1],
        counts={media_type: dict(by_status) for media_type, by_status in sorted(counts.items())},
        reasons={status: dict(by_code) for status, by_code in sorted(reasons.items())},
        listed_at=listing.listed_at.isoformat(),
        gone=sum(deletions.retained.values()) + sum(deletions.deleted.values()),
        recovered=recovered,
        batches=tuple(batch.name for batch in batches),
        manifests=_manifests(folder, batches, Processing.ASYNC),
        invoke_manifests=_manifests(folder, batches, Processing.SYNC),
        problems=tuple(f"{failure.source}: {failure.message}" for failure in listing.failures),
        notices=(*notices, *listing.notices, *deletions.notices),
        news=tuple(
            {
                "media_uri": one.media_uri,
                "status": one.status,
                "reason_code": one.reason.code,
                "reason": one.reason.message,
            }
            for one in news[:_NEWS_SHOWN]
        ),
        dry_run=purpose.dry_run,
        force=purpose.force,
    )
