"""``docs/why-numbers-differ.md``: the wrong ways to read a pod's CPU and memory, each with what it gives on a recording.

Every number is computed here from the recordings; the prose stands beside the computation. Where Prometheus is
installed, a test puts each PromQL line of the page to it and runs each command of the page.
"""

from __future__ import annotations

import json
import re
import statistics
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

from collector.metrics.text import number, timestamp
from collector.model import ContainerTally, PodTally
from collector.parity.resource import Owner
from collector.upstream.quantity import quantity
from docs.recorded import (
    CADVISOR_PAGE,
    RESOURCE_PAGE,
    ROOT,
    Recorded,
    instant,
    irate,
    rate,
    recorded,
    select,
    total,
)

MIB = 1024 * 1024

COMPOSE = Owner("social", "compose-post-service-5b5567474b-lgcz9", "compose-post-service")
NGINX = Owner("social", "nginx-thrift-7dcbb7fc87-xt6bd", "nginx-thrift")
EXPORTER = NGINX._replace(container="exporter")
USER_TIMELINE = Owner("social", "user-timeline-service-df4d786f8-nnbtl", "user-timeline-service")
PAGECACHE = Owner("team-c", "pagecache", "main")
TMPFS = Owner("team-c", "tmpfs", "main")

CPU_SECONDS = "container_cpu_usage_seconds_total"
WORKING_SET = "container_memory_working_set_bytes"

Verdict = Literal["wrong", "right", "also"]


class Row(NamedTuple):
    """A number of the page: cores, bytes, seconds or a count, as ``shown`` says."""

    what: str
    value: float
    shown: str
    where: str
    verdict: Verdict


class Query(NamedTuple):
    """A PromQL expression and what it gives at a time, over the samples of a recording."""

    promql: str
    recording: str
    source: Literal["podtally", "cadvisor"]
    """What was scraped: the replay's ``/metrics``, or the kubelet's ``/metrics/cadvisor``."""
    time_ms: int
    value: float


class Again(NamedTuple):
    """Commands that show the page's numbers again, and what they print."""

    commands: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongWay:
    """A section of the page."""

    title: str
    see: str
    """What the reader sees, for the table at the page's head."""
    written: str
    """What people write, fenced."""
    rows: tuple[Row, ...]
    why: str
    instead: str
    """What to write, fenced."""
    queries: tuple[Query, ...] = ()
    again: tuple[Again, ...] = ()

    @property
    def anchor(self) -> str:
        """The heading's anchor as GitHub makes it."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")

    def of(self, verdict: Verdict) -> list[Row]:
        """The rows of a verdict."""
        return [row for row in self.rows if row.verdict == verdict]


# --- numbers as the page shows them ---------------------------------------------------------------------------------


def millicores(value: float) -> str:
    """Cores, in kubectl top's unit, with what it rounds away."""
    return f"{value * 1000:.1f}m"


def mebibytes(value: float) -> str:
    """Bytes, likewise."""
    return f"{value / MIB:.2f}Mi" if value < 10 * MIB else f"{value / MIB:.1f}Mi"


def cpu(what: str, value: float, where: str, verdict: Verdict) -> Row:
    """A row of cores."""
    return Row(what, value, millicores(value), where, verdict)


def memory(what: str, value: float, where: str, verdict: Verdict) -> Row:
    """A row of bytes."""
    return Row(what, value, mebibytes(value), where, verdict)


def printed(what: str, text: str, where: str, verdict: Verdict) -> Row:
    """A row that kubectl top printed."""
    return Row(what, float(quantity(text)), text, where, verdict)


def off(wrong: float, right: float) -> str:
    """How far a wrong number is from the right one.

    >>> off(3, 1), off(1, 12), off(1.3, 1), off(0.6, 1), off(1, 0)
    ('3.0x', '1/12', '+30%', '-40%', '')
    """
    if wrong == 0 or right == 0:
        return ""
    ratio = max(wrong / right, right / wrong)
    if ratio >= 1.95:
        return f"{ratio:.{0 if ratio >= 9.95 else 1}f}x" if wrong > right else f"1/{ratio:.0f}"
    return f"{(wrong / right - 1) * 100:+.0f}%"


def fenced(language: str, text: str) -> str:
    """A code block."""
    return f"```{language}\n{text.strip()}\n```"


def wrapped(text: str) -> str:
    """Prose, its lines broken anew, as they hold computed numbers; tables and code stay as they are."""
    parts = re.split(r"\n{2,}", text.strip())
    return "\n\n".join(
        part
        if part.startswith(("|", "```"))
        else textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False)
        for part in parts
    )


def place(recording: Recorded, frame: int, what: str = "") -> str:
    """Where a number is from."""
    return f"`{recording.name}` frame {frame:04d}{f', {what}' if what else ''}"


# --- what the ways below look up ------------------------------------------------------------------------------------


def pod_of(recording: Recorded, frame: int, owner: Owner) -> PodTally:
    """The pod in the frame's tally."""
    (found,) = [
        one
        for one in recording.tallies[frame].pods
        if (one.pod.namespace, one.pod.name) == (owner.namespace, owner.pod)
    ]
    return found


def container_of(recording: Recorded, frame: int, owner: Owner) -> ContainerTally:
    """The container in the frame's tally."""
    (found,) = [one for one in pod_of(recording, frame, owner).containers if one.container.name == owner.container]
    return found


def known(value: float | None) -> float:
    """A number that the recording has; that it has it is what the page is about."""
    assert value is not None
    return value


def archive(recording: Recorded) -> str:
    """The recording's path in the repository."""
    return recording.file.relative_to(ROOT).as_posix()


def unpack(recording: Recorded, frame: int | str, end: str) -> str:
    """The command that prints the file of a frame whose path ends so."""
    number_ = f"{frame:04d}" if isinstance(frame, int) else frame
    return f'tar -xOf {archive(recording)} --wildcards "*/frames/{number_}/{end}"'


def leaf_pattern(one: ContainerTally, file: str) -> str:
    """The end of a file's path in a container's cgroup, its id cut short."""
    return f"*-{one.container.container_id[:12]}*.scope/{file}"


def replayed_line(recording: Recorded, frame: int, name: str, owner: Owner, value: float) -> Again:
    """The command that prints a pod's line of a frame's ``/metrics``, and the line."""
    stamp = timestamp(recording.tallies[frame].instant.time_ns, openmetrics=True)
    return Again(
        f"podtally replay {archive(recording)} --openmetrics - |\n"
        f"  grep -E '^{name}.*{owner.pod}.* {stamp.partition('.')[0]}[.]'",
        f'{name}{{namespace="{owner.namespace}",pod="{owner.pod}"}} {number(value)} {stamp}',
    )


