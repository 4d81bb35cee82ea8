"""Lists of pods, cut into their items as they come: the same as parsed at once, in the memory of one item."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import AnswerError, AnswerTooLarge
from collector.pods import cut
from collector.pods.cut import MOST_ITEMS, TOO_LARGE, Cutter


def cut_all(*parts: bytes) -> list[Any]:
    """The items of a list that comes in these parts."""
    cutter = Cutter()
    found = [item.value for part in parts for item in cutter.feed(part)]
    return found + [item.value for item in cutter.end()]


def in_parts(body: bytes, size: int) -> Iterable[bytes]:
    """The body in parts of one size."""
    return (body[at : at + size] for at in range(0, len(body), size))


def said_at_once(body: bytes) -> list[Any] | None:
    """The items as the standard parser has them; ``None`` if it is no list, or has two."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    items = value.get("items", 0) if isinstance(value, dict) else 0
    return [] if items is None else items if isinstance(items, list) else None


LONG = "x" * 300_000

ITEMS: list[Any] = [
    {"a": [1, {"b": "c"}], "items": [1]},
    {},
    [],
    None,
    7,
    "text",
    'quotes " and \\ and ]},{[',
    "\ud800",
    "\U0001f600 é",
    {"long": LONG, "brackets": "]" * 70_000, "quotes": '\\"' * 70_000},
    {"many": [{"name": "a"}] * 40_000},
    {"deep": [[[[[[[[{"a": [LONG]}]]]]]]]]},
    LONG,
    [LONG, {"k": "v" * 70_001}],
]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_list_is_cut_into_what_it_has(*, indent: int | None, ascii_only: bool) -> None:
    """Short items and long ones, with all that JSON can have in them, are those of the list, in their order."""
    body = json.dumps(
        {"kind": "PodList", "items": ITEMS, "metadata": {"items": [3]}}, indent=indent, ensure_ascii=ascii_only
    ).encode("utf-8", "surrogatepass")

    assert cut_all(body) == ITEMS


@pytest.mark.parametrize("size", [1, 7, 65_535, 65_537])
def test_it_matters_not_how_a_list_comes(size: int) -> None:
    """Parts of any size give the same."""
    items = [{"a": "b\\" * 10}, LONG[:70_000]]

    assert cut_all(*in_parts(json.dumps({"items": items}).encode(), size)) == items


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_a_list_that_was_saved_by_hand_is_read(encoding: str) -> None:
    """What a shell of another system makes of a list is read as it was."""
    assert cut_all(json.dumps({"items": ITEMS[:6]}).encode(encoding)) == ITEMS[:6]


def test_an_item_that_is_too_long_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is kept, and the items around it are there."""
    monkeypatch.setattr(cut, "MOST_ITEM", 300_000)
    long = {"env": [{"name": "a"}] * 30_000}

    assert cut_all(json.dumps({"items": [1, long, "]" * 300_001, 2]}).encode()) == [1, TOO_LARGE, TOO_LARGE, 2]


@pytest.mark.parametrize("deep", [b"[" * 5000 + b"]" * 5000, b'{"a":' * 200_000 + b"1" + b"}" * 200_000])
def test_an_item_that_is_too_deep_is_not_parsed(deep: bytes) -> None:
    """One item that the parser does not go down into takes no names away but its own."""
    assert cut_all(b'{"items": [1, %s, 2]}' % deep) == [1, TOO_LARGE, 2]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"<html>",
        b'{"items": 0}',
        b'{"items": false}',
        b'{"items": ""}',
        b'{"items": {}}',
        b'{"items": [1], "items": [2]}',
        b'{"items": [1], "items": null}',
        b'{"items": [1,]}',
        b'{"items": [,1]}',
        b'{"items": [1 2]}',
        b'{"items": [1}',
        b'{"items": [1]',
        b'{"items": [1]}}',
        b'{"items": [1]} {}',
        b'{"items": [{"a": [1}]}]}',
        b'{"items": ["\xff\xfe"]}',
        b'{"items": [' + b"9" * 5000 + b"]}",
        b'{"items": [1], "a": tru}',
        b'{"items": [' + b'{"a": "b"}, ' * 50 + b'{"a": }, {}]}',
        b'{"items": [' + b'{"a": "b"}, ' * 50 + b'{"a": ',
        b'{"items": [{"a": "' + b"x" * 400_000 + b'", }]}',
        b'{"items": [{"a": "' + b"x" * 400_000,
    ],
    ids=lambda body: str(body[-24:]),
)
def test_half_a_list_is_none(body: bytes) -> None:
    """What is no list, breaks off, or is malformed anywhere, is refused as a whole."""
    with pytest.raises(AnswerError):
        cut_all(body)


@pytest.mark.parametrize("body", [b'{"items": null}', b'{"items": []}', b' { "kind" : "PodList" , "items" : [ ] } '])
def test_a_list_of_nothing_is_one(body: bytes) -> None:
    """Go writes a list without items as null."""
    assert cut_all(body) == []


def test_a_key_is_known_however_it_is_written() -> None:
    """An escape in a key is legal, if nobody writes it so."""
    assert cut_all(b'{"\\u0069tems": [1]}') == [1]


def test_a_list_has_a_bound_of_items() -> None:
    """More than a cluster has is not read on."""
    with pytest.raises(AnswerTooLarge, match=f"more than {MOST_ITEMS} items"):
        cut_all(b'{"items": [' + b"1," * MOST_ITEMS + b"1]}")


@pytest.mark.parametrize("body", [b'{"a": "' + b"x" * 200_000, b'{"items": [1]' + b" " * 200_000])
def test_what_is_around_the_items_has_a_bound(body: bytes) -> None:
    """It is held until the end, and so has a size."""
    with pytest.raises(AnswerTooLarge, match="64 KiB around its items"):
        cut_all(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(['"', "\\", "]}", '\\"']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(JSON, max_size=5), st.integers(0, 80), st.binary(max_size=2), st.integers(1, 9))
def test_mutated_lists_are_what_they_are_at_once(items: list[Any], at: int, put: bytes, size: int) -> None:
    """Whatever bytes are changed, the cutter takes what the parser takes, and refuses what it refuses."""
    body = json.dumps({"items": items}).encode()
    body = body[:at] + put + body[at + len(put) :]
    expected = said_at_once(body)
    if expected is not None and body.count(b'"items"') > 1:
        return

    with pytest.MonkeyPatch.context() as patch:
        # Chunks of some bytes, and items that are long from the third byte on.
        patch.setattr(cut, "_CHUNK_BYTES", size)
        patch.setattr(cut, "_MOST_TRIED", 2)
        try:
            found: list[Any] | None = cut_all(body)
        except AnswerError:
            found = None

    assert found == expected
