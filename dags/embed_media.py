"""One DAG per library: lists its media, plans, embeds batches through Bedrock, merges, and balances the books."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, CronTriggerTimetable, Param, XComArg, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from bedrock_async_invoke.invoke_operators import BedrockInvokeModelBatchOperator
from bedrock_async_invoke.operators import BedrockStartAsyncInvokeOperator
from bedrock_async_invoke.sensors import BedrockAsyncInvokeSensor
from media_embeddings.configuration import load_configuration
from media_embeddings.library import Library
from media_embeddings.media import MediaType
from media_embeddings.models import model_named, model_names

if TYPE_CHECKING:
    from airflow.sdk.definitions._internal.node import DAGNode

    from media_embeddings.planner import PlanOptions
    from media_embeddings.reporting import PlannedModel, Refusal
    from media_embeddings.storage import Storage

APPROVAL = "approve_cost"
DOCUMENTATION = """
### Embed the media of library `{name}`

Every night the media below {sources} that are new or changed are embedded with `{model}` into the table
`{table}`. A run over an unchanged library submits nothing.
{crossing}
| task | what it does |
|---|---|
| `list_media` | lists the sources; downloads nothing |
| `plan` | compares with the ledger, reads headers, checks limits, estimates the cost, cuts batches |
{approval}| `embed.start_async_invoke` | submits a batch to Bedrock, at most {max_in_flight} invocations in progress at once |
| `embed.wait_for_async_invoke` | waits in the triggerer until the batch has ended |
| `embed.merge_outputs` | checks the outputs and commits the rows, the ledger and the invocations |
{invoke}| `plan_retries_1`, `retry_1` | another attempt at what failed for a reason that may pass; skipped when nothing did |
| `announce_table` | emits the table's Asset event; skipped when no row was committed |
| `report` | balances the books; it alone decides whether the run has failed |

**When it fails**: the log of `report` says why, and which objects failed with which reason; the same report lies as
`report.md` and `report.json` below `{work}/runs/{name}/`. What succeeded is committed. Clear the failed tasks, or let
the next run go on: nothing that was submitted is submitted again. Bedrock can't stop an invocation: it is billed even
when its task is marked as failed.
"""
CROSSING = """
The library crosses to `{next_model}`: `plan_next_model` comes after `plan`, and the tasks whose names end with
`_next_model` embed whatever `{next_model}` does not have yet into `{table}`, with what `plan` leaves of the limit. The report
says how far that is. In a run with another `model`, they are skipped.
"""


INVOKE_DOCUMENTATION = """\
| `invoke_batches` | hands on the batches that need no job |
| `invoke.invoke_model` | sends a batch of {media_types} through InvokeModel, at most {max_concurrent_invokes} calls at once |
| `invoke.merge_outputs` | as `embed.merge_outputs` |
"""


def _invoke_documentation(library: Library) -> str:
    media_types = " and ".join(sorted(f"{one}s" for one in library.invoked_media_types()))
    most = library.max_concurrent_invokes
    return INVOKE_DOCUMENTATION.format(media_types=media_types, max_concurrent_invokes=most) if media_types else ""


def _storage(library: Library) -> Storage:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    from media_embeddings.storage import MOST_CONNECTIONS, Storage

    hook = S3Hook(aws_conn_id=library.aws_conn_id, region_name=library.region)
    # What the connection sets itself stands.
    config = Config(max_pool_connections=MOST_CONNECTIONS).merge(hook.conn_config.botocore_config or Config())
    hook = S3Hook(aws_conn_id=library.aws_conn_id, region_name=library.region, config=config)
    return Storage.of_session(hook.get_session(), hook.get_conn())


def _params(library: Library) -> dict[str, Param]:
    media_types = [str(media_type) for media_type in library.media_types]
    return {
        "prefix": Param(
            None,
            type=["null", "string"],
            title="Prefix",
            description=f"List only what lies below this S3 URI, in {', '.join(library.sources)}. Empty: everything.",
        ),
        "media_types": Param(
            media_types,
            type="array",
            title="Media types",
            description="List only these media types.",
            examples=media_types,
            items={"type": "string", "enum": media_types},
            minItems=1,
        ),
        "limit": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Limit",
            description="Embed at most this many objects; the others are deferred to another run. Empty: no limit.",
        ),
        "model": Param(
            library.model,
            type="string",
            enum=list(model_names()),
            title="Model",
            description="Another model writes into a table of its own: the vectors of two models can't be compared. Nothing "
            "is embedded with the library's next_model then.",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Embed again what is already embedded, with this model alone. This is paid for again.",
        ),
        "retry_failed": Param(
            False,
            type="boolean",
            title="Retry failed",
            description="Try again what failed for good or is quarantined. An attempt at it is paid for.",
        ),
        "release": Param(
            [],
            type="array",
            items={"type": "string", "pattern": "^s3://"},
            title="Release",
            description="S3 URIs or globs: what failed for good or is quarantined and matches is tried again.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Say what would be embedded, and submit nothing.",
        ),
    }


@dataclass(frozen=True, slots=True)
class _Part:
    """The tasks that embed with one model: the run's, or the one that the library crosses to."""

    model: str
    """The name of the model, as an expression of Jinja."""
    suffix: str
    """Ends the names of its groups and tasks."""
    asset: Asset
    """The table that it announces."""
    invokes: bool
    """Whether batches of it may go through InvokeModel."""

    @property
    def plan_id(self) -> str:
        return f"plan{self.suffix}"

    def retries_id(self, number: int) -> str:
        return f"plan_retries_{number}{self.suffix}"