def cadvisor_sum(
    name: str, recording: Recorded, frame: int, matchers: str, range_seconds: int | None = None, by: str = "pod"
) -> Query:
    """The sum over cAdvisor's rows of a name: of their values, or of their rates over a range.

    ``matchers`` as in PromQL, of which ``=`` and ``!=`` are known.
    """
    labels = {label: unlike.replace("=", "") + value for label, unlike, value in _MATCHER.findall(matchers)}
    time_ms = recording.time_ms(frame)
    found = select(recording.cadvisor, name, **labels)
    if range_seconds is None:
        value = total(instant(values, time_ms) for values in found)
        promql = f"sum by ({by}) ({name}{{{matchers}}})"
    else:
        value = total(rate(values, time_ms, range_seconds) for values in found)
        promql = f"sum by ({by}) (rate({name}{{{matchers}}}[{range_seconds}s]))"
    return Query(promql, recording.name, "cadvisor", time_ms, value)


_MATCHER = re.compile(r'(\w+)(!?=)"([^"]*)"')


def resource_memory(recording: Recorded, frame: int, namespace: str, pod: str = '[^"]+') -> float:
    """Working sets of the containers on the kubelet's ``/metrics/resource``, which metrics-server passes on unchanged."""
    rows = re.findall(
        rf'^{WORKING_SET}\{{container="[^"]+",namespace="{namespace}",pod="{pod}"\}} (\S+)',
        recording.answer(frame, RESOURCE_PAGE) or "",
        re.MULTILINE,
    )
    return total(map(float, rows))


# --- the wrong ways -------------------------------------------------------------------------------------------------


def sidecar() -> WrongWay:
    """A sidecar reads its own ``/sys/fs/cgroup``."""
    parity, first, last = recorded("parity-1hz"), 133, 148
    one = container_of(parity, last, EXPORTER)
    stats = [parity.cgroup_file(frame, f"{one.leaf.path}/cpu.stat").splitlines()[0] for frame in (first, last)]
    used = [int(line.split()[1]) for line in stats]
    seconds = (parity.time_ms(last) - parity.time_ms(first)) / 1000
    top = parity.kubectl_top(last)
    both = float(quantity(top[NGINX].cpu) + quantity(top[EXPORTER].cpu))
    pod = known(pod_of(parity, last, NGINX).cpu_cores)
    return WrongWay(
        title="A sidecar's own cgroup",
        see="Far less CPU than `kubectl top`, from a sidecar or an exporter that runs in the pod",
        written=fenced(
            "sh", "cat /sys/fs/cgroup/cpu.stat    # in a sidecar of the pod; usage_usec, and again 15 s later"
        ),
        rows=(
            cpu(
                "the sidecar `exporter`, of itself",
                (used[1] - used[0]) / 1e6 / seconds,
                place(parity, last, f"since {first:04d}"),
                "wrong",
            ),
            Row(
                f"`kubectl top --containers`: `nginx-thrift` {top[NGINX].cpu} and `exporter` {top[EXPORTER].cpu}",
                both,
                f"{both * 1000:.0f}m",
                place(parity, last),
                "right",
            ),
            cpu("podtally, `pod_cpu_usage_cores`", pod, place(parity, last), "right"),
        ),
        why="""
A container that is not privileged has a cgroup namespace of its own: what it sees as `/sys/fs/cgroup` is the leaf that the
runtime made for it, not the pod. The sidecar measures what measuring costs. The pod's cgroup is above that root, and to be
seen on the node alone.""",
        instead=fenced("promql", f'pod_cpu_usage_cores{{namespace="social", pod="{NGINX.pod}"}}'),
        again=(
            Again(
                f"for frame in {first:04d} {last:04d}; do\n  "
                + unpack(parity, "$frame", leaf_pattern(one, "cpu.stat"))
                + " |\n    grep usage_usec\ndone",
                "\n".join(stats),
            ),
            replayed_line(parity, last, "pod_cpu_usage_cores", NGINX, pod),
        ),
    )


def unlabelled_rows() -> WrongWay:
    """Sums over cAdvisor's ``container=""`` rows."""
    recording, frame = recorded("cgroupfs-containerd"), 7
    burner, tmpfs = 'namespace="team-b", pod="burner"', 'namespace="team-c", pod="tmpfs"'
    named = ', container!=""'
    wrong = cadvisor_sum(CPU_SECONDS, recording, frame, burner, 60)
    not_pod = cadvisor_sum(CPU_SECONDS, recording, frame, burner + ', container!="POD"', 60)
    right = cadvisor_sum(CPU_SECONDS, recording, frame, burner + named, 60)
    wrong_memory = cadvisor_sum(WORKING_SET, recording, frame, tmpfs)
    right_memory = cadvisor_sum(WORKING_SET, recording, frame, tmpfs + named)
    page = recording.answer(frame, CADVISOR_PAGE) or ""
    rows = re.findall(rf'^{WORKING_SET}.container="([^"]*)".*pod="tmpfs". (\S+)', page, re.MULTILINE)
    return WrongWay(
        title="Rows without a container",
        see="Twice as much CPU or memory as `kubectl top`",
        written=fenced("promql", f"{wrong.promql}\n{wrong_memory.promql}"),
        rows=(
            cpu("CPU of `burner`, all rows", wrong.value, place(recording, frame), "wrong"),
            cpu('likewise, `container!="POD"`', not_pod.value, place(recording, frame), "wrong"),
            cpu('`container!=""`', right.value, place(recording, frame), "right"),
            cpu(
                "podtally, `pod_cpu_usage_cores`",
                known(pod_of(recording, frame, Owner("team-b", "burner", "burn")).cpu_cores),
                place(recording, frame),
                "right",
            ),
            memory("memory of `tmpfs`, all rows", wrong_memory.value, place(recording, frame), "wrong"),
            memory('`container!=""`', right_memory.value, place(recording, frame), "right"),
            memory(
                "podtally, `pod_memory_usage_bytes`",
                known(pod_of(recording, frame, TMPFS).memory_bytes),
                place(recording, frame),
                "right",
            ),
        ),
        why="""
The kubelet's `/metrics/cadvisor` has a row for each container, one for the pod's cgroup, which holds them all, and one for
the sandbox. The latter two have `container=""`, so a sum over a pod counts everything twice. `container!="POD"` is of the
days of dockershim: with containerd no row bears that name, and the filter leaves nothing out. Without `pod=` it is worse:
the rows of the QoS slices, of `kubepods` and of `/` come on top.""",
        instead=fenced("promql", f"{right.promql}\n{right_memory.promql}"),
        queries=(wrong, not_pod, right, wrong_memory, right_memory),
        again=(
            Again(
                unpack(recording, frame, CADVISOR_PAGE)
                + " |\n"
                + rf"""  sed -nE 's/^{WORKING_SET}.container="([^"]*)".*pod="tmpfs". ([^ ]*) .*/\1 \2/p' | sed 's/^ /- /'""",
                "\n".join(f"{container or '-'} {value}" for container, value in rows),
            ),
        ),
    )


