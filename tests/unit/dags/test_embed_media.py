"""The wiring of the DAG: what people and the scheduler rely on."""

import pytest

TASKS = ["start_async_invoke", "wait_for_async_invoke", "merge_outputs"]
GROUP = [f"embed.{task}" for task in TASKS]
RETRY = [f"retry_1.{task}" for task in TASKS]


@pytest.fixture
def dag(dag_bag):
    assert dag_bag.import_errors == {}
    return dag_bag.dags["embed_media"]


def test_the_tasks_follow_each_other(dag):
    def downstream(task_id):
        return dag.task_dict[task_id].downstream_task_ids

    assert downstream("list_media") == {"plan"}
    # Every task of a mapped group expands over what plan returns.
    assert downstream("plan") == set(GROUP)
    assert downstream(GROUP[0]) == {GROUP[1]}
    assert downstream(GROUP[1]) == {GROUP[2]}
    assert downstream(GROUP[2]) == {"plan_retries_1"}
    assert downstream("plan_retries_1") == set(RETRY)
    assert downstream(RETRY[0]) == {RETRY[1]}
    assert downstream(RETRY[1]) == {RETRY[2]}
    assert downstream(RETRY[2]) == {"announce_table"}
    assert downstream("announce_table") == {"report"}
    assert downstream("report") == set()


def test_a_failed_task_stops_nothing_that_can_still_be_done_and_only_the_report_decides_the_run(dag):
    rules = {task_id: task.trigger_rule.value for task_id, task in dag.task_dict.items()}

    assert rules == {
        "list_media": "all_success",
        "plan": "all_success",
        "embed.start_async_invoke": "all_success",
        "embed.wait_for_async_invoke": "all_done",
        "embed.merge_outputs": "all_done",
        "plan_retries_1": "all_done",
        "retry_1.start_async_invoke": "all_success",
        "retry_1.wait_for_async_invoke": "all_done",
        "retry_1.merge_outputs": "all_done",
        "announce_table": "all_done",
        "report": "all_done",
    }
    assert [task.task_id for task in dag.leaves] == ["report"]


def test_it_runs_every_night_once_at_a_time_and_never_catches_up(dag):
    assert dag.timetable.expression == "0 2 * * *"
    assert dag.max_active_runs == 1
    assert dag.catchup is False


def test_every_task_is_retried_with_backoff_and_has_an_owner(dag):
    for task in dag.tasks:
        assert task.retries == 3, task.task_id
        assert task.retry_exponential_backoff == 2.0, task.task_id
        assert task.owner == "media-embeddings", task.task_id


def test_a_library_says_how_soon_its_tasks_are_tried_again(parse, tmp_path):
    configuration = tmp_path / "libraries.yaml"
    settings = "sources: [s3://aaa/x/], region: us-east-1, model: marengo-3-0, tables: s3://bbb/t, work: s3://bbb/w"
    configuration.write_text(f"libraries:\n  usual: {{{settings}}}\n  soon: {{{settings}, retry_delay_seconds: 1.5}}\n")
    code = """
import embed_media
for name in ("embed_media", "embed_media_soon"):
    print(name, {task.retry_delay.total_seconds() for task in vars(embed_media)[name].tasks})
"""
    printed = parse(code, MEDIA_EMBEDDINGS_CONFIG=str(configuration))

    assert printed.splitlines()[-2:] == ["embed_media {20.0}", "embed_media_soon {1.5}"]


def test_people_find_what_it_does_and_what_to_do_when_it_fails(dag):
    assert {"media-embeddings", "library:demo", "model:marengo-2-7"} <= set(dag.tags)
    assert "When it fails" in dag.doc_md
    assert "s3://demo-media/library/" in dag.doc_md


def test_the_trigger_form_has_the_librarys_defaults(dag):
    assert dag.params.dump() == {
        "prefix": None,
        "media_types": ["video", "audio", "image", "text"],
        "limit": None,
        "model": "marengo-2-7",
        "force": False,
        "retry_failed": False,
        "release": [],
        "dry_run": False,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", 0), ("model", "marengo-9"), ("media_types", []), ("media_types", ["smell"]), ("force", "yes")],
)
def test_the_trigger_form_refuses_what_makes_no_sense(dag, name, value):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises((ParamValidationError, ValueError)):
        dag.params.get_param(name).resolve(value)


