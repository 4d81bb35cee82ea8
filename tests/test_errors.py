"""The error tree, and the one function that gives errnos a meaning."""

from __future__ import annotations

import errno
import re
from typing import get_args

import pytest

from collector import errors
from collector.errors import (
    Absent,
    Denied,
    Exhausted,
    Gone,
    Operation,
    ParseError,
    PodtallyError,
    ReadFailed,
    SourceError,
    classify,
)

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

MEANINGS: dict[int, tuple[type[SourceError], type[SourceError], type[SourceError]]] = {
    # when opening a directory, when opening a file, when reading
    errno.ENODEV: (Gone, Gone, Gone),
    errno.ENOENT: (Gone, Absent, Absent),
    errno.ENOTDIR: (Gone, Absent, Absent),
    errno.EOPNOTSUPP: (Absent, Absent, Absent),
    errno.ENOTSUP: (Absent, Absent, Absent),
    errno.ENOSYS: (Absent, Absent, Absent),
    errno.EISDIR: (Absent, Absent, Absent),
    errno.ESRCH: (Absent, Absent, Absent),
    errno.ENXIO: (Absent, Absent, Absent),
    errno.EACCES: (Denied, Denied, Denied),
    errno.EPERM: (Denied, Denied, Denied),
    errno.EMFILE: (Exhausted, Exhausted, Exhausted),
    errno.ENFILE: (Exhausted, Exhausted, Exhausted),
    errno.ENOMEM: (Exhausted, Exhausted, Exhausted),
    errno.EIO: (ReadFailed, ReadFailed, ReadFailed),
    errno.EINTR: (ReadFailed, ReadFailed, ReadFailed),
    errno.EAGAIN: (ReadFailed, ReadFailed, ReadFailed),
    errno.EINVAL: (ReadFailed, ReadFailed, ReadFailed),
    errno.ELOOP: (ReadFailed, ReadFailed, ReadFailed),
    errno.ENAMETOOLONG: (ReadFailed, ReadFailed, ReadFailed),
    0: (ReadFailed, ReadFailed, ReadFailed),
}


def below(kind: type[PodtallyError]) -> list[type[PodtallyError]]:
    """A class and all its subclasses."""
    return [kind, *(further for one in kind.__subclasses__() for further in below(one))]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("number", MEANINGS, ids=lambda number: errno.errorcode.get(number, str(number)))
def test_an_errno_has_one_meaning_for_each_operation(number: int, operation: Operation) -> None:
    """Each errno of each operation is the class that the table says."""
    assert type(classify(number, "a/b", operation)) is MEANINGS[number][OPERATIONS.index(operation)]


@pytest.mark.parametrize("number", sorted(errno.errorcode.keys() - MEANINGS.keys()))
def test_an_errno_without_a_rule_is_a_failed_read(number: int) -> None:
    """Every errno that the table does not name is ReadFailed, so that nothing is forgiven unseen."""
    assert type(classify(number, "a", "read")) is ReadFailed


def test_a_source_error_says_path_and_why() -> None:
    """The message is the path and the system's words, and both parts are kept."""
    error = classify(errno.EACCES, "kubepods/x/cpu.stat", "file")
    assert (str(error), error.path, error.errno) == (
        "kubepods/x/cpu.stat: Permission denied",
        "kubepods/x/cpu.stat",
        errno.EACCES,
    )


def test_a_parse_error_shows_no_more_than_eighty_bytes_of_its_line() -> None:
    """A line as long as a file does not become a log line as long as a file."""
    assert str(ParseError("p/cpu.stat", b"x" * 500)) == f"p/cpu.stat: malformed line {b'x' * 80!r}"


def test_the_tree_in_the_docstring_names_every_class_below_its_base() -> None:
    """The tree at the top of errors.py has each class once, indented below the one that it derives from."""
    drawn: list[tuple[str, str | None]] = []
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    (?P<bars>[│├└─ ]*)(?P<name>[A-Z]\w+)(?:\(|\s|$)", line)
        if match is None:
            continue
        depth = len(match["bars"]) // 4
        del above[depth:]
        drawn.append((match["name"], above[-1] if above else None))
        above.append(match["name"])
    true = [
        (one.__name__, one.__bases__[0].__name__ if one is not PodtallyError else None) for one in below(PodtallyError)
    ]
    assert sorted(drawn, key=str) == sorted(true, key=str)


def test_each_reason_is_a_class_of_its_own() -> None:
    """No two classes share a reason, as it is the value of a label."""
    reasons = [one.reason for one in below(PodtallyError)]
    assert len(set(reasons)) == len(reasons)


def test_each_class_says_what_is_done_about_it() -> None:
    """Every class of the tree has a docstring of its own."""
    assert [one.__name__ for one in below(PodtallyError) if not one.__dict__.get("__doc__")] == []