def sandbox() -> WrongWay:
    """Counts the pause container, as ``image!=""`` does."""
    recording, frame = recorded("systemd-containerd"), 7
    matchers = 'namespace="team-c", pod="hostnet"'
    wrong = cadvisor_sum(WORKING_SET, recording, frame, matchers + ', image!=""')
    right = cadvisor_sum(WORKING_SET, recording, frame, matchers + ', container!=""')
    time_ms = recording.time_ms(frame)
    sizes = [
        (total([instant(values, time_ms)]), dict(series.labels)["pod"])
        for series, values in recording.cadvisor.items()
        if series.name == WORKING_SET and "/pause:" in dict(series.labels)["image"]
    ]
    largest, its_pod = max(sizes)
    return WrongWay(
        title="The sandbox counted in",
        see="Some 0.2Mi a pod too much, twice the memory of a tiny pod",
        written=fenced("promql", wrong.promql),
        rows=(
            memory("memory of `hostnet`, with the pause container", wrong.value, place(recording, frame), "wrong"),
            memory('`container!=""`', right.value, place(recording, frame), "right"),
            memory(
                "the kubelet's `/metrics/resource`",
                resource_memory(recording, frame, "team-c", "hostnet"),
                place(recording, frame),
                "right",
            ),
            memory(
                f"median of {len(sizes)} sandboxes",
                statistics.median(size for size, _ in sizes),
                place(recording, frame),
                "also",
            ),
            memory(f"the largest, of `{its_pod}`, sampled at its start", largest, place(recording, frame), "also"),
        ),
        why="""
Each pod has a pause container, the sandbox, which is in no status and which kubectl top never counts. Its cgroup looks like
any container's, so a sum over the leaves below a pod's cgroup has it too; and its row has an image, so `image!=""`, a
filter of many old dashboards, lets it in while it keeps the pod's own row out. It hardly uses CPU after its first second,
but while the runtime starts it, the runtime is in its cgroup, and a sample taken then stands until the next.""",
        instead=fenced("promql", right.promql),
        queries=(wrong, right),
    )


def memory_current() -> WrongWay:
    """Reads ``memory.current``, or ``container_memory_usage_bytes``."""
    parity, frame = recorded("parity-1hz"), 148
    one = container_of(parity, frame, PAGECACHE)
    usage = int(parity.cgroup_file(frame, f"{one.leaf.path}/memory.current"))
    (inactive,) = re.findall(
        r"^inactive_file \d+$", parity.cgroup_file(frame, f"{one.leaf.path}/memory.stat"), re.MULTILINE
    )
    small = container_of(
        parity, frame, Owner("social", "post-storage-service-775fc7fdc5-sg6vp", "post-storage-service")
    )
    recording = recorded("systemd-containerd")
    matchers = 'namespace="team-c", pod="pagecache", container!=""'
    query = cadvisor_sum("container_memory_usage_bytes", recording, 7, matchers)
    right = cadvisor_sum(WORKING_SET, recording, 7, matchers)
    return WrongWay(
        title="`memory.current` in place of the working set",
        see="More memory than `kubectl top`, the more the longer the pod reads and writes files",
        written=fenced("sh", "cat /sys/fs/cgroup/memory.current") + "\n\n" + fenced("promql", query.promql),
        rows=(
            memory("`memory.current` of `pagecache`", usage, place(parity, frame), "wrong"),
            printed("`kubectl top`", parity.kubectl_top(frame)[PAGECACHE].memory, place(parity, frame), "right"),
            memory("podtally, `pod_memory_usage_bytes`", known(one.memory_bytes), place(parity, frame), "right"),
            memory("`container_memory_usage_bytes`", query.value, place(recording, 7), "wrong"),
            memory(f"`{WORKING_SET}`", right.value, place(recording, 7), "right"),
            memory(
                "`memory.current` of `post-storage-service`",
                known(small.reading.memory_current_bytes),
                place(parity, frame),
                "wrong",
            ),
            memory("podtally, `pod_memory_usage_bytes`", known(small.memory_bytes), place(parity, frame), "right"),
        ),
        why="""
`memory.current` counts the page cache: files that were read or written once and that the kernel drops as soon as somebody
needs the memory. The working set, which kubectl top prints and by which the kubelet evicts, is `memory.current` minus
`inactive_file` of `memory.stat`. It is no perfect measure of need either: `active_file` stays in it.""",
        instead=fenced("promql", f'pod_memory_usage_bytes{{namespace="team-c", pod="pagecache"}}\n{right.promql}'),
        queries=(query, right),
        again=(
            Again(
                unpack(parity, frame, leaf_pattern(one, "memory.current"))
                + "\n"
                + unpack(parity, frame, leaf_pattern(one, "memory.stat"))
                + " | grep ^inactive_file",
                f"{usage}\n{inactive}",
            ),
        ),
    )


def resident() -> WrongWay:
    """Reads the anonymous memory, as ``ps`` and ``container_memory_rss`` do."""
    parity, frame, recording = recorded("parity-1hz"), 148, recorded("systemd-containerd")
    matchers = 'namespace="team-c", pod="tmpfs", container!=""'
    query = cadvisor_sum("container_memory_rss", recording, 7, matchers)
    right = cadvisor_sum(WORKING_SET, recording, 7, matchers)
    one = container_of(parity, frame, TMPFS)
    stat = parity.cgroup_file(frame, f"{one.leaf.path}/memory.stat").splitlines()
    lines = [line for line in stat if line.split()[0] in ("anon", "shmem")]
    return WrongWay(
        title="RSS in place of the working set",
        see="Less memory than `kubectl top`, from `ps`, `container_memory_rss` or a language's own statistics",
        written=fenced("promql", query.promql),
        rows=(
            memory("`container_memory_rss` of `tmpfs`", query.value, place(recording, 7), "wrong"),
            memory(f"`{WORKING_SET}`", right.value, place(recording, 7), "right"),
            memory("`anon` of its container `main`", int(lines[0].split()[1]), place(parity, frame), "wrong"),
            printed("`kubectl top` of `main`", parity.kubectl_top(frame)[TMPFS].memory, place(parity, frame), "right"),
            memory("podtally, the same container", known(one.memory_bytes), place(parity, frame), "right"),
        ),
        why=f"""
The pod has written {int(lines[1].split()[1]) / MIB:.0f} MiB into an `emptyDir` of `medium: Memory`. No process has that in its RSS, but it is memory: it is
charged, as `shmem`, to the container that wrote it, it counts against its limit, and it is in the working set. When that
container ends, its cgroup goes and the charge moves up to the pod, where no sum over containers finds it:
`pod_overhead_memory_bytes` then shows it.""",
        instead=fenced("promql", f'pod_memory_usage_bytes{{namespace="team-c", pod="tmpfs"}}\n{right.promql}'),
        queries=(query, right),
        again=(
            Again(
                unpack(parity, frame, leaf_pattern(one, "memory.stat")) + " | grep -E '^(anon|shmem) '",
                "\n".join(lines),
            ),
        ),
    )


class Answer(NamedTuple):
    """A recorded answer of the metrics API beside what else can be said at its window's end."""

    frame: int
    end_ms: int
    window_seconds: float
    top: str
    api_cores: float
    ours_cores: float
    rates: tuple[Query, ...]


