"""The nightly job on the sample library, night after night. The tests build on each other in the order of the file."""

import json

import pytest

from local_stack.sample_library import BUCKET, PREFIX
from tests.end_to_end.conftest import (
    CONFIGURATION_LINE_OF_BROKEN,
    EMBEDDINGS,
    MODEL,
    NEXT_EMBEDDINGS,
    NEXT_MODEL,
)
from tests.integration.media_embeddings.conftest import film

TASKS = ("start_async_invoke", "wait_for_async_invoke", "merge_outputs")
GROUP = tuple(f"embed.{task}" for task in TASKS)
INVOKE = ("invoke.invoke_model", "invoke.merge_outputs")
NEXT_INVOKE = ("invoke_next_model.invoke_model", "invoke_next_model.merge_outputs")
NEXT_GROUP = tuple(f"embed_next_model.{task}" for task in TASKS)
TABLES = ((MODEL, EMBEDDINGS, 1024), (NEXT_MODEL, NEXT_EMBEDDINGS, 512))


@pytest.fixture(scope="module")
def first_night(project):
    return project.run()


@pytest.fixture(scope="module")
def expected(sample_library):
    described = json.loads(sample_library.make().read_text())["objects"]
    return {f"s3://{BUCKET}/{PREFIX}{one['key']}": (one["outcome"], one["reason_code"]) for one in described}


def test_the_right_libraries_have_a_dag_and_the_wrong_one_is_an_import_error(project):
    assert set(project.airflow.api.dag_ids()) == {"embed_media", "embed_media_texts", "maintain_tables"}
    (error,) = project.airflow.api.import_errors()
    assert error.filename.endswith("library_configuration.py")
    assert f"line {CONFIGURATION_LINE_OF_BROKEN}: libraries.broken.batch_size" in error.stack_trace


def test_every_object_of_the_sample_library_becomes_what_it_is_meant_to(project, first_night, expected):
    assert first_night.succeeded, first_night.describe()
    assert first_night.report["balanced"]
    for model in (MODEL, NEXT_MODEL):
        ledger = project.ledger(model)
        assert {uri: (row["status"], row["reason_code"]) for uri, row in ledger.items()} == expected, model


@pytest.mark.parametrize(("model", "table", "dimension"), TABLES, ids=[model for model, *_ in TABLES])
def test_the_tables_hold_all_rows_of_every_embedded_object(project, first_night, expected, model, table, dimension):
    rows = project.table(table).to_pyarrow_dataset().to_table().to_pylist()

    assert {row["media_uri"] for row in rows} == {uri for uri, (status, _) in expected.items() if status == "embedded"}
    assert all(len(row["embedding"]) == dimension for row in rows)
    keys = [(row["media_uri"], row["segment_index"]) for row in rows]
    assert len(set(keys)) == len(keys)
    segments = {uri: row["segments"] for uri, row in project.ledger(model).items() if row["segments"]}
    assert segments == {uri: sum(row["media_uri"] == uri for row in rows) for uri in segments}


def test_each_accepted_job_and_each_answer_was_charged_once(project, first_night):
    charges = project.simulator.charges()
    books = first_night.report["models"].values()

    jobs = [one["token"] for one in charges if one["operation"] == "StartAsyncInvoke"]
    assert len(jobs) == len(set(jobs))
    answers = [one for one in charges if one["operation"] == "InvokeModel"]
    assert {one["input_type"] for one in answers} == {"image", "text"}
    assert len(charges) == sum(one["submitted"] for one in books)
    assert sum(one["lost_answers"] for one in books) == 0


def test_the_first_night_takes_the_library_across_and_says_what_to_do_next(project, first_night):
    report = first_night.report

    assert set(report["models"]) == {MODEL, NEXT_MODEL}
    assert all(one["balanced"] for one in report["models"].values())
    assert report["crossing"]["has_caught_up"]
    log = project.airflow.api.log("embed_media", first_night.dag_run.run_id, "report")
    assert f"{NEXT_MODEL} has caught up" in log


def test_a_run_has_few_task_instances_and_they_are_labelled_by_batch(first_night):
    batches = sum(one["batches"] for one in first_night.report["models"].values())

    # The tasks of a round of retries that has nothing to do are there once, skipped.
    assert len(first_night.instances) <= 8 + 2 * 3 + 2 * 2 * 3 + 3 * batches
    for task_id in (*GROUP, *NEXT_GROUP):
        assert first_night.labels(task_id) == {"video-001", "audio-001"}
    for task_id in (*INVOKE, *NEXT_INVOKE):
        assert first_night.labels(task_id) == {"image-001", "text-001"}


