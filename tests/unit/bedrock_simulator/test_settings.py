"""Settings come from JSON and refuse what they don't know."""

from __future__ import annotations

import json

import pytest

from bedrock_simulator.clock import Clock
from bedrock_simulator.settings import Settings


def test_settings_survive_json():
    settings = Settings().changed({"bucket_regions": {"b": "eu-west-1"}, "token_lifetime_seconds": 5})
    assert Settings().changed(json.loads(json.dumps(settings.document()))) == settings
    assert settings.token_lifetime_seconds == 5.0
    assert settings.changed({"token_lifetime_seconds": None}).token_lifetime_seconds is None


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1},
        {"max_in_flight": "many"},
        {"max_in_flight": True},
        {"max_in_flight": -1},
        {"invokes_per_second": 0},
        {"seconds_per_job": float("nan")},
        {"quota_error": "SomethingElse"},
        {"default_page_size": 1001},
        {"image_formats": "PNG"},
        {"default_embedding_scope": ["clips"]},
        {"bucket_regions": {"b": 3}},
        [],
    ],
)
def test_what_is_not_valid_is_refused(changes):
    with pytest.raises(ValueError, match="ettings"):
        Settings().changed(changes)


def test_the_clock_only_goes_forward():
    clock = Clock(offset_ms=1000)
    before = clock.now_ms()
    clock.advance(5000)
    assert 5000 <= clock.now_ms() - before < 10_000
    assert clock.offset_ms == 6000
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