@cache
def compose_answers() -> tuple[Answer, ...]:
    """Each different answer for ``compose-post-service`` whose window is known and is covered by a minute of frames."""
    parity = recorded("parity-1hz")
    found: dict[int, Answer] = {}
    for frame in parity.frames_with("metrics-api/pods.json"):
        usage = parity.metrics_api(frame).get(COMPOSE)
        span = usage and parity.exact_span(COMPOSE, usage)
        if usage is None or span is None or span.end_ms - 60_000 < parity.time_ms(0) or span.end_ms in found:
            continue
        rates = tuple(compose_query("rate", rate, seconds, span.end_ms) for seconds in (30, 60))
        found[span.end_ms] = Answer(
            frame,
            span.end_ms,
            (span.end_ms - span.start_ms) / 1000,
            parity.kubectl_top(frame)[COMPOSE].cpu,
            usage.cpu_cores,
            parity.cores_over(COMPOSE, span),
            rates,
        )
    return tuple(found.values())


def compose_query(
    name: str, function: Callable[[list[tuple[int, float]], int, float], float | None], seconds: int, time_ms: int
) -> Query:
    """A rate of ``compose-post-service`` by podtally's counter."""
    name_ = "pod_container_cpu_usage_seconds_total"
    parity = recorded("parity-1hz")
    (values,) = select(parity.counters, name_, pod=COMPOSE.pod)
    promql = f'{name}({name_}{{namespace="social", pod="{COMPOSE.pod}"}}[{seconds}s])'
    return Query(promql, parity.name, "podtally", time_ms, known(function(values, time_ms, seconds)))


def rate_window() -> WrongWay:
    """``rate()`` over a window of another length."""
    parity = recorded("parity-1hz")
    answers = compose_answers()
    last, other = answers[-1], min(answers, key=lambda one: one.api_cores)
    recording, frame, seconds = recorded("cgroupfs-containerd"), 7, 30
    time_ms = recording.time_ms(frame)
    running = {one.container.container_id for pod in recording.tallies[frame].pods for one in pod.containers}
    rows = [
        rate(values, time_ms, seconds)
        for series, values in recording.cadvisor.items()
        if series.name == CPU_SECONDS and dict(series.labels)["name"] in running
    ]
    minute, half = last.rates[1], last.rates[0]
    table = "\n".join(
        f"| {one.end_ms / 1000:.3f} | {one.window_seconds:.1f} s | {one.top} | {millicores(one.ours_cores)}"
        f" | {millicores(one.rates[0].value)} | {millicores(one.rates[1].value)} |"
        for one in answers
    )
    return WrongWay(
        title="`rate()` over a window of another length",
        see="CPU jumps in `kubectl top` and is smooth in Grafana, or the other way round",
        written=fenced("promql", minute.promql),
        rows=(
            cpu(
                "`rate(...[60s])` at the end of kubectl top's window", minute.value, place(parity, last.frame), "wrong"
            ),
            cpu("`rate(...[30s])`", half.value, place(parity, last.frame), "wrong"),
            printed(f"`kubectl top`, over {last.window_seconds:.1f} s", last.top, place(parity, last.frame), "right"),
            cpu("podtally over the same window", last.ours_cores, place(parity, last.frame), "right"),
            cpu("`rate(...[60s])` when it was quiet", other.rates[1].value, place(parity, other.frame), "wrong"),
            printed(
                f"`kubectl top`, over {other.window_seconds:.1f} s", other.top, place(parity, other.frame), "right"
            ),
        ),
        why=f"""
kubectl top's window is neither a minute nor constant: metrics-server takes the last two samples that the kubelet has, and
they are 10 to 30 s apart, for each container anew. `compose-post-service` works in bursts, so every window has another
answer, and none is wrong: they answer other questions. `rate()` over the minute that `$__rate_interval` gives with a 15 s
scrape hides the bursts. To be compared, both must be taken over one window. The
recorded answers for this container whose window is known to the millisecond, after the first minute:

| window's end | its length | `kubectl top` | podtally, same window | `rate[30s]` | `rate[60s]` |
|---|---|---|---|---|---|
{table}

(Within a second of ours we do not know when the burst was, so that at the edge of a window podtally is off by a part of it.)

The other trap is a window that is too short: of {len(rows)} running containers on the kubelet's `/metrics/cadvisor` of
{place(recording, frame)}, {sum(one is None for one in rows)} have no `rate(...[{seconds}s])` at all, as the kubelet had
fewer than two samples of them in that time. Scrape as often as you like: it takes a sample each 10 to 20 s.""",
        instead=f"""
{fenced("promql", f'pod_cpu_usage_cores{{namespace="social", pod="{COMPOSE.pod}"}}')}

It is over 15 s, metrics-server's resolution; `pod_cpu_usage_peak_cores` is the highest rate from tick to tick of the last
minute. `podtally verify` compares over the window that a number of kubectl top's was taken over.""",
        queries=tuple(query for one in answers for query in one.rates),
    )


def late() -> WrongWay:
    """Takes what kubectl top prints for the present."""
    parity, frame = recorded("parity-1hz"), 148
    end_ms = compose_answers()[-1].end_ms
    now = known(container_of(parity, frame, COMPOSE).cpu_cores)
    early = container_of(parity, 0, USER_TIMELINE)
    items = json.loads(parity.answer(frame, "metrics-api/pods.json") or "")["items"]
    (item,) = [one for one in items if one["metadata"]["name"] == COMPOSE.pod]
    age = (parity.time_ms(frame) - end_ms) / 1000
    memory_age = (parity.time_ms(0) - parity.metrics_api(0)[USER_TIMELINE].end_ms) / 1000
    return WrongWay(
        title="`kubectl top` taken for the present",
        see="The graph and `kubectl top` show the same bump, but half a minute apart",
        written=fenced("sh", "kubectl top pods    # and a look at the graph's right edge"),
        rows=(
            printed(
                f"`kubectl top`, of a window that ended {age:.1f} s before",
                parity.kubectl_top(frame)[COMPOSE].cpu,
                place(parity, frame),
                "wrong",
            ),
            cpu("podtally, of the 15 s until then", now, place(parity, frame), "right"),
            printed(
                f"`kubectl top`, of a sample {memory_age:.0f} s old",
                parity.kubectl_top(0)[USER_TIMELINE].memory,
                place(parity, 0),
                "wrong",
            ),
            memory("podtally at that moment", known(early.memory_bytes), place(parity, 0), "right"),
        ),
        why="""
Three clocks lie between the cgroup and the terminal: the kubelet samples each container every 10 to 20 s (up to 30 s if it
is idle), metrics-server asks the kubelets every 15 s (60 s without the flag in its manifest), and its answer stands until the
next round. The answer has a `timestamp` and a `window`, which kubectl top does not print.""",
        instead=fenced(
            "sh",
            'kubectl get --raw /apis/metrics.k8s.io/v1beta1/pods | jq -c ".items[] | [.metadata.name, .timestamp, .window]"',
        ),
        again=(
            Again(
                unpack(parity, frame, "metrics-api/pods.json")
                + " |\n"
                + f"  grep -A 20 '\"name\": \"{COMPOSE.pod}\"' | grep -E '\"(timestamp|window)\"' | tr -d ' ,'",
                f'"timestamp":"{item["timestamp"]}"\n"window":"{item["window"]}"',
            ),
        ),
    )


