"""`make loadtest`: every profile, small and short, against the local application; by k6 where it is installed.

Not part of `make test`: it takes a minute or two, and a machine that is busy with other things fails it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.loadtest.running import PROFILES, SHORT, SMALL, crossed, k6_program, scripts, summary_in, tell
from tests.loadtest.test_scripts import STATED

RUNNERS = [
    pytest.param("", id="stand-in"),
    pytest.param(
        k6_program() or "",
        id="k6",
        marks=pytest.mark.skipif(
            k6_program() is None, reason="k6 is not installed: put it on the path, or name it by K6=/path/to/k6."
        ),
    ),
]


def run(profile: str, address: str, k6: str, **more: str) -> tuple[int, dict[str, Any]]:
    """A small, short run; exit code and summary."""
    given = {"PROFILE": profile, "SCALE": SMALL[profile], "TARGET": address, **SHORT, **more}
    done = scripts("run", given, k6=k6 or None)
    return done.returncode, summary_in(done.stdout)


@pytest.mark.parametrize("k6", RUNNERS[1:])
@pytest.mark.parametrize("profile", PROFILES)
def test_k6_reports_the_stated_size(profile: str, k6: str) -> None:
    """`k6 inspect --execution-requirements` says of each profile what is stated of it."""
    done = scripts("inspect", {"PROFILE": profile}, k6=k6)
    assert done.returncode == 0, done.stderr
    options = json.loads(done.stdout)

    assert (options["maxVUs"], options["totalDuration"]) == STATED[profile][1:]


@pytest.mark.parametrize("k6", RUNNERS)
@pytest.mark.parametrize("profile", PROFILES)
def test_profile(filled: str, profile: str, k6: str) -> None:
    """Against a sound application all thresholds of the profile are held."""
    tell(filled, "none")
    status, summary = run(profile, filled, k6)

    assert (status, crossed(summary)) == (0, set())


@pytest.mark.parametrize("k6", RUNNERS)
def test_a_stall_shows_in_the_open_profile(filled: str, k6: str) -> None:
    """Stalls of two seconds out of four cross the open profile's limits; the closed one's users wait them out."""
    tell(filled, "stall")
    status, summary = run("latency", filled, k6)

    assert status == 99
    assert "http_req_duration{endpoint:home_timeline} p(95)<500" in crossed(summary)


@pytest.mark.parametrize("k6", RUNNERS)
@pytest.mark.parametrize("fault", ["fail", "compose", "empty"])
def test_fault(filled: str, fault: str, k6: str) -> None:
    """An application that fails, in whole or in one endpoint, or has nothing to read, is not let pass."""
    tell(filled, fault)
    status, summary = run("load", filled, k6)

    assert status == 99
    assert crossed(summary)


@pytest.mark.parametrize("k6", RUNNERS)
def test_nothing_answers(k6: str) -> None:
    """Where nothing listens the run ends with 107 and the address."""
    done = scripts("run", {"TARGET": "http://127.0.0.1:9", "SCALE": SMALL["load"], **SHORT}, k6=k6 or None)

    assert done.returncode == 107
    assert "nothing answers at http://127.0.0.1:9" in done.stderr
