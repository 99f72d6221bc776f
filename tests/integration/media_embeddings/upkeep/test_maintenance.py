"""A whole upkeep of what real runs have written, from the command line."""

from __future__ import annotations

import json

import pytest
import yaml
from deltalake import DeltaTable

from media_embeddings.__main__ import main
from media_embeddings.configuration import CONFIGURATION_VARIABLE
from media_embeddings.table_options import current
from media_embeddings.tables import Tables
from media_embeddings.upkeep.maintenance import Maintenance
from media_embeddings.upkeep.objects import list_objects
from tests.integration.media_embeddings.conftest import film, picture, starts

KINDS = ("outputs", "runs", "intents", "tickets")


@pytest.fixture
def kept(pipeline, tmp_path, monkeypatch):
    """Give a library after two runs, which the command line knows."""
    for name in ("red", "green", "blue"):
        pipeline.put(f"{name}.png", picture(name))
    pipeline.put("film.mp4", film())
    pipeline.configure(batch_size=1)
    assert pipeline.run().succeeded
    pipeline.put("red.png", picture("blue", (100, 100)))
    assert pipeline.run().succeeded
    settings = pipeline.library.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    path = tmp_path / "libraries.yaml"
    path.write_text(yaml.safe_dump({"libraries": {"films": settings}}))
    monkeypatch.setenv(CONFIGURATION_VARIABLE, str(path))
    monkeypatch.setattr(Maintenance, "settle_seconds", 0)
    return pipeline


def stored(pipeline) -> set[str]:
    bucket = pipeline.library.tables.split("/")[2]
    uris = {one.uri for page in list_objects(pipeline.storage, f"s3://{bucket}/") for one in page}
    return {uri for uri in uris if not uri.endswith("/") and "/maintenance/" not in uri}


def report(pipeline) -> dict:
    """Return the report of the only upkeep there was."""
    pages = list_objects(pipeline.storage, f"{pipeline.library.work}/maintenance/films/")
    (uri,) = [one.uri for page in pages for one in page if one.uri.endswith("/report.json")]
    return json.loads(pipeline.storage.read(uri))


def test_an_upkeep_leaves_fewer_files_with_the_same_rows_and_says_what_it_did(kept, capsys, simulator):
    rows, ledger, count = kept.rows(), kept.ledger(), starts(simulator)

    assert main(["maintain"]) == 0

    printed = capsys.readouterr().out
    assert "succeeded." in printed
    assert "embeddings/marengo-2-7" in printed
    made = report(kept)
    name = "embeddings/marengo-2-7"
    assert made["before"][name]["files"] > made["after"][name]["files"]
    assert made["before"][name]["rows"] == made["after"][name]["rows"] == sum(map(len, rows.values()))
    assert made["consistency"]["counts"] == {}
    # All of it is younger than any retention.
    assert {kind: made["expired"][kind]["objects"] for kind in KINDS} == dict.fromkeys(KINDS, 0)
    assert (kept.rows(), kept.ledger()) == (rows, ledger)
    assert kept.run().totals["unchanged"] == 4
    assert starts(simulator) == count


def test_a_dry_run_changes_nothing_but_writes_its_report(kept):
    before = stored(kept)

    assert main(["maintain", "--library", "films", "--dry-run"]) == 0

    assert stored(kept) == before
    made = report(kept)
    assert made["dry_run"]
    assert made["compaction"]["embeddings/marengo-2-7"]["sets"] > 0


def test_where_ledger_and_tables_do_not_agree_it_fails_says_what_to_do_and_deletes_nothing(kept, capsys):
    tables = Tables(kept.library.tables, kept.storage.table_options)
    tables.delete_embeddings("marengo-2-7", 1024, [kept.uri("green.png")], "lost")

    assert main(["maintain"]) == 1

    assert f"1 x rows_missing, first {kept.uri('green.png')}: if it still stands" in capsys.readouterr().out
    made = report(kept)
    assert not made["succeeded"]
    assert (made["expired"], made["vacuumed"]) == ({}, {})
    assert len(made["problems"]) == 1


def test_a_library_that_there_is_not_is_not_understood(kept, capsys):
    assert main(["maintain", "--library", "clips"]) == 2
    assert "there is no library 'clips'" in capsys.readouterr().err


def test_all_tables_are_at_the_version_that_the_report_names(kept):
    main(["maintain"])

    options = current(kept.storage.table_options)
    for name, figures in report(kept)["after"].items():
        assert DeltaTable(f"{kept.library.tables}/{name}", storage_options=options).version() == figures["version"]
