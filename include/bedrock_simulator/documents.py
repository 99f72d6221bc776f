"""Turns JSON objects into data classes and back, refusing what the class does not declare."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints


class DataClass(Protocol):
    """Any data class."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


Document = TypeVar("Document", bound=DataClass)


def from_document(kind: type[Document], document: object) -> Document:
    """Build a ``kind`` from a JSON object.

    :raises ValueError: if it is not an object, a member is not declared, or a value has another type than declared.
    """
    document = as_object(document, kind.__name__)
    declared = get_type_hints(kind)
    members: dict[str, Any] = {}
    for name, value in document.items():
        if name not in declared:
            raise ValueError(f"{kind.__name__} has no {name!r}; it has {', '.join(sorted(declared))}.")
        try:
            members[name] = convert(declared[name], value)
        except ValueError as error:
            raise ValueError(f"{kind.__name__}.{name}: {error}") from error
    try:
        return kind(**members)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} can't be made of {sorted(members)}: {error}.") from error


def as_object(document: object, name: str) -> dict[str, Any]:
    """Return the document if it is a JSON object.

    :param name: what it is, for the error.
    :raises ValueError: if it is none.
    """
    if not isinstance(document, dict):
        raise ValueError(f"{name} must be a JSON object, not {type(document).__name__}.")  # noqa: TRY004 (bad content)
    return document


def to_document(instance: DataClass) -> dict[str, Any]:
    """Return the instance as a JSON object."""
    return dataclasses.asdict(instance)


def convert(declared: Any, value: object) -> Any:
    """Return the JSON value as the declared type.

    :raises ValueError: if it has another type.
    """
    origin, arguments = get_origin(declared), get_args(declared)
    if origin in (Union, types.UnionType):
        return None if value is None else convert(next(a for a in arguments if a is not type(None)), value)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(convert(arguments[0], item) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(name): convert(arguments[1], item) for name, item in value.items()}
    return _convert_scalar(declared, value)


def _convert_scalar(declared: Any, value: object) -> Any:
    if declared is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is not a finite number")
        return float(value)
    if declared is int and isinstance(value, bool):
        raise ValueError("true and false are not numbers")
    if isinstance(declared, type) and isinstance(value, declared):
        return value
    raise ValueError(f"{value!r} is not of type {getattr(declared, '__name__', declared)}")
