"""What is paid for and there is found again, whatever was lost: the ledger, the invocations, Airflow's own database."""

from __future__ import annotations

import pytest

from media_embeddings.planning import Status
from media_embeddings.storage import ObjectUnreadableError, Storage, split_uri
from tests.integration.media_embeddings.conftest import end_all_jobs, film, picture, starts


def remove_below(pipeline, prefix_uri: str) -> None:
    """Remove whatever lies below a prefix, as an accident would."""
    uris = list(pipeline.storage.list_uris(f"{prefix_uri}/"))
    assert uris
    for uri in uris:
        bucket, key = split_uri(uri)
        pipeline.storage.client.delete_object(Bucket=bucket, Key=key)


@pytest.fixture
def embedded(pipeline):
    pipeline.put("a.png", picture("red"))
    pipeline.put("b.txt", b"A slow red train.")
    pipeline.put("film.mp4", film())
    assert pipeline.run().totals[Status.EMBEDDED] == 3
    return pipeline


def test_a_lost_ledger_is_written_again_from_the_table_and_nothing_is_submitted(embedded, simulator):
    count, ledger, rows = starts(simulator), embedded.ledger(), embedded.rows()
    remove_below(embedded, f"{embedded.library.tables}/media")

    report = embedded.run()

    assert starts(simulator) == count
    assert (report.recovered, report.totals[Status.UNCHANGED], report.batches) == (3, 3, 0)
    assert embedded.rows() == rows
    for key, row in embedded.ledger().items():
        same = ("status", "etag", "segments", "duration_sec", "request_id", "invocation_arn", "embedding_key")
        assert {name: row[name] for name in same} == {name: ledger[key][name] for name in same}
    assert embedded.run().recovered == 0


def test_lost_tables_are_made_again_from_the_outputs_and_nothing_is_submitted(embedded, simulator):
    count = starts(simulator)
    rows = {key: [row["embedding"] for row in several] for key, several in embedded.rows().items()}
    remove_below(embedded, embedded.library.tables)
    simulator.settings(job_retention_seconds=0.0)

    report = embedded.run()

    assert starts(simulator) == count
    assert (report.reused, report.submitted, report.totals[Status.EMBEDDED]) == (3, 0, 3)
    assert {key: [row["embedding"] for row in several] for key, several in embedded.rows().items()} == rows
    assert all("async-invoke/" in row["invocation_arn"] for row in embedded.ledger().values())


def test_an_output_that_s3_refuses_fails_alone_and_is_taken_when_it_can_be_read(pipeline, simulator, monkeypatch):
    for colour in ("red", "green", "blue"):
        pipeline.put(f"{colour}.png", picture(colour))
    original, refused = Storage.open, []

    def opened(self, uri):
        if uri.endswith("/output.json") and uri in (refused or refused.append(uri) or refused):
            raise ObjectUnreadableError(f"S3 refuses to give {uri} (InvalidObjectState)")
        return original(self, uri)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "open", opened)
        report = pipeline.run()

    assert (report.totals[Status.EMBEDDED], report.reasons["failed"]) == (2, {"access_denied": 1})
    count = starts(simulator)
    assert pipeline.run().totals[Status.EMBEDDED] == 1
    assert starts(simulator) == count


def test_an_output_that_came_after_its_attempt_was_given_up_is_reused(pipeline, simulator):
    pipeline.put("odd.png", picture("blue"))
    pipeline.configure(deadline_hours=4 / 3600)
    simulator.faults({"kind": "stuck", "source": "*odd.png"})
    assert pipeline.run().totals[Status.DEFERRED] == 1
    simulator.clear_faults()
    end_all_jobs(simulator)
    count = starts(simulator)

    report = pipeline.run()

    assert starts(simulator) == count
    assert (report.reused, report.totals[Status.EMBEDDED]) == (1, 1)


def test_an_output_that_was_refused_is_not_reused(pipeline, simulator):
    pipeline.put("a.png", picture("red"))
    simulator.faults({"kind": "wrong_dimension", "source": "*a.png", "count": 1})
    assert pipeline.run().totals[Status.FAILED] == 1
    count = starts(simulator)

    report = pipeline.run()

    assert starts(simulator) == count + 1
    assert (report.reused, report.totals[Status.EMBEDDED]) == (0, 1)
    assert pipeline.ledger()["a.png"]["attempts"] == 2


def test_a_forced_run_buys_again_although_rows_and_outputs_are_there(embedded, simulator):
    count = starts(simulator)
    report = embedded.run(force=True)
    assert starts(simulator) == count + 3
    assert (report.reused, report.recovered) == (0, 0)


def test_a_forced_run_that_was_killed_before_it_merged_reuses_what_it_has_bought(embedded, simulator):
    def killed() -> None:
        raise InterruptedError

    embedded.configure(batch_size=3)
    embedded.between["wait_for_async_invoke"] = killed
    with pytest.raises(InterruptedError):
        embedded.run(force=True, run_id="forced")
    count = starts(simulator)
    remove_below(embedded, f"{embedded.library.work}/runs")

    report = embedded.run(force=True, run_id="forced")

    assert report.reused > 0
    assert report.reused + report.submitted == 3
    assert starts(simulator) == count + report.submitted


def test_another_library_into_the_same_tables_finds_what_is_there(embedded, simulator):
    count = starts(simulator)
    embedded.configure(name="others", work=f"{embedded.library.work}-of-others")
    report = embedded.run()
    assert starts(simulator) == count
    assert report.totals[Status.UNCHANGED] == 3


def test_content_that_came_back_and_was_embedded_before_is_reused(embedded, simulator):
    embedded.put("a.png", picture("blue"))
    embedded.run()
    embedded.put("a.png", picture("red"))
    count = starts(simulator)
    report = embedded.run()
    assert starts(simulator) == count
    assert report.reused == 1
    assert embedded.rows()["a.png"][0]["etag"] == embedded.ledger()["a.png"]["etag"]
