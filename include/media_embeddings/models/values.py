"""Checks of parameter values that models share. Each says what is allowed and where that is documented."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from media_embeddings.models.protocol import ParameterError


@dataclass(frozen=True, slots=True)
class Checker:
    """Checks the parameters of one media type of one model."""

    documentation: str
    """The page that the messages link to."""

    def names(self, given: Mapping[str, Any], allowed: Collection[str], subject: str) -> None:
        """Refuse a parameter that is not allowed here."""
        for name in given:
            if name not in allowed:
                listed = f"allowed are {', '.join(sorted(allowed))}" if allowed else "none is allowed"
                raise self.error(name, f"is not a parameter of {subject}; {listed}")

    def number(
        self,
        given: Mapping[str, Any],
        name: str,
        *,
        least: float,
        most: float | None = None,
        whole: bool = False,
        above: bool = False,
    ) -> int | float | None:
        """Return a number within its range, or None where it is not given.

        :param above: whether the least number itself is not allowed.
        """
        value = given.get(name)
        if value is None:
            return None
        wanted = f"must be {'a whole number' if whole else 'a number'} " + (
            f"from {least:g} to {most:g}"
            if most is not None
            else f"greater than {least:g}"
            if above
            else f"of {least:g} or more"
        )
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise self.error(name, f"{wanted} (found {value!r})")
        # The comparison is this way round so that NaN is refused as well; infinity is no JSON.
        if not least <= value <= (sys.float_info.max if most is None else most) or (above and value == least):
            raise self.error(name, f"{wanted} (found {value!r})")
        return int(value) if whole else float(value)

    def subset(self, given: Mapping[str, Any], name: str, allowed: Sequence[str]) -> list[str]:
        """Return some of the allowed values in the documented order; all of them where none is given."""
        value = given.get(name)
        if value is None:
            return list(allowed)
        if (
            not isinstance(value, (list, tuple))
            or not value
            or any(one not in allowed for one in value)
            or len(set(value)) != len(value)
        ):
            raise self.error(name, f"must be a list of one or more of {', '.join(allowed)} (found {value!r})")
        return [one for one in allowed if one in value]

    def choice(self, given: Mapping[str, Any], name: str, allowed: Sequence[str], default: str) -> str:
        """Return one of the allowed values."""
        value = given.get(name, default)
        if value not in allowed:
            raise self.error(name, f"must be one of {', '.join(allowed)} (found {value!r})")
        return str(value)

    def error(self, name: str, message: str) -> ParameterError:
        """Return the error for a parameter."""
        return ParameterError(name, f"{name} {message}", self.documentation)