def test_no_xcom_is_large(project, first_night):
    for one in first_night.instances:
        groups = (*GROUP, *NEXT_GROUP, *INVOKE, *NEXT_INVOKE, "invoke_batches", "invoke_batches_next_model")
        if one.task_id in {"list_media", "plan", "plan_next_model", *groups, "report"}:
            value = project.airflow.api.xcom(
                "embed_media", first_night.dag_run.run_id, one.task_id, map_index=one.map_index
            )
            assert len(json.dumps(value)) < 65_536


def test_each_table_is_announced_as_an_asset_with_what_was_added(project, first_night):
    events = project.airflow.api.request("GET", "/assets/events").json()["asset_events"]
    of_the_run = [one for one in events if one["extra"].get("run_id") == first_night.dag_run.run_id]

    assert {one["uri"]: one["extra"]["objects"] for one in of_the_run} == {
        table: first_night.report["models"][model]["totals"]["embedded"] for model, table, _ in TABLES
    }


def test_the_start_task_links_to_the_outputs_in_the_s3_console(project, first_night):
    path = f"/dags/embed_media/dagRuns/{first_night.dag_run.run_id}/taskInstances/embed.start_async_invoke/links"
    links = project.airflow.api.request("GET", path, params={"map_index": 0}).json()["extra_links"]

    assert "/s3/buckets/demo-embeddings?" in links["Asynchronous Invocation Output"]
    assert "prefix=work/outputs/" in links["Asynchronous Invocation Output"]


def test_no_credential_reaches_a_log(project, first_night):
    secret = project.stack.environment["AWS_SECRET_ACCESS_KEY"]
    logs = [path for path in (project.airflow.home / "logs").rglob("*.log") if path.is_file()]

    assert logs
    assert [str(path) for path in logs if secret in path.read_text(errors="replace")] == []


def test_every_process_of_airflow_can_import_the_domain(project, first_night):
    answers = [json.loads(path.read_text()) for path in project.probes.glob("*.json")]

    for role in ("scheduler", "triggerer", "dag-processor", "api-server"):
        of_role = [answer["found"] for answer in answers if role in answer["command"]]
        assert of_role, role
        assert all(of_role), role
    # Workers and task processes are forks of the scheduler, and have run the domain's code by now.
    assert first_night.states("embed.merge_outputs") == ["success"] * 2
    assert first_night.states("invoke.merge_outputs") == ["success"] * 2


def test_the_second_night_submits_nothing_and_commits_nothing(project, first_night):
    charges, versions = project.charges(), [project.table(table).version() for _, table, _ in TABLES]
    second = project.run()

    assert second.succeeded, second.describe()
    assert project.charges() == charges
    assert [project.table(table).version() for _, table, _ in TABLES] == versions
    assert second.report["totals"]["unchanged"] == first_night.report["totals"]["embedded"]
    assert second.report["totals"]["embedded"] == 0
    assert second.states("announce_table") == second.states("announce_table_next_model") == ["skipped"]
    assert "nothing was submitted" in project.airflow.api.log("embed_media", second.dag_run.run_id, "report")


def test_the_third_night_embeds_what_was_changed_added_and_mended_and_names_what_was_broken(project, first_night):
    before = project.table(EMBEDDINGS).to_pyarrow_dataset().to_table().to_pylist()
    client = project.stack.seaweedfs.client()

    def content(key: str) -> bytes:
        return client.get_object(Bucket=BUCKET, Key=PREFIX + key)["Body"].read()

    cat, rocket = "photographs/animals/Chelsea's nap.png", "photographs/space/rocket+launch.jpg"
    project.put(cat, content("photographs/people/astronaut.png"))
    project.put("photographs/new & added.png", content("photographs/people/astronaut.png"))
    project.put(rocket, content(rocket)[:2000])
    project.put("broken/upload that broke off.mp4", content("films/Big Buck Bunny (excerpt).mp4"))
    third = project.run()

    assert third.succeeded, third.describe()
    assert [one["totals"]["embedded"] for one in third.report["models"].values()] == [3, 3]
    ledger = project.ledger()
    assert ledger[f"s3://{BUCKET}/{PREFIX}{rocket}"]["reason_code"] in {"corrupt", "unsupported_media"}
    assert ledger[f"s3://{BUCKET}/{PREFIX}broken/upload that broke off.mp4"]["status"] == "embedded"
    after = project.table(EMBEDDINGS).to_pyarrow_dataset().to_table().to_pylist()
    astronaut = next(row for row in after if row["media_uri"].endswith("astronaut.png"))
    replaced = next(row for row in after if row["media_uri"].endswith(cat))
    assert replaced["embedding"] == astronaut["embedding"]
    of_next = project.table(NEXT_EMBEDDINGS).to_pyarrow_dataset().to_table().to_pylist()
    vectors = {row["media_uri"]: row["embedding"] for row in of_next}
    assert vectors[replaced["media_uri"]] == vectors[astronaut["media_uri"]]
    untouched = [row for row in before if not row["media_uri"].endswith(cat)]
    assert [row for row in untouched if row not in after] == []


