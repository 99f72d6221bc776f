from datetime import UTC, date, datetime

import pytest

from media_embeddings.cost_assumptions import CostAssumptions, missing_unit, units, with_overrides
from media_embeddings.cost_tables import estimate_lines
from media_embeddings.costs import (
    Duration,
    Estimates,
    Estimator,
    Rate,
    TextAmount,
    TypeEstimate,
    cost_usd,
    duration,
    text_amount,
)
from media_embeddings.media import MediaFacts, MediaObject, MediaType, Processing
from media_embeddings.models.prices import Price, PriceList
from media_embeddings.parts import Part
from media_embeddings.planning import PlannedObject

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PRICE = Price(video_second=0.001, audio_second=0.0001, image=0.01, text_request=0.002)
ASSUMED = CostAssumptions()


def planned(media_type=MediaType.VIDEO, size=1_000_000, key="a", **other):
    media = MediaObject("films", key, "e1", size, NOON, media_type)
    return PlannedObject(media=media, embedding_key=key, request_id=key, attempt=1, parameters="{}", **other)


def seconds(duration_sec):
    return MediaFacts(duration_sec=duration_sec)


def usd(media_type, price=PRICE, **other):
    return cost_usd(planned(media_type).media, price, ASSUMED, **other)


def test_each_media_type_is_billed_by_its_unit():
    assert usd(MediaType.VIDEO, seconds=60.0) == pytest.approx(0.06)
    assert usd(MediaType.AUDIO, seconds=60.0) == pytest.approx(0.006)
    assert usd(MediaType.IMAGE) == 0.01
    assert usd(MediaType.TEXT, text=TextAmount(3, 1500)) == pytest.approx(0.006)


def test_a_text_is_billed_by_the_token_where_the_model_is():
    by_token = Price(text_million_tokens=0.5)
    assert usd(MediaType.TEXT, by_token, text=TextAmount(1, 3_000_001)) == pytest.approx(0.5 * 1.500001)


def test_what_has_no_price_or_no_duration_has_no_cost():
    assert usd(MediaType.VIDEO, Price(), seconds=60.0) is None
    assert usd(MediaType.VIDEO) is None
    assert [missing_unit(media_type, Price()) for media_type in MediaType] == [
        "video_second",
        "audio_second",
        "image",
        "text_request",
    ]
    assert [missing_unit(media_type, PRICE) for media_type in MediaType] == [None] * 4


def test_the_header_tells_the_duration_and_the_size_where_it_does_not():
    assert duration(planned(facts=seconds(12.5)), ASSUMED) == Duration(12.5, is_known=True)
    assert duration(planned(), ASSUMED) == Duration(16.0, is_known=False)
    assert duration(planned(MediaType.AUDIO, facts=MediaFacts()), ASSUMED) == Duration(125.0, is_known=False)
    assert duration(planned(MediaType.IMAGE), ASSUMED) is None


def test_no_object_is_taken_for_longer_than_the_model_takes():
    assert duration(planned(size=10**12), ASSUMED, {MediaType.VIDEO: 7200.0}) == Duration(7200.0, is_known=False)


def test_the_summary_says_what_each_media_type_takes_in_minutes_dollars_and_hours():
    estimator = Estimator(PRICE, ASSUMED, rates={MediaType.IMAGE: Rate(6.0, is_measured=True)})
    kept = [
        estimator.estimated(planned(facts=seconds(300.0), key="a")),
        estimator.estimated(planned(size=6_250_000, key="b")),
        estimator.estimated(planned(facts=seconds(50.0), key="c", is_paid_for=True)),
        estimator.estimated(planned(MediaType.IMAGE, key="d")),
        estimator.estimated(planned(MediaType.IMAGE, key="e", finished_output_uri="s3://b/o")),
    ]
    left_out = [estimator.estimated(planned(facts=seconds(1000.0), key="f"))]
    found = estimator.summary(kept, left_out, max_in_flight=2)

    video, image = found["video"], found["image"]
    assert list(found) == ["video", "image"]
    assert (video.objects, video.from_size, video.paid_for, video.left_out) == (3, 1, 1, 1)
    assert video.minutes == pytest.approx(7.5)
    assert video.usd == pytest.approx(0.4)
    assert video.left_out_usd == pytest.approx(1.0)
    assert video.hours == pytest.approx((3 * 30 + 450 * 2.2) / 2 / 3600)
    assert (image.objects, image.usd, image.is_measured) == (2, 0.01, True)
    # What is finished already takes no time.
    assert image.hours == pytest.approx(6.0 / 2 / 3600)


