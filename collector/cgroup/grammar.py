"""The grammars of the kernel's cgroup files: bytes in, values out. Pure.

Each takes the bytes of one file and raises ``ValueError`` with the malformed line; the caller knows the path.
Unknown keys are ignored; a wanted key that is missing is simply not in the result.

Kernel: ``Documentation/admin-guide/cgroup-v2.rst``, "Interface Files", and ``Documentation/accounting/psi.rst``.
"""

from __future__ import annotations

from collections.abc import Mapping

from collector.model import NO_LIMIT, DeviceIo, Interface, Limit

U64_DIGITS = 20
"""Decimal digits of 2^64: a longer number is no kernel counter."""


class Malformed(ValueError):
    """``line`` is not in the grammar."""

    def __init__(self, line: bytes) -> None:
        super().__init__(repr(line[:80]))
        self.line = line


def number(word: bytes) -> int:
    """A non-negative decimal number. Stricter than ``int``, which takes ``1_0``, signs and blanks."""
    if word.isdigit() and len(word) <= U64_DIGITS:
        return int(word)
    raise Malformed(word)


def scalar(data: bytes) -> Mapping[bytes, int]:
    r"""``memory.current``: one number.

    >>> scalar(b"4096\n")
    {b'': 4096}
    """
    return {b"": number(data.strip())}


def scalar_or_max(data: bytes) -> Mapping[bytes, Limit]:
    r"""``memory.max``: one number or ``max``.

    >>> scalar_or_max(b"max\n")
    {b'': inf}
    """
    word = data.strip()
    return {b"": NO_LIMIT if word == b"max" else number(word)}


def quota_period(data: bytes) -> Mapping[bytes, Limit]:
    r"""``cpu.max``: quota or ``max``, and the period, in microseconds.

    >>> quota_period(b"50000 100000\n")
    {b'quota': 50000, b'period': 100000}
    """
    words = data.split()
    if len(words) != 2:
        raise Malformed(data)
    return {b"quota": NO_LIMIT if words[0] == b"max" else number(words[0]), b"period": number(words[1])}


def flat_keyed(data: bytes) -> Mapping[bytes, bytes]:
    r"""``cpu.stat``, ``memory.stat``, ``memory.events``: a key and a number a line. Values are left as words, since
    making numbers of all forty lines of a ``memory.stat`` costs more than reading it.

    >>> flat_keyed(b"usage_usec 12\nuser_usec 7\n")
    {b'usage_usec': b'12', b'user_usec': b'7'}
    """
    try:
        # dict() itself refuses a line that has not two words: the check costs nothing.
        return dict(map(bytes.split, data.splitlines()))
    except ValueError:
        raise Malformed(next(line for line in data.splitlines() if len(line.split()) != 2)) from None


def flat_key(data: bytes, key: bytes) -> int | None:
    r"""The number of one key of a flat keyed file, without looking at the rest; ``None`` where the key is missing.

    >>> flat_key(b"anon 8192\ninactive_file 4096\nactive_file 1\n", b"inactive_file")
    4096
    """
    if data.startswith(key + b" "):
        start = len(key) + 1
    else:
        start = data.find(b"\n" + key + b" ") + len(key) + 2
        if start == len(key) + 1:
            return None
    end = data.find(b"\n", start)
    return number(data[start:end] if end >= 0 else data[start:])


def pressure(data: bytes) -> Mapping[bytes, int]:
    r"""``*.pressure``: the ``total=`` microseconds of the ``some`` and ``full`` lines; the averages are ignored.

    >>> pressure(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n")
    {b'some': 7, b'full': 5}
    """
    totals: dict[bytes, int] = {}
    for line in data.splitlines():
        words = line.split()
        if not words or not words[-1].startswith(b"total="):
            raise Malformed(line)
        totals[words[0]] = number(words[-1][len(b"total=") :])
    return totals


