"""The wiring of the DAG: what people and the scheduler rely on."""

import pytest

from media_embeddings.library import Library
from media_embeddings.retrying import most_batches_of_a_round

TASKS = ["start_async_invoke", "wait_for_async_invoke", "merge_outputs"]
GROUP = [f"embed.{task}" for task in TASKS]


@pytest.fixture
def dag(dag_bag):
    assert dag_bag.import_errors == {}
    return dag_bag.dags["embed_media"]


@pytest.fixture
def single(single_dag_bag):
    """Give the DAG of a library that embeds with one model; that of the demo crosses to another."""
    assert single_dag_bag.import_errors == {}
    return single_dag_bag.dags["embed_media"]


def chain(dag, part=""):
    """Return the tasks that embed with one model, in their order, after what was planned for it."""
    groups = [[f"{group}{part}.{task}" for task in TASKS] for group in ("embed", "retry_1")]
    return [*groups[0], f"plan_retries_1{part}", *groups[1], f"announce_table{part}"]


def invoke_chain(part="", group="invoke"):
    """Return the tasks that send the batches of one model through InvokeModel, in their order."""
    return [f"{group}_batches{part}", f"{group}{part}.invoke_model", f"{group}{part}.merge_outputs"]


def assert_follows(dag, part=""):
    def downstream(task_id):
        return dag.task_dict[task_id].downstream_task_ids

    embed, retry, announce = chain(dag, part)[:3], chain(dag, part)[4:7], f"announce_table{part}"
    # Every task of a mapped group expands over what its plan returns.
    assert downstream(f"plan{part}") >= set(embed)
    assert downstream(embed[0]) == {embed[1]}
    assert downstream(embed[1]) == {embed[2]}
    assert downstream(embed[2]) == {f"plan_retries_1{part}"}
    assert downstream(f"plan_retries_1{part}") == {*retry, invoke_chain(part, "retry_invoke_1")[0]}
    for group, after in (("invoke", f"plan_retries_1{part}"), ("retry_invoke_1", announce)):
        handed_on, sent, merged = invoke_chain(part, group)
        assert downstream(handed_on) == {sent, merged}
        assert downstream(sent) == {merged}
        assert downstream(merged) == {after}
    assert downstream(retry[0]) == {retry[1]}
    assert downstream(retry[1]) == {retry[2]}
    assert downstream(retry[2]) == {announce}
    assert downstream(announce) == {"report"}


def test_the_tasks_follow_each_other(single):
    assert single.task_dict["list_media"].downstream_task_ids == {"plan"}
    assert single.task_dict["plan"].downstream_task_ids == {*GROUP, "invoke_batches"}
    assert_follows(single)
    sent = [*invoke_chain(), *invoke_chain(group="retry_invoke_1")]
    assert set(single.task_dict) == {"list_media", "plan", *chain(single), *sent, "report"}


def test_a_library_that_crosses_has_the_same_tasks_for_its_next_model_after_the_plan_of_its_own(dag):
    assert dag.task_dict["list_media"].downstream_task_ids == {"plan", "plan_next_model"}
    assert dag.task_dict["plan"].downstream_task_ids == {"plan_next_model", "invoke_batches", *GROUP}
    assert_follows(dag)
    assert_follows(dag, "_next_model")
    both = [*chain(dag), *chain(dag, "_next_model")]
    both += [
        one
        for part in ("", "_next_model")
        for group in ("invoke", "retry_invoke_1")
        for one in invoke_chain(part, group)
    ]
    assert set(dag.task_dict) == {"list_media", "plan", "plan_next_model", *both, "report"}


def test_a_failed_task_stops_nothing_that_can_still_be_done_and_only_the_report_decides_the_run(dag):
    rules = {task_id: task.trigger_rule.value for task_id, task in dag.task_dict.items()}
    last = ["wait_for_async_invoke", "merge_outputs"]

    for part in ("", "_next_model"):
        assert {task_id for task_id in chain(dag, part) if rules[task_id] == "all_success"} == {
            f"embed{part}.start_async_invoke",
            f"retry_1{part}.start_async_invoke",
        }
        assert {rules[f"{group}{part}.{task}"] for group in ("embed", "retry_1") for task in last} == {"all_done"}
        for group in ("invoke", "retry_invoke_1"):
            assert [rules[task_id] for task_id in invoke_chain(part, group)] == [
                "all_success",
                "all_success",
                "all_done",
            ]
    assert {rules[task_id] for task_id in ("list_media", "plan", "plan_next_model")} == {"all_success"}
    assert rules["report"] == "all_done"
    assert [task.task_id for task in dag.leaves] == ["report"]


def test_each_model_is_started_merged_and_submitted_under_its_own_name_whatever_the_run_parameter_says(dag):
    context = {"params": {"model": "marengo-2-7"}} | dag.user_defined_macros
    for part, model_id, name in (
        ("", "twelvelabs.marengo-embed-2-7-v1:0", "marengo-2-7"),
        ("_next_model", "twelvelabs.marengo-embed-3-0-v1:0", "marengo-3-0"),
    ):
        start = dag.task_dict[f"embed{part}.start_async_invoke"]
        merge = dag.task_dict[f"embed{part}.merge_outputs"]
        rendered = {
            name: dag.get_template_env().from_string(template).render(context)
            for name, template in {
                "model_id": start.model_id,
                "submitter": start.submitter_uri,
                "merged": merge.op_kwargs["model"],
            }.items()
        }
        assert rendered["model_id"] == model_id
        assert rendered["submitter"].endswith(f"/submitters/us-east-1/{name}")
        assert rendered["merged"] == name


