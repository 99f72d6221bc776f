"""The rules of Nova whose limits are too large to send."""

from __future__ import annotations

import io
from contextlib import contextmanager

import pytest

from bedrock_simulator.embedding import media_seconds
from bedrock_simulator.embedding_task import MediaKind
from bedrock_simulator.errors import BedrockError
from bedrock_simulator.media import UnusableMediaError
from bedrock_simulator.models import models
from bedrock_simulator.models.nova_2_multimodal import _line, _result
from bedrock_simulator.segmentation import text_spans
from bedrock_simulator.settings import Settings
from bedrock_simulator.tokens import token_count, truncated, truncated_at_start
from tests.integration.bedrock_simulator.media_files import silence
from tests.integration.bedrock_simulator.requests import NOVA, nova

MODEL = models()[NOVA]


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (MediaKind.VIDEO, 2_000_000_000),
        (MediaKind.AUDIO, 1_000_000_000),
        (MediaKind.IMAGE, 50_000_000),
        (MediaKind.TEXT, 634_000_000),
    ],
)
def test_sizes_are_limited(kind, limit):
    MODEL.check_size(limit, kind, "it")
    with pytest.raises(BedrockError, match=f"{limit + 1} bytes"):
        MODEL.check_size(limit + 1, kind, "it")


@pytest.mark.parametrize("kind", [MediaKind.VIDEO, MediaKind.AUDIO])
def test_one_embedding_is_made_of_100_megabytes_and_no_more(kind):
    MODEL.check_size(100_000_000, kind, "it", is_single=True)
    with pytest.raises(BedrockError, match="100000001 bytes"):
        MODEL.check_size(100_000_001, kind, "it", is_single=True)


def test_two_hours_of_sound_are_taken_and_no_more():
    def length_of(seconds: int) -> float:
        @contextmanager
        def opened(_):
            yield io.BytesIO(silence(seconds, sample_rate=100))

        return media_seconds(MODEL.task(nova("audio", "a.wav"), Settings()), MODEL, Settings(), opened)

    assert length_of(7200) == pytest.approx(7200)
    with pytest.raises(UnusableMediaError, match="7200 s that the model takes"):
        length_of(7201)


def test_a_text_is_cut_at_the_end_of_a_word():
    text = "one two three"

    assert [text[slice(*span)] for span in text_spans(text, 8)] == ["one two ", "three"]
    assert text_spans("abcdefgh", 3) == [(0, 3), (3, 6), (6, 8)]


def test_a_text_loses_its_end_or_its_start():
    text = "one two three four"

    assert (truncated(text, 4), truncated_at_start(text, 4)) == ("one two", "three four")
    assert truncated_at_start(text, token_count(text)) == text


def test_a_segment_that_failed_has_a_reason_and_no_vector():
    good = {"embedding": [1.0], "embeddingOption": "AUDIO", "startSec": 0.0, "endSec": 5.0}
    failed = good | {"failure": "INVALID_CONTENT"}

    assert _line(1, failed) == {
        "segmentMetadata": {"segmentIndex": 1, "segmentStartSeconds": 0.0, "segmentEndSeconds": 5.0},
        "status": "FAILURE",
        "failureReason": "INVALID_CONTENT",
        "message": "The segment could not be embedded.",
    }
    statuses = [_result("AUDIO", rows, "s3://o")["status"] for rows in ([good], [good, failed], [failed])]
    assert statuses == ["SUCCESS", "PARTIAL_SUCCESS", "FAILURE"]