def meminfo(data: bytes) -> Mapping[bytes, int]:
    r"""``/proc/meminfo``: ``Key:   123 kB`` lines, in bytes; lines without a unit are counts and are left out.

    >>> meminfo(b"SwapTotal:    4 kB\nHugePages_Total:  0\n")
    {b'SwapTotal': 4096}
    """
    values: dict[bytes, int] = {}
    for line in data.splitlines():
        words = line.split()
        if len(words) < 2 or not words[0].endswith(b":"):
            raise Malformed(line)
        if len(words) == 3 and words[2] == b"kB":
            values[words[0][:-1]] = number(words[1]) * 1024
    return values


def process_ids(data: bytes) -> Mapping[bytes, int]:
    r"""``cgroup.procs``: a process id a line, in no order. How many lines, and the lowest id: 0 stands for a process of
    a PID namespace that the reader does not see (``task_pid_vnr``).

    >>> process_ids(b"812\n97\n"), process_ids(b"")
    ({b'lines': 2, b'lowest': 97}, {b'lines': 0})
    """
    words = data.split()
    if not words:
        return {b"lines": 0}
    if not b"".join(words).isdigit():
        raise Malformed(next(word for word in words if not word.isdigit()))
    return {b"lines": len(words), b"lowest": min(map(number, words))}


_IO_KEYS = {
    b"rbytes": 2,
    b"wbytes": 3,
    b"rios": 4,
    b"wios": 5,
    b"cost.usage": 6,
    b"cost.wait": 7,
    b"cost.indebt": 8,
    b"cost.indelay": 9,
}
"""Places of the keys of ``io.stat`` in :class:`DeviceIo`."""


def nested_keyed(data: bytes) -> Mapping[bytes, tuple[DeviceIo, ...]]:
    r"""``io.stat``: ``MAJ:MIN key=value ...``, a device a line; devices of which no counter is told are left out.

    Kernels print a device that has had no I/O without its counters, and some without the end of its line either
    (``8:0 8:16 rbytes=...``), so that it is the word ``MAJ:MIN`` which begins a device, not the line. A line that the
    kernel has cut short, the last one and without its end, is left out: its last number may lack digits.

    >>> [one[:6] for one in nested_keyed(b"8:0 \n8:16 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n")[b""]]
    [(8, 16, 4096, 0, 1, 0)]
    """
    devices: dict[tuple[int, int], list[int | None]] = {}
    for line in data.split(b"\n")[:-1]:
        values: list[int | None] | None = None
        for word in line.split():
            key, equals, value = word.partition(b"=")
            if not equals:
                major, _, minor = word.partition(b":")
                device = (number(major), number(minor))
                values = devices.setdefault(device, [*device, *[None] * len(_IO_KEYS)])
            elif values is None:
                raise Malformed(line)
            elif key in _IO_KEYS:
                values[_IO_KEYS[key]] = number(value)
    return {b"": tuple(DeviceIo._make(values) for values in devices.values() if any(v is not None for v in values[2:]))}


def partitions(data: bytes) -> Mapping[tuple[int, int], str]:
    r"""``/proc/partitions``: names of block devices by major and minor number, below two lines of heads.

    >>> partitions(b"major minor  #blocks  name\n\n   8        0   1048576 sda\n")
    {(8, 0): 'sda'}
    """
    names: dict[tuple[int, int], str] = {}
    for line in data.split(b"\n"):
        words = line.split()
        if not words or words[0] == b"major":
            continue
        if len(words) != 4:
            raise Malformed(line)
        names[number(words[0]), number(words[1])] = words[3].decode("utf-8", "replace")
    return names


_NET_COLUMNS = 16


def interfaces(data: bytes) -> tuple[Interface, ...]:
    r"""``/proc/<pid>/net/dev``: sixteen counters an interface, below two lines of heads (``net/core/net-procfs.c``).

    >>> interfaces(b"Inter-| Receive |\n face |bytes\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n")[0][:5]
    ('eth0', 1, 2, 3, 4)
    """
    found: dict[str, Interface] = {}
    for line in data.split(b"\n"):
        if not line.strip() or b"|" in line:
            continue
        name, colon, rest = line.rpartition(b":")
        words = rest.split()
        if not colon or len(words) != _NET_COLUMNS:
            raise Malformed(line)
        text = name.strip().decode("utf-8", "replace")
        found[text] = Interface(text, *map(number, (*words[:4], *words[8:12])))
    return tuple(found.values())
