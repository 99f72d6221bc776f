"""Every documented parameter of every model, sent through an unmodified boto3, and every limit on either side of it."""

from __future__ import annotations

import base64
import json

import pytest
from botocore.exceptions import ClientError

from media_embeddings.models.media_source import MOST_BODY_BYTES, fits_a_request
from tests.integration.bedrock_simulator import media_files
from tests.integration.bedrock_simulator.requests import (
    MARENGO_30,
    NOVA,
    location,
    marengo_27,
    marengo_30,
    nova,
    nova_single,
    start_request,
)

# A deadline, not a wait: of hours of sound and millions of characters, on a machine that has other work.
_PATIENCE = 180.0
VIDEO, SOUND, PICTURE, STORY = "shots.mp4", "50 seconds.wav", "red.png", "story.txt"


def words_27(count: int, **more: str) -> dict:
    # A token each, and one for either end.
    return {"inputType": "text", "inputText": "word " * count, **more}


def words_30(count: int) -> dict:
    return {"inputType": "text", "text": {"inputText": "word " * count}}


def fixed(seconds: float) -> dict:
    return {"segmentation": {"method": "fixed", "fixed": {"durationSec": seconds}}}


def dynamic(seconds: float) -> dict:
    return {"segmentation": {"method": "dynamic", "dynamic": {"minDurationSec": seconds}}}


def several(text: str | None, *names: str | None, media_type: str = "image") -> dict:
    sources = [{"mediaType": media_type, **location(PICTURE), **({"name": name} if name else {})} for name in names]
    payload = {"mediaSources": sources} | ({"inputText": text} if text else {})
    return {"inputType": "multi_input", "multi_input": payload}


def owned(request: dict) -> dict:
    """Name the bucket's owner wherever a location stands."""
    text = json.dumps(request).replace('"s3Location": {', '"s3Location": {"bucketOwner": "123456789012", ')
    return json.loads(text)


def seconds(length: float) -> dict:
    return {"segmentationConfig": {"durationSeconds": length}}


def characters(length: float) -> dict:
    return {"segmentationConfig": {"maxLengthChars": length}}


