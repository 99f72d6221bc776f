"""Objects that the model can't take: what is read of them, what is said of them, and that nothing is spent on them."""

import logging

import boto3
import pytest
from botocore.config import Config

from media_embeddings.bucket_regions import WrongRegionError
from media_embeddings.planning import Status
from media_embeddings.storage import Storage
from tests.integration.media_embeddings.conftest import film, picture, starts
from tests.unit.media_embeddings.headers import made_files


@pytest.fixture
def filled(pipeline):
    pipeline.put("good.png", picture("red"))
    return pipeline


@pytest.fixture
def gets(pipeline):
    """Collect the ranges that are read of the media, by key."""
    found: dict[str, list[int]] = {}

    def note(params, **_):
        if params["Bucket"] == pipeline.bucket:
            start, end = params.get("Range", "bytes=0-0").removeprefix("bytes=").split("-")
            found.setdefault(params["Key"].removeprefix("library/"), []).append(int(end) - int(start) + 1)

    pipeline.storage.client.meta.events.register("provide-client-params.s3.GetObject", note)
    return found


def rejected(pipeline, report, key, code, message):
    """Check that the good object landed, and that the other one is rejected with its reason."""
    assert report.balanced
    assert report.succeeded
    assert report.totals[Status.EMBEDDED] == 1
    assert report.totals[Status.REJECTED] == 1
    entry = pipeline.ledger()[key]
    assert (entry["status"], entry["reason_code"]) == ("rejected", code)
    assert message in entry["reason"]
    return entry


SOUND_ONLY = {"model": "marengo-3-0", "model_parameters": {"video": {"embeddingOption": ["audio", "transcription"]}}}
BAD = {
    "too long": ("long.mp4", lambda: made_files.long_film(7210), {}, "too_long", "more than the 7200 s"),
    "cut off": ("cut.mp4", lambda: film()[:3000], {}, "corrupt", "FFmpeg can't read its header"),
    "no pictures": ("sound.mp4", lambda: made_files.audio("ipod", "aac"), {}, "unsupported_media", "is audio (mov)"),
    "a picture": ("picture.mp4", lambda: made_files.image("JPEG"), {}, "unsupported_media", "is an image"),
    "a film": ("film.mp3", film, {}, "unsupported_media", "is a video (mov)"),
    "no image": ("text.png", lambda: b"not an image " * 50, {}, "corrupt", "no image that Pillow knows"),
    "silent": (
        "silent.mp4",
        lambda: made_files.video(sound=None),
        SOUND_ONLY,
        "no_track",
        "audio, transcription has nothing to be made from: the file has pictures only",
    ),
}


@pytest.mark.parametrize(("key", "content", "settings", "code", "message"), BAD.values(), ids=BAD)
def test_what_the_model_cant_take_is_rejected_and_nothing_is_spent_on_it(
    filled, simulator, gets, key, content, settings, code, message
):
    filled.configure(**settings)
    filled.put(key, content())
    before = starts(simulator)
    rejected(filled, filled.run(), key, code, message)
    assert starts(simulator) == before + 1

    # The second night reads nothing of it, nor of what is embedded.
    gets.clear()
    report = filled.run()
    assert gets == {}
    assert report.balanced
    assert report.totals[Status.REJECTED] == 1
    assert starts(simulator) == before + 1


def test_of_a_film_of_two_hours_a_few_hundred_kilobytes_are_read_and_the_ledger_has_its_duration(filled, gets):
    content = made_files.long_film(7210)
    filled.put("long.mp4", content)
    filled.run()

    assert filled.ledger()["long.mp4"]["duration_sec"] == pytest.approx(7210, abs=0.5)
    assert sum(gets["long.mp4"]) < 400_000 < len(content) / 4
    assert len(gets["long.mp4"]) <= 8


def test_what_becomes_of_an_object_is_told_by_its_new_content(filled):
    filled.put("film.mp4", film()[:3000])
    filled.run()
    filled.put("film.mp4", film())

    assert filled.run().totals[Status.EMBEDDED] == 1
    assert filled.ledger()["film.mp4"]["reason_code"] is None


def test_a_limit_that_only_the_models_maker_states_is_said_and_rejects_when_the_library_says_so(filled, simulator):
    filled.put("small.png", picture("blue", size=(100, 90)))
    first = filled.run()
    assert first.totals[Status.EMBEDDED] == 2
    (notice,) = [one for one in first.notices if "least_pixels" in one]
    assert notice.startswith("1 of the objects to be embedded are outside of marengo-2-7's least_pixels")
    assert "small.png: 100x90 pixels are less than the 128x128" in notice

    filled.configure(unconfirmed_limits="reject")
    filled.put("tiny.png", picture("green", size=(90, 80)))
    filled.run()
    assert filled.ledger()["tiny.png"]["reason_code"] == "unsupported_resolution"

    filled.configure(unconfirmed_limits="warn")
    filled.run()
    assert filled.ledger()["tiny.png"]["status"] == "embedded"


def test_without_headers_bedrock_judges(filled, gets):
    filled.configure(read_headers=False)
    filled.put("cut.mp4", film()[:3000])
    filled.run()

    assert gets == {}
    assert filled.ledger()["cut.mp4"]["status"] == "failed"


def test_what_was_rejected_is_embedded_without_headers_when_they_are_switched_off(filled, simulator):
    filled.put("silent.mp4", made_files.video(sound=None))
    filled.configure(model_parameters={"video": {"embeddingOption": ["audio"]}})
    filled.run()
    before = starts(simulator)
    filled.configure(read_headers=False)
    filled.run()

    assert starts(simulator) == before + 1


@pytest.mark.parametrize("what", ["deleted", "replaced"])
def test_an_object_that_is_gone_or_replaced_since_the_listing_fails_alone(filled, simulator, what):
    filled.put("late.mp4", film())
    before = starts(simulator)
    filled.between["list_media"] = lambda: (
        filled.delete("late.mp4") if what == "deleted" else filled.put("late.mp4", made_files.video())
    )
    report = filled.run()

    assert report.totals[Status.EMBEDDED] == 1
    assert starts(simulator) == before + 1
    entry = filled.ledger()["late.mp4"]
    assert entry["reason_code"] == ("source_gone" if what == "deleted" else "changed_during_run")
    assert f"was {what} after it had been listed" in entry["reason"]


def test_headers_are_read_side_by_side_and_the_order_stays(filled, gets, caplog):
    session = boto3.Session()
    filled.storage = Storage.of_session(session, session.client("s3", config=Config(max_pool_connections=32)))
    for number in range(40):
        filled.put(f"{number:02d}.png", made_files.image("PNG", size=(128 + number, 128)))
    with caplog.at_level(logging.INFO):
        report = filled.run()

    assert report.totals[Status.EMBEDDED] == 41
    assert "read the headers of 41 objects by 41 requests" in caplog.text
    assert "Connection pool is full" not in caplog.text


def test_a_server_that_tells_no_region_is_not_spoken_of(filled):
    report = filled.run()

    assert not [notice for notice in report.notices if "region" in notice]


def test_a_work_bucket_in_another_region_stops_the_run_before_anything_is_listed(filled, monkeypatch):
    head = filled.storage.client.head_bucket
    work = filled.library.work.split("/")[2]
    monkeypatch.setattr(
        filled.storage.client,
        "head_bucket",
        lambda Bucket: head(Bucket=Bucket) | ({"BucketRegion": "eu-west-1"} if Bucket == work else {}),  # noqa: N803
    )

    with pytest.raises(WrongRegionError, match=r"tables: s3://vectors-.* is in a bucket in eu-west-1"):
        filled.run()