def test_an_object_without_a_price_is_counted_apart():
    estimator = Estimator(Price(), ASSUMED)
    [image] = estimator.summary([estimator.estimated(planned(MediaType.IMAGE))], [], 1).values()
    assert (image.usd, image.unpriced) == (0.0, 1)


PRICES = PriceList(date(2026, 11, 23), "a list", {"*": PRICE, "eu-west-1": Price(image=0.02)}, confirmed=False)


def test_the_library_overrides_single_prices_and_the_source_says_so():
    own = with_overrides(PRICES, "us-east-1", "m", {"m": {"image": 0.5}, "other": {"image": 9.0}})

    assert own.price("us-east-1") == Price(video_second=0.001, audio_second=0.0001, image=0.5, text_request=0.002)
    assert own.source == "a list; image 0.5 by the setting prices"
    assert with_overrides(PRICES, "eu-west-1", "m", {}).price("eu-west-1") == Price(image=0.02)
    assert set(units()) == {"video_second", "audio_second", "image", "text_request", "text_million_tokens"}


def test_the_table_shows_dollars_with_date_and_source_and_what_they_rest_on():
    estimator = Estimator(PRICE, ASSUMED)
    kept = [estimator.estimated(planned(size=60 * 62_500))]
    estimates = Estimates(estimator.summary(kept, [], 20), "2026-11-23", "a list", False, "2026-11", 3.0)
    text = "\n".join(estimate_lines(estimates))

    assert "| video | 1 | 1.0 | 0.0600 | 0.00 | 0 | 0.00 |" in text
    assert "prices of 2026-11-23: a list; not confirmed by AWS" in text
    assert "the duration of 1 objects is estimated from their size" in text
    assert "hours of video: by the setting cost_assumptions" in text
    assert "spent in 2026-11 (UTC) before this run: 3.00 USD" in text
    assert Estimates.from_dict(None) == Estimates()


def test_what_remains_is_taken_to_cost_as_much_as_what_was_planned_and_left_out():
    estimates = Estimates(
        {
            "video": TypeEstimate(objects=3, usd=2.0, paid_for=1, left_out=2, left_out_usd=4.0),
            "text": TypeEstimate(objects=1, unpriced=1),
        }
    )
    assert estimates.usd_of(10) == pytest.approx(15.0)
    assert Estimates().usd_of(10) is None


def test_of_a_text_only_the_parts_are_to_be_sent_whose_output_is_not_there():
    media = MediaObject("b", "a.txt", "e1", 100, datetime(2026, 11, 1, tzinfo=UTC), MediaType.TEXT)
    there = Part("r1", 0, 40, finished_output_uri="s3://b/o")
    planned = PlannedObject(media, "k", "r", 1, "{}", parts=(there, Part("r2", 35, 70), Part("r3", 65, 100)))
    assert text_amount(planned) == TextAmount(2, 70)
    assert text_amount(PlannedObject(media, "k", "r", 1, "{}")) is None


def test_what_goes_through_invoke_model_takes_no_time_of_the_window():
    media = MediaObject("b", "a.png", "e1", 100, datetime(2026, 11, 1, tzinfo=UTC), MediaType.IMAGE)
    estimator = Estimator(Price(image=0.1), CostAssumptions(seconds_per_job=30))
    sent = PlannedObject(media, "k", "r", 1, "{}", processing=Processing.SYNC)
    assert estimator.summary([sent], [], 20)["image"].hours == 0
    assert estimator.summary([PlannedObject(media, "k", "r", 1, "{}")], [], 20)["image"].hours > 0
