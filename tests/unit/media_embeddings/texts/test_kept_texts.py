import pytest

from media_embeddings.texts.kept_texts import KeptTexts


def test_texts_are_given_back_by_their_request(tmp_path):
    with KeptTexts(tmp_path / "texts.sqlite") as kept:
        kept.keep("a", "A red boat, 寺庙 🎬.\n")
        kept.keep("b", "")
        assert (kept.text("a"), kept.text("b")) == ("A red boat, 寺庙 🎬.\n", "")


def test_the_last_text_under_a_name_stands(tmp_path):
    with KeptTexts(tmp_path / "texts.sqlite") as kept:
        kept.keep("a", "one")
        kept.keep("a", "two")
        assert kept.text("a") == "two"


def test_a_text_that_was_not_kept_is_a_mistake(tmp_path):
    with KeptTexts(tmp_path / "texts.sqlite") as kept, pytest.raises(KeyError):
        kept.text("a")
