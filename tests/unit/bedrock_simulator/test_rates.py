"""How many calls a second the simulator lets through."""

from hypothesis import given
from hypothesis import strategies as st

from bedrock_simulator.rates import CallRate


class Clock:
    def __init__(self) -> None:
        self.milliseconds = 0

    def now_ms(self) -> int:
        return self.milliseconds


def test_a_seconds_calls_may_come_at_once_and_then_one_each_part_of_a_second():
    clock = Clock()
    rate = CallRate(clock.now_ms)

    assert [rate.take("model", 4.0) for _ in range(5)] == [True] * 4 + [False]
    clock.milliseconds += 249
    assert not rate.take("model", 4.0)
    clock.milliseconds += 1
    assert rate.take("model", 4.0)
    assert not rate.take("model", 4.0)


def test_less_than_a_call_a_second_is_one_call_every_so_many_seconds():
    clock = Clock()
    rate = CallRate(clock.now_ms)

    assert rate.take("model", 0.5)
    clock.milliseconds += 1999
    assert not rate.take("model", 0.5)
    clock.milliseconds += 1
    assert rate.take("model", 0.5)


def test_every_model_has_a_rate_of_its_own():
    rate = CallRate(Clock().now_ms)

    assert rate.take("one", 1.0)
    assert rate.take("other", 1.0)
    assert not rate.take("one", 1.0)


@given(st.lists(st.integers(0, 500), max_size=200), st.integers(1, 50))
def test_never_more_than_the_rate_and_a_second_ahead_are_let_through(pauses, per_second):
    clock = Clock()
    rate = CallRate(clock.now_ms)
    let_through = 0
    for pause in pauses:
        clock.milliseconds += pause
        let_through += rate.take("model", float(per_second))

    assert let_through <= per_second + clock.milliseconds * per_second / 1000 + 1e-6