TAKEN = {
    "2.7 video, bucketOwner": owned(marengo_27("video", VIDEO)),
    "2.7 video, embeddingOption": marengo_27("video", VIDEO, embeddingOption=["visual-text", "audio"]),
    "2.7 video, startSec 0": marengo_27("video", VIDEO, startSec=0),
    "2.7 video, startSec and lengthSec to the end": marengo_27("video", VIDEO, startSec=2, lengthSec=14),
    "2.7 video, useFixedLengthSec 2": marengo_27("video", VIDEO, useFixedLengthSec=2, minClipSec=2),
    "2.7 video, useFixedLengthSec 10": marengo_27("video", VIDEO, useFixedLengthSec=10),
    "2.7 video, minClipSec 1": marengo_27("video", VIDEO, minClipSec=1),
    "2.7 video, minClipSec 5": marengo_27("video", VIDEO, minClipSec=5),
    "2.7 audio, every parameter": marengo_27(
        "audio", SOUND, embeddingOption=["audio"], startSec=1, lengthSec=20, useFixedLengthSec=2
    ),
    "2.7 image": marengo_27("image", PICTURE),
    "2.7 text of 77 tokens": words_27(75, textTruncate="none"),
    "2.7 longer text, textTruncate end": words_27(76, textTruncate="end"),
    "3.0 inferenceId": {"inferenceId": "mine", **marengo_30("image", PICTURE)},
    "3.0 image, bucketOwner": owned(marengo_30("image", PICTURE)),
    "3.0 video, startSec and endSec": marengo_30("video", VIDEO, startSec=1, endSec=5),
    "3.0 video, endSec at the end": marengo_30("video", VIDEO, endSec=16),
    "3.0 video, dynamic 1 s": marengo_30("video", VIDEO, **dynamic(1)),
    "3.0 video, dynamic 5 s": marengo_30("video", VIDEO, **dynamic(5)),
    "3.0 video, fixed 1 s": marengo_30("video", VIDEO, **fixed(1)),
    "3.0 video, fixed 10 s": marengo_30("video", VIDEO, **fixed(10)),
    "3.0 video, embeddingOption": marengo_30("video", VIDEO, embeddingOption=["visual"]),
    "3.0 video, embeddingScope": marengo_30("video", VIDEO, embeddingScope=["asset"]),
    "3.0 video, both embeddingTypes": marengo_30(
        "video",
        VIDEO,
        embeddingOption=["visual", "audio"],
        embeddingType=["separate_embedding", "fused_embedding"],
    ),
    "3.0 audio, every parameter": marengo_30(
        "audio",
        SOUND,
        startSec=1,
        endSec=40,
        embeddingOption=["audio", "transcription"],
        embeddingScope=["clip"],
        embeddingType=["fused_embedding"],
        **fixed(10),
    ),
    "3.0 text of 500 tokens": words_30(498),
    "3.0 text_image": {"inputType": "text_image", "text_image": {"inputText": "a", "mediaSource": location(PICTURE)}},
    "3.0 multi_input, one image": several(None, None),
    "3.0 multi_input, named images": several("<@one> and <@two>", "two", "one"),
    "nova schemaVersion": {"schemaVersion": "nova-multimodal-embed-v1", **nova("image", PICTURE)},
    **{f"nova dimension {number}": nova("image", PICTURE, dimension=number) for number in (256, 384, 1024, 3072)},
    **{
        f"nova {purpose}": nova("image", PICTURE, purpose=purpose)
        for purpose in (
            *("GENERIC_INDEX", "GENERIC_RETRIEVAL", "TEXT_RETRIEVAL", "IMAGE_RETRIEVAL", "VIDEO_RETRIEVAL"),
            *("DOCUMENT_RETRIEVAL", "AUDIO_RETRIEVAL", "CLASSIFICATION", "CLUSTERING"),
        )
    },
    "nova video, separate, 1 s": nova("video", VIDEO, embeddingMode="AUDIO_VIDEO_SEPARATE", **seconds(1)),
    "nova video, combined, 30 s": nova("video", VIDEO, embeddingMode="AUDIO_VIDEO_COMBINED", **seconds(30)),
    "nova silent video, combined": nova("video", "silent.mp4"),
    "nova audio, 1 s": nova("audio", SOUND, **seconds(1)),
    "nova audio, 30 s": nova("audio", SOUND, **seconds(30)),
    "nova image, DOCUMENT_IMAGE": nova("image", "blue.jpg", format="jpeg", detailLevel="DOCUMENT_IMAGE"),
    "nova text, 800 characters": nova("text", STORY, truncationMode="END", **characters(800)),
    "nova text, 50000 characters": nova("text", STORY, truncationMode="START", **characters(50_000)),
}


@pytest.mark.parametrize("model_input", TAKEN.values(), ids=TAKEN.keys())
def test_what_the_page_allows_is_embedded(server, model_input):
    arn = server.client().start_async_invoke(**start_request(model_input))["invocationArn"]
    answer = server.ended(arn, seconds=_PATIENCE)

    assert (answer["status"], answer.get("failureMessage")) == ("Completed", None)


