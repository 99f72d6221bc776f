from __future__ import annotations

import threading

import pytest

from bedrock_async_invoke.calls import Calls


def test_calls_are_made_side_by_side():
    calls: Calls[int] = Calls(3)
    all_there = threading.Barrier(3, timeout=10)
    for _ in range(3):
        calls.begin(all_there.wait)
    assert not calls.has_room
    found: list[int] = []
    while calls.are_under_way:
        found += [one.result() for one in calls.take_finished(10)]
    assert sorted(found) == [0, 1, 2]
    calls.close()


def test_one_that_takes_long_does_not_hold_back_what_came_of_another():
    calls: Calls[str] = Calls(2)
    go_on = threading.Event()
    calls.begin(lambda: "late" if go_on.wait(10) else "never")
    calls.begin(lambda: "soon")
    assert [one.result() for one in calls.take_finished(10)] == ["soon"]
    assert calls.has_room
    assert calls.take_finished(0.0) == []
    go_on.set()
    assert [one.result() for one in calls.take_finished(10)] == ["late"]
    calls.close()


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_a_call_raises_is_raised_where_its_result_is_taken(at_once):
    calls: Calls[int] = Calls(at_once)
    calls.begin(lambda: 1 // 0)
    [call] = calls.take_finished(10)
    with pytest.raises(ZeroDivisionError):
        call.result()
    calls.close()


def test_a_single_call_at_once_is_made_by_who_begins_it():
    calls: Calls[int] = Calls(1)
    calls.begin(threading.get_ident)
    assert [one.result() for one in calls.take_finished(0.0)] == [threading.get_ident()]


def test_calls_can_be_begun_again_after_it_was_closed():
    calls: Calls[int] = Calls(2)
    for number in range(2):
        calls.begin(lambda number=number: number)
        assert [one.result() for one in calls.take_finished(10)] == [number]
        calls.close()
