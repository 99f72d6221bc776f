"""Each limit on what a header says, on either side."""

from datetime import UTC, datetime

import pytest

from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models import model_named
from media_embeddings.models.limits import findings_by_facts, limit_phrases, rejection_by_facts
from media_embeddings.models.protocol import Limits
from media_embeddings.reasons import ReasonCode

MARENGO_2_7, MARENGO_3_0 = model_named("marengo-2-7").limits, model_named("marengo-3-0").limits
SUFFIX = {MediaType.VIDEO: "mp4", MediaType.AUDIO: "mp3", MediaType.IMAGE: "jpg"}


def media(media_type: MediaType) -> MediaObject:
    return MediaObject("films", f"a.{SUFFIX[media_type]}", "e1", 1000, datetime(2026, 11, 1, tzinfo=UTC), media_type)


def found(media_type: MediaType, limits: Limits = MARENGO_3_0, **facts) -> list[str]:
    facts = {"kind": media_type, "width": 640, "height": 480, "container": "jpeg", "duration_sec": 60.0} | facts
    return [one.limit for one in findings_by_facts(media(media_type), MediaFacts(**facts), limits)]


TIMED = [MediaType.VIDEO, MediaType.AUDIO]


@pytest.mark.parametrize("media_type", TIMED)
@pytest.mark.parametrize(("limits", "hours"), [(MARENGO_2_7, 2), (MARENGO_3_0, 4)], ids=["2.7", "3.0"])
def test_the_longest_duration(media_type, limits, hours):
    # What a header says of a film of exactly that length may be some hundredths of a second more.
    assert found(media_type, limits, duration_sec=hours * 3600 + 0.1) == []
    assert found(media_type, limits, duration_sec=hours * 3600 + 1.1) == ["duration_sec"]


@pytest.mark.parametrize("media_type", TIMED)
def test_what_is_too_long_is_rejected_by_default_with_what_to_do(media_type):
    reason = rejection_by_facts(media(media_type), MediaFacts(duration_sec=5 * 3600.0, kind=media_type), MARENGO_3_0)

    assert reason.code is ReasonCode.TOO_LONG
    assert reason.message == f"18000.0 s are more than the 14400 s that the model takes of {media_type}; split it"


def test_a_duration_that_is_only_reckoned_rules_nothing_out():
    assert found(MediaType.AUDIO, duration_sec=9 * 3600.0, duration_is_estimated=True) == []


def test_what_the_header_does_not_say_is_within_the_limits():
    assert found(MediaType.VIDEO, duration_sec=None, width=None, height=None) == []


ENVELOPE = [
    (MediaType.VIDEO, {"duration_sec": 3.95}, {"duration_sec": 3.85}, "least_duration_sec", ReasonCode.TOO_SHORT),
    (MediaType.VIDEO, {"width": 360, "height": 360}, {"width": 500, "height": 359}, "least_pixels", None),
    (MediaType.IMAGE, {"width": 128, "height": 128}, {"width": 127, "height": 128}, "least_pixels", None),
    (MediaType.VIDEO, {"width": 5184, "height": 2160}, {"width": 5185, "height": 2161}, "greatest_pixels", None),
    (MediaType.VIDEO, {"width": 2160, "height": 5184}, {"width": 2200, "height": 5100}, "greatest_pixels", None),
    (MediaType.VIDEO, {"width": 960, "height": 400}, {"width": 961, "height": 400}, "greatest_aspect", None),
    (MediaType.IMAGE, {"container": "png"}, {"container": "webp"}, "image_formats", ReasonCode.UNSUPPORTED_MEDIA),
]


@pytest.mark.parametrize(("media_type", "within", "outside", "limit", "code"), ENVELOPE)
def test_what_only_the_models_maker_states_is_found_but_rules_nothing_out(media_type, within, outside, limit, code):
    assert found(media_type, **within) == []
    assert found(media_type, **outside) == [limit]
    facts = MediaFacts(**{"kind": media_type, "width": 640, "height": 480, "container": "jpeg"} | outside)
    (finding,) = findings_by_facts(media(media_type), facts, MARENGO_3_0)
    assert finding.reason.code is (code or ReasonCode.UNSUPPORTED_RESOLUTION)
    assert limit_phrases(media_type, MARENGO_3_0)[limit] in finding.reason.message
    assert rejection_by_facts(media(media_type), facts, MARENGO_3_0) is None


def test_a_limit_that_aws_states_rules_out():
    limits = Limits(size_bytes={}, text=MARENGO_3_0.text, image_formats=frozenset({"png"}))
    reason = rejection_by_facts(
        media(MediaType.IMAGE), MediaFacts(kind=MediaType.IMAGE, container="jpeg", width=9, height=9), limits
    )

    assert reason.code is ReasonCode.UNSUPPORTED_MEDIA
    assert "the image is jpeg, whatever its suffix says; the model takes images as png: convert it" in reason.message