def _parts(library: Library) -> list[_Part]:
    # A table is named by its URI, since two libraries may write the same one.
    parts = [_Part("params.model", "", Asset(library.embeddings_uri), bool(library.invoked_media_types()))]
    if library.next_model is not None:
        asset = Asset(library.embeddings_uri_of(library.next_model))
        invokes = bool(library.invoked_media_types(model_named(library.next_model)))
        parts.append(_Part(repr(library.next_model), "_next_model", asset, invokes))
    return parts


def _planned(library: Library, part: _Part, rounds: int | None = None) -> PlannedModel | None:
    """Return what was planned for a part of the run, or None where there is no plan.

    :param rounds: how many rounds of retries to look at; None for all.
    """
    from media_embeddings.reporting import PlannedModel

    instance = get_current_context()["ti"]
    plan_uri = instance.xcom_pull(task_ids=part.plan_id, key="plan_uri")
    if plan_uri is None:
        return None
    numbers = range(1, (library.retries_in_run if rounds is None else rounds) + 1)
    uris = (instance.xcom_pull(task_ids=part.retries_id(number), key="round_uri") for number in numbers)
    return PlannedModel(plan_uri, tuple(uri for uri in uris if uri is not None))


def _report(library: Library, parts: Iterable[_Part]) -> dict[str, Any]:
    from media_embeddings.reporting import report_run
    from media_embeddings.run_folder import RunFolder

    context = get_current_context()
    folder = RunFolder(library.work, library.name, context["run_id"])
    listing = context["ti"].xcom_pull(task_ids="list_media")
    first, *others = (_planned(library, part) for part in parts)
    if listing is None or first is None:
        unfinished = "list_media" if listing is None else "plan"
        raise AirflowFailException(f"{unfinished} failed, so nothing was submitted; its log says why")
    problems, next_model = [], None
    if len(library.models_of_run(context["params"]["model"])) > 1:
        (next_model,) = others
        if next_model is None:
            problems = [f"plan_next_model failed, so nothing was submitted to {library.next_model}; its log says why"]
    report = report_run(
        *(_storage(library), library, folder, listing, first.plan_uri, first.round_uris),
        next_model=next_model,
        problems=problems,
        refusal=_refusal(context["ti"]),
    )
    if not report.succeeded:
        raise AirflowFailException("; ".join(report.problems))
    return {"report_uri": folder.report_uri, **report.totals}


def _refusal(ti: Any) -> Refusal | None:
    """Return what a person has not approved; None where nobody was asked, or who was has approved."""
    from media_embeddings.reporting import Refusal

    approval = ti.xcom_pull(task_ids=APPROVAL, key="approval")
    return None if approval is None or approval["approved"] else Refusal(approval["usd"], approval["by"])


def _list_media(library: Library) -> dict[str, Any]:
    from media_embeddings import listing
    from media_embeddings.bucket_regions import WrongRegionError
    from media_embeddings.model_lifecycle import ModelEndedError, check_models
    from media_embeddings.run_folder import RunFolder

    context = get_current_context()
    params = context["params"]
    try:
        check_models(library, library.models_of_run(params["model"]))
    except ModelEndedError as error:
        raise AirflowFailException(str(error)) from error
    chosen = [MediaType(name) for name in params["media_types"]]
    folder = RunFolder(library.work, library.name, context["run_id"])
    try:
        return listing.list_media(
            _storage(library),
            library,
            folder.listing_uri,
            prefix=params["prefix"] or None,
            media_types=None if set(chosen) == set(library.media_types) else chosen,
        ).as_dict()
    except (listing.NothingListedError, WrongRegionError) as error:
        raise AirflowFailException(str(error)) from error


def _plan(library: Library, listing: dict[str, Any], **options: Any) -> list[str]:
    from media_embeddings.listing import Listing
    from media_embeddings.model_lifecycle import ModelEndedError
    from media_embeddings.planner import cost_of, make_plan

    context = get_current_context()
    try:
        made, uri = make_plan(
            *(_storage(library), library, context["run_id"], Listing.from_dict(listing)),
            **{"options": _plan_options(), **options},
        )
    except ModelEndedError as error:
        raise AirflowFailException(str(error)) from error
    context["ti"].xcom_push(key="plan_uri", value=uri)
    context["ti"].xcom_push(key="cost", value=cost_of(made))
    context["ti"].xcom_push(key="invoke_manifests", value=list(made.invoke_manifests))
    return list(made.manifests)


def _plan_options() -> PlanOptions:
    from media_embeddings.planner import PlanOptions

    params = get_current_context()["params"]
    names = ("model", "force", "limit", "dry_run", "retry_failed", "release")
    return PlanOptions(**{name: params[name] for name in names})


def _plan_next_model(library: Library, listing: dict[str, Any]) -> list[str]:
    from dataclasses import replace

    from media_embeddings.planner import Plan

    context = get_current_context()
    name = context["params"]["model"]
    if len(library.models_of_run(name)) == 1:
        raise AirflowSkipException(f"the run embeds with {name} alone, as its parameter model says")
    before = Plan.read(_storage(library), context["ti"].xcom_pull(task_ids="plan", key="plan_uri"))
    return _plan(library, listing, options=replace(_plan_options(), model=library.next_model), before=before)


def _merge_outputs(library: Library, manifest_uri: str, model: str) -> dict[str, Any]:
    from dataclasses import asdict

    from media_embeddings.merging import merge_batch
    from media_embeddings.run_folder import BatchFolder

    folder = BatchFolder.of_manifest(manifest_uri)
    return asdict(merge_batch(_storage(library), library, model, get_current_context()["run_id"], folder))


def _plan_retries(library: Library, part: _Part, number: int) -> list[str]:
    from media_embeddings import retrying

    planned = _planned(library, part, rounds=number - 1)
    if planned is None:
        return []
    earlier = planned.round_uris[-1] if planned.round_uris else None
    ti = get_current_context()["ti"]
    # The other model's plan is paid from the same budget.
    costs = (ti.xcom_pull(task_ids=one.plan_id, key="cost") for one in _parts(library) if one.plan_id != part.plan_id)
    planned_usd = sum(cost["usd"] for cost in costs if cost is not None)
    made, uri = retrying.plan_retries(
        _storage(library), library, planned.plan_uri, number, earlier, planned_usd=planned_usd
    )
    ti.xcom_push(key="round_uri", value=uri)
    ti.xcom_push(key="invoke_manifests", value=list(made.invoke_manifests))
    return list(made.manifests)


def _invoke_batches(planned_by: str) -> list[str]:
    ti = get_current_context()["ti"]
    # A cost that was not approved holds for these as well.
    return [] if _refusal(ti) is not None else list(ti.xcom_pull(task_ids=planned_by, key="invoke_manifests") or [])


def _invoke_model(library: Library, part: _Part, manifest_uri: str) -> BedrockInvokeModelBatchOperator:
    return BedrockInvokeModelBatchOperator(
        task_id="invoke_model",
        model_id=f"{{{{ invoke_model_id({part.model}) }}}}",
        manifest_uri=manifest_uri,
        max_concurrent_invokes=library.max_concurrent_invokes,
        call_timeout=library.invoke_timeout_seconds,
        intents_uri=library.intents_uri,
        deadline=timedelta(hours=library.deadline_hours),
        list_lag_seconds=library.list_lag_seconds,
        kms_key_id=library.kms_key_id,
        bucket_owner=library.bucket_owner,
        aws_conn_id=library.aws_conn_id,
        region_name=library.region,
        map_index_template="{{ task.batch_name }}",
    )


def _start_async_invoke(library: Library, part: _Part, manifest_uri: str) -> BedrockStartAsyncInvokeOperator:
    return BedrockStartAsyncInvokeOperator(
        task_id="start_async_invoke",
        model_id=f"{{{{ bedrock_model_id({part.model}) }}}}",
        manifest_uri=manifest_uri,
        max_in_flight=library.max_in_flight,
        # What a night has left in progress is found again by the next ones.
        adopt_lookback=timedelta(days=3),
        bucket_owner=library.bucket_owner,
        kms_key_id=library.kms_key_id,
        poll_interval=library.poll_interval_seconds,
        aws_conn_id=library.aws_conn_id,
        region_name=library.region,
        intents_uri=library.intents_uri,
        submitter_uri=f"{{{{ submitter_uri({part.model}) }}}}",
        lease_seconds=library.lease_seconds,
        list_lag_seconds=library.list_lag_seconds,
        deferrable=True,
        map_index_template="{{ task.batch_name }}",
    )


