"""A PodList, cut into its items while it comes off the wire: what is held is one item, however long the list is. Pure.

The standard parser takes item after item out of the text. One that is so long that to try it again with each chunk
would take too long has its end found first, by its strings and brackets. Each item is parsed whole, and at the end what
is around them too: a list is taken whole or not at all, as if it had been parsed at once.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Generator, Iterator
from typing import Any, Final, Literal, NamedTuple

from collector.errors import AnswerError, AnswerTooLarge

MOST_ITEM: Final = 2 << 20
"""Characters of the longest item that is parsed, for which Python takes some 20 bytes each for a moment. etcd takes
objects of 1.5 MiB in protobuf, and no honest pod has a third of it: a larger one loses its own name, and no other's."""

MOST_ITEMS: Final = 10_000
"""Items that a list may have. A node has hundreds of pods; a whole cluster (``--source metrics-api``) thousands."""

TOO_LARGE: Final = object()
"""Stands for an item that is longer than :data:`MOST_ITEM`, or nested deeper than the parser goes."""

_MOST_AROUND: Final = 64 << 10
"""Characters around the items: kind, version and metadata have some hundred."""
_CHUNK_BYTES: Final = 64 << 10
_MOST_TRIED: Final = 64 << 10
"""Characters of an item that has no end yet, above which its end is looked for."""
_MOST_FOLDS: Final = 64
"""Depth to which brackets are counted all at once."""

_SPACE = re.compile(r"[ \t\r\n]*")
_MARK = re.compile(r'\\.|["\[\]{},]', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))

_WHAT = "the list of pods"
_NO_LIST = "the answer is no list of pods"

_DECODER = json.JSONDecoder()


class Item(NamedTuple):
    """An item of a list."""

    value: Any
    """As Python has it; :data:`TOO_LARGE` where it is not parsed."""
    length: int
    """Characters that it has as JSON."""


class Cutter:
    """Takes the bytes of one list as they come, and gives its items, parsed.

    Raises :class:`AnswerError` for what is no list of pods, :class:`AnswerTooLarge` for one that cannot be of pods.
    """

    def __init__(self) -> None:
        self.items = 0
        """Items so far."""
        self._bytes = bytearray()
        """What has come since the last whole chunk."""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._around = ""
        """The list without its items."""
        self._state: Literal["before", "first", "next", "after"] = "before"
        """What comes next: the items, the first of them if there is one, another one, or what is after them."""
        self._held = ""
        """What has come of an item that has no end yet."""
        self._long: _Long | None = None
        """It, if it is too long to be tried again."""

    def feed(self, data: bytes) -> Iterator[Item]:
        """The items that end in ``data`` or before."""
        # By chunks of one size, so that nothing depends on how the network cuts them.
        self._bytes += data
        whole = len(self._bytes) // _CHUNK_BYTES * _CHUNK_BYTES
        for begin in range(0, whole, _CHUNK_BYTES):
            yield from self._chunk(self._bytes[begin : begin + _CHUNK_BYTES])
        del self._bytes[:whole]

    def end(self) -> Iterator[Item]:
        """The items that are left. Raises :class:`AnswerError` if the list is not whole by now."""
        yield from self._chunk(self._bytes, last=True)
        if self._state in ("first", "next"):
            raise _not_json(f"it ends in item {self.items + 1}, or that has no end")
        try:
            value = json.loads(self._around, object_pairs_hook=_with_one_list)
        except (ValueError, RecursionError) as error:
            raise _not_json(error) from error
        # null is Go's nil slice. A list without the key is none: a Status, say, must not take all names away.
        if not isinstance(value, dict) or not isinstance(value.get("items", 0), list | None):
            raise AnswerError(_NO_LIST)

    def _chunk(self, data: bytearray, *, last: bool = False) -> Iterator[Item]:
        if self._decoder is None:
            # A list that a person has saved by hand may be in UTF-16, or have a mark of byte order.
            self._decoder = codecs.getincrementaldecoder(json.detect_encoding(data))("surrogatepass")
        try:
            text = self._decoder.decode(data, last)
        except UnicodeError as error:
            raise _not_json(error) from error
        if self._state == "before":
            text = self._before(text)
        if self._state in ("first", "next"):
            text = yield from self._items_of(text)
        if self._state == "after":
            self._keep(text)

    def _before(self, text: str) -> str:
        """Keep what is before the items; the rest of ``text`` where they begin in it."""
        self._around += text
        begins = _begin_of_items(self._around)
        if begins is None:
            if self._around.lstrip(" \t\r\n")[:1] not in ("", "{"):
                raise AnswerError(_NO_LIST)
            self._keep("")
            return ""
        self._state = "first"
        rest, self._around = self._around[begins:], self._around[:begins]
        return rest

    def _keep(self, text: str) -> None:
        self._around += text
        if len(self._around) > _MOST_AROUND:
            raise AnswerTooLarge(f"{_WHAT} has more than {_MOST_AROUND >> 10} KiB around its items")

    def _items_of(self, text: str) -> Generator[Item, None, str]:
        """The items that end in ``text``; gives back what is after the last of the list."""
        at = 0
        if self._long is None:
            text, self._held = self._held + text, ""
        while True:
            if self._long is None:
                begun = _after_space(text, at)
                if self._state == "first" and text[begun : begun + 1] == "]":
                    self._state = "after"
                    return text[begun:]
                value, ends = _tried(text, begun)
                if ends is None:
                    if len(text) - begun <= _MOST_TRIED and value is None:
                        self._held = text[begun:]
                        return ""
                    self._long = _Long(text[begun])
                    at = begun + 1
                    continue
                length = ends - begun
            else:
                ends = self._long.take(text, at)
                if ends is None:
                    return ""
                value, length = self._long.value(self.items + 1), self._long.length
                self._long = None
            self.items += 1
            if self.items > MOST_ITEMS:
                raise AnswerTooLarge(f"{_WHAT} has more than {MOST_ITEMS} items")
            yield Item(value, length)
            if text[ends] == "]":
                self._state = "after"
                return text[ends:]
            if text[ends] != ",":
                raise _not_json(f"{text[ends]!r} after item {self.items}")
            self._state = "next"
            at = ends + 1


