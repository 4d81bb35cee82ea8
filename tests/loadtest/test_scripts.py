"""The k6 scripts: sizes, thresholds, what they ask and check and write. Run by Node in a stand-in for k6's runtime.

``make loadtest`` runs all profiles, and by k6 itself where it is installed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.loadtest.running import LOADTEST, PROFILES, SHORT, SMALL, crossed, scripts, summary_in, tell

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="Node is not installed, and it is what runs the k6 scripts here."
)

STATED = {
    "load": ([("120s", 100), ("600s", 100), ("120s", 0)], 100, "14m30s"),
    "stress": ([("120s", 100), ("180s", 300), ("180s", 450), ("300s", 600), ("120s", 0)], 600, "15m30s"),
    "spike": ([("120s", 50), ("30s", 500), ("240s", 500), ("30s", 50), ("120s", 50), ("60s", 0)], 500, "10m30s"),
    "soak": ([("120s", 75), ("1560s", 75), ("120s", 0)], 75, "30m30s"),
    "autoscale": ([("180s", 400), ("120s", 800), ("300s", 800), ("120s", 0)], 800, "12m30s"),
    "latency": ([("60s", 60), ("480s", 60), ("60s", 0)], 300, "10m30s"),
}
"""Stages, most virtual users, and duration with the 30 s of grace. k6 2.2 was seen to report the first five."""

ENDPOINTS = ("home_timeline", "user_timeline", "compose")


@cache
def inspected(profile: str, **environment: str) -> dict[str, Any]:
    """The options of a profile."""
    done = scripts("inspect", {"PROFILE": profile, **environment})
    assert done.returncode == 0, done.stderr
    options: dict[str, Any] = json.loads(done.stdout)
    return options


def test_every_profile_is_stated() -> None:
    """Tests and scripts know the same six profiles; a wrong name is answered with them."""
    assert tuple(STATED) == PROFILES
    error = scripts("inspect", {"PROFILE": "none"}).stderr
    assert error == f'PROFILE is "none": there are {", ".join(PROFILES)}\n'


@pytest.mark.parametrize("profile", PROFILES)
def test_size_and_duration(profile: str) -> None:
    """Each profile has its stated stages, virtual users and duration, in one scenario of its name."""
    stages, most, duration = STATED[profile]
    options = inspected(profile)

    (scenario,) = options["scenarios"].values()
    assert list(options["scenarios"]) == [profile]
    assert [(stage["duration"], stage["target"]) for stage in scenario["stages"]] == stages
    assert (options["maxVUs"], options["totalDuration"]) == (most, duration)


def test_one_factor_scales_users_and_rate() -> None:
    """SCALE changes targets and the least number of requests, never a duration; nobody is scaled away."""
    quarter, least = inspected("stress", SCALE="0.25"), inspected("stress", SCALE="0.0001")
    assert [stage["target"] for stage in quarter["scenarios"]["stress"]["stages"]] == [25, 75, 113, 150, 0]
    assert [stage["target"] for stage in least["scenarios"]["stress"]["stages"]] == [1, 1, 1, 1, 0]
    assert quarter["totalDuration"] == STATED["stress"][2]
    rate = inspected("latency", SCALE="0.5")
    assert [stage["target"] for stage in rate["scenarios"]["latency"]["stages"]] == [30, 30, 0]
    assert rate["maxVUs"] == 150


@pytest.mark.parametrize("profile", PROFILES)
def test_thresholds_ask_for_requests(profile: str) -> None:
    """Errors, checks and requests are held as a whole and by endpoint, so that an empty run can pass nowhere."""
    thresholds = inspected(profile)["thresholds"]

    assert thresholds["http_req_failed"][0] == "rate<0.10"
    assert thresholds["checks"][0] == "rate>0.90"
    (least,) = thresholds["http_reqs"]
    assert int(least.removeprefix("count>=")) > 1000
    for endpoint in ENDPOINTS:
        assert thresholds[f"http_req_failed{{endpoint:{endpoint}}}"] == ["rate<0.10"]
        assert thresholds[f"checks{{endpoint:{endpoint}}}"] == ["rate>0.90"]
        (least,) = thresholds[f"http_reqs{{endpoint:{endpoint}}}"]
        assert int(least.removeprefix("count>=")) > 10
        assert f"http_req_duration{{endpoint:{endpoint}}}" in thresholds


def test_the_open_profile_holds_what_began_late() -> None:
    """The profile with a rate allows less than one request in a hundred to be dropped: else it is a closed one."""
    options = inspected("latency")
    requests = sum(60 * seconds for seconds in (30, 480, 30))
    assert options["thresholds"]["dropped_iterations"] == [f"count<{requests // 100}"]
    assert options["scenarios"]["latency"]["executor"] == "ramping-arrival-rate"


def test_no_series_by_url() -> None:
    """Tags of k6's own are few: neither url nor name, of which each query would be one more."""
    tags = set(inspected("load")["systemTags"])
    assert tags == {"scenario", "status", "error_code", "expected_response", "check"}


