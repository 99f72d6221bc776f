"""Texts that are longer than one request takes, tables and subtitles: their parts are bought once each and stand together."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from media_embeddings.planning import Status
from media_embeddings.run_folder import BatchFolder
from media_embeddings.storage import split_uri
from media_embeddings.tables import Tables
from media_embeddings.texts import text_of
from tests.integration.media_embeddings.conftest import end_all_jobs, starts
from tests.integration.media_embeddings.upkeep.test_expiry import expire_outputs, requests_with_outputs

# Three parts for the 77 tokens of Marengo 2.7.
STORY = (
    "A red boat sails over the green lake, and the old man on the shore looks after it for a long time. "
    "The blue train waits in the station of the little town, since snow lies on the tracks behind the bridge. "
    "In the garden a white rabbit sleeps under the apple tree, and nobody in the house knows that it is there. "
    "When the evening comes the lamps are lit, one after the other, from the harbour up to the old mill. "
    "A dog barks at the moon, a window is closed, and the last guests of the inn go home through the snow. "
    "Then it is quiet on both sides of the lake, and only the boat still moves in front of the church."
)
SUBTITLES = """1
00:00:01,000 --> 00:00:03,000
A red boat.

2
00:00:03,500 --> 00:00:05,000
A <i>green</i> lake.
"""


def parts_of(pipeline, key: str, column: str | None = None) -> list[str]:
    """Return the texts of an object's rows, as a reader finds them."""
    content = pipeline.storage.read(pipeline.uri(key))
    text = text_of(content, f".{key.rsplit('.', 1)[1]}", column)
    return [text[row["start_char"] : row["end_char"]] for row in pipeline.rows()[key]]


def invocations(pipeline, key: str) -> list[tuple[int, str, str | None]]:
    tables = Tables(pipeline.library.tables, pipeline.storage.table_options)
    rows = tables.read_invocations([pipeline.uri(key)], ("attempt", "outcome", "reason_code")).to_pylist()
    return sorted((row["attempt"], row["outcome"], row["reason_code"] or "") for row in rows)


def charged(simulator, before: int) -> Counter[str]:
    """Return how often each request was charged since."""
    return Counter(charge["token"] for charge in simulator.charges()[before:])


@pytest.fixture
def story(pipeline):
    pipeline.put("story.txt", STORY.encode())
    pipeline.put("short.txt", b"A blue door.")
    return pipeline


def test_a_long_text_is_embedded_in_parts_that_say_where_they_lie(story, simulator):
    before = len(simulator.charges())

    report = story.run()

    rows = story.rows()["story.txt"]
    assert (report.succeeded, report.totals[Status.EMBEDDED]) == (True, 2)
    assert len(rows) >= 3
    assert report.submitted == report.segments == len(rows) + 1
    assert [row["segment_index"] for row in rows] == list(range(len(rows)))
    texts = parts_of(story, "story.txt")
    assert all(STORY.count(text) == 1 for text in texts)
    assert texts[0].startswith("A red boat")
    assert texts[-1].endswith("front of the church.")
    assert all(text.endswith(".") for text in texts)
    assert "".join(sorted(set(STORY))) == "".join(sorted(set("".join(texts))))
    assert len({row["request_id"] for row in rows}) == len({row["invocation_arn"] for row in rows}) == len(rows)
    assert charged(simulator, before).keys() >= {row["request_id"] for row in rows}
    entry = story.ledger()["story.txt"]
    assert (entry["segments"], entry["attempts"], entry["duration_sec"]) == (len(rows), 1, None)
    assert {row["embedding_key"] for row in rows} == {entry["embedding_key"]}


def test_each_part_has_the_vector_of_its_own_words(story):
    story.run()
    vectors = [row["embedding"] for row in story.rows()["story.txt"]]
    for number, text in enumerate(parts_of(story, "story.txt")):
        story.put(f"part-{number}.txt", text.encode())
    story.run()

    for number, vector in enumerate(vectors):
        assert np.array_equal(story.rows()[f"part-{number}.txt"][0]["embedding"], vector)


def test_a_text_that_one_request_takes_keeps_the_name_that_its_request_always_had(story):
    story.run()

    (row,) = story.rows()["short.txt"]
    entry = story.ledger()["short.txt"]
    assert (row["start_char"], row["end_char"], row["embedding_scope"]) == (0, len("A blue door."), "asset")
    assert row["request_id"] == entry["request_id"]


