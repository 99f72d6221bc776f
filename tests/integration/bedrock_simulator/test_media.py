"""What jobs make of real media."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.integration.bedrock_simulator import media_files
from tests.integration.bedrock_simulator.requests import marengo_27, marengo_30, start_request


@pytest.fixture
def rows_of(server, read_output):
    """Run a job to its end and return its rows."""

    def run(model_input: dict, **more) -> list[dict]:
        arn = server.client().start_async_invoke(**start_request(model_input, **more))["invocationArn"]
        answer = server.ended(arn)
        assert answer["status"] == "Completed", answer
        rows = read_output(answer)
        for row in rows:
            assert np.isclose(np.linalg.norm(row["embedding"]), 1.0, atol=1e-5)
        return rows

    return run


@pytest.fixture
def failure_of(server):
    """Run a job to its end and return its failureMessage."""

    def run(model_input: dict) -> str:
        arn = server.client().start_async_invoke(**start_request(model_input))["invocationArn"]
        answer = server.ended(arn)
        assert answer["status"] == "Failed", answer
        return answer["failureMessage"]

    return run


def spans(rows: list[dict], option: str, scope: str | None = None) -> list[float]:
    """Return start, end, start, end, ... of the rows."""
    return [
        second
        for row in rows
        if row["embeddingOption"] == option and row.get("embeddingScope") == scope
        for second in (row["startSec"], row["endSec"])
    ]


def test_a_videos_segments_follow_its_shots(rows_of):
    rows = rows_of(marengo_27("video", "shots.mp4"))
    assert {len(row["embedding"]) for row in rows} == {1024}
    for option in ("visual-text", "visual-image", "audio"):
        assert spans(rows, option) == pytest.approx([0, 5, 5, 10, 10, 16], abs=0.3)


def test_equal_pictures_give_equal_vectors(rows_of):
    first = rows_of(marengo_27("video", "shots.mp4", embeddingOption=["visual-image"]))
    second = rows_of(marengo_27("video", "silent.mp4", embeddingOption=["visual-image"]))
    assert first == second


def test_a_text_lies_near_pictures_of_its_colours(rows_of):
    shots = [row["embedding"] for row in rows_of(marengo_27("video", "silent.mp4", embeddingOption=["visual-text"]))]
    red, green, blue = map(np.array, shots)
    (text,) = rows_of({"inputType": "text", "inputText": "red sunset"})
    assert red @ text["embedding"] > max(green @ text["embedding"], blue @ text["embedding"]) + 0.2
    (red_image,) = rows_of(marengo_27("image", "red.png"))
    (blue_image,) = rows_of(marengo_27("image", "blue.jpg"))
    assert np.dot(red_image["embedding"], text["embedding"]) > np.dot(blue_image["embedding"], text["embedding"]) + 0.2
    assert red @ red_image["embedding"] > 0.8


def test_a_fixed_length_cuts_evenly_to_the_rest(rows_of):
    rows = rows_of(marengo_27("video", "silent.mp4", useFixedLengthSec=6, embeddingOption=["visual-text"]))
    assert spans(rows, "visual-text") == pytest.approx([0, 6, 6, 12, 12, 16], abs=0.01)


def test_a_part_of_a_video_keeps_its_own_times(rows_of, server):
    request = marengo_27("video", "shots.mp4", startSec=4, lengthSec=8, embeddingOption=["visual-text"], minClipSec=1)
    assert spans(rows_of(request), "visual-text") == pytest.approx([4, 10, 10, 12], abs=0.3)
    server.admin.settings(segment_offsets="relative")
    assert spans(rows_of(request), "visual-text") == pytest.approx([0, 6, 6, 8], abs=0.3)


@pytest.mark.parametrize(("key", "count", "length"), [("50 seconds.wav", 5, 10.0), ("16-seconds.flac", 2, 8.0)])
def test_audio_is_split_evenly_near_ten_seconds(rows_of, key, count, length):
    expected = [length * index for pair in range(count) for index in (pair, pair + 1)]
    assert spans(rows_of(marengo_27("audio", key)), "audio") == pytest.approx(expected)
    rows = rows_of(marengo_30("audio", key, embeddingScope=["clip"]))
    assert spans(rows, "audio", "clip") == spans(rows, "transcription", "clip") == pytest.approx(expected)


def test_a_silent_video_has_no_audio_rows(rows_of):
    assert {row["embeddingOption"] for row in rows_of(marengo_30("video", "silent.mp4"))} == {"visual"}


def test_only_audio_of_a_silent_video_ends_as_the_settings_say(rows_of, failure_of, server):
    request = marengo_30("video", "silent.mp4", embeddingOption=["audio"])
    assert rows_of(request) == []
    server.admin.settings(absent_track="Failed")
    assert "no track" in failure_of(request)


def test_marengo_3_has_scopes_and_fused_embeddings(rows_of):
    rows = rows_of(
        marengo_30(
            "video",
            "shots.mp4",
            embeddingOption=["visual", "audio"],
            embeddingType=["separate_embedding", "fused_embedding"],
            embeddingScope=["clip", "asset"],
        )
    )
    assert {len(row["embedding"]) for row in rows} == {512}
    for option in ("visual", "fused"):
        assert spans(rows, option, "clip") == pytest.approx([0, 5, 5, 10, 10, 16], abs=0.3)
    for option in ("visual", "audio", "fused"):
        assert spans(rows, option, "asset") == pytest.approx([0, 16], abs=0.1)
    fused_only = rows_of(marengo_30("video", "shots.mp4", embeddingType=["fused_embedding"], embeddingScope=["asset"]))
    assert [(row["embeddingOption"], row["embeddingScope"]) for row in fused_only] == [("fused", "asset")]


def test_marengo_3_fixed_segments_align_across_options(rows_of):
    segmentation = {"method": "fixed", "fixed": {"durationSec": 8}}
    rows = rows_of(marengo_30("video", "shots.mp4", segmentation=segmentation, endSec=12))
    for option in ("visual", "audio", "transcription"):
        assert spans(rows, option, "clip") == pytest.approx([0, 8, 8, 12])


def test_marengo_3_embeds_texts_with_images(rows_of):
    image = {"s3Location": {"uri": "s3://media/red.png"}}
    single = {"inputType": "text_image", "text_image": {"inputText": "red", "mediaSource": image}}
    several = {
        "inputType": "multi_input",
        "multi_input": {
            "inputText": "<@one> beside <@two>",
            "mediaSources": [
                {"name": "two", "mediaType": "image", "s3Location": {"uri": "s3://media/blue.jpg"}},
                {"name": "one", "mediaType": "image", **image},
            ],
        },
    }
    for model_input in (single, several):
        (row,) = rows_of(model_input)
        assert set(row) == {"embedding"}
        assert len(row["embedding"]) == 512


@pytest.mark.parametrize(
    ("request_of", "kind", "key", "words"),
    [
        (marengo_27, "video", "broken.mp4", "can't be decoded"),
        (marengo_30, "video", "not-a-video.mp4", "can't be decoded"),
        (marengo_27, "video", "50 seconds.wav", "content is audio"),
        (marengo_30, "audio", "shots.mp4", "content is video"),
        (marengo_27, "video", "red.png", "not video"),
        (marengo_30, "image", "16-seconds.flac", "not an image"),
        (marengo_27, "image", "not-a-video.mp4", "not an image"),
    ],
)
def test_a_file_of_another_kind_or_a_corrupt_one_ends_failed(failure_of, request_of, kind, key, words):
    assert words in failure_of(request_of(kind, key))


def test_a_part_beyond_the_end_ends_failed(failure_of):
    assert "startSec" in failure_of(marengo_27("video", "silent.mp4", startSec=100))
    assert "end" in failure_of(marengo_30("video", "silent.mp4", endSec=100))


def test_media_may_come_with_the_request(rows_of):
    import base64

    content = base64.b64encode(media_files.image(media_files.RED)).decode()
    (inline,) = rows_of({"inputType": "image", "image": {"mediaSource": {"base64String": content}}})
    (on_s3,) = rows_of(marengo_30("image", "red.png"))
    assert inline == on_s3


def test_an_image_over_five_megabytes_is_refused(server, s3):
    s3.put_object(Bucket="media", Key="large.png", Body=b"0" * 5_000_001)
    client = server.client()
    with pytest.raises(client.exceptions.ValidationException, match="5000001 bytes"):
        client.start_async_invoke(**start_request(marengo_30("image", "large.png")))


def test_invoke_model_and_a_job_give_the_same_vector(server, rows_of):
    body = json.dumps(marengo_30("image", "red.png"))
    answer = server.client().invoke_model(modelId="twelvelabs.marengo-embed-3-0-v1:0", body=body)
    assert json.loads(answer["body"].read())["data"] == rows_of(marengo_30("image", "red.png"))


def test_the_manifest_is_there_while_the_job_is_in_progress(server, s3):
    from local_stack.processes import wait_until

    server.admin.settings(seconds_per_job=3600)
    arn = server.client().start_async_invoke(**start_request(marengo_27("image", "red.png")))["invocationArn"]
    prefix = f"outputs/{arn.rpartition('/')[2]}/"

    def keys() -> list[str]:
        return [entry["Key"] for entry in s3.list_objects_v2(Bucket="media", Prefix=prefix).get("Contents", [])]

    wait_until(keys, seconds=10, what="the manifest was written")
    assert keys() == [f"{prefix}manifest.json"]
    server.admin.advance_clock(3601)
    assert server.ended(arn)["status"] == "Completed"
    assert keys() == [f"{prefix}manifest.json", f"{prefix}output.json"]


def test_a_job_takes_time_in_proportion_to_its_media(server):
    server.admin.settings(seconds_per_job=60, seconds_per_media_second=10)
    client = server.client()
    short = client.start_async_invoke(**start_request(marengo_27("image", "red.png")))["invocationArn"]
    long = client.start_async_invoke(**start_request(marengo_27("audio", "50 seconds.wav")))["invocationArn"]
    server.admin.advance_clock(400)
    assert server.ended(short)["status"] == "Completed"
    assert client.get_async_invoke(invocationArn=long)["status"] == "InProgress"
    server.admin.advance_clock(200)
    assert server.ended(long)["status"] == "Completed"
    charges = {charge["invocation_arn"]: charge for charge in server.admin.charges()}
    assert charges[long]["media_seconds"] == pytest.approx(50)
    assert charges[long]["source"] == "s3://media/50 seconds.wav"
