"""What every model says of itself, and that a module is all that a new one needs."""

import importlib
import sys
from datetime import UTC, date, datetime

import pytest

from media_embeddings import models
from media_embeddings.library import Library
from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models import model_named, model_names
from media_embeddings.models.lifecycle import Stage
from media_embeddings.models.marengo_3_0 import InputImage
from media_embeddings.models.media_source import MOST_BODY_BYTES, ContentTooLargeError, fits_a_request
from media_embeddings.models.prices import Price, price_list
from media_embeddings.models.protocol import ParameterError
from media_embeddings.reasons import ReasonCode

OLD, NEW, NOVA = model_named("marengo-2-7"), model_named("marengo-3-0"), model_named("nova-2-multimodal-3072")
ALL = [model_named(name) for name in model_names()]
PICTURE = MediaObject("media", "a.jpg", "e1", 1000, datetime(2026, 11, 1, tzinfo=UTC), MediaType.IMAGE)


@pytest.mark.parametrize("model", ALL, ids=model_names())
def test_every_model_has_prices_with_a_date_and_a_source_and_says_that_they_are_unconfirmed(model):
    prices = model.prices
    price = prices.price("us-east-1")

    assert prices.as_of >= date(2026, 11, 1)
    assert prices.confirmed is ("UNCONFIRMED" not in prices.source)
    assert None not in (price.video_second, price.audio_second, price.image)
    assert (price.text_request is None) != (price.text_million_tokens is None)


def test_prices_may_differ_by_region(tmp_path):
    module = tmp_path / "a_model.py"
    module.with_suffix(".prices.yaml").write_text(
        "as_of: 2026-11-01\nsource: a bill\nconfirmed: true\n"
        'by_region:\n  "*": {image: 0.1}\n  eu-west-1: {image: 0.2, text_request: 0}\n'
    )
    prices = price_list(str(module))

    assert prices.price("us-east-1") == Price(image=0.1)
    assert prices.price("eu-west-1") == Price(image=0.2, text_request=0.0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("as_of: 2026-11-01\nsource: s\nconfirmed: true\nby_region: {us-east-1: {image: 1}}", "has no"),
        ('as_of: soon\nsource: s\nconfirmed: true\nby_region: {"*": {image: 1}}', "as_of is a date"),
        ('as_of: 2026-11-01\nsource: s\nconfirmed: true\nby_region: {"*": {picture: 1}}', "picture is no unit"),
        ('as_of: 2026-11-01\nsource: s\nconfirmed: true\nby_region: {"*": {image: -1}}', "image is an amount"),
        ("- 1", "is no list of prices"),
    ],
)
def test_a_list_of_prices_that_can_not_be_meant_is_refused_with_its_file(tmp_path, content, problem):
    module = tmp_path / "a_model.py"
    module.with_suffix(".prices.yaml").write_text(content)

    with pytest.raises(ValueError, match=problem) as raised:
        price_list(str(module))

    assert "a_model.prices.yaml" in str(raised.value)


@pytest.mark.parametrize(
    ("model", "region", "day", "stage"),
    [
        (OLD, "us-east-1", date(2026, 11, 29), Stage.LEGACY),
        (OLD, "us-east-1", date(2026, 11, 30), Stage.ENDED),
        (OLD, "eu-west-1", date(2026, 11, 30), Stage.ENDED),
        (NEW, "us-east-1", date(2030, 1, 1), Stage.ACTIVE),
        (NEW, "ap-northeast-2", date(2027, 3, 21), Stage.LEGACY),
        (NEW, "ap-northeast-2", date(2027, 3, 22), Stage.ENDED),
        (NOVA, "us-east-1", date(2030, 1, 1), Stage.ACTIVE),
    ],
)
def test_a_model_says_when_it_ends(model, region, day, stage):
    assert model.lifecycle.stage(region, day) is stage
    assert model.lifecycle.documentation.startswith("https://docs.aws.amazon.com/")


@pytest.mark.parametrize(
    ("model", "region", "model_id"),
    [
        (OLD, "us-east-1", "us.twelvelabs.marengo-embed-2-7-v1:0"),
        (OLD, "eu-west-1", "eu.twelvelabs.marengo-embed-2-7-v1:0"),
        (OLD, "ap-northeast-2", None),
        (NEW, "us-east-1", "twelvelabs.marengo-embed-3-0-v1:0"),
        (NEW, "eu-west-1", "eu.twelvelabs.marengo-embed-3-0-v1:0"),
        (NEW, "ap-northeast-2", "twelvelabs.marengo-embed-3-0-v1:0"),
        (NEW, "us-west-2", None),
        (NOVA, "us-east-1", "amazon.nova-2-multimodal-embeddings-v1:0"),
        (NOVA, "eu-west-1", None),
    ],
)
def test_invoke_model_wants_the_id_of_its_region(model, region, model_id):
    assert model.invoke_model_id(region) == model_id


