"""Reads the libraries from their YAML file; of what is wrong it says which key, which line, and what is allowed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from media_embeddings.cost_assumptions import CostAssumptions
from media_embeddings.library import Library, WrongSettingError, overlap, with_slash

CONFIGURATION_VARIABLE = "MEDIA_EMBEDDINGS_CONFIG"
DEFAULT_PATH = Path(__file__).resolve().parent.parent / "config" / "libraries.yaml"

Location = tuple[str | int, ...]


class ConfigurationError(Exception):
    """One wrong key or value: which, in which file and line, and what is allowed."""

    def __init__(self, path: Path, line: int, key: str, message: str) -> None:
        super().__init__(f"{path}, line {line}: {key}: {message}")
        self.path, self.line, self.key = path, line, key


@dataclass(frozen=True, slots=True)
class Configuration:
    """The libraries of a file that are right, in the file's order, and what is wrong with the others."""

    libraries: tuple[Library, ...]
    errors: tuple[ConfigurationError, ...]
    names: tuple[str, ...]
    """The names of all libraries of the file, right or wrong, in its order."""

    def dag_id(self, library: Library) -> str:
        """Return ``embed_media`` for the file's first library, whether the first is right or wrong."""
        return "embed_media" if library.name == self.names[0] else f"embed_media_{library.name}"


def configuration_path() -> Path:
    """Return the file that ``MEDIA_EMBEDDINGS_CONFIG`` names, or ``include/config/libraries.yaml``."""
    return Path(os.environ.get(CONFIGURATION_VARIABLE) or DEFAULT_PATH)


def load_configuration(path: Path | None = None) -> Configuration:
    """Read all libraries. One that is wrong leaves the others in place; its errors are returned beside them.

    Raises :class:`ConfigurationError` where the file as a whole can't be read.
    """
    path = path or configuration_path()
    root = _root(path)
    document = _value(path, root)
    allowed = "the top level has one key, `libraries`, a mapping from a library's name to its settings"
    if not isinstance(document, dict) or set(document) != {"libraries"}:
        raise ConfigurationError(path, _line(root, ()), "libraries", allowed)
    entries = document["libraries"]
    if not isinstance(entries, dict) or not entries:
        raise ConfigurationError(path, _line(root, ("libraries",)), "libraries", allowed)

    libraries: list[Library] = []
    errors: list[ConfigurationError] = []
    duplicates = dict(_duplicate_keys(root))
    for name, settings in entries.items():
        at: Location = ("libraries", name)
        wrong = [
            ConfigurationError(path, line, _dotted(location), "stands twice; keep one")
            for location, line in duplicates.items()
            if location[:2] == at
        ]
        library, invalid = _library(name, settings)
        wrong += [
            ConfigurationError(path, _line(root, at + location), _dotted(at + location), message)
            for location, message in invalid
        ]
        errors += wrong
        if library is not None and not wrong:
            libraries.append(library)
    sources = [(str(name), source) for name, settings in entries.items() for source in _sources(settings)]
    for library, setting, message in _written_into_sources(libraries, sources):
        at = ("libraries", library.name, setting)
        errors.append(ConfigurationError(path, _line(root, at), _dotted(at), message))
        libraries.remove(library)
    return Configuration(_with_submitters(libraries), tuple(errors), tuple(str(name) for name in entries))


def _sources(settings: object) -> list[str]:
    """Return what a library names as its sources, whatever else is wrong with it."""
    named = settings.get("sources") if isinstance(settings, dict) else None
    return [source for source in named if isinstance(source, str)] if isinstance(named, list) else []


def _written_into_sources(
    libraries: Sequence[Library], sources: Sequence[tuple[str, str]]
) -> list[tuple[Library, str, str]]:
    """Return the libraries that would write where one lists, each with the setting and what is wrong with it.

    :param sources: those of all libraries, each with its library's name.
    """
    found: list[tuple[Library, str, str]] = []
    for library in libraries:
        overlaps = (
            (
                library,
                setting,
                f"{place} and the source {source} of library {name} overlap; sources are never written, "
                "choose another place",
            )
            for setting, place in library.written_places
            for name, source in sources
            if overlap(place, with_slash(source))
        )
        found.extend(islice(overlaps, 1))
    return found


def _with_submitters(libraries: Iterable[Library]) -> tuple[Library, ...]:
    """Let libraries of one connection and region share a submitter: that of the first of them, where none is set."""
    first: dict[tuple[str | None, str], str] = {}
    shared = []
    for library in libraries:
        place = library.submitter or f"{library.tables.rstrip('/')}/submitters"
        place = first.setdefault((library.aws_conn_id, library.region), place)
        shared.append(library.model_copy(update={"submitter": library.submitter or place}))
    return tuple(shared)


def _library(name: object, settings: object) -> tuple[Library | None, list[tuple[Location, str]]]:
    if not isinstance(settings, dict):
        return None, [((), "must be a mapping of settings")]
    if "name" in settings:
        return None, [(("name",), "is not a setting: a library's name is its key below `libraries`")]
    try:
        return Library(name=str(name), **{str(key): value for key, value in settings.items()}), []
    except ValidationError as error:
        return None, [_explained(detail) for detail in error.errors(include_url=False)]


def _explained(detail: Any) -> tuple[Location, str]:
    location: Location = tuple(part for part in detail["loc"] if part != "[key]")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, WrongSettingError):
        return tuple(cause.setting.split(".")), str(cause)
    if location == ("name",):
        return (), "a library's name has lower-case letters, digits and underscores, and begins with a letter"
    if detail["type"] == "extra_forbidden":
        return location, f"is not a setting; allowed are {', '.join(_settings(location))}"
    if detail["type"] == "missing":
        return location, "is required"
    if cause is not None:
        return location, f"{cause} (found {detail['input']!r})"
    return location, f"{detail['msg']} (found {detail['input']!r})"


def _settings(location: Location) -> list[str]:
    """Return the settings that there are where one was found that is none."""
    if location[0] == "cost_assumptions" and len(location) > 1:
        return sorted(CostAssumptions.model_fields)
    return sorted(set(Library.model_fields) - {"name"})


def _root(path: Path) -> yaml.Node:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigurationError(
            path,
            0,
            CONFIGURATION_VARIABLE,
            f"the file can't be read ({error.strerror}); name one that can, or unset it",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigurationError(path, mark.line + 1 if mark else 1, "libraries", f"is not YAML: {problem}") from error
    if root is None:
        raise ConfigurationError(path, 1, "libraries", "the file is empty; see docs/configuration.md for an example")
    return root


def _value(path: Path, root: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ConfigurationError(path, line, "libraries", f"is not plain YAML: {error}") from error
    finally:
        loader.dispose()


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node, yaml.Node]]:
    """Yield the name of each child, the node that bears the name, and the node of its value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key, value
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield number, value, value


def _line(node: yaml.Node, location: Location) -> int:
    """Return the line of a location, or of the nearest thing around it that stands in the file."""
    line: int = node.start_mark.line + 1
    for part in location:
        for name, bearer, child in _children(node):
            if name == part:
                node, line = child, bearer.start_mark.line + 1
                break
        else:
            break
    return line


def _duplicate_keys(node: yaml.Node, at: Location = ()) -> Iterator[tuple[Location, int]]:
    seen: set[str | int] = set()
    for name, bearer, child in _children(node):
        if name in seen:
            yield (*at, name), bearer.start_mark.line + 1
        seen.add(name)
        yield from _duplicate_keys(child, (*at, name))


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location)
