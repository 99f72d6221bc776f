"""The documented rules of both models, one by one."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from bedrock_simulator.embedding_task import EmbeddingTask, MediaKind, Segmentation
from bedrock_simulator.errors import BedrockError
from bedrock_simulator.models import Embedding, models
from bedrock_simulator.settings import Settings

MARENGO_27 = models()["twelvelabs.marengo-embed-2-7-v1:0"]
MARENGO_30 = models()["twelvelabs.marengo-embed-3-0-v1:0"]
SOURCE = {"s3Location": {"uri": "s3://media/with spaces/a b.mp4", "bucketOwner": "123456789012"}}
INLINE = {"base64String": base64.b64encode(b"content").decode()}


def flat(kind: str, **parameters: object) -> dict:
    return {"inputType": kind, "mediaSource": SOURCE, **parameters}


def nested(kind: str, **parameters: object) -> dict:
    return {"inputType": kind, kind: {"mediaSource": SOURCE, **parameters}}


def task_27(model_input: object, **settings: object) -> EmbeddingTask:
    return MARENGO_27.task(model_input, Settings().changed(settings))


def task_30(model_input: object, **settings: object) -> EmbeddingTask:
    return MARENGO_30.task(model_input, Settings().changed(settings))


def test_2_7_defaults_for_a_video():
    task = task_27(flat("video"))
    assert task.options == ("visual-text", "visual-image", "audio")
    assert task.segmentation == Segmentation("shots", minimum=4)
    assert (task.start_sec, task.end_sec, task.scopes) == (0, None, ("clip",))
    assert task.sources[0].bucket_and_key == ("media", "with spaces/a b.mp4")


def test_2_7_reads_every_parameter_of_a_video():
    task = task_27(
        flat("video", startSec=2.5, lengthSec=10, useFixedLengthSec=5, minClipSec=5, embeddingOption=["audio"])
    )
    assert (task.start_sec, task.end_sec, task.options) == (2.5, 12.5, ("audio",))
    assert task.segmentation == Segmentation("fixed", length=5)


def test_2_7_never_cuts_shots_shorter_than_two_seconds():
    assert task_27(flat("video", minClipSec=1)).segmentation.minimum == 2
    assert task_27(flat("video", minClipSec=3)).segmentation.minimum == 3


def test_2_7_audio_is_split_evenly_or_fixed():
    assert task_27(flat("audio")).segmentation == Segmentation("even", length=10)
    assert task_27(flat("audio", useFixedLengthSec=3.5)).segmentation == Segmentation("fixed", length=3.5)
    assert task_27(flat("audio")).options == ("audio",)


def test_2_7_cuts_a_long_text_unless_told_not_to():
    text = {"inputType": "text", "inputText": "word " * 100}
    assert task_27(text).text == ("word " * 75).strip()
    with pytest.raises(BedrockError, match="102 tokens"):
        task_27({**text, "textTruncate": "none"})


@pytest.mark.parametrize(
    ("model_input", "problem"),
    [
        ("text", "expected type: JSONObject"),
        ({}, r"required key \[inputType\]"),
        ({"inputType": "film"}, "not a valid enum value"),
        ({"inputType": "text"}, r"required key \[inputText\]"),
        ({"inputType": "text", "inputText": ""}, "minLength"),
        ({"inputType": "text", "inputText": "a", "textTruncate": "start"}, "textTruncate"),
        ({"inputType": "text", "inputText": "a", "mediaSource": SOURCE}, r"extraneous key \[mediaSource\]"),
        ({"inputType": "video"}, r"required key \[mediaSource\]"),
        (flat("video", mediaSource={}), "exactly one of base64String and s3Location"),
        (flat("video", mediaSource={**SOURCE, **INLINE}), "exactly one of base64String and s3Location"),
        (flat("video", mediaSource={"s3Location": {"uri": "https://media/a"}}), "not an S3 URI"),
        (flat("video", mediaSource={"s3Location": {"uri": "s3://media"}}), "not an S3 URI"),
        (flat("video", mediaSource={"s3Location": {"bucketName": "media"}}), r"required key \[uri\]"),
        (flat("video", mediaSource={"s3Location": {"uri": "s3://media/a", "bucketOwner": "1"}}), "twelve digits"),
        (flat("video", mediaSource={"base64String": "%%%"}), "not base64"),
        (flat("video", startSec=-1), "#/startSec"),
        (flat("video", startSec=True), "expected type: Number"),
        (flat("video", lengthSec=0), "#/lengthSec"),
        (flat("video", useFixedLengthSec=1.9), "#/useFixedLengthSec"),
        (flat("video", useFixedLengthSec=10.1), "#/useFixedLengthSec"),
        (flat("video", useFixedLengthSec=2, minClipSec=3), "#/minClipSec"),
        (flat("video", minClipSec=6), "#/minClipSec"),
        (flat("video", minClipSec=2.5), "expected type: Integer"),
        (flat("video", embeddingOption="audio"), "expected type: JSONArray"),
        (flat("video", embeddingOption=[]), "minimum item count"),
        (flat("video", embeddingOption=["visual"]), "not a valid enum value"),
        (flat("video", embeddingOption=["audio", "audio"]), "not unique"),
        (flat("audio", embeddingOption=["visual-text"]), "embeddingOption"),
        (flat("audio", minClipSec=4), r"extraneous key \[minClipSec\]"),
        (flat("image", startSec=1), r"extraneous key \[startSec\]"),
        (flat("video", inferenceId="x"), r"extraneous key \[inferenceId\]"),
        (nested("video"), r"required key \[mediaSource\]"),
    ],
)
def test_2_7_refuses(model_input, problem):
    with pytest.raises(BedrockError, match=problem) as raised:
        task_27(model_input)
    assert (raised.value.code, raised.value.http_status) == ("ValidationException", 400)


def test_3_0_defaults():
    task = task_30(nested("video"))
    assert task.options == ("visual", "audio", "transcription")
    assert task.segmentation == Segmentation("shots", minimum=4)
    assert (task.scopes, task.separate, task.fused) == (("clip", "asset"), True, False)
    assert task_30(nested("video"), default_embedding_scope=["clip"]).scopes == ("clip",)
    audio = task_30(nested("audio"))
    assert audio.options == ("audio", "transcription")
    assert audio.segmentation == Segmentation("even", length=10)


def test_3_0_reads_every_parameter_of_a_video():
    task = task_30(
        {
            "inferenceId": "mine",
            **nested(
                "video",
                startSec=1,
                endSec=9,
                segmentation={"method": "fixed", "fixed": {"durationSec": 8}},
                embeddingOption=["visual", "audio"],
                embeddingType=["fused_embedding"],
                embeddingScope=["asset"],
            ),
        }
    )
    assert (task.start_sec, task.end_sec, task.scopes) == (1, 9, ("asset",))
    assert (task.separate, task.fused) == (False, True)
    assert task.segmentation == Segmentation("fixed", length=8)
    dynamic = task_30(nested("video", segmentation={"method": "dynamic", "dynamic": {"minDurationSec": 1}}))
    assert dynamic.segmentation.minimum == 1


def test_3_0_orders_sources_by_their_placeholders():
    sources = [
        {"name": name, "mediaType": "image", "s3Location": {"uri": f"s3://media/{name}.png"}} for name in ("a", "b")
    ]

    def names(**payload: object) -> list[str]:
        return [source.name for source in task_30({"inputType": "multi_input", "multi_input": payload}).sources]

    assert names(inputText="<@b> beside <@a>", mediaSources=sources) == ["b", "a"]
    assert names(mediaSources=sources) == ["a", "b"]
    assert names(inputText="side by side", mediaSources=sources) == ["a", "b"]


def multi(text: str | None, *names: str | None, media_type: str = "image") -> dict:
    sources = [{"mediaType": media_type, **SOURCE, **({"name": name} if name else {})} for name in names]
    return {"inputType": "multi_input", "multi_input": {"inputText": text, "mediaSources": sources}}


@pytest.mark.parametrize(
    ("model_input", "problem"),
    [
        (flat("video"), r"required key \[video\]"),
        ({**nested("video"), "embeddingOption": ["visual"]}, r"extraneous key \[embeddingOption\]"),
        (nested("video", textTruncate="end"), r"#/video: extraneous key \[textTruncate\]"),
        (nested("video", lengthSec=3), r"extraneous key \[lengthSec\]"),
        (nested("video", useFixedLengthSec=3), r"extraneous key \[useFixedLengthSec\]"),
        (nested("video", minClipSec=3), r"extraneous key \[minClipSec\]"),
        (nested("video", startSec=5, endSec=8), "#/video/endSec"),
        (nested("audio", startSec=5, endSec=5), "#/audio/endSec"),
        (nested("video", segmentation={"method": "shots"}), "method"),
        (nested("video", segmentation={"method": "fixed", "fixed": {"durationSec": 11}}), "durationSec"),
        (nested("video", segmentation={"method": "fixed", "fixed": {"durationSec": 1.5}}), "Integer"),
        (nested("video", segmentation={"method": "fixed", "dynamic": {}}), r"extraneous key \[dynamic\]"),
        (nested("video", segmentation={"method": "dynamic", "dynamic": {"minDurationSec": 0}}), "minDurationSec"),
        (nested("audio", segmentation={"method": "dynamic"}), "method"),
        (nested("audio", embeddingOption=["visual"]), "embeddingOption"),
        (nested("video", embeddingOption=["visual-text"]), "embeddingOption"),
        (nested("video", embeddingScope=["video"]), "embeddingScope"),
        (nested("video", embeddingOption=["visual"], embeddingType=["fused_embedding"]), "at least two"),
        (nested("audio", embeddingOption=["audio"], embeddingType=["fused_embedding"]), "at least two"),
        ({"inputType": "text", "text": {"inputText": "word " * 500}}, "502 tokens"),
        ({"inputType": "text", "text": {"inputText": "a", "textTruncate": "end"}}, "textTruncate"),
        (nested("text_image"), r"required key \[inputText\]"),
        ({"inputType": "text_image", "text_image": {"inputText": "a"}}, r"required key \[mediaSource\]"),
        (multi("a"), "minimum item count"),
        (multi("a", "one", media_type="video"), "mediaType"),
        (multi("<@one>", "two"), "placeholders"),
        (multi("<@one> <@two>", "one"), "no media source is named two"),
        (multi("<@one>", "one", "one"), "used twice"),
        (multi("<@one>", None), "placeholders"),
    ],
)
def test_3_0_refuses(model_input, problem):
    with pytest.raises(BedrockError, match=problem):
        task_30(model_input)


def test_the_bucket_owner_may_be_required():
    request = {"inputType": "image", "mediaSource": {"s3Location": {"uri": "s3://media/a.png"}}}
    assert task_27(request).kind is MediaKind.IMAGE
    with pytest.raises(BedrockError, match="bucketOwner is required"):
        task_27(request, bucket_owner_required=True)


@pytest.mark.parametrize(
    ("model", "kind", "limit"),
    [
        (MARENGO_27, MediaKind.VIDEO, 2_000_000_000),
        (MARENGO_27, MediaKind.IMAGE, 5_000_000),
        (MARENGO_30, MediaKind.AUDIO, 6_000_000_000),
        (MARENGO_30, MediaKind.IMAGE, 5_000_000),
    ],
)
def test_sizes_are_limited(model, kind, limit):
    model.check_size(limit, kind, "it")
    with pytest.raises(BedrockError, match=f"{limit + 1} bytes"):
        model.check_size(limit + 1, kind, "it")
    with pytest.raises(BedrockError, match="It is empty"):
        model.check_size(0, kind, "it")


def test_inline_content_is_limited_too():
    too_large = {"base64String": base64.b64encode(bytes(5_000_001)).decode()}
    with pytest.raises(BedrockError, match="5000001 bytes"):
        task_27(flat("image", mediaSource=too_large))


def test_rows_have_the_shape_of_their_model():
    clip = Embedding(np.zeros(2, dtype=np.float32), "audio", "clip", 0.0, 1.23456)
    asset = Embedding(np.zeros(2, dtype=np.float32), "audio", "asset", 0.0, 9.0)
    still = Embedding(np.zeros(2, dtype=np.float32))
    times = {"startSec": 0.0, "endSec": 1.235}
    assert MARENGO_27.row(clip, Settings()) == {"embedding": [0, 0], "embeddingOption": "audio", **times}
    scoped = {"embedding": [0, 0], "embeddingOption": "audio", "embeddingScope": "clip", **times}
    assert MARENGO_30.row(clip, Settings()) == scoped
    assert "startSec" not in MARENGO_30.row(asset, Settings(asset_rows_have_times=False))
    assert MARENGO_27.row(still, Settings()) == MARENGO_30.row(still, Settings()) == {"embedding": [0, 0]}