REFUSED = {
    "2.7 startSec": (marengo_27("video", VIDEO, startSec=-0.1), "#/startSec"),
    "2.7 lengthSec": (marengo_27("video", VIDEO, lengthSec=-0.1), "#/lengthSec"),
    "2.7 useFixedLengthSec below": (marengo_27("video", VIDEO, useFixedLengthSec=1.9), "#/useFixedLengthSec"),
    "2.7 useFixedLengthSec above": (marengo_27("video", VIDEO, useFixedLengthSec=10.1), "#/useFixedLengthSec"),
    "2.7 minClipSec below": (marengo_27("video", VIDEO, minClipSec=0), "#/minClipSec"),
    "2.7 minClipSec above": (marengo_27("video", VIDEO, minClipSec=6), "#/minClipSec"),
    "2.7 minClipSec over the length": (marengo_27("video", VIDEO, useFixedLengthSec=2, minClipSec=3), "minClipSec"),
    "2.7 embeddingOption": (marengo_27("video", VIDEO, embeddingOption=["visual"]), "#/embeddingOption"),
    "2.7 textTruncate": (words_27(1, textTruncate="start"), "#/textTruncate"),
    "2.7 tokens": (words_27(76, textTruncate="none"), "78 tokens"),
    "2.7 bucketOwner": (
        {
            "inputType": "image",
            "mediaSource": {"s3Location": {"uri": "s3://media/red.png", "bucketOwner": "12345678901"}},
        },
        "bucketOwner",
    ),
    "3.0 startSec": (marengo_30("video", VIDEO, startSec=-0.1), "#/video/startSec"),
    "3.0 endSec": (marengo_30("video", VIDEO, startSec=1, endSec=4.9), "#/video/endSec"),
    "3.0 dynamic below": (marengo_30("video", VIDEO, **dynamic(0)), "minDurationSec"),
    "3.0 dynamic above": (marengo_30("video", VIDEO, **dynamic(6)), "minDurationSec"),
    "3.0 dynamic audio": (marengo_30("audio", SOUND, **dynamic(4)), "method"),
    "3.0 fixed below": (marengo_30("audio", SOUND, **fixed(0)), "durationSec"),
    "3.0 fixed above": (marengo_30("audio", SOUND, **fixed(11)), "durationSec"),
    "3.0 embeddingOption": (marengo_30("audio", SOUND, embeddingOption=["visual"]), "embeddingOption"),
    "3.0 embeddingScope": (marengo_30("video", VIDEO, embeddingScope=["whole"]), "embeddingScope"),
    "3.0 fused of one": (
        marengo_30("video", VIDEO, embeddingOption=["visual"], embeddingType=["fused_embedding"]),
        "embeddingType",
    ),
    "3.0 tokens": (words_30(499), "501 tokens"),
    "3.0 multi_input without images": (several("a"), "mediaSources"),
    "3.0 multi_input of a video": (several("a", None, media_type="video"), "mediaType"),
    "3.0 multi_input with a name too few": (several("<@one> and <@two>", "one"), "two"),
    "nova schemaVersion": ({"schemaVersion": "v2", **nova("image", PICTURE)}, "schemaVersion"),
    "nova taskType": (nova("image", PICTURE) | {"taskType": "SINGLE_EMBEDDING"}, "taskType"),
    "nova dimension": (nova("image", PICTURE, dimension=512), "embeddingDimension"),
    "nova purpose": (nova("image", PICTURE, purpose="SEARCH"), "embeddingPurpose"),
    "nova seconds below": (nova("video", VIDEO, **seconds(0)), "durationSeconds"),
    "nova seconds above": (nova("audio", SOUND, **seconds(31)), "durationSeconds"),
    "nova seconds in parts": (nova("audio", SOUND, **seconds(2.5)), "durationSeconds"),
    "nova characters below": (nova("text", STORY, **characters(799)), "maxLengthChars"),
    "nova characters above": (nova("text", STORY, **characters(50_001)), "maxLengthChars"),
    "nova truncationMode": (nova("text", STORY, truncationMode="MIDDLE"), "truncationMode"),
    "nova embeddingMode": (nova("video", VIDEO, embeddingMode="AUDIO"), "embeddingMode"),
    "nova detailLevel": (nova("image", PICTURE, detailLevel="HIGH"), "detailLevel"),
    "nova format": (nova("video", VIDEO, format="avi"), "format"),
    "nova startSec": (nova("video", VIDEO, startSec=1), "extraneous key [startSec]"),
    "nova bucketOwner": (owned(nova("image", PICTURE)), "extraneous key [bucketOwner]"),
    "nova content": (nova("image", PICTURE, source={"bytes": "AAAA"}), "s3Location"),
    "nova text with the request": (
        {
            "taskType": "SEGMENTED_EMBEDDING",
            "segmentedEmbeddingParams": {
                "embeddingPurpose": "GENERIC_INDEX",
                "text": {"value": "a", "truncationMode": "NONE", "segmentationConfig": {}},
            },
        },
        "S3 inputs only",
    ),
}


def refusal(call, **arguments) -> str:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    assert raised.value.response["Error"]["Code"] == "ValidationException"
    return raised.value.response["Error"]["Message"]


