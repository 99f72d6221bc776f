from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.crossing import Crossing
from media_embeddings.planning import Status

MODELS = ("marengo-2-7", "marengo-3-0")


def crossing(totals=None, *, of_model=None, is_whole=True, cost=None):
    totals = totals or {}
    return Crossing.of_books(
        MODELS, of_model or {}, totals, sum(totals.values()), is_whole=is_whole, remaining_cost_usd=cost
    )


def said(one):
    return " ".join(one.sentences())


def test_the_progress_counts_what_the_next_models_table_has_of_what_it_takes():
    one = crossing({"unchanged": 3, "embedded": 2, "deferred": 4, "failed": 1, "rejected": 2})

    assert (one.taken, one.embedded, one.remaining) == (10, 5, 5)
    assert "has 5 of the 10 objects that it takes (50%)." in said(one)
    assert "4 wait for another run." in said(one)
    assert "1 failed or are quarantined, 0 with marengo-2-7" in said(one)
    assert "2 it does not take" in said(one)


def test_the_rest_has_its_price_where_that_is_known():
    assert "4 wait for another run, for an estimated $1,234.50." in said(crossing({"deferred": 4}, cost=1234.5))


def test_what_waits_for_another_night_keeps_it_from_having_caught_up():
    one = crossing({"unchanged": 9, "deferred": 1})

    assert not one.has_caught_up
    assert "The next runs go on with it." in said(one)


def test_when_nothing_waits_it_has_caught_up_and_says_what_to_do():
    one = crossing({"unchanged": 10})

    assert one.has_caught_up
    assert "search_model: marengo-3-0" in said(one)
    assert "set model: marengo-3-0" in said(one)
    assert "remove next_model" in said(one)


def test_what_neither_model_can_embed_does_not_hold_it_up():
    assert crossing({"unchanged": 9, "failed": 1}, of_model={"unchanged": 9, "quarantined": 1}).has_caught_up


def test_a_next_model_with_which_more_fails_has_not_caught_up():
    one = crossing({"quarantined": 10}, of_model={"unchanged": 10})

    assert not one.has_caught_up
    assert "10 failed or are quarantined, 0 with marengo-2-7" in said(one)
    assert "look at its reasons before you change over" in said(one)


def test_of_a_part_of_the_library_it_is_not_said_that_it_has_caught_up():
    one = crossing({"unchanged": 10}, is_whole=False)

    assert not one.has_caught_up
    assert "of the part of the library that this run has listed" in said(one)


def test_an_empty_library_has_caught_up():
    assert crossing({}).has_caught_up


@given(
    st.dictionaries(
        st.sampled_from([str(one) for one in Status if one not in ("deleted", "retained")]), st.integers(0, 99)
    )
)
def test_what_is_taken_is_embedded_or_remains(totals):
    one = crossing(totals)

    assert one.embedded + one.remaining + one.rejected == sum(totals.values())
    assert one.remaining == one.deferred + one.not_embedded
