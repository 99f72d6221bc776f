from datetime import date
from pathlib import Path
from textwrap import dedent

import pytest

from media_embeddings.configuration import (
    CONFIGURATION_VARIABLE,
    DEFAULT_PATH,
    ConfigurationError,
    configuration_path,
    load_configuration,
)
from media_embeddings.media import MediaType
from media_embeddings.model_lifecycle import check_models
from media_embeddings.models import model_named

RIGHT = """\
libraries:
  films:
    sources: [s3://films/raw/]
    region: us-east-1
    model: marengo-2-7
    tables: s3://vectors/tables
    work: s3://vectors/work
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "libraries.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


def test_the_shipped_configuration_is_right_and_its_first_library_is_the_demo():
    configuration = load_configuration(DEFAULT_PATH)

    assert configuration.errors == ()
    assert configuration.names[0] == "demo"
    assert configuration.dag_id(configuration.libraries[0]) == "embed_media"


def test_the_shipped_library_runs_on_any_day_and_has_a_model_to_go_to():
    demo = load_configuration(DEFAULT_PATH).libraries[0]

    assert demo.models == ("marengo-2-7", "marengo-3-0")
    assert len(check_models(demo, demo.models, date(2027, 1, 15))) == 1


def test_the_variable_names_another_file(monkeypatch, write):
    path = write(RIGHT)
    monkeypatch.setenv(CONFIGURATION_VARIABLE, str(path))

    assert configuration_path() == path
    assert load_configuration().names == ("films",)


def test_what_is_not_given_has_a_default(write):
    (library,) = load_configuration(write(RIGHT)).libraries

    assert library.schedule == "0 2 * * *"
    assert library.timezone == "UTC"
    assert set(library.media_types) == {"video", "audio", "image", "text"}
    assert library.bucket_owner is None


def test_every_library_but_the_first_has_its_name_in_its_dag_id(write):
    text = RIGHT + RIGHT.removeprefix("libraries:\n").replace("films:", "clips:")
    configuration = load_configuration(write(text))

    assert [configuration.dag_id(library) for library in configuration.libraries] == [
        "embed_media",
        "embed_media_clips",
    ]


def test_a_wrong_library_leaves_the_others_and_their_dag_ids_as_they_are(write):
    text = RIGHT.replace("us-east-1", "mars-north-1") + RIGHT.removeprefix("libraries:\n").replace("films:", "clips:")
    configuration = load_configuration(write(text))

    assert [library.name for library in configuration.libraries] == ["clips"]
    assert configuration.dag_id(configuration.libraries[0]) == "embed_media_clips"
    assert [error.key for error in configuration.errors] == ["libraries.films.region"]


WRONG = [
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    vacuum_retention_days: 0",
        6,
        "libraries.films.vacuum_retention_days",
        "greater",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    outputs_retention_days: 0",
        6,
        "libraries.films.outputs_retention_days",
        "greater",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    runs_retention_days: 7",
        6,
        "libraries.films.runs_retention_days",
        "greater",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    intents_retention_days: 30",
        6,
        "libraries.films.intents_retention_days",
        "greater",
    ),
    ("region: us-east-1", "region: us-east-2", 4, "libraries.films.region", "us-east-1"),
    ("region: us-east-1", "region: us-east-1\n    regoin: x", 5, "libraries.films.regoin", "allowed are"),
    ("model: marengo-2-7", "model: marengo-9", 5, "libraries.films.model", "marengo-3-0"),
    ("model: marengo-2-7", "batch_size: 5", 2, "libraries.films.model", "is required"),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    batch_size: 0",
        6,
        "libraries.films.batch_size",
        "greater than",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    batch_size: many",
        6,
        "libraries.films.batch_size",
        "integer",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    schedule: '0 0 31 2 *'",
        6,
        "libraries.films.schedule",
        "ever comes",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    schedule: nightly",
        6,
        "libraries.films.schedule",
        "cron",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    timezone: Mars/Olympus",
        6,
        "libraries.films.timezone",
        "IANA",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    bucket_owner: '12'",
        6,
        "libraries.films.bucket_owner",
        "12",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    kms_key_id: mine",
        6,
        "libraries.films.kms_key_id",
        "kms",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    retry_delay_seconds: 0",
        6,
        "libraries.films.retry_delay_seconds",
        "greater than or equal to 1",
    ),
    ("[s3://films/raw/]", "[]", 3, "libraries.films.sources", "at least 1"),
    ("[s3://films/raw/]", "[films/raw]", 3, "libraries.films.sources.0", "s3://"),
    ("[s3://films/raw/]", "[s3://films/raw/, s3://films/raw/a/]", 3, "libraries.films.sources", "overlap"),
    ("s3://vectors/tables", "s3://films/raw/tables", 6, "libraries.films.tables", "never written"),
    ("[s3://films/raw/]", "[s3://vectors/tab]", 6, "libraries.films.tables", "never written"),
    ("[s3://films/raw/]", "[s3://vectors/tables/media/]", 6, "libraries.films.tables", "never written"),
    ("model: marengo-2-7", f"model: marengo-2-7\n    tags: [{'x' * 101}]", 6, "libraries.films.tags.0", "100"),
    ("s3://vectors/work", "s3://films/raw", 7, "libraries.films.work", "never written"),
    ("s3://vectors/work", "s3://vectors/tables/work", 7, "libraries.films.work", "overlap"),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    media_types: {video: [.mp4], audio: [.mp4]}",
        6,
        "libraries.films.media_types",
        "claimed by both",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    media_types: {smell: [.odor]}",
        6,
        "libraries.films.media_types.smell",
        "'video'",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    model_parameters:\n      video:\n        minClipSec: 9",
        8,
        "libraries.films.model_parameters.video.minClipSec",
        "https://",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    region: eu-west-1",
        6,
        "libraries.films.region",
        "stands twice",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    media_types:\n      text: [.txt, .csv]",
        7,
        "libraries.films.media_types.text",
        "name it as text_column, or leave .csv out",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    characters_per_token: 1",
        6,
        "libraries.films.characters_per_token",
        "greater than or equal to 2",
    ),
    ("model: marengo-2-7", "model: marengo-2-7\n    text_overlap: 0.9", 6, "libraries.films.text_overlap", "0.5"),
    ("model: marengo-2-7", "model: marengo-2-7\n    name: films", 6, "libraries.films.name", "its key below"),
    *(
        ("model: marengo-2-7", f"model: marengo-2-7\n    {more}", line, f"libraries.films.{key}", allowed)
        for more, line, key, allowed in (
            ("next_model: marengo-9", 6, "next_model", "there are marengo-2-7"),
            ("next_model: marengo-2-7", 6, "next_model", "name another one"),
            ("next_model_parameters: {text: {}}", 6, "next_model_parameters", "next_model, which is not set"),
            (
                "next_model: marengo-3-0\n    next_model_parameters:\n      video:\n        minClipSec: 3",
                9,
                "next_model_parameters.video.minClipSec",
                "https://",
            ),
            ("search_model: marengo-3-0", 6, "search_model", "must be marengo-2-7,"),
            ("search_model: marengo-9", 6, "search_model", "there are marengo-2-7"),
            ("model_lifecycle: ignore", 6, "model_lifecycle", "'refuse' or 'warn'"),
            ("model_regions: {marengo-9: [us-west-2]}", 6, "model_regions", "there are marengo-2-7"),
            ("model_regions: {marengo-2-7: [Seoul]}", 6, "model_regions.marengo-2-7.0", "pattern"),
            ("invoke_model_ids: {marengo-9: x}", 6, "invoke_model_ids", "there are marengo-2-7"),
            ("invoke_model_ids: {marengo-2-7: 'a b'}", 6, "invoke_model_ids.marengo-2-7", "pattern"),
        )
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    prices:\n      marengo-9: {image: 0.1}",
        7,
        "libraries.films.prices.marengo-9",
        "there are marengo-2-7, marengo-3-0",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    prices:\n      marengo-2-7:\n        video_minute: 0.1",
        8,
        "libraries.films.prices.marengo-2-7.video_minute",
        "video_second",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    prices:\n      marengo-2-7:\n        image: -1",
        8,
        "libraries.films.prices.marengo-2-7.image",
        "greater than or equal to 0",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    max_cost_usd_per_run: 0",
        6,
        "libraries.films.max_cost_usd_per_run",
        "greater than 0",
    ),
    (
        "model: marengo-2-7",
        "model: marengo-2-7\n    cost_assumptions:\n      failed_billed: 1",
        7,
        "libraries.films.cost_assumptions.failed_billed",
        "failed_billed_share",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "line", "key", "allowed"), WRONG, ids=[case[1] for case in WRONG])
def test_a_wrong_key_or_value_is_told_with_its_name_its_line_and_what_is_allowed(
    write, right, wrong, line, key, allowed
):
    path = write(RIGHT.replace(right, wrong))

    configuration = load_configuration(path)

    assert configuration.libraries == ()
    (error,) = configuration.errors
    assert (error.key, error.line) == (key, line)
    assert allowed in str(error)
    assert str(error).startswith(f"{path}, line {line}: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("libraries: [", "is not YAML"),
        ("libraries: {}", "a mapping from a library's name"),
        ("things: {}", "one key, `libraries`"),
        ("libraries: !secret x", "is not plain YAML"),
    ],
)
def test_a_file_that_holds_no_libraries_is_an_error_as_a_whole(write, text, problem):
    with pytest.raises(ConfigurationError, match=problem):
        load_configuration(write(text))


def test_a_missing_file_is_told_with_the_variable_that_names_it(tmp_path):
    with pytest.raises(ConfigurationError, match=CONFIGURATION_VARIABLE):
        load_configuration(tmp_path / "absent.yaml")


def test_a_bare_bucket_is_the_whole_bucket_and_no_other_one(write):
    text = RIGHT.replace("[s3://films/raw/]", "[s3://films, s3://films-archive]")
    (library,) = load_configuration(write(text)).libraries

    assert library.sources == ("s3://films/", "s3://films-archive/")


TWO = (
    RIGHT
    + """\
  others:
    sources: [s3://films/other/]
    region: {region}
    model: marengo-2-7
    tables: {tables}
    work: s3://vectors/work-of-others
"""
)


def test_a_library_that_would_write_where_another_one_lists_is_refused(write):
    configuration = load_configuration(write(TWO.format(region="us-east-1", tables="s3://films/raw/tables")))

    assert [library.name for library in configuration.libraries] == ["films"]
    (error,) = configuration.errors
    assert (error.key, error.line) == ("libraries.others.tables", 12)
    assert "the source s3://films/raw/ of library films" in str(error)


def test_the_sources_of_a_library_that_is_wrong_are_not_written_either(write):
    text = TWO.format(region="us-east-1", tables="s3://films/raw/tables").replace("marengo-2-7", "marengo-9", 1)
    configuration = load_configuration(write(text))

    assert configuration.libraries == ()
    assert {error.key for error in configuration.errors} == {"libraries.films.model", "libraries.others.tables"}


def test_libraries_of_one_connection_and_region_share_the_submitter_of_the_first(write):
    path = write(TWO.format(region="us-east-1", tables="s3://vectors/other-tables"))
    uris = {library.submitter_uri("marengo-2-7") for library in load_configuration(path).libraries}
    assert uris == {"s3://vectors/tables/submitters/us-east-1/marengo-2-7"}


def test_libraries_of_other_regions_have_submitters_of_their_own(write):
    path = write(TWO.format(region="eu-west-1", tables="s3://vectors/other-tables"))
    assert [library.submitter_uri("marengo-2-7") for library in load_configuration(path).libraries] == [
        "s3://vectors/tables/submitters/us-east-1/marengo-2-7",
        "s3://vectors/other-tables/submitters/eu-west-1/marengo-2-7",
    ]


@pytest.mark.parametrize("word", ["on", "off", "report", '"on"'])
def test_deletions_are_on_off_or_reported_although_yaml_has_other_ideas_of_on_and_off(write, word):
    (library,) = load_configuration(write(RIGHT + f"    deletions: {word}\n")).libraries
    assert library.deletions == word.strip('"')


def configured(write, more, region="us-east-1"):
    (library,) = load_configuration(write(RIGHT.replace("us-east-1", region) + more)).libraries
    return library


def test_without_a_next_model_a_library_embeds_with_its_own_and_searches_it(write):
    library = configured(write, "")

    assert (library.models, library.searched_model.name) == (("marengo-2-7",), "marengo-2-7")
    assert library.model_lifecycle == "refuse"


def test_a_library_that_crosses_embeds_with_both_and_each_has_its_own_parameters_and_table(write):
    library = configured(
        write,
        """\
    next_model: marengo-3-0
    model_parameters: {video: {minClipSec: 2}}
    next_model_parameters: {video: {embeddingScope: [clip]}}
""",
    )

    assert library.models == ("marengo-2-7", "marengo-3-0")
    assert library.parameters(MediaType.VIDEO)["minClipSec"] == 2
    assert library.parameters(MediaType.VIDEO, model_named("marengo-3-0"))["embeddingScope"] == ["clip"]
    assert library.embeddings_uri_of("marengo-3-0") == "s3://vectors/tables/embeddings/marengo-3-0"
    assert library.searched_model.name == "marengo-2-7"


def test_search_can_be_switched_to_the_next_model(write):
    library = configured(write, "    next_model: marengo-3-0\n    search_model: marengo-3-0\n")

    assert library.searched_model.name == "marengo-3-0"


def test_a_run_embeds_with_both_models_unless_its_parameter_names_another_one(write):
    library = configured(write, "    next_model: marengo-3-0\n")

    assert library.models_of_run() == library.models_of_run("marengo-2-7") == ("marengo-2-7", "marengo-3-0")
    assert library.models_of_run("marengo-3-0") == ("marengo-3-0",)


def test_a_next_model_that_does_not_serve_the_region_is_refused_by_its_own_key(write):
    path = write(
        RIGHT.replace("us-east-1", "ap-northeast-2").replace("marengo-2-7", "marengo-3-0")
        + "    next_model: marengo-2-7\n"
    )
    (error,) = load_configuration(path).errors

    assert error.key == "libraries.films.next_model"
    assert "has no StartAsyncInvoke in ap-northeast-2; it has in eu-west-1, us-east-1; model_regions adds" in str(error)


def test_regions_that_only_older_documents_list_can_be_added(write):
    library = configured(
        write,
        """\
    model_regions: {marengo-2-7: [ap-northeast-2]}
    invoke_model_ids: {marengo-2-7: "apac.twelvelabs.marengo-embed-2-7-v1:0"}
""",
        region="ap-northeast-2",
    )
    model = model_named("marengo-2-7")

    assert library.is_served(model)
    assert library.regions_of(model) == ("ap-northeast-2", "eu-west-1", "us-east-1")
    assert library.invoke_model_id(model) == "apac.twelvelabs.marengo-embed-2-7-v1:0"


def test_the_id_for_invoke_model_is_the_models_own_unless_it_is_set(write):
    model = model_named("marengo-2-7")

    assert configured(write, "").invoke_model_id(model) == model.invoke_model_id("us-east-1")
