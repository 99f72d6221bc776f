"""One DAG per library: lists its media, plans, embeds batches through Bedrock, merges, and balances the books."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, CronTriggerTimetable, Param, XComArg, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from bedrock_async_invoke.operators import BedrockStartAsyncInvokeOperator
from bedrock_async_invoke.sensors import BedrockAsyncInvokeSensor
from media_embeddings.configuration import load_configuration
from media_embeddings.library import Library
from media_embeddings.media import MediaType
from media_embeddings.models import model_named, model_names

if TYPE_CHECKING:
    from media_embeddings.reporting import Refusal
    from media_embeddings.storage import Storage

APPROVAL = "approve_cost"
DOCUMENTATION = """
### Embed the media of library `{name}`

Every night the media below {sources} that are new or changed are embedded with `{model}` into the table
`{table}`. A run over an unchanged library submits nothing.

| task | what it does |
|---|---|
| `list_media` | lists the sources; downloads nothing |
| `plan` | compares with the ledger, checks limits, estimates the cost, cuts batches |
{approval}| `embed.start_async_invoke` | submits a batch to Bedrock, at most {max_in_flight} invocations in progress at once |
| `embed.wait_for_async_invoke` | waits in the triggerer until the batch has ended |
| `embed.merge_outputs` | checks the outputs and commits the rows, the ledger and the invocations |
| `plan_retries_1`, `retry_1` | another attempt at what failed for a reason that may pass; skipped when nothing did |
| `announce_table` | emits the table's Asset event; skipped when no row was committed |
| `report` | balances the books; it alone decides whether the run has failed |

