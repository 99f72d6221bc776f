"""What rules an object out whatever the model's limits are, and how long that holds."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from media_embeddings.headers.content_checks import rejection_by_content
from media_embeddings.headers.ranged_reading import Header
from media_embeddings.headers.standing import header_rejection_stands
from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models import model_named
from media_embeddings.models.limits import findings_by_facts
from media_embeddings.models.segments import Track
from media_embeddings.reasons import Reason, ReasonCode

LIMITS = model_named("marengo-3-0").limits
FILM = MediaFacts(container="mov", kind=MediaType.VIDEO, picture_codec="h264", sound_codec="aac")
SILENT = replace(FILM, sound_codec=None)
SOUND = MediaFacts(container="mov", kind=MediaType.AUDIO, sound_codec="aac")
PICTURE = MediaFacts(container="png_pipe", kind=MediaType.IMAGE, picture_codec="png", tracks_are_certain=False)
SUBTITLES = MediaFacts(container="matroska")
VISUAL, SOUNDS = {"visual": Track.PICTURE}, {"audio": Track.SOUND, "transcription": Track.SPEECH}


def media(media_type: MediaType = MediaType.VIDEO) -> MediaObject:
    return MediaObject("films", "a.mp4", "e1", 1000, datetime(2026, 11, 1, tzinfo=UTC), media_type)


def code(facts: MediaFacts | None, options=None, media_type: MediaType = MediaType.VIDEO) -> ReasonCode | None:
    reason = rejection_by_content(
        media(media_type), Header(facts), {**VISUAL, **SOUNDS} if options is None else options
    )
    return reason and reason.code


def test_what_is_damaged_is_corrupt_and_what_is_unknown_goes_on():
    reason = rejection_by_content(media(), Header(None, damage="no moov"), VISUAL)

    assert (reason.code, reason.message) == (
        ReasonCode.CORRUPT,
        "no moov; the object is damaged or no video: replace it",
    )
    assert code(None) is None


@pytest.mark.parametrize(
    ("facts", "media_type"),
    [(SOUND, MediaType.VIDEO), (PICTURE, MediaType.VIDEO), (FILM, MediaType.AUDIO), (FILM, MediaType.IMAGE)],
)
def test_content_of_another_kind_than_the_suffix_says_is_rejected(facts, media_type):
    assert code(facts, media_type=media_type) is ReasonCode.UNSUPPORTED_MEDIA


def test_a_file_with_neither_pictures_nor_sound_is_rejected():
    assert code(SUBTITLES) is ReasonCode.UNSUPPORTED_MEDIA
    assert code(replace(SUBTITLES, tracks_are_certain=False)) is None


def test_a_stream_whose_pictures_were_not_seen_yet_goes_on():
    assert code(replace(SOUND, tracks_are_certain=False), VISUAL) is None


@pytest.mark.parametrize(
    ("facts", "options", "expected"),
    [
        (FILM, SOUNDS, None),
        (SILENT, VISUAL, None),
        (SILENT, {**VISUAL, **SOUNDS}, None),
        (SILENT, SOUNDS, ReasonCode.NO_TRACK),
        (SILENT, {"fused": Track.SEVERAL}, None),
        (replace(SILENT, tracks_are_certain=False), SOUNDS, None),
        (FILM, {}, None),
    ],
)
def test_a_track_is_needed_that_any_of_the_requested_options_is_made_from(facts, options, expected):
    assert code(facts, options) is expected


def stands(reason: Reason, media_type=MediaType.VIDEO, limits=LIMITS, *, rejects_unconfirmed=False) -> bool:
    return header_rejection_stands(reason, media_type, limits, rejects_unconfirmed=rejects_unconfirmed)


def by_limits(media_type: MediaType, **facts) -> Reason:
    return findings_by_facts(media(media_type), MediaFacts(kind=media_type, **facts), LIMITS)[0].reason


def test_damage_missing_tracks_and_another_kind_stand_as_long_as_the_content():
    assert stands(rejection_by_content(media(), Header(None, damage="no moov"), VISUAL))
    assert stands(rejection_by_content(media(), Header(SILENT), SOUNDS))
    assert stands(rejection_by_content(media(), Header(SOUND), VISUAL))


def test_another_kind_does_not_stand_when_the_suffix_means_another_media_type():
    reason = rejection_by_content(media(), Header(SOUND), VISUAL)

    assert not stands(reason, MediaType.AUDIO)


def test_a_limit_stands_as_long_as_it_has_the_same_number():
    reason = by_limits(MediaType.VIDEO, duration_sec=5 * 3600.0)

    assert stands(reason)
    assert not stands(reason, limits=replace(LIMITS, duration_sec={MediaType.VIDEO: 6 * 3600.0}))
    assert not stands(reason, limits=replace(LIMITS, duration_sec={}))


@pytest.mark.parametrize(
    ("media_type", "facts"),
    [
        (MediaType.VIDEO, {"duration_sec": 1.0}),
        (MediaType.VIDEO, {"width": 100, "height": 90}),
        (MediaType.IMAGE, {"width": 640, "height": 480, "container": "gif"}),
    ],
)
def test_a_limit_that_aws_does_not_state_stands_only_while_the_library_rejects_by_it(media_type, facts):
    reason = by_limits(media_type, **facts)

    assert stands(reason, media_type, rejects_unconfirmed=True)
    assert not stands(reason, media_type)


def test_reasons_of_other_steps_are_not_judged_here():
    assert not stands(Reason(ReasonCode.SERVICE_ERROR, "try again"))
    assert not stands(Reason(ReasonCode.CORRUPT, "the text is not UTF-8"), MediaType.TEXT)
