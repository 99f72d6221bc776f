"""Upkeep in real Airflow, of tables that real runs have written."""

import json

from tests.end_to_end.conftest import EMBEDDINGS

STEPS = ("survey", "compact", "check", "expire", "vacuum", "report")


def embedded(project) -> list[str]:
    rows = project.table(EMBEDDINGS).to_pyarrow_dataset().to_table()
    return sorted(map(str, rows.to_pylist()))


def test_upkeep_leaves_fewer_files_the_same_rows_and_a_library_that_needs_nothing(project):
    assert project.run().succeeded
    before, files = embedded(project), len(project.table(EMBEDDINGS).file_uris())
    charges = len(project.charges())
    project.airflow.api.unpause("maintain_tables")

    tried = project.run("maintain_tables", dry_run=True)
    assert tried.succeeded, tried.describe()
    assert len(project.table(EMBEDDINGS).file_uris()) == files
    kept = project.run("maintain_tables")

    assert kept.succeeded, kept.describe()
    # Libraries that share their tables are kept together, under the name of the first.
    assert {one.task_id: one.state for one in kept.instances} == {f"demo.{step}": "success" for step in STEPS}
    key = f"work/maintenance/demo/{kept.dag_run.run_id}/report.json"
    stored = project.stack.seaweedfs.client().get_object(Bucket="demo-embeddings", Key=key)
    report = json.loads(stored["Body"].read())
    assert report["after"]["embeddings/marengo-2-7"]["files"] <= files
    assert embedded(project) == before
    again = project.run()
    assert again.report["totals"]["embedded"] == 0
    assert len(project.charges()) == charges
