"""Keys of a kept JSON file, each as what it has to be: what is not is a sentence with the file and the key. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from collector.errors import UsageError

AGAIN: Final = "copy it again from where the run was made"

MOST_NUMBER: Final = 1e18
"""Greater than any number of seconds, bytes, cores or requests that a run can have: what is beyond is damage."""
LATEST_SECONDS: Final = 253_402_300_799.0
"""The last second of the year 9999: a later time has no date."""


def parsed(body: bytes, path: str) -> Fields:
    """The object in a JSON file. Raises :class:`UsageError` if it holds none."""
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is no JSON (line {error.lineno}): {AGAIN}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        # A number of more digits than Python reads, or more brackets than it follows.
        raise UsageError(f"{path} is no JSON that podtally can read: {AGAIN}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} is not as podtally loadtest run writes it: {AGAIN}")
    return Fields(document, path)


class Fields:
    """An object in a file. Each reading raises :class:`UsageError` where the key is not there or is something else."""

    def __init__(self, document: Mapping[str, Any], path: str, within: str = "") -> None:
        """``within``: the key of the object itself, with a dot."""
        self._document = document
        self._path = path
        self._within = within

    def _get(self, key: str) -> Any:
        if key not in self._document:
            raise UsageError(f"{self._path} is not whole, it has no {self._within + key!r}: {AGAIN}")
        return self._document[key]

    def wrong(self, key: str, expected: str) -> NoReturn:
        """Raises what there is to say of a key that is not as expected."""
        raise UsageError(
            f"{self._path} is not as podtally loadtest run writes it, its {self._within + key!r} is not {expected}:"
            f" {AGAIN}"
        )

    def within(self, key: str) -> Fields:
        """An object in it."""
        value = self._get(key)
        if not isinstance(value, dict):
            self.wrong(key, "an object")
        return Fields(value, self._path, f"{self._within}{key}.")

    def text(self, key: str) -> str:
        """A string."""
        value = self._get(key)
        if not isinstance(value, str):
            self.wrong(key, "a string")
        return value

    def text_or_none(self, key: str) -> str | None:
        """A string, or null."""
        return None if self._get(key) is None else self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, one at the least."""
        value = self._get(key)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            self.wrong(key, "a list of strings")
        return tuple(value)

    def text_by_name(self, key: str) -> dict[str, str]:
        """An object whose values are strings."""
        value = self._get(key)
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            self.wrong(key, "an object of strings")
        return value

    def whole(self, key: str) -> int:
        """A whole number."""
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MOST_NUMBER:
            self.wrong(key, "a whole number")
        return value

    def whole_or_none(self, key: str) -> int | None:
        """A whole number, or null."""
        return None if self._get(key) is None else self.whole(key)

    def amount_or_none(self, key: str) -> float | None:
        """A number that is not negative, or null."""
        value = self._get(key)
        if value is None:
            return None
        found = number(value)
        if found is None or found < 0:
            self.wrong(key, "a number of something")
        return found


def number(value: object) -> float | None:
    """A JSON number that something can have been measured to be; ``None`` for NaN, infinity and all else.

    >>> number(3), number(0.5), number(float("nan")), number(10**400), number(True), number("3")
    (3.0, 0.5, None, None, None, None)
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # In this order: a whole number may be too great for a float, and NaN is not below anything.
    return float(value) if abs(value) <= MOST_NUMBER else None
