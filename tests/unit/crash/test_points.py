from __future__ import annotations

from collections import Counter

import pytest

from media_embeddings.library import Library as LibrarySettings
from tests.crash.points import (
    FORGETFUL,
    INVOKE_STEPS,
    KILLED,
    POINTS,
    SHORT_SET,
    STEPS,
    STOPPED_POINTS,
    Victim,
    in_order,
    named,
    part,
)
from tests.crash.world import Library


def test_every_process_is_killed_at_every_step() -> None:
    usual = {(point.step.name, point.victim) for point in POINTS if point.circumstances is not FORGETFUL}

    jobs = {(step.name, victim) for step in STEPS for victim in KILLED}
    # No trigger has a part in what is sent through InvokeModel.
    invoked = {(step.name, victim) for step in INVOKE_STEPS for victim in set(KILLED) - {Victim.TRIGGERER}}
    assert usual == jobs | invoked
    assert len(POINTS) >= 40


def test_the_steps_of_submitting_are_repeated_with_a_bedrock_that_forgets_tokens_and_lists_late() -> None:
    submitting = {step.name for step in STEPS if step.service == "bedrock" and step.method == "POST"}

    assert {point.step.name for point in POINTS if point.circumstances is FORGETFUL} == submitting
    assert FORGETFUL.settings["token_lifetime_seconds"] == 0.0


def test_every_point_has_a_name_and_a_library_of_its_own() -> None:
    points = (*POINTS, *STOPPED_POINTS)

    assert max(Counter(point.name for point in points).values()) == 1
    assert max(Counter(point.library for point in points).values()) == 1


def test_the_library_of_every_point_is_valid() -> None:
    for point in (*POINTS, *STOPPED_POINTS):
        settings = Library(point.library).settings(**point.step.library)
        assert LibrarySettings(name=point.library, **settings).name == point.library


def test_the_points_of_the_short_set_exist() -> None:
    assert [named(name).name for name in SHORT_SET] == list(SHORT_SET)


def test_the_order_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert in_order(POINTS, 1) == in_order(POINTS, 1)
    assert in_order(POINTS, 1) != in_order(POINTS, 2)
    assert set(in_order(POINTS, 1)) == set(POINTS)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_parts_together_are_all_points_and_each_is_in_one(count: int) -> None:
    parts = [part(POINTS, f"{number}/{count}") for number in range(1, count + 1)]

    assert Counter(point.name for one in parts for point in one) == Counter(point.name for point in POINTS)


@pytest.mark.parametrize("share", [None, ""])
def test_without_a_share_all_points_are_taken(share: str | None) -> None:
    assert part(POINTS, share) == list(POINTS)


@pytest.mark.parametrize("share", ["0/4", "5/4", "2", "a/b", "1/0", "-1/4"])
def test_what_is_no_share_is_refused(share: str) -> None:
    with pytest.raises(ValueError, match="CRASH_PART is a part and the number of parts"):
        part(POINTS, share)


def test_a_path_names_the_library_of_its_point_only() -> None:
    point = named("rows-committed-all")

    assert "rows_committed_all/tables" in point.path
    assert "LIBRARY" not in point.path
