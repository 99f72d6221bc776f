"""The rules that hold the folders apart: imports go one way, and what only tests and the demo need stays out of production."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCTION = [ROOT / "include/media_embeddings", ROOT / "plugins/bedrock_async_invoke", ROOT / "dags"]


def imported(folder: Path) -> dict[str, set[str]]:
    """Return the top-level packages that each module below a folder imports, also inside functions."""
    found = {}
    for path in folder.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module or "")
        found[str(path.relative_to(ROOT))] = {name.partition(".")[0] for name in names}
    assert found
    return found


def importers(folder: Path, *packages: str) -> set[str]:
    return {path for path, names in imported(folder).items() if names & set(packages)}


def test_include_imports_neither_airflow_nor_plugins():
    assert importers(ROOT / "include/media_embeddings", "airflow", "bedrock_async_invoke", "dags") == set()
    assert importers(ROOT / "include/bedrock_simulator", "airflow", "bedrock_async_invoke", "dags") == set()


def test_the_plugin_for_bedrock_knows_nothing_of_the_domain():
    assert importers(ROOT / "plugins/bedrock_async_invoke", "media_embeddings") == set()


@pytest.mark.parametrize("folder", PRODUCTION, ids=lambda path: path.name)
def test_production_imports_neither_the_simulator_nor_its_media_libraries(folder):
    assert importers(folder, "bedrock_simulator", "local_stack", "skimage", "sklearn") == set()


@pytest.mark.parametrize("folder", PRODUCTION, ids=lambda path: path.name)
def test_only_what_runs_in_the_process_for_headers_imports_libraries_that_parse_media(folder):
    allowed = {f"include/media_embeddings/headers/{name}.py" for name in ("pictures", "tracks")}
    assert importers(folder, "av", "PIL") <= allowed


def test_no_registry_is_named_in_the_requirements():
    for path in ROOT.glob("requirements*"):
        assert "://" not in path.read_text(), path
        assert "--index" not in path.read_text(), path
