"""A PodList without what podtally does not read: no environment, arguments, annotations and volumes leave this module.

The list stays one: a pod has the same fields at the same places, fewer of them, and ``null`` stands for an item that is
no pod or larger than any honest one, so that it is counted wherever the list is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from collector.errors import AnswerTooLarge
from collector.pods.answer import stripped
from collector.pods.cut import Cutter, Item

MOST_KEPT_BYTES: Final = 8 << 20
"""What is kept of a list: 5,000 usual pods, or 250 of the largest (:data:`collector.pods.answer.MOST_STRIPPED`)."""

_BEGIN, _END = b'{"kind":"PodList","apiVersion":"v1","items":[', b"]}\n"


def is_pod_list(name: str) -> bool:
    """True for the name of an answer that is a list of pods: of the kubelet, of the API server, or of a namespace.

    >>> [is_pod_list(f"{name}/pods.json") for name in ("kubelet", "apiserver/team-a", "metrics-api")]
    [True, True, False]
    """
    return name.startswith(("kubelet/", "apiserver/")) and name.endswith("/pods.json")


class Stripper:
    """Strips one list while it comes. Raises what :class:`collector.pods.cut.Cutter` does."""

    def __init__(self) -> None:
        self._cutter = Cutter()
        self._kept = bytearray(_BEGIN)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._take(self._cutter.feed(data))

    def end(self) -> bytes:
        """The stripped list, as JSON. Raises :class:`collector.errors.AnswerError` if the list is not whole by now."""
        self._take(self._cutter.end())
        return bytes(self._kept + _END)

    def _take(self, items: Iterable[Item]) -> None:
        for item in items:
            self._kept += b",\n" if len(self._kept) > len(_BEGIN) else b"\n"
            self._kept += (stripped(item.value) or "null").encode()
            if len(self._kept) > MOST_KEPT_BYTES:
                raise AnswerTooLarge(f"the list of pods has more than {MOST_KEPT_BYTES >> 20} MiB that podtally reads")


def strip(body: bytes) -> bytes:
    """The same of a list that is there whole."""
    stripper = Stripper()
    stripper.feed(body)
    return stripper.end()
