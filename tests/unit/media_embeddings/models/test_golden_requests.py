"""The requests of every model as they were reviewed against the documentation, one file each in ``golden/``.

A difference means that something else is bought than before: after reviewing it, write the file anew with the request that
the message shows.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models import model_named
from media_embeddings.models.marengo_3_0 import InputImage

GOLDEN = Path(__file__).with_name("golden")
OLD, NEW, NOVA = model_named("marengo-2-7"), model_named("marengo-3-0"), model_named("nova-2-multimodal-1024")
OWNER = "123456789012"
SUFFIXES = {MediaType.VIDEO: "mp4", MediaType.AUDIO: "wav", MediaType.IMAGE: "jpg", MediaType.TEXT: "txt"}
PICTURE = b"\xff\xd8\xff a picture"


def media(media_type: MediaType) -> MediaObject:
    key = f"library/a (1)+%20é.{SUFFIXES[media_type]}"
    return MediaObject("media", key, "e1", 1000, datetime(2026, 11, 1, tzinfo=UTC), media_type)


def request(model, media_type, given=(), *, content=None, text=None):
    parameters = model.parameters(media_type, dict(given))
    return model.model_input(media(media_type), parameters, bucket_owner=OWNER, text=text, content=content)


IMAGE = InputImage("s3://media/one.png", OWNER, name="one")

REQUESTS = {
    "marengo-2-7-video": request(OLD, MediaType.VIDEO),
    "marengo-2-7-video-every-parameter": request(
        OLD,
        MediaType.VIDEO,
        {
            "embeddingOption": ["visual-text", "audio"],
            "startSec": 1.5,
            "lengthSec": 20,
            "useFixedLengthSec": 5,
            "minClipSec": 2,
        },
    ),
    "marengo-2-7-audio": request(OLD, MediaType.AUDIO),
    "marengo-2-7-audio-every-parameter": request(
        OLD,
        MediaType.AUDIO,
        {"embeddingOption": ["audio"], "startSec": 1, "lengthSec": 20, "useFixedLengthSec": 5},
    ),
    "marengo-2-7-image": request(OLD, MediaType.IMAGE),
    "marengo-2-7-image-inline": request(OLD, MediaType.IMAGE, content=PICTURE),
    "marengo-2-7-text": request(OLD, MediaType.TEXT, text="a red boat"),
    "marengo-2-7-text-truncated": request(OLD, MediaType.TEXT, {"textTruncate": "end"}, text="a red boat"),
    "marengo-2-7-query": OLD.query_input("a red boat"),
    "marengo-3-0-video": request(NEW, MediaType.VIDEO),
    "marengo-3-0-video-dynamic": request(
        NEW, MediaType.VIDEO, {"segmentation": {"method": "dynamic", "dynamic": {"minDurationSec": 2}}}
    ),
    "marengo-3-0-video-every-parameter": request(
        NEW,
        MediaType.VIDEO,
        {
            "startSec": 2,
            "endSec": 30,
            "segmentation": {"method": "fixed", "fixed": {"durationSec": 8}},
            "embeddingOption": ["visual", "transcription"],
            "embeddingType": ["separate_embedding", "fused_embedding"],
            "embeddingScope": ["clip"],
        },
    ),
    "marengo-3-0-audio": request(NEW, MediaType.AUDIO),
    "marengo-3-0-audio-every-parameter": request(
        NEW,
        MediaType.AUDIO,
        {
            "startSec": 2,
            "endSec": 30,
            "segmentation": {"method": "fixed", "fixed": {"durationSec": 10}},
            "embeddingOption": ["audio", "transcription"],
            "embeddingType": ["fused_embedding"],
            "embeddingScope": ["asset"],
        },
    ),
    "marengo-3-0-image": request(NEW, MediaType.IMAGE),
    "marengo-3-0-image-inline": request(NEW, MediaType.IMAGE, content=PICTURE),
    "marengo-3-0-text": request(NEW, MediaType.TEXT, text="a red boat"),
    "marengo-3-0-query": NEW.query_input("a red boat"),
    "marengo-3-0-text-image": NEW.text_image_input("a red boat", replace(IMAGE, name=None)),
    "marengo-3-0-multi-input": NEW.multi_input(
        "<@two> beside <@one>", [IMAGE, InputImage("the second", content=PICTURE, name="two")]
    ),
    "marengo-3-0-multi-input-without-text": NEW.multi_input(None, [replace(IMAGE, name=None)]),
    "nova-2-multimodal-1024-video": request(NOVA, MediaType.VIDEO),
    "nova-2-multimodal-1024-video-every-parameter": request(
        NOVA,
        MediaType.VIDEO,
        {
            "embeddingPurpose": "CLUSTERING",
            "embeddingDimension": 1024,
            "embeddingMode": "AUDIO_VIDEO_SEPARATE",
            "segmentationConfig": {"durationSeconds": 15},
        },
    ),
    "nova-2-multimodal-1024-audio": request(NOVA, MediaType.AUDIO),
    "nova-2-multimodal-1024-image": request(NOVA, MediaType.IMAGE, {"detailLevel": "DOCUMENT_IMAGE"}),
    "nova-2-multimodal-1024-text": request(
        NOVA, MediaType.TEXT, {"truncationMode": "END", "segmentationConfig": {"maxLengthChars": 800}}
    ),
    "nova-2-multimodal-1024-query": NOVA.query_input("a red boat"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_the_one_that_was_reviewed(name):
    assert REQUESTS[name] == json.loads((GOLDEN / f"{name}.json").read_text())


def test_there_is_no_file_without_a_request():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(REQUESTS)
