from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bedrock_async_invoke.bedrock_clock import CLOCK_MARGIN, BedrockClock

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_as_long_as_nothing_is_known_the_clocks_may_differ_by_minutes():
    assert BedrockClock().at_the_earliest(NOON) == NOON - CLOCK_MARGIN


@given(
    skew=st.floats(-3600, 3600),
    delays=st.lists(st.floats(0, 20), min_size=1),
    # Bedrock's list may tell whole seconds.
    rounding=st.floats(0, 1),
)
def test_no_start_call_is_accepted_earlier_than_it_says(skew, delays, rounding):
    subject = BedrockClock()
    for delay in delays:
        subject.observe(NOON, NOON + timedelta(seconds=skew + delay - rounding))
    later = NOON + timedelta(hours=1)
    accepted_at_once = later + timedelta(seconds=skew + min(delays) - rounding)
    assert subject.at_the_earliest(later) < accepted_at_once
