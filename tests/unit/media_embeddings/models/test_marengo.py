"""The requests of both Marengo generations, checked against the documentation that the models' modules link to."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models import model_named, model_names
from media_embeddings.models.protocol import ParameterError
from media_embeddings.reasons import ReasonCode

OLD, NEW = model_named("marengo-2-7"), model_named("marengo-3-0")
VIDEO = MediaObject("films", "a (1)+%20é.mp4", "e1", 1000, datetime(2026, 11, 1, tzinfo=UTC), MediaType.VIDEO)
URI = "s3://films/a (1)+%20é.mp4"


def of_type(media_type: MediaType, size_bytes: int = 1000) -> MediaObject:
    return replace(VIDEO, media_type=media_type, size_bytes=size_bytes)


def request(model, media_type, given=(), *, bucket_owner=None, text=None):
    parameters = model.parameters(media_type, dict(given))
    return model.model_input(of_type(media_type), parameters, bucket_owner=bucket_owner, text=text)


def test_models_are_found_by_name_and_a_wrong_name_is_answered_with_those_there_are():
    assert set(model_names()) >= {"marengo-2-7", "marengo-3-0"}
    with pytest.raises(ValueError, match="marengo-2-7, marengo-3-0"):
        model_named("marengo-9")


def test_marengo_2_7_video():
    assert request(OLD, MediaType.VIDEO, bucket_owner="123456789012") == {
        "inputType": "video",
        "mediaSource": {"s3Location": {"uri": URI, "bucketOwner": "123456789012"}},
        "embeddingOption": ["visual-text", "visual-image", "audio"],
    }


def test_marengo_2_7_video_with_every_parameter():
    given = {
        "embeddingOption": ["audio", "visual-text"],
        "startSec": 1,
        "lengthSec": 20.5,
        "useFixedLengthSec": 5,
        "minClipSec": 2,
    }
    assert request(OLD, MediaType.VIDEO, given) == {
        "inputType": "video",
        "mediaSource": {"s3Location": {"uri": URI}},
        "embeddingOption": ["visual-text", "audio"],
        "startSec": 1.0,
        "lengthSec": 20.5,
        "useFixedLengthSec": 5.0,
        "minClipSec": 2,
    }


def test_marengo_2_7_audio_image_and_text():
    location = {"mediaSource": {"s3Location": {"uri": URI}}}
    assert request(OLD, MediaType.AUDIO) == {"inputType": "audio", **location}
    assert request(OLD, MediaType.IMAGE) == {"inputType": "image", **location}
    assert request(OLD, MediaType.TEXT, text="a red boat") == {
        "inputType": "text",
        "inputText": "a red boat",
        "textTruncate": "none",
    }


def test_marengo_3_0_video():
    assert request(NEW, MediaType.VIDEO, bucket_owner="123456789012") == {
        "inputType": "video",
        "video": {
            "mediaSource": {"s3Location": {"uri": URI, "bucketOwner": "123456789012"}},
            "embeddingOption": ["visual", "audio", "transcription"],
            "embeddingType": ["separate_embedding"],
            "embeddingScope": ["clip", "asset"],
        },
    }


def test_marengo_3_0_video_with_every_parameter():
    given = {
        "startSec": 2,
        "endSec": 30,
        "segmentation": {"method": "fixed", "fixed": {"durationSec": 6}},
        "embeddingOption": ["transcription", "visual"],
        "embeddingType": ["fused_embedding", "separate_embedding"],
        "embeddingScope": ["clip"],
    }
    assert request(NEW, MediaType.VIDEO, given)["video"] == {
        "mediaSource": {"s3Location": {"uri": URI}},
        "startSec": 2.0,
        "endSec": 30.0,
        "segmentation": {"method": "fixed", "fixed": {"durationSec": 6}},
        "embeddingOption": ["visual", "transcription"],
        "embeddingType": ["separate_embedding", "fused_embedding"],
        "embeddingScope": ["clip"],
    }


def test_marengo_3_0_audio_image_and_text():
    assert request(NEW, MediaType.AUDIO)["audio"]["embeddingOption"] == ["audio", "transcription"]
    assert request(NEW, MediaType.IMAGE) == {
        "inputType": "image",
        "image": {"mediaSource": {"s3Location": {"uri": URI}}},
    }
    assert request(NEW, MediaType.TEXT, text="a red boat") == {
        "inputType": "text",
        "text": {"inputText": "a red boat"},
    }


IN_RANGE = [
    (OLD, MediaType.VIDEO, {"useFixedLengthSec": 4}),
    (OLD, MediaType.VIDEO, {"useFixedLengthSec": 2, "minClipSec": 2}),
    (OLD, MediaType.VIDEO, {"useFixedLengthSec": 10}),
    (OLD, MediaType.VIDEO, {"minClipSec": 1}),
    (OLD, MediaType.VIDEO, {"minClipSec": 5}),
    (OLD, MediaType.VIDEO, {"startSec": 0.1}),
    (OLD, MediaType.VIDEO, {"lengthSec": 0.1}),
    (OLD, MediaType.AUDIO, {"startSec": 3, "lengthSec": 7.5}),
    (OLD, MediaType.AUDIO, {"useFixedLengthSec": 2}),
    (OLD, MediaType.AUDIO, {"useFixedLengthSec": 10}),
    (OLD, MediaType.AUDIO, {"embeddingOption": ["audio"]}),
    (OLD, MediaType.TEXT, {"textTruncate": "end"}),
    (OLD, MediaType.TEXT, {"textTruncate": "none"}),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "dynamic", "dynamic": {"minDurationSec": 1}}}),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "dynamic", "dynamic": {"minDurationSec": 5}}}),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "fixed", "fixed": {"durationSec": 1}}}),
    (NEW, MediaType.AUDIO, {"segmentation": {"method": "fixed", "fixed": {"durationSec": 10}}}),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "fixed", "fixed": {"durationSec": 10}}}),
    (NEW, MediaType.AUDIO, {"segmentation": {"method": "fixed", "fixed": {"durationSec": 1}}}),
    (NEW, MediaType.VIDEO, {"startSec": 1, "endSec": 5}),
    (NEW, MediaType.VIDEO, {"endSec": 2, "segmentation": {"method": "fixed", "fixed": {"durationSec": 2}}}),
    (NEW, MediaType.AUDIO, {"startSec": 1, "endSec": 1.5}),
    (NEW, MediaType.VIDEO, {"embeddingOption": ["visual"]}),
    (NEW, MediaType.VIDEO, {"embeddingScope": ["asset"]}),
    (NEW, MediaType.VIDEO, {"embeddingOption": ["visual", "audio"], "embeddingType": ["fused_embedding"]}),
    (NEW, MediaType.AUDIO, {"embeddingType": ["fused_embedding"]}),
]
OUT_OF_RANGE = [
    (OLD, MediaType.VIDEO, {"useFixedLengthSec": 1.9}, "useFixedLengthSec"),
    (OLD, MediaType.VIDEO, {"useFixedLengthSec": 10.1}, "useFixedLengthSec"),
    (OLD, MediaType.VIDEO, {"useFixedLengthSec": 3}, "useFixedLengthSec"),
    (OLD, MediaType.VIDEO, {"useFixedLengthSec": 3, "minClipSec": 4}, "useFixedLengthSec"),
    (OLD, MediaType.VIDEO, {"minClipSec": 0}, "minClipSec"),
    (OLD, MediaType.VIDEO, {"minClipSec": 6}, "minClipSec"),
    (OLD, MediaType.VIDEO, {"minClipSec": 2.5}, "minClipSec"),
    (OLD, MediaType.VIDEO, {"startSec": -1}, "startSec"),
    (OLD, MediaType.VIDEO, {"startSec": float("nan")}, "startSec"),
    (OLD, MediaType.VIDEO, {"startSec": float("inf")}, "startSec"),
    (OLD, MediaType.VIDEO, {"startSec": 10**400}, "startSec"),
    (OLD, MediaType.VIDEO, {"lengthSec": -0.1}, "lengthSec"),
    (OLD, MediaType.VIDEO, {"lengthSec": 0}, "lengthSec"),
    (OLD, MediaType.AUDIO, {"useFixedLengthSec": 10.5}, "useFixedLengthSec"),
    (OLD, MediaType.VIDEO, {"embeddingOption": ["audio", "audio"]}, "embeddingOption"),
    (OLD, MediaType.VIDEO, {"embeddingOption": [{"audio": True}]}, "embeddingOption"),
    (OLD, MediaType.VIDEO, {"startSec": True}, "startSec"),
    (OLD, MediaType.VIDEO, {"embeddingOption": []}, "embeddingOption"),
    (OLD, MediaType.VIDEO, {"embeddingOption": "audio"}, "embeddingOption"),
    (OLD, MediaType.VIDEO, {"embeddingOption": ["visual"]}, "embeddingOption"),
    (OLD, MediaType.VIDEO, {"segmentation": {}}, "segmentation"),
    (OLD, MediaType.AUDIO, {"minClipSec": 2}, "minClipSec"),
    (OLD, MediaType.AUDIO, {"embeddingOption": ["visual-text"]}, "embeddingOption"),
    (OLD, MediaType.IMAGE, {"startSec": 0}, "startSec"),
    (OLD, MediaType.TEXT, {"textTruncate": "start"}, "textTruncate"),
    (NEW, MediaType.VIDEO, {"useFixedLengthSec": 5}, "useFixedLengthSec"),
    (NEW, MediaType.VIDEO, {"startSec": 1, "endSec": 4.9}, "endSec"),
    (NEW, MediaType.VIDEO, {"endSec": 1.9, "segmentation": {"method": "fixed", "fixed": {"durationSec": 2}}}, "endSec"),
    (NEW, MediaType.AUDIO, {"startSec": 5, "endSec": 5}, "endSec"),
    (NEW, MediaType.VIDEO, {"startSec": -0.1}, "startSec"),
    (NEW, MediaType.VIDEO, {"segmentation": "fixed"}, "segmentation"),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": ["fixed"]}}, "segmentation"),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "dynamic", "dynamic": {"minDurationSec": 0}}}, "minDurationSec"),
    (NEW, MediaType.AUDIO, {"segmentation": {"method": "fixed", "fixed": {"durationSec": 0}}}, "durationSec"),
    (NEW, MediaType.VIDEO, {"embeddingScope": []}, "embeddingScope"),
    (NEW, MediaType.VIDEO, {"embeddingType": ["joined"]}, "embeddingType"),
    (NEW, MediaType.AUDIO, {"embeddingOption": ["audio"], "embeddingType": ["fused_embedding"]}, "embeddingType"),
    (NEW, MediaType.IMAGE, {"embeddingScope": ["clip"]}, "embeddingScope"),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "shots"}}, "segmentation"),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "dynamic", "dynamic": {"minDurationSec": 6}}}, "minDurationSec"),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "fixed", "fixed": {"durationSec": 11}}}, "durationSec"),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "fixed", "dynamic": {"minDurationSec": 4}}}, "dynamic"),
    (NEW, MediaType.AUDIO, {"segmentation": {"method": "dynamic"}}, "segmentation"),
    (NEW, MediaType.AUDIO, {"embeddingOption": ["visual"]}, "embeddingOption"),
    (NEW, MediaType.VIDEO, {"embeddingOption": ["visual"], "embeddingType": ["fused_embedding"]}, "embeddingType"),
    (NEW, MediaType.VIDEO, {"embeddingScope": ["scene"]}, "embeddingScope"),
    (NEW, MediaType.TEXT, {"textTruncate": "none"}, "textTruncate"),
]


@pytest.mark.parametrize(
    ("model", "media_type", "given"), IN_RANGE, ids=lambda value: getattr(value, "name", str(value))
)
def test_a_value_within_its_documented_range_is_sent(model, media_type, given):
    sent = model.parameters(media_type, given)

    assert all(sent[name] == value for name, value in given.items())


@pytest.mark.parametrize(
    ("model", "media_type", "given", "parameter"), OUT_OF_RANGE, ids=lambda value: getattr(value, "name", str(value))
)
def test_a_value_outside_is_refused_with_its_name_and_the_documentation(model, media_type, given, parameter):
    with pytest.raises(ParameterError, match=r"https://docs\.aws\.amazon\.com/") as raised:
        model.parameters(media_type, given)

    assert raised.value.parameter == parameter
    assert str(raised.value).startswith(f"{parameter} ")


def test_equal_settings_are_equal_parameters():
    one = {"embeddingOption": ["audio", "visual-text"], "startSec": 1}
    other = {"startSec": 1.0, "embeddingOption": ["visual-text", "audio"]}

    assert OLD.parameters(MediaType.VIDEO, one) == OLD.parameters(MediaType.VIDEO, other)


SPELLED_OUT = [
    (
        OLD,
        MediaType.VIDEO,
        {"embeddingOption": ["audio", "visual-image", "visual-text"], "startSec": 0, "minClipSec": 4},
    ),
    (OLD, MediaType.AUDIO, {"startSec": 0.0, "embeddingOption": None}),
    (OLD, MediaType.TEXT, {"textTruncate": "none"}),
    (NEW, MediaType.VIDEO, {"startSec": 0, "segmentation": {"method": "dynamic"}, "embeddingScope": ["asset", "clip"]}),
    (NEW, MediaType.VIDEO, {"segmentation": {"method": "dynamic", "dynamic": {"minDurationSec": 4}}, "endSec": None}),
    (NEW, MediaType.AUDIO, {"embeddingType": ["separate_embedding"], "segmentation": None}),
]


@pytest.mark.parametrize(("model", "media_type", "given"), SPELLED_OUT, ids=range(len(SPELLED_OUT)))
def test_a_default_that_is_spelled_out_is_the_same_purchase(model, media_type, given):
    assert model.parameters(media_type, given) == model.parameters(media_type, {})


def test_a_fixed_segmentation_without_a_length_is_the_one_with_the_documented_length():
    given = {"segmentation": {"method": "fixed"}}

    assert NEW.parameters(MediaType.AUDIO, given)["segmentation"] == {"method": "fixed", "fixed": {"durationSec": 6}}


def test_parameters_that_were_completed_once_stay_as_they_are():
    for model, media_type, given in IN_RANGE:
        completed = model.parameters(media_type, given)

        assert model.parameters(media_type, completed) == completed


GIB, MIB = 1024**3, 1024**2


@pytest.mark.parametrize(
    ("model", "media_type", "most", "code"),
    [
        (OLD, MediaType.VIDEO, 2 * GIB, ReasonCode.TOO_LARGE),
        (OLD, MediaType.AUDIO, 2 * GIB, ReasonCode.TOO_LARGE),
        (OLD, MediaType.IMAGE, 5 * MIB, ReasonCode.TOO_LARGE),
        (OLD, MediaType.TEXT, 32 * MIB, ReasonCode.TOO_LARGE),
        (NEW, MediaType.VIDEO, 6 * GIB, ReasonCode.TOO_LARGE),
        (NEW, MediaType.AUDIO, 6 * GIB, ReasonCode.TOO_LARGE),
        (NEW, MediaType.IMAGE, 5 * MIB, ReasonCode.TOO_LARGE),
        (NEW, MediaType.TEXT, 32 * MIB, ReasonCode.TOO_LARGE),
    ],
)
def test_sizes_are_checked_on_either_side_of_the_limit(model, media_type, most, code):
    assert model.rejection(of_type(media_type, most)) is None
    too_much = model.rejection(of_type(media_type, most + 1))
    assert too_much is not None
    assert too_much.code is code


def test_an_object_without_bytes_is_rejected():
    rejection = OLD.rejection(of_type(MediaType.TEXT, 0))

    assert rejection is not None
    assert rejection.code is ReasonCode.EMPTY_OBJECT
