"""A library: S3 prefixes in one region with the settings under which their media are embedded.

Everything here is checked when the DAG is parsed, so this module imports nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterBadDateError, croniter
from pathspec import GitIgnoreSpec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from media_embeddings.cost_assumptions import CostAssumptions, missing_unit, units, with_overrides
from media_embeddings.media import MediaType
from media_embeddings.models import model_named, model_names
from media_embeddings.models.prices import PriceList
from media_embeddings.models.protocol import EmbeddingModel, ParameterError
from media_embeddings.processing import MediaSource, ProcessingMode, invoked_media_types
from media_embeddings.storage import is_below
from media_embeddings.texts.splitting import DEFAULT_OVERLAP, MOST_OVERLAP
from media_embeddings.texts.suffixes import PLAIN_SUFFIXES, SUBTITLE_SUFFIXES, TABLE_SUFFIXES
from media_embeddings.texts.tokens import (
    DEFAULT_CHARACTERS_PER_TOKEN,
    LEAST_CHARACTERS_PER_TOKEN,
    MOST_CHARACTERS_PER_TOKEN,
)

DEFAULT_SUFFIXES: Mapping[MediaType, tuple[str, ...]] = {
    MediaType.VIDEO: (".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v"),
    MediaType.AUDIO: (".wav", ".mp3", ".flac"),
    MediaType.IMAGE: (".jpg", ".jpeg", ".png"),
    MediaType.TEXT: (*PLAIN_SUFFIXES, *SUBTITLE_SUFFIXES),
}
"""Without those of tables: which column of them is a text, only a library can say."""

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
S3Uri = Annotated[str, StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9](/.*)?$")]
Suffix = Annotated[str, StringConstraints(pattern=r"^\.[^/]+$", to_lower=True)]
Glob = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
# Both patterns are those of StartAsyncInvoke's s3OutputDataConfig:
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_AsyncInvokeS3OutputDataConfig.html
AccountId = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
KmsKeyArn = Annotated[
    str,
    StringConstraints(
        pattern=r"^arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{12}:((key/[a-zA-Z0-9-]{36})|(alias/[a-zA-Z0-9-_/]+))$"
    ),
]


class DeletionMode(StrEnum):
    """What a library does about objects that are no longer in its sources."""

    OFF = "off"
    REPORT = "report"
    ON = "on"


class LifecycleMode(StrEnum):
    """What a library does about a model that AWS has ended."""

    REFUSE = "refuse"
    WARN = "warn"


class UnconfirmedLimits(StrEnum):
    """What a library does about objects outside of limits that the model's maker states, but AWS does not for Bedrock."""

    WARN = "warn"
    REJECT = "reject"