def _wait_for_async_invoke(library: Library, manifest_uri: str) -> BedrockAsyncInvokeSensor:
    return BedrockAsyncInvokeSensor(
        task_id="wait_for_async_invoke",
        manifest_uri=manifest_uri,
        poke_interval=library.poll_interval_seconds,
        # A trigger that fires within seconds may be taken for a task that ended without being told to.
        initial_delay=max(5.0, library.poll_interval_seconds),
        deadline=timedelta(hours=library.deadline_hours),
        aws_conn_id=library.aws_conn_id,
        region_name=library.region,
        deferrable=True,
        trigger_rule="all_done",
        map_index_template="{{ task.batch_name }}",
    )


def _approved(library: Library, parts: Sequence[_Part], plans: Sequence[XComArg]) -> list[XComArg]:
    """Let a person approve what the plans cost together before anything is submitted; return the batches that go on."""
    from cost_approval.operators import ApproveCostOperator

    approval = ApproveCostOperator(
        task_id=APPROVAL,
        plan_task_ids=[part.plan_id for part in parts],
        approve_above_usd=library.approve_above_usd,
        what=f"Library {library.name}",
        response_timeout=timedelta(hours=library.approval_timeout_hours),
        # A run that asks for another model has no plan for the next one.
        trigger_rule="none_failed",
        doc_md=f"Asks a person before more than {library.approve_above_usd} USD are spent by estimate.",
    )
    plans >> approval

    @task(trigger_rule="none_failed", doc_md="Hands on the batches of a plan if its cost is approved.")
    def approved_batches(plan_id: str) -> list[str]:
        ti = get_current_context()["ti"]
        batches: list[str] | None = ti.xcom_pull(task_ids=plan_id)
        if batches is None:
            raise AirflowSkipException("there is no such plan in this run")
        return batches if _refusal(ti) is None else []

    approved = [XComArg(approval)]
    for part in parts[1:]:
        handed_on = approved_batches.override(task_id=f"approved{part.suffix}")(part.plan_id)
        approval >> handed_on
        approved.append(handed_on)
    return approved


def _announce_table(library: Library, part: _Part) -> None:
    from media_embeddings.reporting import committed_by

    context = get_current_context()
    if not part.suffix and context["params"]["model"] != library.model:
        raise AirflowSkipException("the run wrote into the table of another model than the library's")
    planned = _planned(library, part)
    if planned is None:
        raise AirflowSkipException("nothing was planned for the table")
    committed = committed_by(_storage(library), planned.plan_uri, planned.round_uris)
    if committed is None:
        raise AirflowSkipException("no row was committed to the table")
    context["outlet_events"][part.asset].extra = {"run_id": context["run_id"], **committed}


def _embed(library: Library, part: _Part, planned: XComArg) -> XComArg:
    """Build the tasks that embed what was planned for one model, with its rounds of retries; return the last."""

    @task(
        trigger_rule="all_done",
        map_index_template="{{ task.op_kwargs['manifest_uri'].split('/')[-2] }}",
        doc_md="Checks the outputs of the batch and commits rows, ledger and invocations.",
    )
    def merge_outputs(manifest_uri: str, model: str) -> dict[str, Any]:
        return _merge_outputs(library, manifest_uri, model)

    def embed_batch(manifest_uri: str) -> None:
        start = _start_async_invoke(library, part, manifest_uri)
        merged = merge_outputs(manifest_uri=manifest_uri, model=f"{{{{ {part.model} }}}}")
        start >> _wait_for_async_invoke(library, manifest_uri) >> merged

    def invoke_batch(manifest_uri: str) -> None:
        merged = merge_outputs(manifest_uri=manifest_uri, model=f"{{{{ {part.model} }}}}")
        _invoke_model(library, part, manifest_uri) >> merged

    @task(doc_md="Hands on the batches that are sent through InvokeModel.")
    def invoke_batches(planned_by: str) -> list[str]:
        return _invoke_batches(planned_by)

    def process(planned: XComArg, planned_by: str, embed: str, invoke: str) -> list[DAGNode]:
        """Build the groups that take the batches of a plan, or of a round of retries, to their merge.

        :param planned: the batches that are submitted.
        :param planned_by: the task that has made them, and those that are sent through InvokeModel.
        """
        # A group's tasks are named after it, so that people see which model and which attempt of a batch it is.
        groups = [task_group(group_id=f"{embed}{part.suffix}")(embed_batch).expand(manifest_uri=planned)]
        if part.invokes:
            handed_on = invoke_batches.override(task_id=f"{invoke}_batches{part.suffix}")(planned_by)
            planned >> handed_on
            groups.append(task_group(group_id=f"{invoke}{part.suffix}")(invoke_batch).expand(manifest_uri=handed_on))
        return groups

    @task(
        trigger_rule="all_done",
        doc_md="Writes the batches of another attempt at what failed for a reason that may pass.",
    )
    def plan_retries(number: int) -> list[str]:
        return _plan_retries(library, part, number)

    @task(
        task_id=f"announce_table{part.suffix}",
        trigger_rule="all_done",
        outlets=[part.asset],
        doc_md="Emits the table's Asset event with what this run added; skipped when it committed no row.",
    )
    def announce_table() -> None:
        _announce_table(library, part)

    done = process(planned, part.plan_id, "embed", "invoke")
    for number in range(1, library.retries_in_run + 1):
        planned_again = plan_retries.override(task_id=part.retries_id(number))(number)
        done >> planned_again
        done = process(planned_again, part.retries_id(number), f"retry_{number}", f"retry_invoke_{number}")
    announced: XComArg = announce_table()
    done >> announced
    return announced


