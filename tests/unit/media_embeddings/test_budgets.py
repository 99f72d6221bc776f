from datetime import UTC, datetime, timedelta
from math import fsum

from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.budgets import Budget, allot, notices
from media_embeddings.media import MediaObject, MediaType
from media_embeddings.planning import PlannedObject

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def planned(key, usd, *, waiting_days=None, size=1000, **other):
    media = MediaObject("films", key, "e1", size, NOON, MediaType.VIDEO)
    return PlannedObject(
        media=media,
        embedding_key=key,
        request_id=key,
        attempt=1,
        parameters="{}",
        estimated_cost_usd=usd,
        first_seen_at=None if waiting_days is None else NOON - timedelta(days=waiting_days),
        **other,
    )


def keys(objects):
    return [one.media.key for one in objects]


def test_without_a_budget_everything_is_taken():
    assert keys(allot([planned("a", 1e9)], Budget()).taken) == ["a"]


def test_those_that_have_waited_longest_come_first_and_new_ones_last_the_largest_before_the_others():
    objects = [
        planned("small", 1.0, size=1),
        planned("large", 1.0, size=9),
        planned("yesterday", 1.0, waiting_days=1),
        planned("last week", 1.0, waiting_days=7),
    ]
    left_out = [keys(allot(objects, Budget(run_usd=float(number))).left_out) for number in (1, 2, 3)]

    assert left_out == [["yesterday", "large", "small"], ["large", "small"], ["small"]]


def test_what_is_taken_stays_in_the_order_given():
    objects = [planned("a", 1.0), planned("b", 1.0, waiting_days=1), planned("c", 1.0)]

    assert keys(allot(objects, Budget(run_usd=2.0)).taken) == ["a", "b"]


def test_what_does_not_fit_holds_up_nothing_and_is_first_the_next_night():
    objects = [planned("dear", 4.0, waiting_days=2), planned("older", 3.0, waiting_days=3), planned("new", 1.0)]
    first = allot(objects, Budget(run_usd=5.0))
    assert keys(first.taken) == ["older", "new"]

    second = allot(first.left_out, Budget(run_usd=5.0))
    assert keys(second.taken) == ["dear"]


def test_what_costs_more_than_the_whole_budget_is_named_and_the_others_are_taken():
    budget = Budget(run_usd=5.0, month_usd=50.0)
    allotment = allot([planned("too dear.mp4", 6.0, waiting_days=9), planned("a.mp4", 5.0)], budget)

    assert keys(allotment.taken) == ["a.mp4"]
    assert keys(allotment.too_dear) == ["too dear.mp4"]
    [notice] = notices(allotment, budget)
    assert "s3://films/too dear.mp4 (6.00 USD)" in notice
    assert "max_cost_usd_per_run" in notice


def test_what_is_paid_for_costs_nothing_again_and_is_taken_when_nothing_is_left():
    objects = [
        planned("in progress", 9.0, is_paid_for=True),
        planned("finished", 9.0, finished_output_uri="s3://b/o"),
        planned("new", 0.1),
    ]
    budget = Budget(month_usd=10.0, spent_in_month_usd=12.0)

    assert keys(allot(objects, budget).taken) == ["in progress", "finished"]


def test_the_smaller_rest_of_run_and_month_holds():
    assert Budget(run_usd=5.0, month_usd=100.0, spent_in_month_usd=98.0).left_usd == 2.0
    assert Budget(run_usd=5.0, month_usd=100.0, spent_in_run_usd=4.0).left_usd == 1.0
    assert Budget(run_usd=5.0, spent_in_run_usd=9.0).left_usd == 0.0


def test_a_budget_that_is_used_to_the_last_cent_takes_all_that_it_pays_for():
    assert len(allot([planned(str(number), 0.1) for number in range(3)], Budget(run_usd=0.3)).taken) == 3


def test_the_notice_says_how_much_is_left_how_long_it_takes_and_what_to_change():
    budget = Budget(run_usd=2.0, month_usd=3.0)
    [notice] = notices(allot([planned(str(number), 1.0) for number in range(9)], budget), budget)

    assert "leaves 7 objects for about 7.00 USD" in notice
    assert "about 4 more runs at 2.00 USD a run, about 3 more months at 3.00 USD a month" in notice
    assert "max_cost_usd_per_run or max_cost_usd_per_month" in notice


prices = st.floats(0.0, 20.0, allow_nan=False)
objects = st.lists(
    st.tuples(prices, st.one_of(st.none(), st.integers(0, 5)), st.integers(1, 5), st.booleans()), max_size=25
).map(
    lambda rows: [
        planned(f"{number:02d}", usd, waiting_days=days, size=size, is_paid_for=paid)
        for number, (usd, days, size, paid) in enumerate(rows)
    ]
)
limits = st.one_of(st.none(), st.floats(0.01, 60.0))


def place_in_line(one):
    waited = one.first_seen_at or datetime.max.replace(tzinfo=UTC)
    return (waited, -one.media.size_bytes, one.media.uri)


@settings(deadline=None)
@given(objects, limits, limits, st.floats(0.0, 60.0), st.floats(0.0, 60.0))
def test_never_more_than_is_left_is_taken_and_no_one_is_passed_over_who_fits(objects, run, month, in_run, in_month):
    budget = Budget(run, month, in_run, in_month)
    allotment = allot(objects, budget)

    assert sorted(keys([*allotment.taken, *allotment.left_out])) == keys(objects)
    assert list(allotment.taken) == [one for one in objects if one in allotment.taken]
    left = budget.left_usd
    if left is None:
        assert allotment.left_out == ()
        return
    assert fsum(one.to_pay_usd for one in allotment.taken) <= left + 1e-9
    for one in allotment.left_out:
        before = fsum(other.to_pay_usd for other in allotment.taken if place_in_line(other) < place_in_line(one))
        assert before + one.to_pay_usd > left - 1e-6
        assert not one.is_paid_for
    assert list(allotment.left_out) == sorted(allotment.left_out, key=place_in_line)


@settings(deadline=None)
@given(st.permutations(range(12)), st.floats(0.5, 8.0))
def test_the_same_objects_are_taken_whatever_their_order(order, run):
    every = [planned(f"{number:02d}", 0.3 + number / 7, waiting_days=number % 3 or None) for number in range(12)]
    budget = Budget(run_usd=run)
    one, other = allot(every, budget), allot([every[number] for number in order], budget)

    assert set(keys(one.taken)) == set(keys(other.taken))
    assert one.left_out == other.left_out


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=20))
def test_night_after_night_everything_gets_its_turn_that_is_not_too_dear(costs):
    waiting = [planned(f"{number:02d}", usd, waiting_days=number) for number, usd in enumerate(costs)]
    budget = Budget(run_usd=5.0)
    for _ in costs:
        waiting = list(allot(waiting, budget).left_out)

    assert waiting == []