class Library(BaseModel):
    """The settings of one library, as ``include/config/libraries.yaml`` gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    sources: tuple[S3Uri, ...]
    """One or more ``s3://bucket/prefix``. Read only, never written."""
    include: tuple[Glob, ...] = ()
    """Patterns as in ``.gitignore``, below the source's prefix; none means everything."""
    exclude: tuple[Glob, ...] = ()
    text_column: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The column of ``.csv``, or member of the objects in ``.jsonl``, that is embedded."""
    characters_per_token: Annotated[int, Field(ge=LEAST_CHARACTERS_PER_TOKEN, le=MOST_CHARACTERS_PER_TOKEN)] = (
        DEFAULT_CHARACTERS_PER_TOKEN
    )
    """How many letters make a token; see :mod:`media_embeddings.texts.tokens`."""
    text_overlap: Annotated[float, Field(ge=0.0, le=MOST_OVERLAP)] = DEFAULT_OVERLAP
    """The greatest share of a part of a long text that is in the one before as well."""
    media_types: Mapping[MediaType, tuple[Suffix, ...]] = Field(
        default_factory=lambda: dict(DEFAULT_SUFFIXES), min_length=1
    )
    """The media types to embed, each with the suffixes of the keys that hold it."""
    inventory: S3Uri | None = None
    """Where S3 Inventory of the sources' buckets is delivered, to be read instead of listing; None: they are listed."""
    max_inventory_age_hours: Annotated[float, Field(gt=0.0, le=744.0)] = 48.0
    """An inventory that was begun longer ago is not believed."""
    region: Region
    """The region of the buckets and of the model: they must be the same."""
    aws_conn_id: str | None = "aws_default"
    model: str
    model_parameters: Mapping[MediaType, Mapping[str, Any]] = Field(default_factory=dict)
    """Per media type, in Bedrock's own field names."""
    next_model: str | None = None
    """The model that the library crosses to: runs embed with it as well, into its own table."""
    next_model_parameters: Mapping[MediaType, Mapping[str, Any]] = Field(default_factory=dict)
    """As ``model_parameters``, for ``next_model``."""
    search_model: str | None = None
    """The model whose table is searched; None: ``model``. See :attr:`searched_model`."""
    model_lifecycle: LifecycleMode = LifecycleMode.REFUSE
    """Whether runs go on with a model that AWS has ended, as accounts with extended access may."""
    model_regions: Mapping[str, tuple[Region, ...]] = Field(default_factory=dict)
    """By model, regions that serve it beside those of its model card, for what only other documents list."""
    invoke_model_ids: Mapping[str, Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.:/\-]{1,2048}$")]] = Field(
        default_factory=dict
    )
    """By model, the id or inference profile that InvokeModel is given instead of the model's own for the region."""
    read_headers: bool = True
    """Whether duration, tracks and sizes are read from the objects' headers before anything is spent on them."""
    unconfirmed_limits: UnconfirmedLimits = UnconfirmedLimits.WARN
    """A limit that is wrong would keep media from being embedded, so one that AWS does not state warns only."""
    tables: S3Uri
    work: S3Uri
    schedule: str | None = "0 2 * * *"
    timezone: str = "UTC"
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_batches: Annotated[int, Field(ge=1, le=300)] = 50
    """Batches grow beyond ``batch_size`` rather than exceed it, those of both ways of processing together.

    A run has at most 4 + 3 x this task instances, and for its retries 30 more and one for each round. Where batches may go
    through InvokeModel, there are 3 more, and 3 for each round: that group's placeholder while it is empty, and the task that
    hands its batches on. At most 200, with one round of retries also where a library crosses to another model: the two share
    the batches. The list of batches is an XCom: with 300 of them it stays below 64 KiB.
    """
    processing: ProcessingMode = ProcessingMode.AUTO
    """Whether images and texts go through InvokeModel where the model has it; ``sync`` refuses a library that has others."""
    media_source: MediaSource = MediaSource.S3_LOCATION
    """How images reach InvokeModel; jobs always read them from S3."""
    max_concurrent_invokes: Annotated[int, Field(ge=1, le=500)] = 20
    """The most InvokeModel calls under way at once, in each batch."""
    invoke_timeout_seconds: Annotated[float, Field(ge=1.0, le=900.0)] = 90.0
    """How long an InvokeModel call may take; who finds the intent of a process that is gone waits a little over twice that."""
    max_in_flight: Annotated[int, Field(ge=1, le=1000)] = 20
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    retries_in_run: Annotated[int, Field(ge=0, le=3)] = 1
    """How many further attempts a run makes at what failed for a reason that may pass."""
    max_failed_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    submitter: S3Uri | None = None
    """Where the lease lies under which all libraries of one account, region and model submit; see :meth:`submitter_uri`."""
    lease_seconds: Annotated[float, Field(ge=2.0, le=3600.0)] = 60.0
    """How long the submitter's lease holds without being renewed."""
    list_lag_seconds: Annotated[float, Field(ge=0.0, le=3600.0)] = 30.0
    """How long Bedrock's list may take to show an invocation that was accepted; AWS states no figure."""
    deletions: DeletionMode = DeletionMode.REPORT
    """What to do about objects that are no longer in the sources."""
    max_deleted_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """If more of the library's objects than this would go at once, none does."""
    poll_interval_seconds: Annotated[float, Field(ge=1.0, le=900.0)] = 15.0
    output_grace_seconds: Annotated[float, Field(ge=0.0, le=600.0)] = 30.0
    """How long a merge waits for an output that is not there yet although its invocation is completed."""
    deadline_hours: Annotated[float, Field(gt=0.0, le=168.0)] = 12.0
    retry_delay_seconds: Annotated[float, Field(ge=1.0, le=600.0)] = 20.0
    """From a failed try of a task to its next one; each further wait is twice as long, up to ten minutes."""
    vacuum_retention_days: Annotated[int, Field(ge=1, le=365)] = 7
    """How long a version of a table can be read after the next one has replaced it."""
    outputs_retention_days: Annotated[int, Field(ge=1)] | None = 30
    """How long a raw output is kept after its rows were committed; None for ever."""
    runs_retention_days: Annotated[int, Field(ge=30)] | None = 180
    """How long listing, plans and batches of a run are kept; its reports stay."""
    intents_retention_days: Annotated[int, Field(ge=90)] | None = 365
    """How long the intent of a request that has ended is kept; None for ever."""
    max_cost_usd_per_run: Annotated[float, Field(gt=0.0)] | None = None
    """What a run may spend by estimate; what does not fit is left to the next one. None: any amount."""
    max_cost_usd_per_month: Annotated[float, Field(gt=0.0)] | None = None
    """What everything that writes below ``tables`` may spend in a calendar month in UTC. None: any amount."""
    approve_above_usd: Annotated[float, Field(ge=0.0)] | None = None
    """A person is asked before a run spends more than this by estimate. None: nobody is."""
    approval_timeout_hours: Annotated[float, Field(gt=0.0, le=168.0)] = 12.0
    """How long the answer is waited for; none is a no."""
    prices: Mapping[str, Mapping[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]]] = Field(
        default_factory=dict
    )
    """US dollars by model and unit, instead of those that come with the model."""
    cost_assumptions: CostAssumptions = CostAssumptions()
    """What is taken for granted where neither AWS nor the object says."""
    bucket_owner: AccountId | None = None
    kms_key_id: KmsKeyArn | None = None
    owner: Annotated[str, StringConstraints(min_length=1)] = "media-embeddings"
    tags: tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _a_column_brings_the_suffixes_of_tables(cls, settings: Any) -> Any:
        if not isinstance(settings, dict) or "media_types" in settings or settings.get("text_column") is None:
            return settings
        texts = (*DEFAULT_SUFFIXES[MediaType.TEXT], *TABLE_SUFFIXES)
        return {**settings, "media_types": {**DEFAULT_SUFFIXES, MediaType.TEXT: texts}}

    @field_validator("sources", mode="before")
    @classmethod
    def _a_source_is_named(cls, value: object) -> object:
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError("must be a list with at least 1 s3://bucket/prefix")
        return value

    @field_validator("deletions", mode="before")
    @classmethod
    def _on_and_off_are_words(cls, value: object) -> object:
        # YAML takes both for booleans.
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("sources")
    @classmethod
    def _a_bucket_ends_with_a_slash(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(with_slash(source) for source in value)

    @field_validator("schedule")
    @classmethod
    def _schedule_is_cron(cls, value: str | None) -> str | None:
        if value is not None and not croniter.is_valid(value):
            raise ValueError('must be a cron expression such as "0 2 * * *", a preset such as "@daily", or null')
        try:
            if value is not None:
                croniter(value).get_next()
        except CroniterBadDateError as error:
            raise ValueError("must name a time that ever comes") from error
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError('must be a name of the IANA time zone database such as "Europe/Berlin"')
        return value

    @field_validator("model", "next_model", "search_model")
    @classmethod
    def _model_is_known(cls, value: str | None) -> str | None:
        return None if value is None else model_named(value).name

    @field_validator("model_regions", "invoke_model_ids")
    @classmethod
    def _models_are_known(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in value:
            model_named(name)
        return value

    @field_validator("media_types")
    @classmethod
    def _suffixes_name_one_media_type(
        cls, value: Mapping[MediaType, tuple[str, ...]]
    ) -> Mapping[MediaType, tuple[str, ...]]:
        owners: dict[str, MediaType] = {}
        for media_type, suffixes in value.items():
            if not suffixes:
                raise ValueError(
                    f"{media_type} has no suffix; name at least one such as {DEFAULT_SUFFIXES[media_type][0]}"
                )
            for suffix in suffixes:
                if owners.setdefault(suffix, media_type) is not media_type:
                    raise ValueError(f"{suffix} is claimed by both {owners[suffix]} and {media_type}")
        return value

    @model_validator(mode="after")
    def _tables_have_a_column(self) -> Self:
        tables = [suffix for suffix in self.media_types.get(MediaType.TEXT, ()) if suffix in TABLE_SUFFIXES]
        if tables and self.text_column is None:
            raise WrongSettingError(
                "media_types.text",
                f"of {' and '.join(tables)} one column is embedded; name it as text_column, or leave {tables[0]} out",
            )
        return self

    @model_validator(mode="after")
    def _models_go_together(self) -> Self:
        if self.next_model == self.model:
            raise WrongSettingError("next_model", f"is {self.model}, as model is; name another one, or leave it out")
        if self.next_model is None and self.next_model_parameters:
            raise WrongSettingError("next_model_parameters", "are those of next_model, which is not set")
        if self.search_model is not None and self.search_model not in self.models:
            raise WrongSettingError(
                "search_model",
                f"must be {' or '.join(self.models)}, whose tables the library writes (found {self.search_model!r})",
            )
        return self

    @model_validator(mode="after")
    def _what_is_sync_can_be(self) -> Self:
        if self.processing is not ProcessingMode.SYNC:
            return self
        for model in map(model_named, self.models):
            if self.invoke_model_id(model) is None:
                raise WrongSettingError(
                    "processing", f"{model.name} has no InvokeModel in {self.region}; set it to auto or async"
                )
            others = sorted(str(one) for one in self.media_types if one not in self.invoked_media_types(model))
            if others:
                raise WrongSettingError(
                    "processing",
                    f"InvokeModel of {model.name} takes no {' and no '.join(others)}; set it to auto, or leave them out of "
                    "media_types",
                )
        return self

    @model_validator(mode="after")
    def _models_serve_the_region(self) -> Self:
        for setting, name in (("region", self.model), ("next_model", self.next_model)):
            if name is not None and not self.is_served(model_named(name)):
                raise WrongSettingError(
                    setting,
                    f"{name} has no StartAsyncInvoke in {self.region}; it has in "
                    f"{', '.join(self.regions_of(model_named(name)))}; model_regions adds regions that its model card lacks",
                )
        return self

    @model_validator(mode="after")
    def _models_take_their_parameters(self) -> Self:
        for setting, name, given in (
            ("model_parameters", self.model, self.model_parameters),
            ("next_model_parameters", self.next_model, self.next_model_parameters),
        ):
            for media_type in given:
                try:
                    self.parameters(media_type, model_named(name or self.model))
                except ParameterError as error:
                    raise WrongSettingError(f"{setting}.{media_type}.{error.parameter}", str(error)) from error
        return self

    @model_validator(mode="after")
    def _prices_are_of_known_models_and_units(self) -> Self:
        for name, by_unit in self.prices.items():
            if name not in model_names():
                raise WrongSettingError(
                    f"prices.{name}", f"there is no model {name!r}; there are {', '.join(model_names())}"
                )
            for unit in by_unit:
                if unit not in units():
                    raise WrongSettingError(
                        f"prices.{name}.{unit}", f"is no unit of a price; there are {', '.join(units())}"
                    )
        return self

    @model_validator(mode="after")
    def _a_limit_of_costs_knows_the_prices(self) -> Self:
        if self.limits_costs:
            self.require_prices(self.embedding_model)
        return self

    @model_validator(mode="after")
    def _written_places_are_apart_from_the_sources(self) -> Self:
        for setting, place in self.written_places:
            for source in self.sources:
                if overlap(place, source):
                    raise WrongSettingError(
                        setting,
                        f"{place} and the source {source}; overlap; sources are never written, choose another place",
                    )
        if is_below(self.tables, self.work) or is_below(self.work, self.tables):
            raise WrongSettingError(
                "work",
                f"{self.work} and the tables {self.tables} overlap; choose two folders beside each other",
            )
        return self

    @model_validator(mode="after")
    def _sources_are_apart(self) -> Self:
        for number, source in enumerate(self.sources):
            for other in self.sources[number + 1 :]:
                if source.startswith(other) or other.startswith(source):
                    raise WrongSettingError(
                        "sources",
                        f"{source} and {other} overlap, so an object would be listed twice; keep the shorter",
                    )
        return self

    @property
    def written_places(self) -> tuple[tuple[str, str], ...]:
        """Return the places that runs write to, each with its setting."""
        places = (("tables", self.tables), ("work", self.work))
        return places if self.submitter is None else (*places, ("submitter", self.submitter))

    @property
    def embedding_model(self) -> EmbeddingModel:
        """Return the model that this library embeds with."""
        return model_named(self.model)

    @property
    def tzinfo(self) -> ZoneInfo:
        """Return the schedule's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of the models that the library's runs embed with: its own, then the one that it crosses to."""
        return (self.model,) if self.next_model is None else (self.model, self.next_model)

    def models_of_run(self, parameter: str | None = None) -> tuple[str, ...]:
        """Return the names of the models that one run embeds with.

        :param parameter: the run's parameter ``model``. Another model than the library's is embedded with alone.
        """
        return self.models if parameter in (None, self.model) else (parameter,)

    @property
    def searched_model(self) -> EmbeddingModel:
        """Return the model whose table is searched."""
        return model_named(self.search_model or self.model)

    def regions_of(self, model: EmbeddingModel) -> tuple[str, ...]:
        """Return the regions in which a model serves, by its model card and by ``model_regions``."""
        return tuple(sorted({*model.regions, *self.model_regions.get(model.name, ())}))

    def is_served(self, model: EmbeddingModel) -> bool:
        """Return whether a model serves the library's region."""
        return self.region in self.regions_of(model)

    def invoke_model_id(self, model: EmbeddingModel) -> str | None:
        """Return the id that InvokeModel is given for a model; None where the model has none in the library's region."""
        return self.invoke_model_ids.get(model.name) or model.invoke_model_id(self.region)

    @property
    def embeddings_uri(self) -> str:
        """Return where the table of this library's model lies."""
        return self.embeddings_uri_of(self.model)

    def embeddings_uri_of(self, model_name: str) -> str:
        """Return where the table of a model lies."""
        return f"{self.tables.rstrip('/')}/embeddings/{model_name}"

    @property
    def intents_uri(self) -> str:
        """Return where the intents lie: below the tables, so that all who write them share them."""
        return f"{self.tables.rstrip('/')}/intents"

    def invoked_media_types(self, model: EmbeddingModel | None = None) -> frozenset[MediaType]:
        """Return the media types whose objects may go through InvokeModel."""
        model = model or self.embedding_model
        return invoked_media_types(self.processing, self.media_types, model, self.invoke_model_id(model))

    def submitter_uri(self, model_name: str) -> str:
        """Return the folder of the lease and the tickets for a model."""
        prefix = self.submitter or f"{self.tables.rstrip('/')}/submitters"
        return f"{prefix.rstrip('/')}/{self.region}/{model_name}"

    def parameters(self, media_type: MediaType, model: EmbeddingModel | None = None) -> dict[str, object]:
        """Return the complete parameters of a media type's requests.

        ``model_parameters`` hold for ``model`` and ``next_model_parameters`` for ``next_model``; any other model gets its
        defaults.
        """
        model = model or self.embedding_model
        given = {self.model: self.model_parameters, self.next_model: self.next_model_parameters}.get(model.name, {})
        return model.parameters(media_type, given.get(media_type, {}))

    @property
    def limits_costs(self) -> bool:
        """Return whether anything depends on what a run costs."""
        limits = (self.max_cost_usd_per_run, self.max_cost_usd_per_month, self.approve_above_usd)
        return any(limit is not None for limit in limits)

    def price_list(self, model: EmbeddingModel) -> PriceList:
        """Return what a model costs in the library's region, with the prices that the library sets itself."""
        return with_overrides(model.prices, self.region, model.name, self.prices)

    def require_prices(self, model: EmbeddingModel) -> None:
        """Refuse a model that has no price for media that the library embeds: no budget could hold.

        :raises WrongSettingError: naming the price that is missing.
        """
        price = self.price_list(model).price(self.region)
        for media_type in self.media_types:
            unit = missing_unit(media_type, price) if media_type in model.media_types else None
            if unit is not None:
                raise WrongSettingError(
                    f"prices.{model.name}.{unit}",
                    f"is required: {model.name} comes without a price for {media_type}, and a limit of costs is set",
                )

    @cached_property
    def selection(self) -> Selection:
        """Return what of the sources belongs to the library."""
        return Selection(self.media_types, self.include, self.exclude)


def with_slash(source: str) -> str:
    """Return a source with the slash that ends a bare bucket: as a prefix, s3://media would take in s3://media-archive."""
    return source if source.count("/") > 2 else f"{source}/"


def overlap(place: str, source: str) -> bool:
    """Return whether a folder that is written and a prefix that is listed have an object in common."""
    folder = f"{place.rstrip('/')}/"
    return folder.startswith(source) or source.startswith(folder)


class Selection:
    """Tells the media type of a key, and whether the library's globs take it."""

    def __init__(
        self,
        media_types: Mapping[MediaType, Iterable[str]],
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
    ) -> None:
        self._media_type_of = {
            suffix: media_type for media_type, suffixes in media_types.items() for suffix in suffixes
        }
        self._disabled = {
            suffix
            for media_type, suffixes in DEFAULT_SUFFIXES.items()
            for suffix in suffixes
            if suffix not in self._media_type_of and media_type not in media_types
        }
        include, exclude = tuple(include), tuple(exclude)
        self._include = GitIgnoreSpec.from_lines(include) if include else None
        self._exclude = GitIgnoreSpec.from_lines(exclude) if exclude else None

    def takes(self, relative_key: str) -> bool:
        """Return whether the library takes an object, by its key below the source's prefix.

        Folder markers are never taken, nor is media of a type that the library doesn't embed. A key with a suffix
        that no media type has is taken, so that it stands in the books as rejected and isn't passed over in silence.
        """
        if not relative_key or relative_key.endswith("/") or self.is_disabled(suffix_of(relative_key)):
            return False
        return self.globs_take(relative_key)

    def media_type(self, key: str) -> MediaType | None:
        """Return the media type that the key's suffix tells, or None where it tells none."""
        return self.media_type_of_suffix(suffix_of(key))

    def media_type_of_suffix(self, suffix: str) -> MediaType | None:
        """Return the media type that a suffix, as :func:`suffix_of` gives it, tells."""
        return self._media_type_of.get(suffix)

    def is_disabled(self, suffix: str) -> bool:
        """Return whether a suffix is that of a media type that the library doesn't embed."""
        return suffix in self._disabled

    @property
    def has_globs(self) -> bool:
        """Return whether there are any globs; without them all keys are taken."""
        return self._include is not None or self._exclude is not None

    def globs_take(self, relative_key: str) -> bool:
        """Return whether the globs alone take a key."""
        if self._include is not None and not self._include.match_file(relative_key):
            return False
        return self._exclude is None or not self._exclude.match_file(relative_key)


def suffix_of(key: str) -> str:
    """Return the last suffix of a key in lower case with its dot, or an empty string."""
    match = re.search(r"[^/](\.[^./]+)$", key)
    return match.group(1).lower() if match else ""


class WrongSettingError(ValueError):
    """A wrong value that shows only beside other settings; names the setting so that its line can be found."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting
