"""What the documentation leaves open about outputs fails no good one; what it promises is held to."""

from __future__ import annotations

import json

import pytest

from media_embeddings.planning import Status
from tests.integration.bedrock_simulator import media_files
from tests.integration.media_embeddings.conftest import film

SILENT = media_files.video([(media_files.RED, 5), (media_files.BLUE, 4)], with_sound=False)


@pytest.mark.parametrize("model", ["marengo-2-7", "marengo-3-0"])
@pytest.mark.parametrize(
    "settings",
    [
        {"row_order": "by_option"},
        {"row_order": "shuffled", "segment_offsets": "relative"},
        {"options_share_segments": True, "default_embedding_scope": ["clip"]},
        {"asset_rows_have_times": False},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_whatever_is_left_open_is_accepted(pipeline, simulator, model, settings):
    simulator.settings(**settings)
    pipeline.configure(model=model)
    pipeline.put("film.mp4", film())
    report = pipeline.run()
    assert report.totals[Status.EMBEDDED] == 1, report.notes


def test_what_the_media_have_no_track_for_is_recorded(pipeline):
    pipeline.put("silent.mp4", SILENT)
    assert pipeline.run().totals[Status.EMBEDDED] == 1
    assert pipeline.ledger()["silent.mp4"]["absent_options"] == "audio"


@pytest.fixture
def rewritten(pipeline):
    """Change the output of the film between its wait and its merge, and return the reason code that comes of it."""

    def rewritten(change) -> tuple[str, str]:
        def rewrite() -> None:
            [uri] = [
                u for u in pipeline.storage.list_uris(f"{pipeline.library.work}/outputs/") if u.endswith("output.json")
            ]
            pipeline.storage.write(uri, json.dumps({"data": change(pipeline.storage.read_json(uri)["data"])}).encode())

        pipeline.put("film.mp4", film())
        pipeline.between["wait_for_async_invoke"] = rewrite
        pipeline.run()
        row = pipeline.ledger()["film.mp4"]
        return row["status"], row["reason_code"]

    return rewritten


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (
            lambda rows: [row for row in rows if row["embeddingOption"] != "visual-image"],
            ("failed", "output_incomplete"),
        ),
        (lambda rows: [row for row in rows if row["startSec"] > 0], ("failed", "output_incomplete")),
        (lambda rows: [{**rows[0], "embedding": [0.0] * 1024}, *rows[1:]], ("failed", "output_invalid")),
        (lambda rows: list(reversed(rows)), ("embedded", None)),
    ],
    ids=["an option is missing", "the beginning is missing", "a vector of zeros", "another order"],
)
def test_a_violation_is_a_reason_and_no_silence(rewritten, change, outcome):
    assert rewritten(change) == outcome


def test_an_output_that_comes_late_is_waited_for(pipeline):
    pipeline.configure(output_grace_seconds=20)
    found: list[tuple[str, bytes]] = []

    def take_away_and_bring_back() -> None:
        import threading

        [uri] = [
            u for u in pipeline.storage.list_uris(f"{pipeline.library.work}/outputs/") if u.endswith("output.json")
        ]
        found.append((uri, pipeline.storage.read(uri)))
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        pipeline.storage.client.delete_object(Bucket=bucket, Key=key)
        threading.Timer(2.0, lambda: pipeline.storage.write(*found[0])).start()

    pipeline.put("film.mp4", film())
    pipeline.between["wait_for_async_invoke"] = take_away_and_bring_back
    assert pipeline.run().totals[Status.EMBEDDED] == 1
