"""What the end of a model means for a run. The day is always given, so that no calendar day changes a test."""

import logging
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.library import Library
from media_embeddings.model_lifecycle import ModelEndedError, check_models, judge_model
from media_embeddings.models import model_named

END = date(2026, 11, 30)
OLD, NEW = model_named("marengo-2-7"), model_named("marengo-3-0")


def library(**settings):
    return Library(
        **{
            "name": "films",
            "sources": ["s3://films/raw/"],
            "region": "us-east-1",
            "model": "marengo-2-7",
            "tables": "s3://vectors/tables",
            "work": "s3://vectors/work",
            **settings,
        }
    )


def test_a_model_without_an_announced_end_is_not_spoken_of():
    judged = judge_model(library(), NEW, date(2030, 1, 1))

    assert (judged.warning, judged.refusal) == (None, None)


def test_a_legacy_model_is_warned_of_with_its_end_and_the_days_left():
    judged = judge_model(library(), OLD, END - timedelta(days=7))

    assert judged.refusal is None
    assert "marengo-2-7 is a legacy model" in judged.warning
    assert "ends it in us-east-1 on 2026-11-30, 7 days from now" in judged.warning
    assert "set next_model" in judged.warning
    assert "https://" in judged.warning


def test_on_the_last_day_it_is_still_taken():
    judged = judge_model(library(), OLD, END - timedelta(days=1))

    assert judged.refusal is None
    assert "1 day from now" in judged.warning


def test_a_library_that_crosses_already_is_told_where_to_look():
    judged = judge_model(library(next_model="marengo-3-0"), OLD, END - timedelta(days=7))

    assert "crosses to marengo-3-0" in judged.warning
    assert "set next_model" not in judged.warning


def test_from_its_end_on_it_is_refused_with_the_library_the_key_and_what_to_do():
    judged = judge_model(library(), OLD, END)

    assert judged.warning is None
    assert "library films, key `model`" in judged.refusal
    assert "AWS has ended marengo-2-7 in us-east-1 on 2026-11-30" in judged.refusal
    assert "Set model to one that is in service" in judged.refusal
    assert "model_lifecycle: warn" in judged.refusal


def test_a_library_that_crossed_in_part_is_told_to_go_on_with_its_next_model():
    judged = judge_model(library(next_model="marengo-3-0"), OLD, END)

    assert "Set model: marengo-3-0" in judged.refusal
    assert "remove next_model" in judged.refusal


def test_a_library_may_say_that_it_goes_on_and_is_warned():
    judged = judge_model(library(model_lifecycle="warn"), OLD, END + timedelta(days=31))

    assert judged.refusal is None
    assert "2026-11-30, 31 days ago" in judged.warning
    assert "model_lifecycle: warn" in judged.warning


def test_a_next_model_that_has_ended_is_named_by_its_own_key():
    crossing = library(model="marengo-3-0", next_model="marengo-2-7")

    assert "key `next_model`" in judge_model(crossing, OLD, END).refusal


def test_the_model_of_one_run_is_named_by_the_parameter():
    judged = judge_model(library(model="marengo-3-0"), OLD, END)

    assert "the run's parameter `model`" in judged.refusal
    assert "Name a model that is in service" in judged.refusal


def test_a_run_is_refused_if_any_of_its_models_has_ended(caplog):
    caplog.set_level(logging.WARNING)
    crossing = library(next_model="marengo-3-0")
    assert len(check_models(crossing, crossing.models, END - timedelta(days=3))) == 1
    assert "3 days from now" in caplog.text

    with pytest.raises(ModelEndedError, match="library films, key `model`"):
        check_models(crossing, crossing.models, END)


def test_where_no_day_is_given_the_clock_tells_it(monkeypatch):
    monkeypatch.setattr("media_embeddings.model_lifecycle.utc_today", lambda: date(2027, 1, 15))

    with pytest.raises(ModelEndedError, match="46 days ago"):
        check_models(library(), ["marengo-2-7"])


@given(st.dates(date(2020, 1, 1), date(2040, 1, 1)), st.booleans())
def test_before_its_end_no_day_refuses_and_from_it_on_every_day_does_unless_the_library_says_otherwise(today, warns):
    judged = judge_model(library(model_lifecycle="warn" if warns else "refuse"), OLD, today)

    assert (judged.refusal is not None) is (today >= END and not warns)
    assert (judged.warning is None) is (judged.refusal is not None)
