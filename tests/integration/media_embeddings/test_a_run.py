"""What a run does with good media: against a real S3 server and the Bedrock simulator."""

import numpy as np
import pytest

from media_embeddings.planning import Status
from tests.integration.media_embeddings.conftest import end_all_jobs, film, picture, starts, vectors


@pytest.fixture
def filled(pipeline):
    pipeline.put("films/a film (1)+50%20é'ß.mp4", film())
    pipeline.put("red.png", picture("red"))
    pipeline.put("blue.png", picture("blue"))
    pipeline.put("notes/red.txt", b"a red boat")
    return pipeline


def test_every_media_type_is_embedded_into_rows_with_their_provenance(filled):
    report = filled.run()

    assert report.succeeded
    assert report.balanced
    assert report.totals[Status.EMBEDDED] == 4
    rows = filled.rows()
    assert set(rows) == {"films/a film (1)+50%20é'ß.mp4", "red.png", "blue.png", "notes/red.txt"}
    (red,) = rows["red.png"]
    assert red["media_type"] == "image"
    assert (red["start_sec"], red["embedding_scope"], red["segment_index"]) == (None, "asset", 0)
    assert len(red["embedding"]) == 1024
    assert np.linalg.norm(red["embedding"]) == pytest.approx(1.0, abs=1e-3)
    assert red["run_id"] == "run-1"
    assert red["invocation_arn"].startswith("arn:aws:bedrock:us-east-1:")
    assert red["etag"] == filled.storage.head(filled.uri("red.png")).etag

    video = rows["films/a film (1)+50%20é'ß.mp4"]
    assert {row["embedding_option"] for row in video} == {"visual-text", "visual-image", "audio"}
    assert [row["segment_index"] for row in video] == list(range(len(video)))
    assert max(row["end_sec"] for row in video) == pytest.approx(10.0, abs=0.5)


def test_the_ledger_says_what_became_of_each_object(filled):
    filled.run()

    entry = filled.ledger()["red.png"]
    assert (entry["status"], entry["attempts"], entry["segments"]) == ("embedded", 1, 1)
    assert entry["library"] == "films"
    assert entry["parameters"] == "{}"
    assert filled.ledger()["films/a film (1)+50%20é'ß.mp4"]["duration_sec"] == pytest.approx(10.0, abs=0.5)


def test_a_second_run_over_an_unchanged_library_starts_nothing_and_commits_nothing(filled, simulator):
    filled.run()
    before, version = starts(simulator), filled.table().version()
    report = filled.run()

    assert starts(simulator) == before
    assert filled.table().version() == version
    assert report.succeeded
    assert report.totals[Status.UNCHANGED] == 4
    assert report.batches == 0


def test_a_changed_object_replaces_its_rows_and_a_new_one_is_added(filled, simulator):
    filled.run()
    before = filled.rows()
    count = starts(simulator)
    filled.put("red.png", picture("green"))
    filled.put("another.png", picture("green"))
    report = filled.run()

    after = filled.rows()
    assert report.totals == report.totals | {Status.EMBEDDED: 2, Status.UNCHANGED: 3}
    assert starts(simulator) == count + 2
    assert set(after) == set(before) | {"another.png"}
    assert len(after["red.png"]) == 1
    assert np.array_equal(vectors(after["red.png"]), vectors(after["another.png"]))
    assert not np.array_equal(vectors(after["red.png"]), vectors(before["red.png"]))
    for key in ("blue.png", "notes/red.txt"):
        assert after[key] == before[key]


def test_a_run_with_another_model_writes_a_table_of_its_own(filled):
    filled.run()
    report = filled.run(model="marengo-3-0")

    assert report.model == "marengo-3-0"
    rows = filled.rows("marengo-3-0")
    assert len(rows["red.png"][0]["embedding"]) == 512
    assert {row["embedding_scope"] for row in rows["films/a film (1)+50%20é'ß.mp4"]} == {"clip", "asset"}
    assert len(filled.rows()["red.png"][0]["embedding"]) == 1024


def test_a_forced_run_embeds_again_and_a_repetition_of_it_does_not(filled, simulator):
    filled.run()
    count = starts(simulator)
    filled.run(force=True, run_id="forced")
    assert starts(simulator) == count + 4

    filled.run(force=True, run_id="forced")
    assert starts(simulator) == count + 4
    assert filled.ledger()["red.png"]["attempts"] == 2


def test_a_dry_run_starts_nothing_and_leaves_no_trace_in_the_tables(filled, simulator):
    count = starts(simulator)
    report = filled.run(dry_run=True)

    assert report.succeeded
    assert report.reasons["deferred"] == {"dry_run": 4}
    assert starts(simulator) == count
    assert filled.ledger() == {}