def test_start_async_invoke_wants_the_bare_id_everywhere():
    assert all(model.model_id.partition(".")[0] in ("twelvelabs", "amazon") for model in ALL)


def test_only_marengo_embeds_by_invoke_model_what_a_library_holds():
    assert {model.name: set(model.invoke_media_types) for model in (OLD, NEW, NOVA)} == {
        "marengo-2-7": {MediaType.IMAGE, MediaType.TEXT},
        "marengo-3-0": {MediaType.IMAGE, MediaType.TEXT},
        "nova-2-multimodal-3072": set(),
    }


def test_a_text_is_limited_in_the_unit_of_the_models_page():
    assert (OLD.text_limits.tokens, NEW.text_limits.tokens) == (77, 500)
    assert (NOVA.text_limits.tokens, NOVA.text_limits.characters) == (None, 1900 * 50_000)
    assert [model.text_limits.is_read_from_s3 for model in (OLD, NEW, NOVA)] == [False, False, True]


@pytest.mark.parametrize(("model", "hours"), [(OLD, 2), (NEW, 4)])
@pytest.mark.parametrize("media_type", [MediaType.VIDEO, MediaType.AUDIO])
def test_durations_are_checked_on_either_side_of_the_limit(model, hours, media_type):
    media = MediaObject("media", "a.mp4", "e1", 1000, datetime(2026, 11, 1, tzinfo=UTC), media_type)

    assert model.rejection_by_facts(media, MediaFacts(duration_sec=hours * 3600.0)) is None
    rejection = model.rejection_by_facts(media, MediaFacts(duration_sec=hours * 3600.0 + 1.1))
    assert rejection is not None
    assert rejection.code is ReasonCode.TOO_LONG


@pytest.mark.parametrize("model", [OLD, NEW])
def test_media_go_into_a_request_up_to_its_greatest_body(model):
    most = next(size for size in range(18_750_000, 0, -1) if fits_a_request(size))
    request = str(model.model_input(PICTURE, {}, bucket_owner=None, text=None, content=bytes(most)))

    assert MOST_BODY_BYTES - 20_000 < len(request) <= MOST_BODY_BYTES
    with pytest.raises(
        ContentTooLargeError, match=rf"s3://media/a.jpg.*{most + 1} bytes.*36000000.*25000000.*https://"
    ):
        model.model_input(PICTURE, {}, bucket_owner=None, text=None, content=bytes(most + 1))


def test_more_than_36_megabytes_are_never_sent():
    assert not fits_a_request(36_000_001)


ONE, TWO = InputImage("s3://media/one.png", name="one"), InputImage("s3://media/two.png", name="two")


@pytest.mark.parametrize(
    ("text", "images", "problem"),
    [
        ("a", [], "one or more images"),
        ("<@one>", [ONE, ONE], "names that differ"),
        ("<@one>", [TWO], "one image for each of one"),
        ("<@one> <@two>", [ONE], "one image for each of one, two"),
        ("<@one>", [ONE, InputImage("s3://media/three.png")], "an image without a name"),
    ],
)
def test_several_inputs_whose_names_do_not_match_are_refused(text, images, problem):
    with pytest.raises(ParameterError, match=rf"mediaSources .*{problem}.*https://docs\.aws\.amazon\.com/"):
        NEW.multi_input(text, images)


A_MODEL = """
from dataclasses import dataclass
from media_embeddings.models.marengo_3_0 import Marengo30

@dataclass(frozen=True, slots=True)
class Other(Marengo30):
    name: str = "other-1-0"
    dimension: int = 64

MODEL = Other()
"""


@pytest.fixture
def dropped(tmp_path, monkeypatch):
    """Drop a module into the package of models, and take it out again."""

    def drop(name: str, content: str) -> None:
        (tmp_path / f"{name}.py").write_text(content)
        importlib.invalidate_caches()
        models._models.cache_clear()

    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    before = set(sys.modules)
    yield drop
    for name in set(sys.modules) - before:
        if name.startswith("media_embeddings.models."):
            del sys.modules[name]
    models._models.cache_clear()


def test_a_module_in_the_package_is_all_that_a_new_model_needs(dropped):
    dropped("other_1_0", A_MODEL)
    library = Library(
        name="films",
        sources=("s3://media/films/",),
        region="us-east-1",
        model="other-1-0",
        tables="s3://data/tables",
        work="s3://data/work",
    )

    assert "other-1-0" in model_names()
    assert library.embedding_model.dimension == 64
    assert library.embeddings_uri == "s3://data/tables/embeddings/other-1-0"


def test_two_models_of_one_name_are_refused(dropped):
    dropped("other_1_0", A_MODEL)
    dropped("another", A_MODEL)

    with pytest.raises(ValueError, match="two modules define a model with the name other-1-0"):
        model_names()
