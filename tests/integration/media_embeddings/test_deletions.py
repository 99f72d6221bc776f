"""Objects that are gone from their source, and those that only seem to be."""

from __future__ import annotations

import pytest

from media_embeddings.planning import Status
from tests.integration.media_embeddings.conftest import film, picture, starts


@pytest.fixture
def library(pipeline):
    pipeline.configure(deletions="on", max_deleted_share=0.5)
    for name in ("a.png", "b.png", "c.txt"):
        pipeline.put(name, b"A slow red train." if name.endswith("txt") else picture("red", (64 + ord(name[0]), 64)))
    pipeline.put("film.mp4", film())
    pipeline.run()
    return pipeline


def test_an_object_that_is_gone_loses_its_rows_and_the_books_say_so(library):
    library.delete("a.png")
    library.delete("film.mp4")
    report = library.run()
    assert (report.balanced, report.succeeded) == (True, True)
    assert (report.totals[Status.DELETED], report.totals[Status.UNCHANGED], report.gone) == (2, 2, 2)
    assert set(library.rows()) == {"b.png", "c.txt"}
    assert {key: row["status"] for key, row in library.ledger().items()} == {
        "a.png": "deleted",
        "film.mp4": "deleted",
        "b.png": "embedded",
        "c.txt": "embedded",
    }
    again = library.run()
    assert (again.totals[Status.DELETED], again.gone) == (0, 0)


def test_a_run_that_is_repeated_tells_the_same(library):
    library.delete("a.png")
    first = library.run(run_id="night")
    assert library.run(run_id="night").totals == first.totals


def test_what_globs_types_and_parameters_leave_out_keeps_its_rows(library):
    rows = library.rows()
    library.configure(exclude=["a.png"])
    assert library.run().totals[Status.RETAINED] == 1
    library.configure(exclude=[], media_types={"text": [".txt"]})
    assert library.run().totals[Status.RETAINED] == 3
    library.configure(media_types={"video": [".mp4"], "image": [".png"], "text": [".txt"]})
    library.delete("b.png")
    narrow = library.run(prefix=library.uri("a"))
    assert (narrow.gone, narrow.totals[Status.DELETED]) == (0, 0)
    assert library.run(media_types=["video"]).gone == 0
    assert library.rows() == rows


def test_a_source_that_can_not_be_listed_deletes_nothing(library, stack):
    library.configure(sources=[*library.library.sources, "s3://no-such-bucket-anywhere/x/"])
    library.delete("a.png")
    report = library.run()
    assert (report.succeeded, report.totals[Status.DELETED]) == (False, 0)
    assert "a.png" in library.rows()


def test_if_too_many_would_go_nothing_is_deleted_and_the_run_says_so(library):
    for name in ("a.png", "b.png", "c.txt"):
        library.delete(name)
    report = library.run()
    assert (report.succeeded, report.totals[Status.DELETED], report.totals[Status.RETAINED]) == (True, 0, 3)
    assert "3 of 4 objects are no longer in the sources" in report.notices[-1]
    assert len(library.rows()) == 4


def test_without_being_told_to_it_only_reports(library):
    library.configure(deletions="report")
    library.delete("a.png")
    report = library.run()
    assert report.totals[Status.RETAINED] == 1
    assert "1 objects are no longer in the sources and their rows stay" in report.notices[-1]
    assert "a.png" in library.rows()


def test_an_object_that_comes_back_is_embedded_again_without_another_charge(library, simulator):
    library.delete("a.png")
    library.run()
    count = starts(simulator)
    library.put("a.png", picture("red", (64 + ord("a"), 64)))
    report = library.run()
    assert (report.totals[Status.EMBEDDED], report.reused, starts(simulator)) == (1, 1, count)
    assert library.ledger()["a.png"]["attempts"] == 1


def test_the_rows_of_every_model_go(library):
    library.run(model="marengo-3-0")
    library.delete("a.png")
    library.run()
    assert "a.png" not in library.rows("marengo-3-0")
    assert library.ledger("marengo-3-0")["a.png"]["status"] == "deleted"


def test_a_failed_forced_attempt_leaves_ledger_and_rows_as_they_are(library, simulator):
    before = library.ledger()["a.png"]
    simulator.faults({"kind": "output_truncated", "source": "*a.png"})
    report = library.run(force=True)
    simulator.clear_faults()
    assert report.totals[Status.FAILED] == 1
    assert library.ledger()["a.png"] == before
    assert library.run().totals[Status.UNCHANGED] == 4


def test_an_old_runs_merge_that_is_cleared_takes_nothing_back(library):
    from media_embeddings.merging import merge_batch
    from media_embeddings.run_folder import BatchFolder

    manifests = [
        uri for uri in library.storage.list_uris(f"{library.library.work}/runs/") if uri.endswith("requests.jsonl")
    ]
    library.put("a.png", picture("blue"))
    library.run()
    rows, ledger = library.rows(), library.ledger()

    for uri in manifests:
        merge_batch(library.storage, library.library, "marengo-2-7", "run-1", BatchFolder.of_manifest(uri))

    assert library.ledger()["a.png"] == ledger["a.png"]
    assert library.rows()["a.png"] == rows["a.png"]