def test_a_limit_defers_the_others_to_the_next_run(filled):
    first = filled.run(limit=1)
    second = filled.run()

    assert first.totals == first.totals | {Status.EMBEDDED: 1, Status.DEFERRED: 3}
    assert second.totals == second.totals | {Status.EMBEDDED: 3, Status.UNCHANGED: 1}


def test_a_prefix_and_media_types_narrow_the_run(filled):
    assert filled.run(prefix=filled.uri("notes/")).listed == 1
    assert filled.run(media_types=["video"]).listed == 1
    assert set(filled.rows()) == {"notes/red.txt", "films/a film (1)+50%20é'ß.mp4"}


def test_what_is_gone_from_the_bucket_keeps_its_rows_and_stands_in_the_books(filled):
    filled.run()
    filled.delete("red.png")
    report = filled.run()

    assert report.balanced
    assert (report.gone, report.totals[Status.RETAINED]) == (1, 1)
    assert "red.png" in filled.rows()


def test_an_empty_prefix_is_a_success(pipeline):
    report = pipeline.run()

    assert report.succeeded
    assert report.listed == 0


def test_a_source_that_can_be_listed_is_embedded_beside_one_that_cannot_and_the_run_fails(filled):
    filled.configure(sources=[*filled.library.sources, "s3://no-such-bucket-anywhere/library/"])
    report = filled.run()

    assert report.totals[Status.EMBEDDED] == 4
    assert not report.succeeded
    assert "s3://no-such-bucket-anywhere/library/: the bucket does not exist" in report.problems[0]


def test_nothing_is_ever_written_to_the_source(filled):
    before = filled.storage.client.list_objects_v2(Bucket=filled.bucket)["Contents"]
    filled.run()
    filled.run(force=True)

    assert filled.storage.client.list_objects_v2(Bucket=filled.bucket)["Contents"] == before


def test_an_invocation_that_bedrock_lists_under_a_requests_token_is_adopted(filled, simulator):
    """The start task was lost with its records after Bedrock had accepted its requests."""
    simulator.faults({"kind": "stuck", "source": "*.mp4"})
    filled.between["start_async_invoke"] = lambda: (_ for _ in ()).throw(RuntimeError("killed"))
    with pytest.raises(RuntimeError):
        filled.run(run_id="lost")
    count = starts(simulator)
    # What has ended would be found by its output, without a look at Bedrock's list.
    filled.between["start_async_invoke"] = lambda: end_all_jobs(simulator)
    report = filled.run(run_id="next night")

    assert report.totals[Status.EMBEDDED] == 4
    assert (report.adopted, report.reused) == (1, 0)
    assert starts(simulator) - count == 3


def test_in_a_bucket_with_versioning_rows_and_ledger_name_the_version_that_was_embedded(filled):
    client = filled.storage.client
    client.put_bucket_versioning(Bucket=filled.bucket, VersioningConfiguration={"Status": "Enabled"})
    filled.put("green.png", picture("green"))
    filled.run(media_types=["image"])

    version_id = client.head_object(Bucket=filled.bucket, Key="library/green.png")["VersionId"]
    assert filled.rows()["green.png"][0]["version_id"] == version_id
    assert filled.ledger()["green.png"]["version_id"] == version_id


def test_content_that_goes_back_to_what_it_was_gets_the_rows_of_then(pipeline):
    pipeline.put("a.png", picture("red"))
    pipeline.run()
    first = vectors(pipeline.rows()["a.png"])
    pipeline.put("a.png", picture("blue"))
    pipeline.run()
    assert not np.array_equal(vectors(pipeline.rows()["a.png"]), first)

    pipeline.put("a.png", picture("red"))
    pipeline.run()
    assert np.array_equal(vectors(pipeline.rows()["a.png"]), first)
    assert pipeline.rows()["a.png"][0]["etag"] == pipeline.ledger()["a.png"]["etag"]


def test_a_forced_attempt_that_was_not_finished_is_gone_on_with_and_not_paid_for_again(pipeline, simulator):
    pipeline.put("a.png", picture("red"))
    pipeline.run()
    pipeline.configure(deadline_hours=4 / 3600)
    simulator.faults({"kind": "stuck", "source": "*a.png"})
    assert pipeline.run(force=True).totals[Status.DEFERRED] == 1
    count = starts(simulator)

    end_all_jobs(simulator)
    report = pipeline.run()
    assert (starts(simulator), report.reused) == (count, 1)
    assert report.totals[Status.EMBEDDED] == 1


def test_a_text_of_white_space_only_is_rejected_once_and_touches_nothing_again(pipeline):
    pipeline.put("blank.txt", b" \n")
    first, second = pipeline.run(), pipeline.run()

    assert first.reasons["rejected"] == second.reasons["rejected"] == {"empty_object": 1}
    assert len(first.notes) == 1
    assert second.notes == ()
    assert pipeline.ledger()["blank.txt"]["run_id"] == "run-1"
