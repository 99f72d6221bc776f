import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-"))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def dag_bag():
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(ROOT / "dags")


@pytest.fixture(scope="session")
def single_dag_bag(tmp_path_factory):
    """Give the DAGs of a library that embeds with one model."""
    from airflow.dag_processing.dagbag import DagBag

    configuration = tmp_path_factory.mktemp("single") / "libraries.yaml"
    configuration.write_text(
        "libraries:\n  films: {sources: [s3://films/raw/], region: us-east-1, model: marengo-3-0, "
        "tables: s3://vectors/tables, work: s3://vectors/work}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDIA_EMBEDDINGS_CONFIG", str(configuration))
        return DagBag(ROOT / "dags")


@pytest.fixture
def parse(tmp_path):
    """Give a function that parses the DAGs in a process of their own and returns what it prints."""

    def parse(code: str, **environment: str) -> str:
        path = os.pathsep.join([str(ROOT / "include"), str(ROOT / "plugins"), str(ROOT / "dags")])
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, "AIRFLOW_HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        return found.stdout

    return parse
