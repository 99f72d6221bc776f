"""The wiring of the DAG of upkeep: what people and the scheduler rely on."""

from itertools import pairwise

import pytest

STEPS = ["survey", "compact", "check", "expire", "vacuum", "report"]


@pytest.fixture
def dag(dag_bag):
    assert dag_bag.import_errors == {}
    return dag_bag.dags["maintain_tables"]


def test_the_steps_follow_each_other_and_only_the_report_comes_whatever_happens(dag):
    for step, following in pairwise(STEPS):
        assert dag.task_dict[f"demo.{step}"].downstream_task_ids == {f"demo.{following}"}
    assert {task_id: task.trigger_rule.value for task_id, task in dag.task_dict.items()} == {
        f"demo.{step}": "all_done" if step == "report" else "all_success" for step in STEPS
    }


def test_it_runs_once_a_week_once_at_a_time_and_never_catches_up(dag):
    assert dag.timetable.expression == "0 12 * * 0"
    assert dag.max_active_runs == 1
    assert dag.catchup is False


@pytest.mark.parametrize("minute", [1, 30])
def test_unpausing_waits_for_the_next_sunday_also_shortly_after_one_began(dag, monkeypatch, minute):
    from datetime import UTC, datetime

    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import DagSerialization

    shortly_after = datetime(2026, 11, 22, 12, minute, tzinfo=UTC)
    monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: shortly_after)
    scheduled: SerializedDAG = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    info = scheduled.next_dagrun_info(last_automated_run_info=None)

    assert info.run_after == datetime(2026, 11, 29, 12, tzinfo=UTC)
    assert info.run_after.weekday() == 6


def test_the_trigger_form_has_its_defaults_and_refuses_what_makes_no_sense(dag):
    from airflow.sdk.exceptions import ParamValidationError

    assert dag.params.dump() == {
        "dry_run": False,
        "retention_days": None,
        "outputs_retention_days": None,
        "check_vectors": False,
    }
    for name, value in (("retention_days", 0), ("outputs_retention_days", 0), ("dry_run", "yes")):
        with pytest.raises((ParamValidationError, ValueError)):
            dag.params.get_param(name).resolve(value)


def test_people_find_what_it_does_and_what_to_do_when_it_fails(dag):
    assert "When it fails" in dag.doc_md
    assert "s3://demo-embeddings/tables" in dag.doc_md


def test_libraries_that_share_their_tables_have_one_group_and_wrong_ones_none(parse, tmp_path):
    configuration = tmp_path / "libraries.yaml"
    settings = "region: us-east-1, model: marengo-3-0, work: s3://bbb/w"
    configuration.write_text(
        "libraries:\n"
        f"  films: {{sources: [s3://aaa/x/], tables: s3://bbb/t, {settings}}}\n"
        f"  clips: {{sources: [s3://ccc/x/], tables: s3://bbb/t/, {settings}}}\n"
        f"  talks: {{sources: [s3://ddd/x/], tables: s3://bbb/other, {settings}}}\n"
        "  wrong: {}\n"
    )
    code = "import maintain_tables; print(sorted(maintain_tables.dag.task_group.children))"

    assert parse(code, MEDIA_EMBEDDINGS_CONFIG=str(configuration)).splitlines()[-1] == "['films', 'talks']"


def test_parsing_imports_nothing_heavy(parse):
    heavy = ["pyarrow", "pandas", "duckdb", "deltalake", "numpy", "simdjson"]
    loaded = parse(f"import sys, maintain_tables; print([name for name in {heavy} if name in sys.modules])")

    assert loaded.splitlines()[-1] == "[]"