def counter() -> WrongWay:
    """Takes a counter, or its average since the start, for a rate."""
    recording, frame = recorded("cgroupfs-containerd"), 7
    matchers = 'namespace="team-b", pod="burner", container!=""'
    wrong = cadvisor_sum(CPU_SECONDS, recording, frame, matchers)
    right = cadvisor_sum(CPU_SECONDS, recording, frame, matchers, 60)
    parity, last = recorded("parity-1hz"), 148
    newcomer = container_of(parity, last, Owner("team-c", "newcomer", "newcomer"))
    age = (parity.time_ms(last) * 1_000_000 - known(newcomer.started_ns)) / 1e9
    return WrongWay(
        title="A counter read as a gauge",
        see="CPU that only ever climbs, or that a restart brings down to nothing",
        written=fenced("promql", wrong.promql),
        rows=(
            cpu("the counter of `burner`, graphed as cores", wrong.value, place(recording, frame), "wrong"),
            cpu("its `rate()`", right.value, place(recording, frame), "right"),
            cpu(
                f"the counter of `newcomer` over its age of {age:.0f} s",
                known(newcomer.reading.cpu_usage_usec) / 1e6 / age,
                place(parity, last),
                "wrong",
            ),
            printed(
                "`kubectl top`",
                parity.kubectl_top(last)[Owner("team-c", "newcomer", "newcomer")].cpu,
                place(parity, last),
                "right",
            ),
            cpu("podtally, `pod_cpu_usage_cores`", known(newcomer.cpu_cores), place(parity, last), "also"),
        ),
        why="""
`*_cpu_usage_seconds_total` and `usage_usec` are CPU seconds since the container began. Divided by its age, as `ps` does
for its `%CPU`, they give the average of a life: a start that took much is in it for hours, a burst of now is not.""",
        instead=fenced("promql", right.promql),
        queries=(wrong, right),
    )


def two_readings() -> WrongWay:
    """Takes the rate of a second for the rate."""
    parity = recorded("parity-1hz")
    answer = compose_answers()[-1]
    start_ms = answer.end_ms - round(answer.window_seconds * 1000)
    readings = [(at, value) for at, value in parity.cpu_counter(COMPOSE) if start_ms <= at <= answer.end_ms]
    rates = [(later - earlier) / (at - before) * 1000 for (before, earlier), (at, later) in pairwise(readings)]
    query = compose_query("irate", irate, 60, answer.end_ms)
    quiet = sum(one < 0.01 for one in rates)
    return WrongWay(
        title="Two readings a second apart",
        see="CPU that flickers between nothing and several times what `kubectl top` says",
        written=fenced("promql", query.promql) + "\n\n" + fenced("sh", "docker stats\ncrictl stats"),
        rows=(
            cpu("highest of one second", max(rates), place(parity, answer.frame), "wrong"),
            cpu(
                f"lowest; {quiet} of {len(rates)} seconds are below 10m",
                min(rates),
                place(parity, answer.frame),
                "wrong",
            ),
            cpu("`irate()` at the end of kubectl top's window", query.value, place(parity, answer.frame), "wrong"),
            printed(
                f"`kubectl top`, over {answer.window_seconds:.1f} s", answer.top, place(parity, answer.frame), "right"
            ),
            cpu("podtally over the same window", answer.ours_cores, place(parity, answer.frame), "right"),
        ),
        why="""
The load comes in bursts, and a second holds one or none. `irate()` takes the last two samples of its range, whatever the
range is: with samples a second apart it is the rate of one second, and a graph that draws every fifteenth of them draws
chance. Such rates are right as peaks and wrong as usage.""",
        instead=fenced(
            "promql",
            f'pod_cpu_usage_cores{{namespace="social", pod="{COMPOSE.pod}"}}\n'
            f'pod_cpu_usage_peak_cores{{namespace="social", pod="{COMPOSE.pod}"}}',
        ),
        queries=(query,),
    )


def nano_cores() -> WrongWay:
    """Adds up or compares ``usageNanoCores`` of ``/stats/summary``."""
    parity, frame = recorded("parity-1hz"), 59
    pod = parity.summary_pod(frame, COMPOSE.namespace, COMPOSE.pod)
    (inner,) = pod["containers"]
    one = container_of(parity, frame, COMPOSE)
    return WrongWay(
        title="`usageNanoCores` of the kubelet's summary",
        see="A pod in `/stats/summary` that uses less than its one container",
        written=fenced(
            "sh", "kubectl get --raw /api/v1/nodes/NODE/proxy/stats/summary | jq .pods[].cpu.usageNanoCores"
        ),
        rows=(
            cpu(
                f"`cpu.usageNanoCores` of the pod, at {pod['cpu']['time'][11:19]}",
                pod["cpu"]["usageNanoCores"] / 1e9,
                place(parity, frame),
                "wrong",
            ),
            cpu(
                f"of its only container, at {inner['cpu']['time'][11:19]}",
                inner["cpu"]["usageNanoCores"] / 1e9,
                place(parity, frame),
                "wrong",
            ),
            printed(
                "`kubectl top` at that moment", parity.kubectl_top(frame)[COMPOSE].cpu, place(parity, frame), "right"
            ),
            cpu("podtally, of the 15 s until then", known(one.cpu_cores), place(parity, frame), "also"),
        ),
        why="""
`usageNanoCores` is the rate between the kubelet's last two samples of one cgroup, and each cgroup is sampled by a timer of
its own. So the pod and its container are rated over other spans, and kubectl top, which has samples that are a round
older, over a third. Of numbers taken at other times neither sum nor difference means anything.""",
        instead="""
Take `usageCoreNanoSeconds` of two answers, and divide by the difference of their `time`; or, where nothing of the kubelet
is asked and all cgroups are read within milliseconds:

"""
        + fenced("promql", f'pod_cpu_usage_cores{{namespace="social", pod="{COMPOSE.pod}"}}'),
    )