def test_a_second_run_over_long_texts_starts_nothing(story, simulator):
    story.run()
    count = starts(simulator)
    report = story.run()
    assert (starts(simulator), report.totals[Status.UNCHANGED], report.batches) == (count, 2, 0)


def test_a_changed_text_is_replaced_as_a_whole(story):
    story.run()
    assert len(story.rows()["story.txt"]) >= 3
    story.put("story.txt", b"It is over.")
    story.run()

    (row,) = story.rows()["story.txt"]
    assert (row["start_char"], row["end_char"], row["segment_index"]) == (0, 11, 0)
    assert row["etag"] == story.ledger()["story.txt"]["etag"]


def test_where_the_library_lets_bedrock_cut_a_text_is_one_part(story, simulator):
    story.configure(model_parameters={"text": {"textTruncate": "end"}})
    report = story.run()

    (row,) = story.rows()["story.txt"]
    assert (report.submitted, row["start_char"], row["end_char"]) == (2, 0, len(STORY))


class TestTables:
    @pytest.fixture
    def tables(self, pipeline):
        pipeline.configure(
            text_column="body", media_types={"text": [".txt", ".jsonl", ".csv"], "image": [".png"], "video": [".mp4"]}
        )
        return pipeline

    def test_every_record_of_json_lines_is_a_row(self, tables):
        records = [{"id": 1, "body": "A red boat."}, {"body": "A green lake."}, {"body": None}, {"body": STORY}]
        tables.put("notes.jsonl", "\n".join(json.dumps(record) for record in records).encode())

        assert tables.run().succeeded
        texts = parts_of(tables, "notes.jsonl", "body")
        assert texts[:2] == ["A red boat.", "A green lake."]
        assert len(texts) == 2 + len(set(texts[2:])) >= 5

    def test_every_record_of_comma_separated_values_is_a_row(self, tables):
        tables.put("notes.csv", b'id,body\n1,A red boat.\n2,"A ""green"" lake,\nand a man."\n')

        assert tables.run().succeeded
        assert parts_of(tables, "notes.csv", "body") == ["A red boat.", 'A "green" lake,\nand a man.']

    def test_a_line_without_the_column_fails_its_object_alone_and_costs_nothing(self, tables, simulator):
        tables.put("good.txt", b"A red boat.")
        tables.put("bad.jsonl", b'{"body": "A green lake."}\n{"title": "x"}\n')
        count = starts(simulator)

        report = tables.run()

        assert report.totals == report.totals | {Status.EMBEDDED: 1, Status.FAILED: 1}
        assert starts(simulator) == count + 1
        entry = tables.ledger()["bad.jsonl"]
        assert (entry["reason_code"], entry["reason"]) == (
            "corrupt",
            "line 2 has no column 'body', which text_column names; it has title",
        )

    def test_another_column_is_another_purchase_of_tables_and_of_nothing_else(self, tables, simulator):
        tables.put("notes.csv", b"title,body\nBoat,A red boat.\n")
        tables.put("good.txt", b"A red boat.")
        tables.run()
        count = starts(simulator)

        tables.configure(text_column="title")
        report = tables.run()

        assert report.totals == report.totals | {Status.EMBEDDED: 1, Status.UNCHANGED: 1}
        assert starts(simulator) == count + 1
        assert parts_of(tables, "notes.csv", "title") == ["Boat"]
        assert tables.run().totals[Status.UNCHANGED] == 2


class TestSubtitles:
    def test_cues_are_grouped_and_their_times_stand_in_the_rows(self, pipeline):
        pipeline.put("film.srt", SUBTITLES.encode())
        pipeline.put("film.vtt", f"WEBVTT\n\n{SUBTITLES.replace(',', '.')}".encode())

        assert pipeline.run().succeeded
        for key in ("film.srt", "film.vtt"):
            (row,) = pipeline.rows()[key]
            assert (row["start_sec"], row["end_sec"]) == (1.0, 5.0)
            assert parts_of(pipeline, key) == ["A red boat.\nA green lake."]
            assert pipeline.ledger()[key]["duration_sec"] == 5.0

    def test_long_subtitles_are_several_rows_in_the_order_of_time(self, pipeline):
        cues = "\n".join(
            f"{n}\n00:00:{n:02},000 --> 00:00:{n + 1:02},000\nThe {n}. cue of a long film that goes on.\n"
            for n in range(20)
        )
        pipeline.put("film.srt", cues.encode())
        pipeline.run()

        rows = pipeline.rows()["film.srt"]
        assert len(rows) > 2
        assert [row["start_sec"] for row in rows] == sorted(row["start_sec"] for row in rows)
        assert (rows[0]["start_sec"], rows[-1]["end_sec"]) == (0.0, 20.0)
        assert all(one["end_sec"] <= other["start_sec"] for one, other in pairwise(rows))

    def test_damaged_subtitles_fail_with_their_line(self, pipeline):
        pipeline.put("film.vtt", b"WEBVTT\n\nno times\n")
        pipeline.put("good.txt", b"A red boat.")
        report = pipeline.run()
        assert report.totals[Status.FAILED] == 1
        assert "line 3" in pipeline.ledger()["film.vtt"]["reason"]