**When it fails**: the log of `report` says why, and which objects failed with which reason; the same report lies as
`report.md` and `report.json` below `{work}/runs/{name}/`. What succeeded is committed. Clear the failed tasks, or let
the next run go on: nothing that was submitted is submitted again. Bedrock can't stop an invocation: it is billed even
when its task is marked as failed.
"""


def _storage(library: Library) -> Storage:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from media_embeddings.storage import Storage

    hook = S3Hook(aws_conn_id=library.aws_conn_id, region_name=library.region)
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
            description="Another model writes into a table of its own: the vectors of two models can't be compared.",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Embed again what is already embedded. This is paid for again.",
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


def _report(library: Library) -> dict[str, Any]:
    from media_embeddings.reporting import report_run
    from media_embeddings.run_folder import RunFolder

    context = get_current_context()
    instance = context["ti"]
    folder = RunFolder(library.work, library.name, context["run_id"])
    listing = instance.xcom_pull(task_ids="list_media")
    plan_uri = instance.xcom_pull(task_ids="plan", key="plan_uri")
    if listing is None or plan_uri is None:
        unfinished = "list_media" if listing is None else "plan"
        raise AirflowFailException(f"{unfinished} failed, so nothing was submitted; its log says why")
    round_uris = _round_uris(context["ti"], range(1, library.retries_in_run + 1))
    report = report_run(_storage(library), library, folder, listing, plan_uri, round_uris, _refusal(instance))
    if not report.succeeded:
        raise AirflowFailException("; ".join(report.problems))
    return {"report_uri": folder.report_uri, **report.totals}


def _refusal(ti: Any) -> Refusal | None:
    """Return what a person has not approved; None where nobody was asked, or who was has approved."""
    from media_embeddings.reporting import Refusal

    approval = ti.xcom_pull(task_ids=APPROVAL, key="approval")
    return None if approval is None or approval["approved"] else Refusal(approval["usd"], approval["by"])


def _round_uris(ti: Any, rounds: Iterable[int]) -> list[str]:
    """Return the rounds of retries that were planned, in their order."""
    uris = (ti.xcom_pull(task_ids=f"plan_retries_{number}", key="round_uri") for number in rounds)
    return [uri for uri in uris if uri is not None]


def _list_media(library: Library) -> dict[str, Any]:
    from media_embeddings import listing
    from media_embeddings.run_folder import RunFolder

    context = get_current_context()
    params = context["params"]
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
    except listing.NothingListedError as error:
        raise AirflowFailException(str(error)) from error


def _plan(library: Library, listing: dict[str, Any]) -> list[str]:
    from media_embeddings.listing import Listing
    from media_embeddings.planner import PlanOptions, cost_of, make_plan

    context = get_current_context()
    params = context["params"]
    names = ("model", "force", "limit", "dry_run", "retry_failed", "release")
    options = PlanOptions(**{name: params[name] for name in names})
    made, uri = make_plan(_storage(library), library, context["run_id"], Listing.from_dict(listing), options)
    context["ti"].xcom_push(key="plan_uri", value=uri)
    context["ti"].xcom_push(key="cost", value=cost_of(made))
    return list(made.manifests)


def _merge_outputs(library: Library, manifest_uri: str) -> dict[str, Any]:
    from dataclasses import asdict

    from media_embeddings.merging import merge_batch
    from media_embeddings.run_folder import BatchFolder

    context = get_current_context()
    folder = BatchFolder.of_manifest(manifest_uri)
    summary = merge_batch(_storage(library), library, context["params"]["model"], context["run_id"], folder)
    return asdict(summary)


def _plan_retries(library: Library, number: int) -> list[str]:
    from media_embeddings import retrying

    ti = get_current_context()["ti"]
    plan_uri = ti.xcom_pull(task_ids="plan", key="plan_uri")
    if plan_uri is None:
        return []
    earlier = _round_uris(ti, range(1, number))
    made, uri = retrying.plan_retries(_storage(library), library, plan_uri, number, earlier[-1] if earlier else None)
    ti.xcom_push(key="round_uri", value=uri)
    return list(made.manifests)


def _start_async_invoke(library: Library, manifest_uri: str) -> BedrockStartAsyncInvokeOperator:
    return BedrockStartAsyncInvokeOperator(
        task_id="start_async_invoke",
        model_id="{{ bedrock_model_id(params.model) }}",
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
        submitter_uri="{{ submitter_uri(params.model) }}",
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


def _approve_cost(library: Library, manifests: XComArg) -> XComArg:
    """Let a person approve what the plans cost before anything is submitted.

    :param manifests: what the first plan returns.
    """
    from cost_approval.operators import ApproveCostOperator

    approval = ApproveCostOperator(
        task_id=APPROVAL,
        plan_task_ids=["plan"],
        approve_above_usd=library.approve_above_usd,
        what=f"Library {library.name}",
        response_timeout=timedelta(hours=library.approval_timeout_hours),
        doc_md=f"Asks a person before more than {library.approve_above_usd} USD are spent by estimate.",
    )
    manifests >> approval
    return XComArg(approval)


def _announce_table(library: Library, asset: Asset) -> None:
    from media_embeddings.reporting import committed_by

    context = get_current_context()
    if context["params"]["model"] != library.model:
        raise AirflowSkipException("the run wrote into the table of another model than the library's")
    plan_uri = context["ti"].xcom_pull(task_ids="plan", key="plan_uri")
    round_uris = _round_uris(context["ti"], range(1, library.retries_in_run + 1))
    committed = committed_by(_storage(library), plan_uri, round_uris) if plan_uri else None
    if committed is None:
        raise AirflowSkipException("no row was committed to the table")
    context["outlet_events"][asset].extra = {"run_id": context["run_id"], **committed}


def _embed_media(dag_id: str, library: Library) -> DAG:
    # Named by its URI, since two libraries may write the same table.
    asset = Asset(library.embeddings_uri)
    rounds = range(1, library.retries_in_run + 1)

    with DAG(
        dag_id=dag_id,
        description=f"Embed new and changed media of library {library.name} with {library.model}",
        doc_md=DOCUMENTATION.format(
            name=library.name,
            sources=", ".join(f"`{source}`" for source in library.sources),
            model=library.model,
            table=library.embeddings_uri,
            work=library.work.rstrip("/"),
            max_in_flight=library.max_in_flight,
            approval=f"| `{APPROVAL}` | asks a person before more than {library.approve_above_usd} USD are spent |\n"
            if library.approve_above_usd is not None
            else "",
        ),
        # No start date, and nothing immediately: unpausing the DAG waits for the next night, also shortly after one began.
        schedule=CronTriggerTimetable(library.schedule, timezone=library.timezone, run_immediately=timedelta(0))
        if library.schedule
        else None,
        catchup=False,
        max_active_runs=1,
        params=_params(library),
        user_defined_macros={
            "bedrock_model_id": lambda name: model_named(name).model_id,
            "submitter_uri": library.submitter_uri,
        },
        tags={"media-embeddings", f"library:{library.name}", f"model:{library.model}", *library.tags},
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
            trigger_rule="all_done",
            map_index_template="{{ task.op_kwargs['manifest_uri'].split('/')[-2] }}",
            doc_md="Checks the outputs of the batch and commits rows, ledger and invocations.",
        )
        def merge_outputs(manifest_uri: str) -> dict[str, Any]:
            return _merge_outputs(library, manifest_uri)

        def embed_batch(manifest_uri: str) -> None:
            start = _start_async_invoke(library, manifest_uri)
            start >> _wait_for_async_invoke(library, manifest_uri) >> merge_outputs(manifest_uri=manifest_uri)

        @task(
            trigger_rule="all_done",
            doc_md="Writes the batches of another attempt at what failed for a reason that may pass.",
        )
        def plan_retries(number: int) -> list[str]:
            return _plan_retries(library, number)

        @task(
            trigger_rule="all_done",
            outlets=[asset],
            doc_md="Emits the table's Asset event with what this run added; skipped when it committed no row.",
        )
        def announce_table() -> None:
            _announce_table(library, asset)

        @task(
            trigger_rule="all_done",
            doc_md="Balances the books, writes the run report, and alone decides whether the run has failed.",
        )
        def report() -> dict[str, Any]:
            return _report(library)

        manifests = plan(list_media())
        if library.approve_above_usd is not None:
            manifests = _approve_cost(library, manifests)
        # A group's tasks are named after it, so that people see which attempt of a batch it is.
        done = task_group(group_id="embed")(embed_batch).expand(manifest_uri=manifests)
        for number in rounds:
            planned_again = plan_retries.override(task_id=f"plan_retries_{number}")(number)
            done >> planned_again
            done = task_group(group_id=f"retry_{number}")(embed_batch).expand(manifest_uri=planned_again)
        done >> announce_table() >> report()

    return dag


# A library that is wrong has no DAG; library_configuration.py says why, and the others are not held up by it.
configuration = load_configuration()
for library in configuration.libraries:
    dag_id = configuration.dag_id(library)
    globals()[dag_id] = _embed_media(dag_id, library)
