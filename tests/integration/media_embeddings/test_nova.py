"""A run with Amazon Nova: its own output, with a status for each segment, ends in the same table."""

import pytest

from media_embeddings.planning import Status
from tests.integration.bedrock_simulator import media_files
from tests.integration.media_embeddings.conftest import film, picture, starts

MODEL = "nova-2-multimodal-384"


@pytest.fixture
def filled(pipeline):
    pipeline.configure(
        model=MODEL,
        media_types={"video": [".mp4", ".avi"], "audio": [".wav"], "image": [".png"], "text": [".txt"]},
        model_parameters={
            "video": {"embeddingMode": "AUDIO_VIDEO_SEPARATE"},
            "text": {"segmentationConfig": {"maxLengthChars": 800}},
        },
    )
    pipeline.put("film.mp4", film())
    pipeline.put("sound.wav", media_files.audio(12))
    pipeline.put("red.png", picture("red"))
    pipeline.put("story.txt", media_files.STORY.encode())
    pipeline.put("old.avi", film())
    return pipeline


def test_every_media_type_ends_in_the_rows_of_the_same_table(filled, simulator):
    report = filled.run()
    rows = filled.rows()

    assert report.balanced
    assert report.totals == report.totals | {Status.EMBEDDED: 4, Status.REJECTED: 1}
    assert {len(row["embedding"]) for found in rows.values() for row in found} == {384}
    assert [(row["start_sec"], row["embedding_option"]) for row in rows["film.mp4"]] == [
        (0.0, "AUDIO"),
        (0.0, "VIDEO"),
        (5.0, "AUDIO"),
        (5.0, "VIDEO"),
    ]
    assert [row["end_sec"] for row in rows["sound.wav"]] == pytest.approx([5, 10, 12], abs=0.1)
    assert [(row["embedding_option"], row["embedding_scope"]) for row in rows["red.png"]] == [("IMAGE", "asset")]
    story = rows["story.txt"]
    assert [row["start_char"] for row in story[1:]] == [row["end_char"] for row in story[:-1]]
    assert (story[0]["start_char"], story[-1]["end_char"]) == (0, len(media_files.STORY))
    assert all(row["start_char"] is None for row in rows["film.mp4"])
    assert ".avi" in filled.ledger()["old.avi"]["reason"]
    assert filled.run().totals[Status.UNCHANGED] == 4


@pytest.mark.parametrize(
    ("reason", "code"),
    [("RAI_VIOLATION_INPUT_IMAGE_DEFLECTION", "content_refused"), ("RATE_LIMIT_EXCEEDED", "output_incomplete")],
)
def test_an_object_with_a_failed_segment_has_no_rows_and_the_models_reason(filled, simulator, reason, code):
    simulator.faults({"kind": "segment_failed", "source": "*/film.mp4", "reason": reason})
    report = filled.run()

    assert report.balanced
    assert set(filled.rows()) == {"sound.wav", "red.png", "story.txt"}
    entry = filled.ledger()["film.mp4"]
    assert (entry["status"], entry["reason_code"]) == ("failed", code)
    assert reason in entry["reason"]


@pytest.mark.parametrize(
    "kind", ["output_missing", "output_truncated", "output_malformed", "wrong_dimension", "non_finite"]
)
def test_a_broken_output_is_named_and_the_rest_of_the_run_lands(filled, simulator, kind):
    simulator.faults({"kind": kind, "source": "*/film.mp4"})
    report = filled.run()

    assert report.balanced
    assert set(filled.rows()) == {"sound.wav", "red.png", "story.txt"}
    assert filled.ledger()["film.mp4"]["reason_code"] in {"output_missing", "output_invalid"}


def test_outputs_that_are_there_are_not_bought_again_and_a_refused_one_is(filled, simulator):
    simulator.faults({"kind": "segment_failed", "source": "*/film.mp4", "reason": "RATE_LIMIT_EXCEEDED", "count": 1})

    def killed() -> None:
        raise KeyboardInterrupt

    filled.between["wait_for_async_invoke"] = killed
    with pytest.raises(KeyboardInterrupt):
        filled.run(media_types=["image"])
    before = starts(simulator)
    filled.run()
    assert starts(simulator) == before + 3

    report = filled.run()
    assert starts(simulator) == before + 4
    assert report.totals == report.totals | {Status.EMBEDDED: 1, Status.UNCHANGED: 3}
    assert len(filled.rows()["film.mp4"]) == 4
