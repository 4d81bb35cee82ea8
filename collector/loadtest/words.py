"""Values of a load test in words, as the reports have them. Pure."""

from __future__ import annotations

from datetime import datetime, timezone

from collector.loadtest.model import Requests, Signal, Workload

ABSENT = "-"
_MEBIBYTE = 1 << 20
_GIBIBYTE = 1 << 30


def cores(value: float | None) -> str:
    """Millicores, from ten cores on cores.

    >>> cores(0.16342), cores(0.0004), cores(2.5), cores(12.0), cores(0.0), cores(None)
    ('163m', '0.4m', '2500m', '12.0', '0m', '-')
    """
    if value is None:
        return ABSENT
    if value >= 10:
        return f"{value:.1f}"
    millicores = value * 1000
    return f"{millicores:.1f}m" if 0 < millicores < 9.95 else f"{millicores:.0f}m"


def size(value_bytes: float | None) -> str:
    """Mi, from ten Gi on Gi.

    >>> size(3145728), size(11 * 2**30), size(None)
    ('3.0Mi', '11.0Gi', '-')
    """
    if value_bytes is None:
        return ABSENT
    if value_bytes >= 10 * _GIBIBYTE:
        return f"{value_bytes / _GIBIBYTE:.1f}Gi"
    mebibytes = value_bytes / _MEBIBYTE
    return f"{mebibytes:.1f}Mi" if mebibytes < 99.95 else f"{mebibytes:.0f}Mi"


def percent(share: float | None) -> str:
    """A share, with as many digits as it has use for.

    >>> percent(0.00042), percent(0.0312), percent(0.94), percent(0.0), percent(1.0), percent(None)
    ('0.04%', '3.1%', '94%', '0%', '100%', '-')
    """
    if share is None:
        return ABSENT
    hundred = share * 100
    if hundred == 0:
        return "0%"
    digits = 2 if abs(hundred) < 0.995 else 1 if abs(hundred) < 9.95 else 0
    # Not all of something is never written as all of it.
    if share < 1 and hundred > 99.5:
        digits = 2
    return f"{hundred:.{digits}f}%"


def seconds(value: float | None) -> str:
    """A short time.

    >>> seconds(0.0123), seconds(0.25), seconds(1.5), seconds(127.16), seconds(None)
    ('12.3 ms', '250 ms', '1.50 s', '127 s', '-')
    """
    if value is None:
        return ABSENT
    if value < 0.9995:
        milliseconds = value * 1000
        return f"{milliseconds:.1f} ms" if 0 < milliseconds < 99.95 else f"{milliseconds:.0f} ms"
    return f"{value:.2f} s" if value < 99.95 else f"{value:.0f} s"


def factor(value: float | None) -> str:
    """How many times.

    >>> factor(12.34), factor(1.055), factor(4567.0), factor(None)
    ('12.3x', '1.05x', 'over 1000x', '-')
    """
    if value is None:
        return ABSENT
    if value > 1000:
        return "over 1000x"
    return f"{value:.2f}x" if value < 9.995 else f"{value:.1f}x" if value < 99.95 else f"{value:.0f}x"


def count(value: int | None) -> str:
    """A number with its thousands apart.

    >>> count(50440), count(0), count(None)
    ('50 440', '0', '-')
    """
    return ABSENT if value is None else f"{value:,}".replace(",", " ")


def rate(value: float | None) -> str:
    """Per second."""
    return ABSENT if value is None else f"{value:.1f}/s"


def clock(value: float) -> str:
    """Minutes and seconds.

    >>> clock(0), clock(75.4), clock(3600)
    ('0:00', '1:15', '60:00')
    """
    whole = round(value)
    return f"{whole // 60}:{whole % 60:02d}"


def moment(time: float) -> str:
    """A time in UTC.

    >>> moment(1795507200.25)
    '2026-11-24 08:00:00'
    """
    return datetime.fromtimestamp(time, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def iso(time: float) -> str:
    """RFC 3339, with milliseconds.

    >>> iso(1795507200.25)
    '2026-11-24T08:00:00.250Z'
    """
    text = datetime.fromtimestamp(time, tz=timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def plural(number: int, what: str) -> str:
    """A number of things.

    >>> plural(1, "pod"), plural(3, "pod")
    ('1 pod', '3 pods')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def workload(of: Workload, namespaces: tuple[str, ...]) -> str:
    """The name of a service, with its namespace where there are several."""
    return of.name if len(namespaces) == 1 else f"{of.namespace}/{of.name}"


def endpoint(of: Requests) -> str:
    """The name of an endpoint."""
    return of.endpoint or "all"


def signal(of: Signal) -> str:
    """Why a service is said to have had enough."""
    where = f"container {of.container}" if of.container else "the pod"
    text = {
        "oom": f"{plural(round(of.share), 'kill')} as memory ran out"
        + (f" at its limit of {size(of.limit)}" if of.limit else ""),
        "memory-limit": f"{where} at {percent(of.share)} of its memory limit of {size(of.limit)}",
        "throttling": f"{where} throttled in {percent(of.share)} of its periods"
        + (f" by its CPU limit of {cores(of.limit)}" if of.limit else ""),
        "cpu-limit": f"{where} at {percent(of.share)} of its CPU limit of {cores(of.limit)}",
        "memory-pressure": f"tasks of {where} waited for memory {percent(of.share)} of the time",
        "cpu-pressure": f"tasks of {where} waited for CPU {percent(of.share)} of the time",
        "io-pressure": f"tasks of {where} waited for I/O {percent(of.share)} of the time",
    }[of.name]
    return f"{text} ({of.pod})"