def test_a_manual_run_takes_its_parameters(project, first_night):
    project.put("descriptions/one more.txt", b"A blue door.")
    project.put("descriptions/and another.txt", b"A green door.")
    tried = project.run(dry_run=True)
    assert tried.succeeded
    assert tried.report["reasons"]["deferred"] == {"dry_run": 2}

    limited = project.run(media_types=["text"], limit=1)
    assert limited.succeeded
    assert limited.report["totals"]["embedded"] == 1
    assert limited.report["totals"]["deferred"] == 1
    # The library's own model has taken all of the limit.
    assert limited.report["models"][NEXT_MODEL]["totals"]["deferred"] == 2

    narrowed = project.run(prefix=f"s3://{BUCKET}/{PREFIX}descriptions/", model=NEXT_MODEL)
    assert narrowed.succeeded, narrowed.describe()
    assert narrowed.report["model"] == NEXT_MODEL
    assert narrowed.report["totals"]["embedded"] == 2
    assert narrowed.report["totals"]["embedded"] + narrowed.report["totals"]["unchanged"] == narrowed.report["listed"]
    assert narrowed.states("plan_next_model") == narrowed.states(NEXT_GROUP[0]) == ["skipped"]


def test_a_run_whose_requests_are_all_refused_fails_in_its_report_and_nowhere_else(project):
    project.simulator.faults(
        {"kind": "error", "operation": "InvokeModel", "code": "AccessDeniedException", "message": "No access."}
    )
    try:
        refused = project.run(force=True, media_types=["text"])
    finally:
        project.simulator.clear_faults()

    assert not refused.succeeded
    assert [one.task_id for one in refused.instances if one.state == "failed"] == ["report"]
    assert set(refused.report["reasons"]["failed"]) == {"access_denied"}
    assert project.run().succeeded


def test_a_library_whose_bucket_is_empty_succeeds_and_one_whose_bucket_is_absent_fails_at_its_first_task(project):
    assert project.run("embed_media_texts").succeeded

    client = project.stack.seaweedfs.client()
    client.delete_bucket(Bucket="other-media")
    absent = project.run("embed_media_texts")
    assert not absent.succeeded
    assert absent.states("list_media") == ["failed"]
    assert absent.states("embed.merge_outputs") == ["upstream_failed"]
    log = project.airflow.api.log("embed_media_texts", absent.dag_run.run_id, "list_media", errors=True)
    assert "s3://other-media/texts/: the bucket does not exist" in log


def test_a_run_survives_that_the_triggerer_is_killed_while_it_waits(project):
    from local_stack.processes import wait_until

    project.simulator.settings(seconds_per_job=8.0)
    try:
        project.put("films/slow.mp4", film())
        charges = len(project.charges())
        run_id = project.airflow.api.trigger("embed_media", run_id="killed")
        wait_until(lambda: len(project.charges()) > charges, seconds=60, what="a job was submitted")
        project.airflow.kill_part("triggerer")
        project.airflow.start_part("triggerer")
        run = project.airflow.api.wait_for_run("embed_media", run_id, seconds=180)
    finally:
        project.simulator.settings(seconds_per_job=1.0)

    assert run.state == "success", project.airflow.api.describe("embed_media", run_id)
    assert len(project.charges()) == charges + 2
    for model in (MODEL, NEXT_MODEL):
        assert project.ledger(model)[f"s3://{BUCKET}/{PREFIX}films/slow.mp4"]["status"] == "embedded"


def test_a_worker_that_is_killed_while_it_sends_is_gone_on_with_and_pays_for_few_twice(project):
    from local_stack.processes import wait_until

    project.simulator.settings(invokes_per_second=2.0)
    names = [f"descriptions/many-{number:02d}.txt" for number in range(12)]
    try:
        for number, name in enumerate(names):
            project.put(name, f"A boat, number {number}.".encode())
        charges = len(project.charges())
        run_id = project.airflow.api.trigger("embed_media", run_id="killed-sync")
        wait_until(lambda: len(project.charges()) >= charges + 4, seconds=90, what="four texts were paid for")
        project.airflow.kill_part("scheduler")
        project.airflow.start_part("scheduler")
        run = project.airflow.api.wait_for_run("embed_media", run_id, seconds=600)
    finally:
        project.simulator.settings(invokes_per_second=None)

    assert run.state == "success", project.airflow.api.describe("embed_media", run_id)
    for model in (MODEL, NEXT_MODEL):
        ledger = project.ledger(model)
        assert {ledger[f"s3://{BUCKET}/{PREFIX}{name}"]["status"] for name in names} == {"embedded"}
    # What was under way when the worker died may have been paid for without its answer being kept.
    assert charges + 2 * 12 <= len(project.charges()) <= charges + 2 * 12 + 12