def _doc_md(library: Library) -> str:
    crossing = (
        ""
        if library.next_model is None
        else CROSSING.format(next_model=library.next_model, table=library.embeddings_uri_of(library.next_model))
    )
    return DOCUMENTATION.format(
        name=library.name,
        sources=", ".join(f"`{source}`" for source in library.sources),
        model=library.model,
        table=library.embeddings_uri,
        crossing=crossing,
        work=library.work.rstrip("/"),
        max_in_flight=library.max_in_flight,
        approval=""
        if library.approve_above_usd is None
        else f"| `{APPROVAL}` | asks a person before more than {library.approve_above_usd} USD are spent |\n",
        invoke=_invoke_documentation(library),
    )


def _embed_media(dag_id: str, library: Library) -> DAG:
    parts = _parts(library)

    with DAG(
        dag_id=dag_id,
        description=f"Embed new and changed media of library {library.name} with {' and '.join(library.models)}",
        doc_md=_doc_md(library),
        # No start date, and nothing immediately: unpausing the DAG waits for the next night, also shortly after one began.
        schedule=CronTriggerTimetable(library.schedule, timezone=library.timezone, run_immediately=timedelta(0))
        if library.schedule
        else None,
        catchup=False,
        max_active_runs=1,
        params=_params(library),
        user_defined_macros={
            "bedrock_model_id": lambda name: model_named(name).model_id,
            "invoke_model_id": lambda name: library.invoke_model_id(model_named(name)),
            "submitter_uri": library.submitter_uri,
        },
        tags={
            *("media-embeddings", f"library:{library.name}", *library.tags),
            *(f"model:{name}" for name in library.models),
        },
        default_args={
            "owner": library.owner,
            "retries": 3,
            "retry_delay": timedelta(seconds=library.retry_delay_seconds),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=10),
        },
    ) as dag:

        @task(doc_md="Lists the library's sources into a Parquet file below the run's folder.")
        def list_media() -> dict[str, Any]:
            return _list_media(library)

        @task(doc_md="Decides what is to be done with every listed object and writes the batches to be embedded.")
        def plan(listing: dict[str, Any]) -> list[str]:
            return _plan(library, listing)

        @task(
            doc_md="Writes the batches of what the next model does not have yet, within what plan leaves of the limit."
        )
        def plan_next_model(listing: dict[str, Any]) -> list[str]:
            return _plan_next_model(library, listing)

        @task(
            trigger_rule="all_done",
            doc_md="Balances the books, writes the run report, and alone decides whether the run has failed.",
        )
        def report() -> dict[str, Any]:
            return _report(library, parts)

        listed = list_media()
        plans = [plan(listed)]
        if library.next_model is not None:
            plans.append(plan_next_model(listed))
            plans[0] >> plans[1]
        batches = plans if library.approve_above_usd is None else _approved(library, parts, plans)
        announced = [_embed(library, part, planned) for part, planned in zip(parts, batches, strict=True)]
        announced >> report()

    return dag


# A library that is wrong has no DAG; library_configuration.py says why, and the others are not held up by it.
configuration = load_configuration()
for library in configuration.libraries:
    dag_id = configuration.dag_id(library)
    globals()[dag_id] = _embed_media(dag_id, library)