class _Long:
    """An item that is read to its end before it is parsed, or is only counted."""

    def __init__(self, first: str) -> None:
        """``first``: its first character."""
        self._parts = [first]
        self.length = 1
        self._depth = int(first in "[{")
        self._in_string = first == '"'
        self._escaped = False

    def take(self, text: str, at: int) -> int | None:
        """Go on with the text from ``at``; where the comma or bracket after the item is, if it is there."""
        part = text[at:]
        ends = None if self._goes_on(part) else self._end(part)
        taken = part if ends is None else part[:ends]
        self.length += len(taken)
        if self.length > MOST_ITEM:
            self._parts = []
        else:
            self._parts.append(taken)
        return None if ends is None else at + ends

    def _goes_on(self, text: str) -> bool:
        """True if the item does not end in ``text``: then the strings and brackets of all of it are counted.

        Without its strings, and without the brackets that close each other, those are left that close earlier ones.
        """
        if not self._depth:
            return False
        bare = (text[1:] if self._escaped else text).replace("\\\\", "").replace('\\"', "")
        parts = bare.split('"')
        outside = "".join(parts[self._in_string :: 2]).encode("ascii", "replace")
        brackets = outside.translate(_ONE_KIND, _NO_BRACKETS)
        for _ in range(_MOST_FOLDS):
            folded = brackets.replace(b"{}", b"")
            if len(folded) == len(brackets):
                break
            brackets = folded
        closing = brackets.count(b"}")
        if b"{}" in brackets or closing >= self._depth:
            return False
        self._depth += len(brackets) - 2 * closing
        self._in_string ^= not len(parts) % 2
        self._escaped = bare.endswith("\\")
        return True

    def _end(self, text: str) -> int | None:
        """The same, one by one."""
        done = 1 if self._escaped else 0
        for mark in _MARK.finditer(text, done):
            done, what = mark.end(), mark[0]
            if what == '"':
                self._in_string = not self._in_string
            elif self._in_string or what[0] == "\\":
                continue
            elif what in "[{":
                self._depth += 1
            elif not self._depth:
                return mark.start()
            elif what != ",":
                self._depth -= 1
        self._escaped = text.endswith("\\") and done < len(text)
        return None

    def value(self, number: int) -> Any:
        """The item, parsed; :data:`TOO_LARGE` for one that is not."""
        if self.length > MOST_ITEM:
            return TOO_LARGE
        try:
            return json.loads("".join(self._parts))
        except RecursionError:
            return TOO_LARGE
        except ValueError as error:
            raise _not_json(f"item {number}: {error}") from error


def _tried(text: str, at: int) -> tuple[Any, int | None]:
    """The item at ``at`` and where the comma or bracket after it is. Without it, the item is ``None`` if more text may
    bring it, :data:`TOO_LARGE` if not.
    """
    try:
        item, ends = _DECODER.raw_decode(text, at)
    except ValueError:
        return None, None
    except RecursionError:
        return TOO_LARGE, None
    ends = _after_space(text, ends)
    return (item, ends) if ends < len(text) else (None, None)


def _begin_of_items(text: str) -> int | None:
    """Where the first of ``items`` is, in the text of an object; ``None`` if they have not begun."""
    at = _after_space(text, 0)
    opening = "{"
    try:
        while text[at : at + 1] == opening:
            key, at = _DECODER.raw_decode(text, _after_space(text, at + 1))
            at = _after_space(text, at)
            if text[at : at + 1] != ":":
                return None
            at = _after_space(text, at + 1)
            if key == "items" and text[at : at + 1] == "[":
                return at + 1
            _, at = _DECODER.raw_decode(text, at)
            at, opening = _after_space(text, at), ","
    except (ValueError, RecursionError):
        pass  # it goes on in the next chunk, or is refused at the end
    return None


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _not_json(why: object) -> AnswerError:
    return AnswerError(f"{_WHAT} is not JSON: {why}")


def _with_one_list(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if sum(key == "items" for key, _ in pairs) > 1:
        raise ValueError("it has items twice")
    return dict(pairs)
