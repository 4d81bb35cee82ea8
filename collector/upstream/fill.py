"""``--fill-from summary``: pods that cgroups tell nothing of take the kubelet's own numbers. No I/O, no clock.

What is withheld as ``sandboxed``, or as ``missing_container`` where no running container of the pod has a leaf, is not
to be had from cgroups at all. The kubelet may know it from the runtime: what its ``/stats/summary`` says of all running
containers takes the place of what is absent, marked as such. One that it does not know either stays withheld.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from collector.metrics.account import Account
from collector.model import NOT_NEEDED, Answer, PodTally, Reason, Tally, Upstream
from collector.upstream.collect import SUMMARY, Heard
from collector.upstream.join import At, tally_pod
from collector.upstream.samples import PodSample, Snapshot

STALE_AFTER_NS: Final = 120_000_000_000
"""How long what the kubelet said last is of use while it does not answer, and how old a sample may be: as long as
``--stale-after`` without being told."""

_KIND: Final = replace(
    SUMMARY,
    hints={403: "podtally's account needs get on nodes/stats, as daemonset/overlays/fill-from-summary gives it"},
)


def is_untold(pod: PodTally) -> bool:
    """Whether nothing in cgroups can tell of a running pod: its work is in a sandbox, or none of its containers has a
    leaf. Of one of which a part is there the rest may yet come.
    """
    reason = pod.account.reason
    if reason is None or pod.pod.phase != "Running":
        return False
    return reason == "sandboxed" or (reason == "missing_container" and not pod.containers)


def fill(tally: Tally, snapshot: Snapshot, stale_after_ns: int) -> Tally:
    """The tally with those pods filled of whose running containers the snapshot, its rates settled, has a whole sample
    that is not older than ``stale_after_ns``.
    """
    samples = {sample.uid: sample for sample in snapshot.pods}
    at = At(tally.instant, tally.instant.time_ns - stale_after_ns)
    left: Counter[Reason] = Counter(tally.incomplete)
    pods: list[PodTally] = []
    for pod in tally.pods:
        reason, sample = pod.account.reason, samples.get(pod.pod.uid)
        filled = _filled(at, pod, sample) if sample is not None and is_untold(pod) else None
        if filled is not None and reason is not None:
            left[reason] -= 1
        pods.append(filled or pod)
    return replace(tally, pods=tuple(pods), incomplete=+left)


def _filled(at: At, pod: PodTally, sample: PodSample) -> PodTally | None:
    told = tally_pod(at, pod.pod, sample, "summary")
    if told.account.reason is not None or not told.containers:
        return None
    if not pod.cgroup.path:
        return told
    return pod._replace(
        cpu_cores=told.cpu_cores,
        memory_bytes=told.memory_bytes,
        # The pod's own cgroup stays as it was read here: what is apart from it in time has no difference to it.
        overhead_cpu_cores=None,
        account=told.account,
        containers=told.containers,
        sample=told.sample,
        source=told.source,
        told=told.reading,
    )


class Filling:
    """Fills tally after tally from the answers that come in with them."""

    def __init__(
        self, account: Account, want: Callable[[], None] = lambda: None, *, stale_after_ns: int = STALE_AFTER_NS
    ) -> None:
        """``want`` is called at each tick with a pod that has to be filled: the kubelet is asked for no others."""
        self._account = account
        self._want = want
        self._stale_after_ns = stale_after_ns
        self._heard = Heard(kind=_KIND)

    def fill(self, tally: Tally, answers: Iterable[Answer]) -> Tally:
        """The tally with what could be filled, and how the kubelet answers."""
        heard = self._heard
        for answer in answers:
            if answer.name == heard.kind.answer:
                heard.hear(answer, self._account)
        if heard.is_before(tally.instant.time_ns - self._stale_after_ns):
            heard.forget()
        needed = any(is_untold(pod) for pod in tally.pods)
        if needed:
            self._want()
            tally = fill(tally, heard.snapshot, self._stale_after_ns)
        upstream = Upstream(
            peer=heard.kind.peer,
            state=heard.state if needed else NOT_NEEDED,
            answered_ns=heard.answered_ns,
            stale_after_ns=self._stale_after_ns,
        )
        return replace(tally, fill=upstream)
