"""One DAG for the upkeep of all tables: compaction, check, expiry, vacuum, and a report, for each root of tables once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowFailException

from media_embeddings.configuration import load_configuration
from media_embeddings.library import Library
from media_embeddings.upkeep.roots import TableRoot, table_roots

if TYPE_CHECKING:
    from media_embeddings.storage import Storage
    from media_embeddings.upkeep.maintenance import Maintenance

DOCUMENTATION = """
### Upkeep of the tables

Every Sunday, beside whatever runs. A group of tasks for each root of tables: {roots}.

| task | what it does |
|---|---|
| `survey` | counts files, rows and bytes before anything is done |
| `compact` | writes small and overlapping files anew, with the same rows |
| `check` | compares ledger and tables, and looks for files that are lost; repairs nothing |
| `expire` | deletes raw outputs whose rows are safe, old run folders, intents and tickets |
| `vacuum` | removes files that no version needs any more; checkpoints, and shortens the logs |
| `report` | before and after; it alone decides whether its part of the run has failed |

**When it fails**: the log of `report` says why, with what to do about each finding; the same report lies as `report.md` and
`report.json` below `<work>/maintenance/`. After a failed `check` nothing is deleted. Put right what it names and clear `check`.
"""


def _storage(library: Library) -> Storage:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from media_embeddings.storage import Storage

    hook = S3Hook(aws_conn_id=library.aws_conn_id, region_name=library.region)
    return Storage.of_session(hook.get_session(), hook.get_conn())


PARAMS = {
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="Say what would be done; write nothing but the report.",
    ),
    "retention_days": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Retention of versions",
        description="Days for which replaced files stay. Empty: vacuum_retention_days of the libraries.",
    ),
    "outputs_retention_days": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Retention of raw outputs",
        description="Days. Empty: outputs_retention_days of the libraries; where that is null they are kept anyway.",
    ),
    "check_vectors": Param(
        False,
        type="boolean",
        title="Check vectors",
        description="Read all vectors and check their numbers, too: reads the whole table.",
    ),
}


def _maintenance(root: TableRoot) -> Maintenance:
    from media_embeddings.upkeep.maintenance import Maintenance, Options

    context = get_current_context()
    options = Options(**{name: context["params"][name] for name in PARAMS})
    return Maintenance(root, _storage, context["run_id"], options)


def _check(root: TableRoot) -> dict[str, Any]:
    from media_embeddings.upkeep.maintenance import InconsistentTablesError

    try:
        return _maintenance(root).check()
    except InconsistentTablesError as error:
        raise AirflowFailException(str(error)) from error


def _report(root: TableRoot) -> dict[str, Any]:
    maintenance = _maintenance(root)
    report = maintenance.report()
    if not report.succeeded:
        raise AirflowFailException("; ".join(report.problems))
    return {"report_uri": maintenance.report_uri, **report.summary}


def _maintain_root(root: TableRoot) -> None:
    @task_group(group_id=root.name, tooltip=f"The tables below {root.tables}")
    def maintain() -> None:
        @task(doc_md="Counts files, rows and bytes of every table.")
        def survey() -> dict[str, Any]:
            return _maintenance(root).survey()

        @task(doc_md="Writes small and overlapping files anew; gives way to merges.")
        def compact() -> dict[str, Any]:
            return _maintenance(root).compact()

        @task(doc_md="Compares ledger and tables. Fails where they do not agree, and says what to do.")
        def check() -> dict[str, Any]:
            return _check(root)

        @task(doc_md="Deletes raw outputs, run folders, intents and tickets that nothing rests on any more.")
        def expire() -> dict[str, Any]:
            return _maintenance(root).expire()

        @task(doc_md="Removes files that no version needs, writes checkpoints and shortens the logs.")
        def vacuum() -> dict[str, Any]:
            return _maintenance(root).vacuum()

        @task(trigger_rule="all_done", doc_md="Writes the report and decides whether the upkeep has failed.")
        def report() -> dict[str, Any]:
            return _report(root)

        survey() >> compact() >> check() >> expire() >> vacuum() >> report()

    maintain()


# A library that is wrong takes no part; library_configuration.py says why.
roots = table_roots(load_configuration().libraries)

with DAG(
    dag_id="maintain_tables",
    description="Compaction, check, expiry of raw outputs and vacuum of all tables",
    doc_md=DOCUMENTATION.format(roots=", ".join(f"`{root.tables}`" for root in roots)),
    schedule=CronTriggerTimetable("0 12 * * 0", timezone="UTC", run_immediately=timedelta(0)),
    # No start date: unpausing the DAG waits for the next Sunday and does not make up for the last one.
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    tags={"media-embeddings", "maintenance"},
    default_args={
        "owner": "media-embeddings",
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=10),
    },
) as dag:
    for root in roots:
        _maintain_root(root)