def pod_row() -> WrongWay:
    """Reads the pod's cgroup in place of the sum of its containers."""
    parity, frame = recorded("parity-1hz"), 106
    owner = Owner("team-c", "oom", "quiet")
    pod = pod_of(parity, frame, owner)
    pod_slice = pod.cgroup.path.rpartition("-")[2].removesuffix(".slice")
    live = sum(known(one.reading.cpu_usage_usec) for one in pod.containers) / 1e6
    whole = known(pod.reading.cpu_usage_usec) / 1e6
    oom = recorded("oom")
    long_lived = pod_of(oom, 4, owner)
    long_live = sum(known(one.reading.cpu_usage_usec) for one in long_lived.containers) / 1e6
    long_whole = known(long_lived.reading.cpu_usage_usec) / 1e6
    return WrongWay(
        title="The pod's cgroup in place of its containers",
        see="A pod that restarts uses CPU in Grafana and 0m in `kubectl top`",
        written=fenced(
            "promql",
            'rate(pod_cpu_usage_seconds_total{namespace="team-c", pod="oom"}[1m])    # of the kubelet\'s /metrics/resource\n'
            'rate(container_cpu_usage_seconds_total{namespace="team-c", pod="oom", container="", image=""}[1m])',
        ),
        rows=(
            cpu("the pod's cgroup over 15 s", known(pod.cgroup_cpu_cores), place(parity, frame), "wrong"),
            printed("`kubectl top`: `quiet`", parity.kubectl_top(frame)[owner].cpu, place(parity, frame), "right"),
            cpu("podtally, `pod_cpu_usage_cores`", known(pod.cpu_cores), place(parity, frame), "right"),
            Row("CPU seconds of the pod's cgroup", whole, f"{whole:.2f} s", place(parity, frame), "wrong"),
            Row("of its running containers", live, f"{live:.2f} s", place(parity, frame), "right"),
            Row("CPU seconds of the pod's cgroup", long_whole, f"{long_whole:.2f} s", place(oom, 4), "wrong"),
            Row("of its running containers", long_live, f"{long_live:.2f} s", place(oom, 4), "right"),
        ),
        why="""
The pod's cgroup keeps what its ended containers used, and has the sandbox in it. In `oom` a container is killed for its
memory again and again: what it used between two starts is in the pod's counter and in none of a running container. Here
"wrong" means only "not what kubectl top says": for what the pod cost the node, the pod's cgroup is the right account, and
the only counter of a pod that no restart sets back. podtally exports both, and the difference.""",
        instead=fenced(
            "promql",
            'pod_cpu_usage_cores{namespace="team-c", pod="oom"}           # as kubectl top\n'
            'pod_cgroup_cpu_usage_cores{namespace="team-c", pod="oom"}    # as the kernel\n'
            'pod_overhead_cpu_cores{namespace="team-c", pod="oom"}        # the difference',
        ),
        again=(
            Again(
                f"for frame in {frame - 15:04d} {frame:04d}; do\n  "
                + unpack(parity, "$frame", f"*-{pod_slice}.slice/cpu.stat")
                + " |\n    grep usage_usec\ndone",
                "\n".join(
                    parity.cgroup_file(one, f"{pod.cgroup.path}/cpu.stat").splitlines()[0]
                    for one in (frame - 15, frame)
                ),
            ),
        ),
    )


def rate_of_sum() -> WrongWay:
    """``rate()`` of a sum of counters, over a restart."""
    parity, frame, namespace = recorded("parity-1hz"), 111, "team-c"
    name, time_ms = "pod_container_cpu_usage_seconds_total", parity.time_ms(frame)
    sums = [
        (
            parity.time_ms(index),
            sum(
                known(one.reading.cpu_usage_usec) / 1e6
                for pod in tally.pods
                if pod.pod.namespace == namespace
                for one in pod.containers
            ),
        )
        for index, tally in enumerate(parity.tallies)
    ]
    right = Query(
        f'sum by (namespace) (rate({name}{{namespace="{namespace}"}}[60s]))',
        parity.name,
        "podtally",
        time_ms,
        total(rate(values, time_ms, 60) for values in select(parity.counters, name, namespace=namespace)),
    )
    wrong = known(rate(sums, time_ms, 60))
    fell_ms = next(at for (_, earlier), (at, later) in pairwise(sums) if later < earlier)
    # What each pod's cgroup used in the minute; one that is younger, in its life.
    minute_ago = max(index for index in range(frame) if parity.time_ms(index) <= time_ms - 60_000)
    earlier = {pod.cgroup.path: pod.reading.cpu_usage_usec for pod in parity.tallies[minute_ago].pods}
    kernel = sum(
        known(pod.reading.cpu_usage_usec) - (earlier.get(pod.cgroup.path) or 0)
        for pod in parity.tallies[frame].pods
        if pod.pod.namespace == namespace
    )
    seconds = (time_ms - parity.time_ms(minute_ago)) / 1000
    return WrongWay(
        title="`rate()` of a sum",
        see="A spike of CPU at each restart or redeployment",
        written=fenced(
            "yaml",
            f"- record: namespace:cpu_seconds:sum    # and then, in the dashboard: rate(namespace:cpu_seconds:sum[60s])\n"
            f"  expr: sum by (namespace) ({name})",
        ),
        rows=(
            cpu(
                f"`rate()` of the sum, {(time_ms - fell_ms) / 1000:.0f} s after a container died",
                wrong,
                place(parity, frame),
                "wrong",
            ),
            cpu("sum of the `rate()`s", right.value, place(parity, frame), "right"),
            cpu("the pods' cgroups in that minute", kernel / 1e6 / seconds, place(parity, frame), "also"),
        ),
        why="""
A counter that falls has begun anew, so `rate()` takes its new value for an increase. A sum over running containers falls
when one of them ends, and `rate()` then counts all CPU seconds of all the others once more. Take rates first, then sums.
(What a container used before its first and after its last sample is in no rate of its own. The pods' cgroups have it:
`pod_cgroup_cpu_usage_seconds_total` falls at no restart, but a sum of it falls with each pod that goes.)""",
        instead=fenced("promql", right.promql),
        queries=(right,),
    )


def stale_rows() -> WrongWay:
    """Counts rows of containers that ended, which explicit timestamps keep alive."""
    recording, frame, namespace = recorded("systemd-containerd"), 7, "team-b"
    wrong = cadvisor_sum(WORKING_SET, recording, frame, f'namespace="{namespace}", container!=""', by="namespace")
    ours = total(pod.memory_bytes for pod in recording.tallies[frame].pods if pod.pod.namespace == namespace)
    time_ms = recording.time_ms(frame)
    (dead,) = select(recording.cadvisor, WORKING_SET, namespace=namespace, pod="crasher", container="!")
    age = (time_ms - dead[-1][0]) / 1000
    return WrongWay(
        title="Rows of containers that ended",
        see="Memory that stays for five minutes after a container ended; after a restart twice its limit",
        written=fenced("promql", wrong.promql),
        rows=(
            memory(
                "Prometheus, with the timestamps of `/metrics/cadvisor`", wrong.value, place(recording, frame), "wrong"
            ),
            memory(
                "the kubelet's `/metrics/resource` then",
                resource_memory(recording, frame, namespace),
                place(recording, frame),
                "right",
            ),
            memory("podtally, sum of `pod_memory_usage_bytes`", ours, place(recording, frame), "right"),
            memory(
                f"of that a container of `crasher`, last seen {age:.0f} s before",
                dead[-1][1],
                place(recording, frame),
                "also",
            ),
        ),
        why="""
The kubelet's samples carry their own time. Prometheus does not mark such a series as ended when it is gone from the next
scrape: it goes on showing its last value for five minutes. And each start of a container makes a new series, under its own
`id` and `name`, so that after a restart the old and the new one stand side by side. It is worse for short lives: the
last value of `crasher` is of its start, when the runtime was still in its cgroup.""",
        instead="""
Set `honor_timestamps: false`, as kube-prometheus does, or in a newer Prometheus `track_timestamps_staleness: true` in the job
that scrapes `/metrics/cadvisor`. podtally's `/metrics` has no timestamps, and its gauges have no series for what ended:

"""
        + fenced("promql", f'sum by (namespace) (pod_memory_usage_bytes{{namespace="{namespace}"}})'),
        queries=(wrong,),
        again=(
            Again(
                "for frame in 0000 0001; do\n  "
                + unpack(recording, "$frame", CADVISOR_PAGE)
                + f" |\n    grep -c '^{WORKING_SET}.container=\"main\".*crasher'\ndone",
                "1\n0",
            ),
        ),
    )