def test_nothing_is_imported_from_the_network() -> None:
    """The scripts import k6's own modules and each other, by names that a ConfigMap's flat folder has."""
    for path in (LOADTEST / "k6").glob("*.js"):
        for name in re.findall(r"from '([^']+)'", path.read_text(encoding="utf-8")):
            assert name in ("k6", "k6/http") or (path.parent / name).is_file(), f"{path.name} imports {name}"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SCALE", "half", 'SCALE is "half": write a number above 0, such as 1'),
        ("SCALE", "0", 'SCALE is "0": write a number above 0, such as 1'),
        ("TARGET", "nginx-thrift", 'TARGET is "nginx-thrift": write an address with its scheme'),
        ("USERS", "1", 'USERS is "1": posts mention other users'),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str, said: str) -> None:
    """A setting that cannot be used ends the run before it begins, with its name, its value and what would do."""
    done = scripts("run", {variable: value})
    assert (done.returncode, done.stdout) == (107, "")
    assert done.stderr.startswith(said)


def test_the_readme_has_the_profiles_and_variables() -> None:
    """Each profile's row has its minutes, and each variable of the table is one that the scripts or the Job read."""
    readme = (LOADTEST / "README.md").read_text(encoding="utf-8")
    for profile, (_, _, duration) in STATED.items():
        assert re.search(rf"^\| `{profile}` \| [^|]+ \| {duration.split('m')[0]} min \|", readme, re.MULTILINE), profile
    read = (LOADTEST / "k6/settings.js").read_text(encoding="utf-8")
    variables = re.findall(r"^\| `([A-Z_]+)` \|", readme, re.MULTILINE)
    assert len(variables) == 7
    assert {name for name in variables if name not in read} == {"PROMETHEUS_URL"}


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sound(filled: str) -> Iterator[str]:
    """The application without a fault, before and after."""
    tell(filled, "none")
    yield filled
    tell(filled, "none")


def run(profile: str, address: str, **more: str) -> tuple[int, dict[str, Any]]:
    """A short, small run; exit code and summary."""
    done = scripts("run", {"PROFILE": profile, "SCALE": SMALL[profile], "TARGET": address, **SHORT, **more})
    return done.returncode, summary_in(done.stdout)


def test_a_run_against_a_sound_application(sound: str, tmp_path: Path) -> None:
    """All thresholds are held, all three endpoints asked, and the summary on stdout is the one in the file."""
    status, summary = run("load", sound, RESULTS=str(tmp_path), TESTID="t-1")

    assert (status, crossed(summary)) == (0, set())
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    assert {key: summary[key] for key in ("version", "profile", "testid", "scale", "vus_max")} == {
        "version": 1,
        "profile": "load",
        "testid": "t-1",
        "scale": 0.04,
        "vus_max": 4,
    }
    began, ended = (datetime.fromisoformat(summary[key]) for key in ("started", "ended"))
    assert 3 < (ended - began).total_seconds() < summary["duration_seconds"] + 1
    metrics = summary["metrics"]
    counts = [metrics[f"http_reqs{{endpoint:{endpoint}}}"]["values"]["count"] for endpoint in ENDPOINTS]
    assert all(count > 0 for count in counts)
    assert sum(counts) + 1 == metrics["http_reqs"]["values"]["count"], "the one more is setup's"
    assert {"avg", "min", "med", "p(90)", "p(95)", "p(99)", "max", "count"} <= set(
        metrics["http_req_duration{endpoint:compose}"]["values"]
    )


def test_an_endpoint_that_fails_cannot_hide(sound: str) -> None:
    """Posts that all fail are a tenth of the requests: the endpoint's own threshold tells, whatever the whole says."""
    tell(sound, "compose")
    status, summary = run("load", sound)

    assert status == 99
    assert {"http_req_failed{endpoint:compose} rate<0.10", "checks{endpoint:compose} rate>0.90"} <= crossed(summary)
    assert not any("timeline" in one for one in crossed(summary))


def test_empty_reads_are_no_success(sound: str) -> None:
    """Reads that find nothing are answered with 200 and still fail the run."""
    tell(sound, "empty")
    status, summary = run("load", sound)

    assert status == 99
    assert summary["metrics"]["http_req_failed"]["values"]["rate"] == 0
    assert "checks{endpoint:home_timeline} rate>0.90" in crossed(summary)


def test_a_hopeless_run_is_broken_off(sound: str) -> None:
    """Of an application that fails every request no more is asked after the first minute, here a second."""
    tell(sound, "fail")
    status, summary = run("soak", sound)

    assert status == 99
    assert "http_req_failed rate<0.50" in crossed(summary)
    assert summary["duration_seconds"] < 6, "of 8"


def test_nothing_answers() -> None:
    """Where nothing listens the run ends before it begins, with the address and what to look at."""
    done = scripts("run", {"TARGET": "http://127.0.0.1:9", "SCALE": SMALL["load"], **SHORT})

    assert done.returncode == 107
    assert done.stderr.startswith("nothing answers at http://127.0.0.1:9 (ECONNREFUSED): is TARGET the address of")
