"""What the documentation shows works: its Python is run against a table, its links lead to files."""

import re
import shlex
from pathlib import Path

import pytest

from media_embeddings.__main__ import main
from media_embeddings.configuration import load_configuration
from media_embeddings.library import Library
from media_embeddings.storage import Storage
from tests.integration.media_embeddings.conftest import Pipeline, picture

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = re.findall(r"## (.+?)\n.*?```python\n(.*?)```", (ROOT / "docs/reading_tables.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def demo_table(stack):
    import boto3

    stack.seaweedfs.create_buckets("demo-media", "demo-embeddings")
    library = Library(
        name="demo",
        sources=["s3://demo-media/library/"],
        region="us-east-1",
        model="marengo-2-7",
        model_lifecycle="warn",
        tables="s3://demo-embeddings/tables",
        work="s3://demo-embeddings/work",
    )
    pipeline = Pipeline(library, Storage.of_session(boto3.Session()))
    pipeline.put("red.png", picture("red"))
    pipeline.put("notes.docx", b"PK")
    # What docs/search.md searches by.
    pipeline.put("photographs/space/rocket+launch.jpg", picture("blue"))
    pipeline.put("notes.txt", b"A slow red train.")
    assert pipeline.run().succeeded


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_the_examples_of_reading_the_tables_run(demo_table, title, code, capsys):
    exec(compile(code, title, "exec"), {})

    assert capsys.readouterr().out.strip()


SEARCHES = re.findall(
    r"^PYTHONPATH=include .venv/bin/python -m media_embeddings (search --library demo .+)$",
    (ROOT / "docs/search.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize("arguments", SEARCHES)
def test_the_examples_of_searching_run(demo_table, arguments, capsys, tmp_path, monkeypatch):
    (tmp_path / "rocket.jpg").write_bytes(picture("blue"))
    monkeypatch.chdir(tmp_path)

    assert main(shlex.split(arguments)) == 0
    assert "marengo-2-7" in capsys.readouterr().out


def test_the_search_from_python_runs(demo_table, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/search.md").read_text(), re.DOTALL)
    exec(compile(code, "search", "exec"), {})

    assert "s3://demo-media/library/" in capsys.readouterr().out


def test_every_reader_that_can_run_here_has_an_example():
    assert [title for title, _ in EXAMPLES] == ["pandas and pyarrow", "polars", "DuckDB", "The words of a row"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_setting_of_a_library_is_documented():
    text = (ROOT / "docs/configuration.md").read_text()
    table = text.partition("## Settings")[2].partition("## Parameters")[0]
    documented = set(re.findall(r"`([a-z_]+)`", table))

    assert set(Library.model_fields) - {"name"} <= documented


def test_the_template_for_a_new_library_is_valid_and_names_the_model_that_lasts(tmp_path):
    configuration, *others = (
        _configuration(text, tmp_path)
        for text in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL)
    )

    assert configuration.libraries[0].model == "marengo-3-0"
    assert [one.errors for one in (configuration, *others)] == [()] * (len(others) + 1)


def _configuration(text, tmp_path):
    path = tmp_path / "libraries.yaml"
    path.write_text(text)
    return load_configuration(path)