def rounding() -> WrongWay:
    """Adds up the columns that kubectl top prints."""
    parity, frame = recorded("parity-1hz"), 148
    top, usages = parity.kubectl_top(frame), parity.metrics_api(frame)
    cores = sum(usage.cpu_cores for usage in usages.values())
    bytes_ = sum(usage.memory_bytes for usage in usages.values())
    small = sum(row.memory == "0Mi" for row in top.values())
    busy = sum(row.cpu != "0m" for row in top.values())
    column = [float(sum(quantity(getattr(row, name)) for row in top.values())) for name in ("cpu", "memory")]
    return WrongWay(
        title="`kubectl top`'s columns added up",
        see="A sum over rows that is some m too high and some Mi too low; 0Mi for a pod that runs",
        written=fenced(
            "sh",
            "kubectl top pods -A --containers --no-headers | awk '{ cpu += $4; memory += $5 } END { print cpu, memory }'",
        ),
        rows=(
            Row(
                f"the CPU column of {len(top)} containers",
                column[0],
                f"{column[0] * 1000:.0f}m",
                place(parity, frame),
                "wrong",
            ),
            cpu("the metrics API's sum", cores, place(parity, frame), "right"),
            Row("the memory column", column[1], f"{column[1] / MIB:.0f}Mi", place(parity, frame), "wrong"),
            memory("the metrics API's sum", bytes_, place(parity, frame), "right"),
        ),
        why=f"""
kubectl top rounds CPU up to the next m and memory down to whole Mi. {busy} of the containers here use CPU, and each shows up
to 1m too much; {small} of {len(top)} are below 1 MiB and show 0Mi, which does not mean none. A pod's row, without
`--containers`, is the sum of exact numbers, rounded once, so it need not be the sum of its containers' rows. Of small
numbers compare the exact ones.""",
        instead=fenced("sh", "kubectl get --raw /apis/metrics.k8s.io/v1beta1/pods    # nanocores and Ki")
        + "\n\n"
        + fenced("promql", "sum(pod_cpu_usage_cores)\nsum(pod_memory_usage_bytes)"),
        again=(
            Again(
                unpack(parity, frame, "metrics-api/kubectl_top_pods_containers.txt")
                + ' |\n  awk \'NR > 1 { cpu += $4; memory += $5 } END { print cpu "m", memory "Mi" }\'',
                f"{column[0] * 1000:.0f}m {column[1] / MIB:.0f}Mi",
            ),
        ),
    )


def missing() -> WrongWay:
    """Takes a missing row for a pod that uses nothing."""
    parity, frame = recorded("parity-1hz"), 72
    usages = [known(pod.cpu_cores) for pod in parity.tallies[frame].pods if pod.cpu_cores is not None]
    pods_of_top = len({(owner.namespace, owner.pod) for owner in parity.kubectl_top(frame)})
    newcomer = Owner("team-c", "newcomer", "newcomer")
    ours = next(
        index
        for index, tally in enumerate(parity.tallies)
        if any(pod.pod.name == newcomer.pod and pod.cpu_cores is not None for pod in tally.pods)
    )
    answered = [index for index in parity.frames_with("metrics-api/pods.json") if index > ours]
    theirs = next(index for index in answered if newcomer in parity.kubectl_top(index))
    before = max(index for index in answered if index < theirs)
    started_ms = known(container_of(parity, ours, newcomer).started_ns) / 1e6
    seconds = {index: (parity.time_ms(index) - started_ms) / 1000 for index in (ours, before, theirs)}
    spent = [
        known(pod_of(parity, index, Owner("team-b", "crasher", "")).reading.cpu_usage_usec) / 1e6 for index in (69, 79)
    ]
    return WrongWay(
        title="No row read as nothing used",
        see="`kubectl top` lacks pods, or all of them, or a sum over it drops for a while",
        written=fenced("promql", "sum(pod_cpu_usage_cores) or vector(0)"),
        rows=(
            Row("`kubectl top`", pods_of_top, f"{pods_of_top} pods", place(parity, frame), "wrong"),
            Row("podtally has a CPU rate of", len(usages), f"{len(usages)} pods", place(parity, frame), "right"),
            cpu("what they use", sum(usages), place(parity, frame), "right"),
            Row(
                "age of `newcomer` at its first row in `kubectl top`",
                seconds[theirs],
                f"{seconds[before]:.0f} to {seconds[theirs]:.0f} s",
                place(parity, theirs),
                "wrong",
            ),
            Row("in podtally", seconds[ours], f"{seconds[ours]:.0f} s", place(parity, ours), "right"),
            Row(
                "CPU seconds that `crasher` used, without ever a row",
                spent[1] - spent[0],
                f"{spent[1] - spent[0]:.2f} s",
                place(parity, 79, "since 0069"),
                "also",
            ),
        ),
        why="""
A pod has no row in the metrics API until each of its containers has two samples, or one that is 10 s after its start or later:
one that restarts hides the whole pod. If a kubelet does not answer metrics-server in time, which this slow node's sometimes
does not, all pods of the node are gone at once, and need another round to come back. A pod without a running container (`CrashLoopBackOff`) has no row in kubectl top nor a
`pod_cpu_usage_cores`, though its starts cost CPU: its `pod_cgroup_*` go on. podtally leaves out what it does not know,
and counts it by reason in `podtally_pods_incomplete` ([account.md](account.md)): so do not fill the gap with 0.""",
        instead=fenced(
            "promql",
            "sum(pod_cpu_usage_cores)    # a gap is a gap\nsum(pod_cgroup_cpu_usage_cores)    # all pods, also those that only ever start",
        ),
        again=(
            Again(
                f"for frame in {before:04d} {theirs:04d}; do\n  "
                + unpack(parity, "$frame", "metrics-api/kubectl_top_pods_containers.txt")
                + " | grep -c newcomer\ndone",
                "0\n1",
            ),
        ),
    )