class TestOneFailingPart:
    def test_the_object_fails_as_a_whole_and_a_retry_in_the_run_pays_only_for_that_part(self, pipeline, simulator):
        pipeline.put("story.txt", STORY.encode())
        pipeline.configure(retries_in_run=1)
        simulator.faults({"kind": "output_truncated", "source": "", "count": 1, "after": 1})
        before = len(simulator.charges())

        report = pipeline.run()

        rows = pipeline.rows()["story.txt"]
        assert (report.succeeded, report.retried, report.reused) == (True, 1, len(rows) - 1)
        assert sum(charged(simulator, before).values()) == len(charged(simulator, before)) == len(rows) + 1
        assert pipeline.ledger()["story.txt"]["attempts"] == 2
        assert Counter(invocations(pipeline, "story.txt")) == {
            (1, "embedded", ""): len(rows) - 1,
            (1, "failed", "output_invalid"): 1,
            (2, "embedded", ""): len(rows),
        }
        assert len(set(parts_of(pipeline, "story.txt"))) == len(rows)

    def test_without_a_retry_it_has_no_rows_and_the_next_run_pays_only_for_that_part(self, pipeline, simulator):
        pipeline.put("short.txt", b"A blue door.")
        pipeline.run()
        pipeline.put("story.txt", STORY.encode())
        simulator.faults({"kind": "output_truncated", "source": "", "count": 1, "after": 1})
        first = pipeline.run()
        assert first.totals == first.totals | {Status.UNCHANGED: 1, Status.FAILED: 1}
        assert "story.txt" not in pipeline.rows()
        assert pipeline.ledger()["story.txt"]["reason_code"] == "output_invalid"
        count = starts(simulator)

        report = pipeline.run()

        assert starts(simulator) == count + 1
        assert (report.submitted, report.reused) == (1, len(pipeline.rows()["story.txt"]) - 1)
        assert pipeline.ledger()["story.txt"]["attempts"] == 2

    def test_a_part_that_fails_again_and_again_quarantines_the_object(self, pipeline, simulator):
        pipeline.configure(max_attempts=2)
        pipeline.put("story.txt", STORY.encode())
        simulator.faults({"kind": "failed", "source": "", "message": "It did not work"})
        assert [pipeline.run().totals[Status.FAILED] for _ in range(2)] == [1, 1]
        assert pipeline.run().totals[Status.QUARANTINED] == 1


class TestUnfinishedParts:
    @pytest.fixture
    def unfinished(self, pipeline, simulator):
        """Give a library with a text of which a part failed and another was still in progress at the deadline."""
        pipeline.put("story.txt", STORY.encode())
        pipeline.configure(deadline_hours=4 / 3600)
        simulator.faults(
            {"kind": "output_truncated", "source": "", "count": 1},
            {"kind": "stuck", "source": "", "count": 1, "after": 1},
        )
        report = pipeline.run()
        assert report.totals[Status.DEFERRED] == 1
        simulator.clear_faults()
        return pipeline

    def test_the_object_is_gone_on_with_and_nothing_is_paid_for_again(self, unfinished, simulator):
        assert unfinished.ledger()["story.txt"]["reason_code"] == "deadline_exceeded"
        end_all_jobs(simulator)
        count = starts(simulator)

        # The failed part is known by then, and fails the attempt; the next one buys it, and nothing else.
        reports = [unfinished.run(), unfinished.run()]

        assert [report.totals[Status.EMBEDDED] for report in reports] in ([0, 1], [1, 0])
        assert starts(simulator) == count + 1