@pytest.mark.parametrize(("model_input", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_page_does_not_allow_is_refused(server, model_input, words):
    model_id = NOVA if "taskType" in model_input else None
    assert words in refusal(server.client().start_async_invoke, **start_request(model_input, model_id))


@pytest.mark.parametrize(
    ("request_of", "most"),
    [(marengo_27, 5_000_000), (marengo_30, 5_000_000), (nova, 50_000_000)],
    ids=["2.7", "3.0", "nova"],
)
def test_an_images_size_is_limited(server, s3, request_of, most):
    # A decoder does not look at what comes after the picture.
    picture = media_files.image(media_files.RED).ljust(most, b"\0")
    s3.put_object(Bucket="media", Key="most.png", Body=picture)
    s3.put_object(Bucket="media", Key="more.png", Body=picture + b"\0")
    client = server.client()

    taken = client.start_async_invoke(**start_request(request_of("image", "most.png")))
    assert f"{most + 1} bytes" in refusal(client.start_async_invoke, **start_request(request_of("image", "more.png")))
    assert server.ended(taken["invocationArn"], seconds=_PATIENCE)["status"] == "Completed"


@pytest.mark.parametrize(
    ("request_of", "most", "more"),
    [
        # Of the whole file: the end of it is enough to embed.
        (lambda key: marengo_27("audio", key, startSec=7190, lengthSec=10), 7200, "7200 s that the model takes"),
        (lambda key: marengo_30("audio", key, startSec=14_390, endSec=14_400), 14_400, "14400 s that the model takes"),
        (lambda key: nova("audio", key, **seconds(1)), 1434, "1435 segments"),
    ],
    ids=["2.7", "3.0", "nova's segments"],
)
def test_the_length_of_sound_is_limited(server, s3, request_of, most, more):
    statuses = []
    for length in (most, most + 1):
        s3.put_object(Bucket="media", Key=f"{length}.wav", Body=media_files.silence(length))
        arn = server.client().start_async_invoke(**start_request(request_of(f"{length}.wav")))["invocationArn"]
        answer = server.ended(arn, seconds=_PATIENCE)
        statuses.append((answer["status"], answer.get("failureMessage", "")))

    assert statuses[0] == ("Completed", "")
    assert statuses[1][0] == "Failed"
    assert more in statuses[1][1]


def test_the_number_of_a_texts_segments_is_limited(server, s3):
    statuses = []
    for length in (1900 * 800, 1900 * 800 + 1):
        s3.put_object(Bucket="media", Key="long.txt", Body=b"a" * length)
        request = nova("text", "long.txt", truncationMode="END", **characters(800))
        answer = server.ended(
            server.client().start_async_invoke(**start_request(request))["invocationArn"], seconds=_PATIENCE
        )
        statuses.append((answer["status"], answer.get("failureMessage", "")))

    assert statuses[0] == ("Completed", "")
    assert "1901 segments" in statuses[1][1]


def test_media_go_with_a_request_up_to_its_greatest_body(server):
    client = server.client()
    sound = media_files.silence(5).ljust(next(n for n in range(18_750_000, 0, -1) if fits_a_request(n)), b"\x80")
    source = {"mediaSource": {"base64String": base64.b64encode(sound).decode()}}
    for request in ({"inputType": "audio", **source}, {"inputType": "audio", "audio": source}):
        arn = client.start_async_invoke(**start_request(request))["invocationArn"]
        assert server.ended(arn, seconds=_PATIENCE)["status"] == "Completed"
    too_much = {"mediaSource": {"base64String": base64.b64encode(bytes(18_750_001)).decode()}}
    assert str(MOST_BODY_BYTES) in refusal(
        client.start_async_invoke, **start_request({"inputType": "audio", **too_much})
    )


def test_a_body_of_invoke_model_may_have_25_million_bytes_and_no_more(server):
    client = server.client()
    body = json.dumps(words_30(1)).encode().ljust(25_000_000)

    client.invoke_model(modelId=MARENGO_30, body=body)
    assert "25000000" in refusal(client.invoke_model, modelId=MARENGO_30, body=body + b" ")


def test_an_image_that_comes_with_the_request_is_limited_too(server):
    client = server.client()
    picture = media_files.image(media_files.RED).ljust(5_000_000, b"\0")

    def body(content: bytes) -> str:
        source = {"mediaSource": {"base64String": base64.b64encode(content).decode()}}
        return json.dumps({"inputType": "image", "image": source})

    client.invoke_model(modelId=MARENGO_30, body=body(picture))
    assert "5000001 bytes" in refusal(client.invoke_model, modelId=MARENGO_30, body=body(picture + b"\0"))


INVOKED = {
    "2.7 text": ("us.twelvelabs.marengo-embed-2-7-v1:0", words_27(75, textTruncate="none"), 1024),
    "2.7 image": ("us.twelvelabs.marengo-embed-2-7-v1:0", marengo_27("image", PICTURE), 1024),
    "3.0 text": (MARENGO_30, words_30(498), 512),
    "3.0 image": (MARENGO_30, marengo_30("image", PICTURE), 512),
    "3.0 text_image": (MARENGO_30, TAKEN["3.0 text_image"], 512),
    "3.0 multi_input": (MARENGO_30, several("<@one>", "one"), 512),
}


@pytest.mark.parametrize(("model_id", "request_body", "dimension"), INVOKED.values(), ids=INVOKED.keys())
def test_invoke_model_embeds_what_marengo_takes(server, model_id, request_body, dimension):
    answer = server.client().invoke_model(modelId=model_id, body=json.dumps(request_body))
    (row,) = json.loads(answer["body"].read())["data"]

    assert len(row["embedding"]) == dimension


NOVA_INVOKED = {
    "text": ("text", {"value": "a" * 8192, "truncationMode": "NONE"}, "TEXT"),
    "text on S3": ("text", {"source": location(STORY), "truncationMode": "NONE"}, "TEXT"),
    "text that is cut": ("text", {"value": "1 " * 4096, "truncationMode": "END"}, "TEXT"),
    "image": ("image", {"format": "png", "source": location(PICTURE)}, "IMAGE"),
    "image with the request": (
        "image",
        {"format": "png", "source": {"bytes": base64.b64encode(media_files.image(media_files.RED)).decode()}},
        "IMAGE",
    ),
    "audio": ("audio", {"format": "wav", "source": location("16-seconds.flac")}, "AUDIO"),
    "video": (
        "video",
        {"format": "mp4", "source": location(VIDEO), "embeddingMode": "AUDIO_VIDEO_COMBINED"},
        "AUDIO_VIDEO_COMBINED",
    ),
}


@pytest.mark.parametrize(("kind", "payload", "embedding_type"), NOVA_INVOKED.values(), ids=NOVA_INVOKED.keys())
def test_invoke_model_gives_one_embedding_of_nova(server, kind, payload, embedding_type):
    answer = server.client().invoke_model(modelId=NOVA, body=json.dumps(nova_single(kind, payload)))
    (found,) = json.loads(answer["body"].read())["embeddings"]

    assert (found["embeddingType"], len(found["embedding"])) == (embedding_type, 256)


NOVA_NOT_INVOKED = {
    "a longer text": ("text", {"value": "a" * 8193, "truncationMode": "NONE"}, "maxLength: 8192"),
    "more than 30 s": ("audio", {"format": "wav", "source": location(SOUND)}, "longer than the 30 s"),
    "a segmentation": ("audio", {"format": "wav", "source": location(SOUND), **seconds(5)}, "segmentationConfig"),
}


@pytest.mark.parametrize(("kind", "payload", "words"), NOVA_NOT_INVOKED.values(), ids=NOVA_NOT_INVOKED.keys())
def test_invoke_model_refuses_what_nova_takes_only_in_a_job(server, kind, payload, words):
    assert words in refusal(server.client().invoke_model, modelId=NOVA, body=json.dumps(nova_single(kind, payload)))


def test_a_texts_size_is_limited_when_one_embedding_is_asked_for(server, s3):
    client = server.client()
    messages = []
    for length in (50_000, 50_001, 1_000_001):
        s3.put_object(Bucket="media", Key="single.txt", Body=b"a" * length)
        request = nova_single("text", {"source": location("single.txt"), "truncationMode": "END"})
        if length == 50_000:
            client.invoke_model(modelId=NOVA, body=json.dumps(request))
        else:
            messages.append(refusal(client.invoke_model, modelId=NOVA, body=json.dumps(request)))

    assert "50001 characters" in messages[0]
    assert "1000001 bytes" in messages[1]


def test_a_region_of_older_pages_may_be_allowed(regional_servers):
    server = regional_servers("ap-northeast-2")
    request = start_request(words_27(1))
    assert "model identifier is invalid" in refusal(server.client().start_async_invoke, **request)
    server.admin.settings(extra_regions={"twelvelabs.marengo-embed-2-7-v1:0": ["ap-northeast-2"]})
    try:
        assert server.client().start_async_invoke(**request)["invocationArn"]
    finally:
        server.admin.settings(extra_regions={})
