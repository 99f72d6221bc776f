"""What a run that is cleared, killed or only tried out must not delete, nor leave half deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from media_embeddings.listing import Listing, list_media
from media_embeddings.merging import merge_batch
from media_embeddings.planner import Plan, PlanOptions, make_plan
from media_embeddings.planning import Status
from media_embeddings.reporting import committed_by
from media_embeddings.run_folder import BatchFolder, RunFolder
from media_embeddings.tables import Tables
from tests.integration.media_embeddings.conftest import Pipeline, picture, starts


@pytest.fixture
def library(pipeline: Pipeline) -> Pipeline:
    pipeline.configure(deletions="on", max_deleted_share=0.5)
    pipeline.put("a.png", picture("red"))
    pipeline.put("b.png", picture("green"))
    pipeline.put("c.txt", b"A slow red train.")
    return pipeline


def listed(library: Pipeline, run_id: str) -> Listing:
    uri = RunFolder(library.library.work, library.library.name, run_id).listing_uri
    return list_media(library.storage, library.library, uri)


def planned(library: Pipeline, run_id: str, listing: Listing, **options: Any) -> tuple[Plan, str]:
    return make_plan(library.storage, library.library, run_id, listing, PlanOptions(**options))


class KilledError(Exception):
    """Stands for a process that ends at this very call."""


def killed_at(monkeypatch: pytest.MonkeyPatch, method: str, is_the_one: Callable[..., bool]) -> None:
    original = getattr(Tables, method)

    def killed(tables: Tables, *arguments: Any, **options: Any) -> Any:
        if is_the_one(*arguments):
            raise KilledError(method)
        return original(tables, *arguments, **options)

    monkeypatch.setattr(Tables, method, killed)


def test_a_cleared_plan_of_an_old_run_leaves_alone_what_came_after_its_listing(library: Pipeline) -> None:
    old = listed(library, "old")
    library.run()
    library.put("new.png", picture("blue"))
    library.run()
    before, ledger = library.rows(), library.ledger()

    plan, _ = planned(library, "old", old)

    assert library.rows() == before
    assert library.ledger() == ledger
    assert plan.gone == 0


def test_a_cleared_plan_of_an_old_run_does_not_delete_what_has_come_back_since(library: Pipeline) -> None:
    library.run()
    library.delete("a.png")
    without = listed(library, "old")
    library.run()
    library.put("a.png", picture("red"))
    library.run()
    before = library.rows()

    planned(library, "old", without)

    assert library.rows() == before
    assert library.ledger()["a.png"]["status"] == "embedded"


def test_a_cleared_plan_of_an_old_run_keeps_the_files_that_it_wrote(library: Pipeline) -> None:
    old = listed(library, "old")
    plan, _ = planned(library, "old", old)
    folders = [uri.rsplit("/", 1)[0] for uri in plan.manifests]
    before = [library.storage.read(f"{folder}/objects.parquet") for folder in folders]

    assert planned(library, "old", old)[0] == plan
    assert [library.storage.read(f"{folder}/objects.parquet") for folder in folders] == before


def test_a_dry_run_deletes_nothing_and_says_what_it_would_delete(library: Pipeline) -> None:
    library.run()
    library.delete("a.png")
    report = library.run(dry_run=True)

    assert (report.balanced, report.totals[Status.DELETED], report.totals[Status.RETAINED]) == (True, 0, 1)
    assert library.uri("a.png") in report.notices[-1]
    assert "a.png" in library.rows()
    assert library.ledger()["a.png"]["status"] == "embedded"


def test_killed_between_rows_and_ledger_the_next_run_deletes_again(library: Pipeline) -> None:
    library.run()
    library.delete("a.png")
    with pytest.MonkeyPatch.context() as monkeypatch:
        killed_at(monkeypatch, "update_ledger", lambda *_: True)
        with pytest.raises(KilledError):
            library.run()
    assert "a.png" not in library.rows()

    report = library.run()
    assert (report.balanced, report.totals[Status.DELETED]) == (True, 1)
    assert library.ledger()["a.png"]["status"] == "deleted"


@pytest.mark.parametrize("repeated", [True, False], ids=["the same run", "the next run"])
def test_killed_between_the_models_the_rows_of_both_go_in_the_end(library: Pipeline, repeated: bool) -> None:
    library.run()
    library.run(model="marengo-3-0")
    library.delete("a.png")
    with pytest.MonkeyPatch.context() as monkeypatch:
        deleted: list[str] = []

        def second_model(model_name: str, *_: Any) -> bool:
            deleted.append(model_name)
            return len(deleted) == 2

        killed_at(monkeypatch, "delete_embeddings", second_model)
        with pytest.raises(KilledError):
            library.run(run_id="night")

    report = library.run(run_id="night" if repeated else "another night")
    assert report.totals[Status.DELETED] == 1
    for model in ("marengo-2-7", "marengo-3-0"):
        assert "a.png" not in library.rows(model)
        assert library.ledger(model)["a.png"]["status"] == "deleted"


def test_a_run_that_only_deletes_has_changed_the_table_and_announces_it(library: Pipeline) -> None:
    library.run()
    library.delete("a.png")
    _, plan_uri = planned(library, "night", listed(library, "night"))
    assert committed_by(library.storage, plan_uri) == {"objects": 0, "segments": 0, "deleted": 1}

    _, plan_uri = planned(library, "next", listed(library, "next"))
    assert committed_by(library.storage, plan_uri) is None


def test_a_merge_of_an_old_run_does_not_replace_rows_that_were_bought_with_other_parameters_since(
    library: Pipeline,
) -> None:
    plan, _ = planned(library, "old", listed(library, "old"))
    [text] = [uri for uri in plan.manifests if "/text-" in uri]
    # Its start task is lost, so that it has nothing to say of the object until it is cleared.
    merge_batch(library.storage, library.library, plan.model, "old", BatchFolder.of_manifest(text))
    assert library.ledger()["c.txt"]["status"] == "deferred"

    library.configure(model_parameters={"text": {"textTruncate": "end"}})
    library.run()
    rows, ledger = library.rows()["c.txt"], library.ledger()["c.txt"]
    library.embed(plan, text)

    assert library.rows()["c.txt"] == rows
    assert library.ledger()["c.txt"] == ledger


def test_a_merge_of_an_old_run_finds_a_deleted_object_deleted(library: Pipeline) -> None:
    plan, _ = planned(library, "old", listed(library, "old"))
    for manifest_uri in plan.manifests:
        library.embed(plan, manifest_uri)
    library.delete("a.png")
    library.run()
    ledger = library.ledger()["a.png"]
    assert ledger["status"] == "deleted"

    for manifest_uri in plan.manifests:
        library.embed(plan, manifest_uri)
    assert library.ledger()["a.png"] == ledger
    assert "a.png" not in library.rows()


def test_an_object_that_comes_back_after_its_output_was_removed_is_embedded_in_the_end(
    library: Pipeline, simulator: Any
) -> None:
    library.configure(retries_in_run=1)
    library.run()
    library.delete("a.png")
    request_id = library.ledger()["a.png"]["request_id"]
    library.run()
    for uri in library.storage.list_uris(f"{library.library.work}/outputs/{request_id}/"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        library.storage.client.delete_object(Bucket=bucket, Key=key)
    count = starts(simulator)
    library.put("a.png", picture("red"))

    report = library.run()
    assert (report.balanced, report.totals[Status.EMBEDDED]) == (True, 1)
    assert library.ledger()["a.png"]["status"] == "embedded"
    assert starts(simulator) <= count + 1
