import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.in_order import ahead, in_order


class Observed:
    """Work that takes a share for each item, and remembers how many bytes were under way when it got it."""

    def __init__(self):
        self._lock = threading.Lock()
        self.under_way: dict[int, int] = {}
        self.most: list[tuple[int, int]] = []

    def __call__(self, item, share):
        place, size = item
        share.take(size)
        with self._lock:
            self.under_way[place] = size
            self.most.append((sum(self.under_way.values()), len(self.under_way)))
        return place

    def done_with(self, place):
        with self._lock:
            del self.under_way[place]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 120), max_size=40), st.integers(1, 6))
def test_results_come_in_order_and_what_is_under_way_fits_the_budget_or_is_needed_to_go_on(sizes, threads):
    work, found = Observed(), []
    for place in in_order(work, enumerate(sizes), threads=threads, most_bytes=100):
        work.done_with(place)
        found.append(place)

    assert found == list(range(len(sizes)))
    # The first in the order gets what it needs beside what the others have.
    assert all(most <= 100 + max(sizes) for most, _ in work.most)


def test_the_first_in_the_order_goes_on_when_those_after_it_have_taken_everything():
    others_wait = threading.Event()

    def work(place, share):
        if place == 0:
            assert others_wait.wait(20)
        share.take(100)
        others_wait.set()
        return place

    assert list(in_order(work, range(20), threads=4, most_bytes=100)) == list(range(20))


def test_an_error_is_raised_in_its_place_and_nobody_is_left_waiting_for_bytes():
    def work(place, share):
        share.take(100)
        if place == 2:
            raise RuntimeError("the third")
        return place

    found = []
    results = in_order(work, range(50), threads=4, most_bytes=100)
    with pytest.raises(RuntimeError, match="the third"):
        found.extend(results)
    assert found == [0, 1]


def test_who_stops_listening_ends_the_work():
    begun = []

    def work(place, share):
        begun.append(place)
        share.take(100)
        return place

    with closing(in_order(work, range(10_000), threads=3, most_bytes=100)) as results:
        assert next(results) == 0
    assert len(begun) < 100


def test_items_are_asked_for_only_as_the_results_are_taken():
    asked = []

    def items():
        for number in range(10_000):
            asked.append(number)
            yield number

    with closing(in_order(lambda place, _: place, items(), threads=2, most_bytes=1)) as results:
        next(results)
        assert len(asked) < 100


def test_the_next_item_is_made_while_the_last_one_is_worked_on_and_no_further():
    made = threading.Semaphore(0)

    def items():
        for number in range(20):
            yield number
            made.release()

    found = []
    with closing(ahead(items())) as numbers:
        for number in numbers:
            if number < 18:
                # The following one is made without being asked for.
                assert made.acquire(timeout=20)
            found.append(number)
    assert found == list(range(20))


def test_an_error_while_the_next_item_is_made_is_raised_in_its_place():
    def items():
        yield 0
        raise RuntimeError("the second")

    numbers = ahead(items())
    assert next(numbers) == 0
    with pytest.raises(RuntimeError, match="the second"):
        next(numbers)
    assert list(ahead(iter([]))) == []
