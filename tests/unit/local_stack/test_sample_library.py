from __future__ import annotations

import io
import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from local_stack.media_files import installed
from local_stack.processes import LocalStackError
from local_stack.sample_library import SAMPLE_OBJECTS, SampleLibrary, SampleObject

GOOD = [sample for sample in SAMPLE_OBJECTS if sample.outcome == "embedded"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> SampleLibrary:
    library = SampleLibrary(tmp_path_factory.mktemp("sample-library"))
    library.make()
    return library


def described(library: SampleLibrary) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = json.loads(library.manifest_path.read_text())["objects"]
    return objects


def good(media_type: str) -> list[Any]:
    return [pytest.param(sample, id=sample.key) for sample in GOOD if sample.media_type == media_type]


def test_there_are_good_objects_of_every_media_type() -> None:
    counts = Counter(sample.media_type for sample in GOOD)

    assert sum(counts.values()) >= 24
    assert set(counts) == {"video", "audio", "image", "text"}
    assert min(counts.values()) >= 4


def test_three_objects_are_meant_to_fail_each_for_another_reason() -> None:
    assert {(sample.outcome, sample.reason_code) for sample in SAMPLE_OBJECTS if sample.outcome != "embedded"} == {
        ("rejected", "corrupt"),
        ("rejected", "too_large"),
        ("rejected", "unsupported_media"),
    }


@pytest.mark.parametrize("awkward", [" ", "+", "%", "'", '"', "&", "#", "=", ",", "é", "寺", "/"])
def test_keys_hold_every_awkward_character(awkward: str) -> None:
    assert any(awkward in sample.key for sample in SAMPLE_OBJECTS)


def test_keys_are_distinct_and_in_composed_form() -> None:
    keys = [sample.key for sample in SAMPLE_OBJECTS]

    assert len(set(keys)) == len(keys)
    assert all(unicodedata.is_normalized("NFC", key) for key in keys)
    assert max(key.count("/") for key in keys) >= 3


@pytest.mark.parametrize("sample", [pytest.param(sample, id=sample.key) for sample in SAMPLE_OBJECTS])
def test_the_content_is_the_same_every_time(sample: SampleObject) -> None:
    assert sample.make() == sample.make()


@pytest.mark.parametrize("sample", good("video"))
def test_a_video_is_long_enough_for_a_clip(sample: SampleObject) -> None:
    with av.open(io.BytesIO(sample.make()), "r") as container:
        frames = list(container.decode(video=0))

    assert frames[-1].time is not None
    assert frames[-1].time > 3.9


@pytest.mark.parametrize("sample", good("audio"))
def test_a_recording_lasts_seconds_and_is_not_silent(sample: SampleObject) -> None:
    with av.open(io.BytesIO(sample.make()), "r") as container:
        assert container.duration is not None
        assert container.duration / av.time_base > 4
        assert max(abs(frame.to_ndarray().astype(float)).max() for frame in container.decode(audio=0)) > 0


@pytest.mark.parametrize("sample", good("image"))
def test_an_image_is_within_the_limits_of_the_model(sample: SampleObject) -> None:
    content = sample.make()

    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.format in {"JPEG", "PNG"}
        assert min(image.size) >= 128
    assert len(content) <= 5 * 1024 * 1024


@pytest.mark.parametrize("sample", good("text"))
def test_a_text_is_shorter_than_the_limit_of_tokens(sample: SampleObject) -> None:
    """No tokenizer makes more tokens than there are bytes; 77 is the limit of Marengo 2.7."""
    assert len(sample.make().decode().split()) <= 60
    assert len(sample.make()) <= 120


def test_the_broken_video_can_not_be_opened() -> None:
    (broken,) = (sample for sample in SAMPLE_OBJECTS if sample.reason_code == "corrupt")

    with pytest.raises(av.error.InvalidDataError):
        av.open(io.BytesIO(broken.make()), "r")


def test_the_large_image_is_a_good_image_above_the_limit() -> None:
    (large,) = (sample for sample in SAMPLE_OBJECTS if sample.reason_code == "too_large")
    content = large.make()

    assert len(content) > 5 * 1024 * 1024
    with Image.open(io.BytesIO(content)) as image:
        image.verify()


def test_the_manifest_names_every_object_with_what_is_expected_of_it(library: SampleLibrary) -> None:
    objects = described(library)

    assert [(one["key"], one["media_type"], one["outcome"], one["reason_code"]) for one in objects] == [
        (sample.key, sample.media_type, sample.outcome, sample.reason_code) for sample in SAMPLE_OBJECTS
    ]
    assert all(one["size_bytes"] > 0 and len(one["etag"]) == 32 for one in objects)


def test_a_second_time_nothing_is_made(library: SampleLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    before = library.manifest_path.stat().st_mtime_ns
    monkeypatch.setattr("local_stack.sample_library.SAMPLE_OBJECTS", ())

    library.make()

    assert library.manifest_path.stat().st_mtime_ns == before


def test_the_library_is_made_again_when_its_code_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_stack.sample_library.SAMPLE_OBJECTS", GOOD[-1:])
    library = SampleLibrary(tmp_path)
    library.make()
    monkeypatch.setattr("local_stack.sample_library.SAMPLE_OBJECTS", GOOD[-2:])
    monkeypatch.setattr("local_stack.sample_library._maker", lambda: "other code")

    library.make()

    assert len(described(library)) == 2


def test_a_package_that_is_missing_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(LocalStackError, match=r"requirements-demo\.txt"):
        installed("no_such_package", "data/x.png")