def node_total() -> WrongWay:
    """Takes the node's total for the sum of its pods, or the other way round."""
    recording, first, last = recorded("systemd-containerd"), 0, 7
    readings = [recording.tallies[frame].node.reading for frame in (first, last)]
    seconds = (readings[1].monotonic_ns - readings[0].monotonic_ns) / 1e9
    cores = (known(readings[1].cpu_usage_usec) - known(readings[0].cpu_usage_usec)) / 1e6 / seconds
    pods = recording.tallies[last].pods
    kilobytes = dict(re.findall(r"^(\w+): +(\d+) kB", recording.proc_file(last, "meminfo"), re.MULTILINE))
    used = (int(kilobytes["MemTotal"]) - int(kilobytes["MemAvailable"])) * 1024
    page = recording.answer(last, RESOURCE_PAGE) or ""
    (kubelets,) = re.findall(r"^node_memory_working_set_bytes (\S+)", page, re.MULTILINE)
    return WrongWay(
        title="The node in place of its pods",
        see="`kubectl top nodes` is more than the sum of `kubectl top pods`, and not what `free` says",
        written=fenced(
            "promql",
            "sum(pod_cpu_usage_cores)    # held against kubectl top nodes\nnode_memory_MemTotal_bytes - node_memory_MemAvailable_bytes",
        ),
        rows=(
            cpu("sum of the pods", total(pod.cpu_cores for pod in pods), place(recording, last), "wrong"),
            cpu(
                "the node, of the root cgroup's `cpu.stat`",
                cores,
                place(recording, last, f"since {first:04d}"),
                "right",
            ),
            memory("sum of the pods", total(pod.memory_bytes for pod in pods), place(recording, last), "wrong"),
            memory("MemTotal - MemAvailable", used, place(recording, last), "wrong"),
            memory("the node, of the kubelet's `/metrics/resource`", float(kubelets), place(recording, last), "right"),
            memory(
                "podtally, the same by the root cgroup's `memory.stat`",
                known(recording.tallies[last].node.memory_working_set_bytes),
                place(recording, last),
                "right",
            ),
        ),
        why="""
The node's CPU is all of it: kubelet, runtime, kernel threads, the agents outside of pods. (This node is an emulated one, some
ten times as slow as a real one, and its kubelet and runtime were busy answering for the recording.) The node's memory in kubectl top is the root
cgroup's working set, anon + file - inactive_file; MemAvailable is the kernel's estimate of what could be had without swapping,
and kernel memory that no cgroup is charged for is in the one and not in the other.""",
        instead="""
For the node, `/metrics/resource` (`node_cpu_usage_seconds_total`, `node_memory_working_set_bytes`), the kubelet's or podtally's. For
the share of the pods, the `kubepods` cgroup, which `/metrics/cadvisor` has under `id="/kubepods.slice"` or `id="/kubepods"`.""",
        again=(
            Again(
                unpack(recording, last, "proc/meminfo") + " | grep -E '^Mem(Total|Available):'",
                "\n".join(
                    line
                    for line in recording.proc_file(last, "meminfo").splitlines()
                    if line.startswith(("MemTotal:", "MemAvailable:"))
                ),
            ),
        ),
    )


WAYS: tuple[Callable[[], WrongWay], ...] = (
    sidecar,
    unlabelled_rows,
    sandbox,
    memory_current,
    resident,
    rate_window,
    late,
    counter,
    two_readings,
    nano_cores,
    pod_row,
    rate_of_sum,
    stale_rows,
    rounding,
    missing,
    node_total,
)
"""In the order of the page."""


@cache
def ways() -> tuple[WrongWay, ...]:
    """All sections."""
    return tuple(make() for make in WAYS)


# --- the page -------------------------------------------------------------------------------------------------------

_DATA = "data"

SETUP = rf"""
podtally replay tests/fixtures/cgroupfs/parity-1hz.tar.zst --openmetrics node.om
promtool tsdb create-blocks-from openmetrics node.om {_DATA}-parity-1hz
for recording in systemd-containerd cgroupfs-containerd; do
  tar -xOf tests/fixtures/cgroupfs/$recording.tar.zst --wildcards "*/{CADVISOR_PAGE}" |
    grep -E '^container_(cpu_usage_seconds_total|memory_(working_set_bytes|usage_bytes|rss))[{{]' |
    sed -E 's/([0-9]{{3}})$/.\1/' | LC_ALL=C sort -u -k1,1 -k3,3 > node.om
  echo '# EOF' >> node.om
  promtool tsdb create-blocks-from openmetrics node.om {_DATA}-$recording
done
"""
"""Makes a Prometheus store of each recording that a query of the page is put to: ``data-<recording>``."""


def table(rows: tuple[Row, ...]) -> list[str]:
    """The numbers; how far a wrong one is off is held against the next right one."""
    lines = ["| | number | off by | from |", "|---|---|---|---|"]
    for index, row in enumerate(rows):
        right = next((one for one in rows[index:] if one.verdict == "right"), None)
        far = off(row.value, right.value) if row.verdict == "wrong" and right else ""
        shown = f"**{row.shown}**" if row.verdict == "right" else row.shown
        mark = {"wrong": "✗ ", "right": "✓ ", "also": ""}[row.verdict]
        lines.append(f"| {mark}{row.what} | {shown} | {far} | {row.where} |".replace("  ", " "))
    return lines


def section(way: WrongWay) -> list[str]:
    """A wrong way, with what to do instead."""
    lines = [f"## {way.title}", "", "What people read:", "", way.written, "", *table(way.rows)]
    times = list(dict.fromkeys((query.recording, query.time_ms) for query in way.queries))
    if times:
        recording, time_ms = times[0]
        when = f"`{time_ms / 1000:.3f}`" if len(times) == 1 else "the windows' ends in the table below"
        lines += ["", f"PromQL over `{recording}` at {when}."]
    lines += ["", wrapped(way.why), "", "Instead:", "", wrapped(way.instead)]
    if way.again:
        commands = "\n".join(one.commands for one in way.again)
        output = "\n".join(one.output for one in way.again)
        lines += ["", "See it:", "", fenced("sh", commands), "", fenced("", output)]
    return [*lines, ""]


def page() -> str:
    """``docs/why-numbers-differ.md``."""
    lines = [
        "# Why the numbers differ",
        "",
        "Grafana and `kubectl top` disagree: find what you see, and read that section. For a pod of yours, `podtally verify` puts",
        "what each source says of it side by side, over the same window, and names where a difference comes from;",
        "`podtally verify --recording R` does so for a recording.",
        "",
        "| what you see | for example | why |",
        "|---|---|---|",
    ]
    for way in ways():
        wrong, right = way.of("wrong")[0], way.of("right")[0]
        lines.append(f"| {way.see} | {wrong.shown} for {right.shown} | [{way.title}](#{way.anchor}) |")
    lines += [
        "",
        "In each table ✗ is a number that is read the wrong way, ✓ the right one beside it, as `kubectl top` printed it at that",
        "moment where the recording has that. (Its numbers are made of the kubelet's `/metrics/resource`.) The recordings are",
        "those in `tests/fixtures/cgroupfs/`, of a real node, but an emulated one whose pods are tiny: look at the ratios.",
        "",
        "This page is generated: `make docs` computes every number anew, and `make test` fails if one is not what the code gives.",
        'Where Prometheus is installed it also puts each query to it, and it runs each command below "See it". The queries can be',
        "put to a Prometheus of your own:",
        "",
        fenced("sh", SETUP),
        "",
        fenced(
            "sh",
            f"prometheus --config.file=/dev/null --storage.tsdb.retention.time=100y --storage.tsdb.path={_DATA}-parity-1hz\n"
            "promtool query instant --time=TIME http://127.0.0.1:9090 'QUERY'",
        ),
        "",
    ]
    for way in ways():
        lines += section(way)
    return "\n".join(lines)