def test_a_forced_attempt_that_was_not_finished_is_gone_on_with_part_by_part(story, simulator):
    story.run()
    story.configure(deadline_hours=4 / 3600)
    simulator.faults({"kind": "stuck", "source": "", "count": 1, "after": 1})
    forced = story.run(force=True, prefix=story.uri("story"))
    assert forced.totals[Status.DEFERRED] == 1
    end_all_jobs(simulator)
    count = starts(simulator)

    report = story.run()

    assert starts(simulator) == count
    assert report.totals[Status.EMBEDDED] == 1
    assert {row["run_id"] for row in story.rows()["story.txt"]} == {report.run_id}


def test_a_forced_run_buys_every_part_again(story, simulator):
    story.run()
    count = starts(simulator)
    report = story.run(force=True)
    assert starts(simulator) == count + report.segments
    assert report.reused == 0


def test_lost_tables_are_made_again_from_the_outputs_of_the_parts(story, simulator):
    story.run()
    count, rows = starts(simulator), story.rows()
    remove_below(story, story.library.tables)

    report = story.run()

    assert starts(simulator) == count
    assert report.reused == report.segments == sum(len(several) for several in rows.values())
    for key, several in story.rows().items():
        assert [row["embedding"] for row in several] == [row["embedding"] for row in rows[key]]


def test_a_lost_ledger_is_written_again_from_the_rows_of_the_parts(story, simulator):
    story.run()
    before = story.ledger()
    remove_below(story, f"{story.library.tables}/media")

    assert story.run().recovered == 2
    for key, entry in story.ledger().items():
        assert (entry["request_id"], entry["segments"]) == (before[key]["request_id"], before[key]["segments"])


def test_a_text_that_is_cut_in_another_way_has_no_part_of_the_old_cut(story, simulator):
    simulator.faults({"kind": "failed", "source": "", "count": 1, "message": "It did not work"})
    story.run(prefix=story.uri("story"))
    simulator.clear_faults()
    story.configure(characters_per_token=4)

    assert story.run().succeeded
    texts = parts_of(story, "story.txt")
    assert (STORY.startswith(texts[0]), STORY.endswith(texts[-1])) == (True, True)
    rows = story.rows()["story.txt"]
    assert len({row["request_id"] for row in rows}) == len(rows)


def test_the_parts_of_a_text_are_in_one_batch_of_their_requests(story):
    story.configure(batch_size=2)
    story.run()

    folder = f"{story.library.work}/runs/films/run-1/plans"
    manifests = [uri for uri in story.storage.list_uris(f"{folder}/") if uri.endswith("requests.jsonl")]
    objects = [
        {line["source_uri"] for line in story.storage.read_json_lines(BatchFolder.of_manifest(uri).manifest_uri)}
        for uri in manifests
    ]
    assert sorted(map(sorted, objects)) == [[story.uri("short.txt")], [story.uri("story.txt")]]


class TestExpiry:
    def test_the_outputs_of_all_parts_expire_when_their_rows_are_committed(self, story, simulator):
        story.run()
        assert len(requests_with_outputs(story)) == 1 + len(story.rows()["story.txt"])
        count = starts(simulator)

        expire_outputs(story)

        assert requests_with_outputs(story) == set()
        assert story.run().totals[Status.UNCHANGED] == 2
        assert starts(simulator) == count

    def test_the_outputs_of_parts_stay_as_long_as_one_is_missing(self, story, simulator):
        story.delete("short.txt")
        simulator.faults({"kind": "output_truncated", "source": "", "count": 1, "after": 1})
        story.run()
        assert story.ledger()["story.txt"]["status"] == "failed"
        simulator.clear_faults()

        expire_outputs(story)

        kept = len(requests_with_outputs(story))
        count = starts(simulator)
        report = story.run()
        assert (kept, report.reused) == (report.segments, report.segments - 1)
        assert starts(simulator) == count + 1

    def test_a_text_that_is_needed_again_after_that_is_bought_as_a_whole(self, story, simulator):
        story.run()
        number = len(story.rows()["story.txt"])
        expire_outputs(story)
        count = starts(simulator)
        simulator.faults({"kind": "output_truncated", "source": "", "count": 1})
        story.configure(retries_in_run=1)

        assert story.run(force=True).succeeded
        assert starts(simulator) == count + number + 2


def remove_below(pipeline, prefix_uri: str) -> None:
    for uri in list(pipeline.storage.list_uris(f"{prefix_uri}/")):
        bucket, key = split_uri(uri)
        pipeline.storage.client.delete_object(Bucket=bucket, Key=key)