@pytest.mark.parametrize("name", ["demo", "films"])
def test_a_run_has_at_most_200_task_instances_however_many_objects_there_are(dag, single, name):
    wired = dag if name == "demo" else single
    settings = {"sources": ["s3://a-bucket/x/"], "region": "us-east-1", "tables": "s3://bbb/t", "work": "s3://bbb/w"}
    library = Library(name=name, model="marengo-2-7", next_model="marengo-3-0" if name == "demo" else None, **settings)
    alone = [task_id for task_id in wired.task_dict if "." not in task_id]
    rounds = library.retries_in_run * len(library.models)

    most = len(alone) + len(TASKS) * (library.max_batches + rounds * most_batches_of_a_round(library))
    # A group that has no batch is there once all the same.
    empty = sum(
        task_id.endswith((".invoke_model", ".merge_outputs")) and "invoke" in task_id for task_id in wired.task_dict
    )
    assert most + empty <= 200


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
    assert {"media-embeddings", "library:demo", "model:marengo-2-7", "model:marengo-3-0"} <= set(dag.tags)
    assert "When it fails" in dag.doc_md
    assert "s3://demo-media/library/" in dag.doc_md
    assert "crosses to `marengo-3-0`" in dag.doc_md


def test_a_library_with_one_model_says_nothing_of_crossing(single):
    assert "cross" not in single.doc_md
    assert {tag for tag in single.tags if tag.startswith("model:")} == {"model:marengo-3-0"}


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


@pytest.mark.parametrize(
    ("part", "profile"),
    [("", "us.twelvelabs.marengo-embed-2-7-v1:0"), ("_next_model", "twelvelabs.marengo-embed-3-0-v1:0")],
)
def test_what_is_sent_at_once_names_the_profile_of_the_region_and_shares_the_intents(dag, part, profile):
    arguments = vars(dag.task_dict[f"invoke{part}.invoke_model"])
    context = {"params": {"model": "marengo-2-7"}} | dag.user_defined_macros

    assert dag.get_template_env().from_string(arguments["model_id"]).render(context) == profile
    assert arguments["intents_uri"].endswith("/tables/intents")
    assert arguments["call_timeout"] == 90.0


def test_only_a_library_that_may_have_such_batches_has_tasks_for_them(parse, tmp_path):
    configuration = tmp_path / "libraries.yaml"
    settings = "sources: [s3://aaa/x/], region: us-east-1, model: marengo-3-0, tables: s3://bbb/t, work: s3://bbb/w"
    configuration.write_text(
        f"libraries:\n  all: {{{settings}}}\n  jobs: {{{settings}, processing: async}}\n"
        f"  films: {{{settings}, media_types: {{video: [.mp4]}}}}\n"
    )
    code = """
import embed_media
for name in ("embed_media", "embed_media_jobs", "embed_media_films"):
    print(name, sum("invoke" in task.task_id and "async" not in task.task_id for task in vars(embed_media)[name].tasks))
"""
    printed = parse(code, MEDIA_EMBEDDINGS_CONFIG=str(configuration))

    assert printed.splitlines()[-3:] == ["embed_media 6", "embed_media_jobs 0", "embed_media_films 0"]


def test_each_table_is_the_outlet_of_the_task_that_announces_it(dag):
    (asset,) = dag.task_dict["announce_table"].outlets
    (of_next,) = dag.task_dict["announce_table_next_model"].outlets

    assert asset.uri == "s3://demo-embeddings/tables/embeddings/marengo-2-7"
    assert of_next.uri == "s3://demo-embeddings/tables/embeddings/marengo-3-0"


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
        f"['plan'] {sorted([*GROUP, 'invoke_batches'])}",
        "['approve_cost'] none_failed",
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


@pytest.mark.parametrize(("lifecycle", "refused"), [("refuse", True), ("warn", False)])
def test_a_model_past_its_end_is_refused_by_the_first_task_which_is_not_tried_again(
    parse, tmp_path, lifecycle, refused
):
    configuration = tmp_path / "libraries.yaml"
    configuration.write_text(
        "libraries:\n  films: {sources: [s3://aaa/x/], region: us-east-1, model: marengo-2-7, tables: s3://bbb/t, "
        f"work: s3://bbb/w, model_lifecycle: {lifecycle}}}\n"
    )
    code = """
import datetime
import embed_media
from media_embeddings import listing, model_lifecycle
def list_media(*arguments, **options):
    raise listing.NothingListedError("listing was begun")
listing.list_media = list_media
model_lifecycle.utc_today = lambda: datetime.date(2027, 1, 15)
params = {"model": "marengo-2-7", "media_types": ["video"], "prefix": None}
embed_media.get_current_context = lambda: {"params": params, "run_id": "night"}
embed_media._storage = lambda library: None
try:
    embed_media._list_media(embed_media.configuration.libraries[0])
except Exception as error:
    print(type(error).__name__, error)
"""
    printed = parse(code, MEDIA_EMBEDDINGS_CONFIG=str(configuration)).splitlines()[-1]

    assert printed.startswith("AirflowFailException ")
    assert ("library films, key `model`: AWS has ended marengo-2-7" in printed) is refused
    assert ("listing was begun" in printed) is not refused