def test_every_batch_is_submitted_by_the_one_submitter_of_the_model_and_region(dag):
    start = dag.task_dict["embed.start_async_invoke"]

    assert start.max_active_tis_per_dag is None
    assert start.deferrable
    arguments = vars(start)
    context = {"params": {"model": "marengo-3-0"}} | dag.user_defined_macros
    rendered = dag.get_template_env().from_string(arguments["submitter_uri"]).render(context)
    assert rendered.endswith("/submitters/us-east-1/marengo-3-0")
    assert arguments["intents_uri"].endswith("/tables/intents")


def test_the_table_is_an_outlet_asset(dag):
    (asset,) = dag.task_dict["announce_table"].outlets

    assert asset.uri == "s3://demo-embeddings/tables/embeddings/marengo-2-7"


def test_parsing_imports_nothing_heavy(parse):
    heavy = ["pyarrow", "pandas", "duckdb", "deltalake", "numpy", "simdjson"]
    loaded = parse(f"import sys, embed_media; print([name for name in {heavy} if name in sys.modules])")

    assert loaded.splitlines()[-1] == "[]"


def test_a_wrong_library_is_an_import_error_of_a_file_of_its_own(parse, tmp_path):
    configuration = tmp_path / "libraries.yaml"
    right = "{sources: [s3://aaa/x/], region: us-east-1, model: marengo-3-0, tables: s3://bbb/t, work: s3://bbb/w}"
    configuration.write_text(f"libraries:\n  wrong: {{}}\n  right: {right}\n")
    code = """
import embed_media
print([name for name in vars(embed_media) if name.startswith("embed_media")])
try:
    import library_configuration
except Exception as error:
    print(type(error).__name__, error)
"""
    printed = parse(code, MEDIA_EMBEDDINGS_CONFIG=str(configuration))

    assert "['embed_media_right']" in printed
    assert "InvalidLibrariesError" in printed
    assert f"{configuration}, line 2: libraries.wrong.sources: is required" in printed


def test_a_library_that_wants_its_costs_approved_is_asked_before_anything_is_submitted(parse, tmp_path):
    configuration = tmp_path / "libraries.yaml"
    settings = "sources: [s3://aaa/x/], region: us-east-1, model: marengo-3-0, tables: s3://bbb/t, work: s3://bbb/w"
    careful = "approve_above_usd: 5, approval_timeout_hours: 2"
    configuration.write_text(f"libraries:\n  usual: {{{settings}}}\n  careful: {{{settings}, {careful}}}\n")
    code = """
import embed_media
usual, careful = embed_media.embed_media, embed_media.embed_media_careful
print("approve_cost" in usual.task_dict, "approve_cost" in usual.doc_md, "approve_cost" in careful.doc_md)
approval = careful.task_dict["approve_cost"]
print(sorted(approval.upstream_task_ids), sorted(approval.downstream_task_ids))
print(sorted(careful.task_dict["plan"].downstream_task_ids), approval.trigger_rule.value)
print(approval.response_timeout, approval.approve_above_usd, approval.plan_task_ids)
"""
    printed = parse(code, MEDIA_EMBEDDINGS_CONFIG=str(configuration))

    assert printed.splitlines()[-4:] == [
        "False False True",
        f"['plan'] {sorted(GROUP)}",
        "['approve_cost'] all_success",
        "2:00:00 5.0 ['plan']",
    ]


@pytest.mark.parametrize("minute", [1, 30])
def test_unpausing_waits_for_the_next_night_so_that_a_dry_run_can_come_first(dag, monkeypatch, minute):
    from datetime import UTC, datetime

    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import DagSerialization

    shortly_after = datetime(2026, 11, 24, 2, minute, tzinfo=UTC)
    monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: shortly_after)
    scheduled: SerializedDAG = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    info = scheduled.next_dagrun_info(last_automated_run_info=None)

    assert info.run_after == datetime(2026, 11, 25, 2, tzinfo=UTC)
