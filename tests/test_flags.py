"""Flags, environment and defaults."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import UsageError
from collector.flags import (
    FLAGS,
    POSITIONALS,
    SUMMARIES,
    Flag,
    build_parser,
    duration,
    flags_of,
    namespaces,
    resolve,
)

ARGUMENTS = {"replay": ["r"], "record": ["out"], "loadtest run": ["load"], "loadtest report": ["folder"]}


def resolved(*words: str, **environment: str) -> argparse.Namespace:
    """What the program would work with."""
    return resolve(build_parser("0").parse_args(words), environment)


def refused(*words: str, **environment: str) -> str:
    """Why it would not."""
    with pytest.raises(UsageError) as caught:
        resolved(*words, **environment)
    return str(caught.value)


def test_a_default_holds_where_nothing_is_said() -> None:
    """The contract's defaults of serve."""
    found = resolved("serve")

    assert vars(found) == {
        "command": "serve",
        "reads": "cgroup",
        "upstream_interval": 10.0,
        "stale_after": 120.0,
        "namespace": None,
        "all_namespaces": False,
        "cgroup_root": "/sys/fs/cgroup",
        "proc_root": "/proc",
        "fill_from": None,
        "kubepods": None,
        "node_name": None,
        "kubelet_url": "https://127.0.0.1:10250",
        "kubelet_ca_file": None,
        "kubelet_insecure_tls": False,
        "token_file": None,
        "apiserver_url": None,
        "pods_interval": 30.0,
        "listen": ":9753",
        "web_config_file": None,
        "authenticate": False,
        "interval": 1.0,
        "window": 15.0,
        "slow_every": 5,
        "verify_interval": None,
        "linger": 30.0,
        "collect": ("default",),
        "no_containers": False,
        "pod_labels": (),
        "no_cadvisor": False,
        "cadvisor_timestamps": False,
        "log_level": "info",
    }


def test_the_environment_beats_the_default() -> None:
    """PODTALLY_<NAME> stands for the flag."""
    found = resolved(
        "serve",
        PODTALLY_INTERVAL="500ms",
        PODTALLY_NO_CONTAINERS="yes",
        PODTALLY_POD_LABELS="app, tier,",
        PODTALLY_X="1",
    )

    assert (found.interval, found.no_containers, found.pod_labels) == (0.5, True, ("app", "tier"))


def test_a_dot_of_a_name_is_an_underscore_of_its_variable() -> None:
    """--web.config.file has the exporters' name, and PODTALLY_WEB_CONFIG_FILE stands for it."""
    variables = {"PODTALLY_WEB_CONFIG_FILE": "web.yml", "PODTALLY_AUTHENTICATE": "true"}

    assert resolved("replay", "r", "--web.config.file", "other.yml", **variables).web_config_file == "other.yml"
    assert (resolved("serve", **variables).web_config_file, resolved("serve", **variables).authenticate) == (
        "web.yml",
        True,
    )


def test_a_flag_beats_the_environment() -> None:
    """What is on the command line holds, even where the variable is malformed."""
    found = resolved("serve", "--interval", "2s", "--no-containers", PODTALLY_INTERVAL="x", PODTALLY_NO_CONTAINERS="x")

    assert (found.interval, found.no_containers) == (2.0, True)


def test_commands_have_their_own_defaults() -> None:
    """A replay listens to this machine alone; commands that a person waits for log no chatter."""
    assert resolved("replay", "r").listen == "127.0.0.1:9753"
    assert {command: resolved(*command.split(), *ARGUMENTS.get(command, [])).log_level for command in SUMMARIES} == {
        "serve": "info",
        "replay": "info",
        "record": "warning",
        "top": "warning",
        "verify": "error",
        "doctor": "error",
        "metrics": "warning",
        "loadtest run": "info",
        "loadtest report": "warning",
    }


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), ("0.05", 0.05), ("100%", 1.0)])
def test_a_tolerance_is_a_share(text: str, value: float) -> None:
    """In percent or as a number."""
    assert resolved("verify", "--tolerance", text).tolerance == pytest.approx(value)


def test_the_kubelet_is_not_compared_with_more_often_than_it_looks() -> None:
    """Its own samples are 10 to 30 s apart."""
    with pytest.raises(UsageError, match="--verify-interval 5s is shorter than 30s"):
        resolved("serve", "--verify-interval", "5s")


def test_a_recording_may_be_called_from() -> None:
    """Record --from R and --recording R are the same, also in the environment."""
    assert [
        resolved("record", "out", "--from", "r").source,
        resolved("record", "out", "--recording", "r").source,
        resolved("top", PODTALLY_RECORDING="r").source,
    ] == ["r", "r", "r"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PODTALLY_INTERVAL", "soon", "'soon' is no duration: write 1s, 500ms or 1m30s"),
        ("PODTALLY_INTERVAL", "", "'' is no duration: write 1s, 500ms or 1m30s"),
        ("PODTALLY_INTERVAL", "9" * 400, f"'{'9' * 400}' is longer than the 365 days allowed"),
        ("PODTALLY_SLOW_EVERY", "0", "'0' is no whole number from 1 to 999999999"),
        ("PODTALLY_SLOW_EVERY", "9" * 5000, f"'{'9' * 5000}' is no whole number from 1 to 999999999"),
        ("PODTALLY_NO_CONTAINERS", "maybe", "'maybe' is neither true nor false"),
        ("PODTALLY_LOG_LEVEL", "loud", "'loud' is none of debug, info, warning, error"),
        ("PODTALLY_LISTEN", "x", "'x' is no address: give HOST:PORT or :PORT, as 127.0.0.1:9753"),
    ],
)
def test_a_malformed_variable_is_named(variable: str, value: str, said: str) -> None:
    """The sentence names the variable and what it should be."""
    assert refused("serve", **{variable: value}) == f"the environment variable {variable}: {said}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("loadtest", "run", "load", "--before", "5s"),
            "--before 5s is shorter than 30s: CPU is a mean over 15 s, of which a few are needed",
        ),
        (("loadtest", "run", "load", "--scale", "0"), "--scale 0 is not above 0 and at most 1000"),
        (("loadtest", "run", "load", "--start-timeout", "0s"), "--start-timeout must be longer than 0"),
        *(
            (("loadtest", "run", "load", "--target", bad), f"--target '{bad}' is no URL: give http://HOST:PORT")
            for bad in ("nonsense", "nginx-thrift:8080", "http://", "http://host:port")
        ),
        (("loadtest", "run", "load", "-n", "A"), "--namespace 'A' is no name of a namespace"),
        (("loadtest", "run", "load", "-n", ","), "--namespace is empty: name where the application is"),
        (("serve", "--interval", "0"), "--interval 0s is shorter than 0.05s, the least that is of use"),
        (
            ("serve", "--interval", "10s"),
            "--window 15s is shorter than two of --interval 10s, so that no rate fits in it:"
            " give --window 20s or more, or a shorter --interval",
        ),
        (("replay", "r", "--window", "0"), "--window must be longer than 0"),
        (("serve", "--pods-interval", "0"), "--pods-interval 0s is shorter than 1s"),
        (("record", "out", "--duration", "0"), "--duration must be longer than 0"),
        (("replay", "r", "--speed", "0"), "--speed 0 is not above 0 and at most 1000"),
        (("replay", "r", "--speed", "nan"), "--speed nan is not above 0 and at most 1000"),
        (("replay", "r", "--speed", "inf"), "--speed inf is not above 0 and at most 1000"),
        (("top", "-A", "-n", "x"), "--namespace x and --all-namespaces contradict each other"),
        (("top", "--recording", "r", "--url", "u"), "--recording r and --url u: choose one"),
        (
            ("serve", "--source", "summary", "--cgroup-root", "/c"),
            "--cgroup-root is of no use with --source summary: leave it out, or choose --source cgroup",
        ),
        (
            ("serve", "--source", "metrics-api", "--kubelet-insecure-tls"),
            "--kubelet-insecure-tls is of no use with --source metrics-api: leave it out, or choose --source cgroup or"
            " summary",
        ),
        (
            ("serve", "-n", "x"),
            "--namespace is of no use with --source cgroup: leave it out, or choose --source metrics-api",
        ),
        (
            ("replay", "r", "--window", "9s", "--source", "summary"),
            "--window is of no use with --source summary: leave it out, or choose --source cgroup",
        ),
        (
            ("serve", "--source", "metrics-api", "-A", "-n", "x"),
            "--namespace x and --all-namespaces contradict each other",
        ),
        (("serve", "--source", "metrics-api", "-n", "a,B"), "--namespace 'B' is no name of a namespace"),
        (("serve", "--source", "metrics-api", "-n", "../x"), "--namespace '../x' is no name of a namespace"),
        (
            ("serve", "--source", "summary", "--upstream-interval", "500ms"),
            "--upstream-interval 0.5s is shorter than 1s",
        ),
        (
            ("serve", "--source", "summary", "--stale-after", "15s"),
            "--stale-after 15s is shorter than two of --upstream-interval 10s, so that one lost answer would empty the"
            " page: give --stale-after 20s or more",
        ),
        (
            ("replay", "r", "--source", "metrics-api", "--once", "--path", "/metrics/resource"),
            "--path /metrics/resource has cumulative counters, and --source metrics-api tells but rates",
        ),
        (("replay", "r", "--once", "--openmetrics", "-"), "--once and --openmetrics both print and exit: choose one"),
        (
            ("replay", "r", "--path", "/metrics/resource"),
            "--path /metrics/resource is of use with --once only: give --once, or leave it out",
        ),
        (
            ("replay", "r", "--path", "/metrics", "--openmetrics", "-"),
            "--path /metrics is of use with --once only: give --once, or leave it out",
        ),
        (
            ("replay", "r", "--once", "--loop"),
            "--loop never ends, so there is no last frame for --once or --openmetrics",
        ),
    ],
)
def test_what_no_flag_alone_can_tell_is_checked(words: tuple[str, ...], said: str) -> None:
    """Flags that contradict each other, and values out of range, are told with both values."""
    assert refused(*words) == said


def test_a_variable_for_another_source_is_let_be() -> None:
    """In one pod all commands have the same variables: what is of no use with a source is not used, and not refused."""
    found = resolved("serve", PODTALLY_SOURCE="summary", PODTALLY_CGROUP_ROOT="/host", PODTALLY_NAMESPACE="A B")

    assert found.reads == "summary"


def test_a_path_in_a_variable_is_let_be() -> None:
    """It may be there for another replay, with --once."""
    assert resolved("replay", "r", PODTALLY_PATH="/metrics/resource").path == "/metrics/resource"


def test_authenticate_is_never_left_out_unsaid() -> None:
    """The metrics API is of no node whose metrics one may get: who asks for that check is refused, not let in."""
    said = "--authenticate asks who may get nodes/metrics of this node, and --source metrics-api is of no node"

    assert refused("serve", "--source", "metrics-api", "--authenticate").startswith(said)
    assert refused("serve", PODTALLY_SOURCE="metrics-api", PODTALLY_AUTHENTICATE="1").startswith(said)


def test_a_loop_of_an_upstream_is_refused() -> None:
    """Nothing carries an upstream's counters over the seam; a variable that asks for it is refused as well."""
    assert refused("replay", "r", "--source", "summary", PODTALLY_LOOP="1") == (
        "--loop carries the cgroups' counters over its seam, --source summary has none of them"
    )


def test_several_namespaces_are_separated_by_commas() -> None:
    """Each once, in the order given."""
    assert namespaces(resolved("serve", "--source", "metrics-api", "-n", "b, a,b")) == ("b", "a")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "podtally: the following arguments are required: COMMAND; podtally --help tells what there is\n"),
        (("serve", "--intervall", "1s"), "podtally serve: unknown --intervall 1s; podtally serve --help tells"),
        (("serve", "--int", "1s"), "podtally serve: unknown --int 1s; "),
        (("metrics", "extra"), "podtally metrics: unknown extra; "),
        (("serve", "--interval", "x"), "podtally serve: argument --interval: 'x' is no duration: write 1s, 500ms or"),
        (("top", "--sort", "x"), "podtally top: argument --sort: invalid choice: 'x'"),
        (("replay",), "podtally replay: the following arguments are required: RECORDING; "),
        (("frob",), "podtally: argument COMMAND: invalid choice: 'frob'"),
        (("replay", "r", "--speed", "fast"), "podtally replay: argument --speed: 'fast' is no number; "),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, one line on stderr that names the command, and where to read on."""
    with pytest.raises(SystemExit) as caught:
        build_parser("0").parse_args(words)

    out, err = capsys.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(said)


@pytest.mark.parametrize("command", SUMMARIES)
def test_each_flag_is_in_its_commands_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help names each flag of the command, what it does and its default."""
    with pytest.raises(SystemExit) as caught:
        build_parser("0", width=10_000).parse_args([*command.split(), "--help"])

    words = capsys.readouterr().out.split()
    assert caught.value.code == 0
    for flag in flags_of(command):
        default = flag.default_of(command)
        told = f" (default {default})" if default and flag.kind != "switch" else ""
        assert {f"--{flag.name}", f"--{flag.name},"} & {*words}
        assert f"{flag.help_of(command)}{told}" in " ".join(words)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_each_flag_is_sound(flag: Flag) -> None:
    """A flag has a help text, commands that exist, and defaults that it takes itself."""
    assert flag.help
    assert set(flag.commands) <= SUMMARIES.keys()
    assert set(flag.defaults) <= set(flag.commands)
    for command in flag.commands:
        resolved(*command.split(), *ARGUMENTS.get(command, []))


def test_names_and_variables_are_unique() -> None:
    """No flag stands twice, and each has a variable of its own."""
    assert len({flag.name for flag in FLAGS}) == len({flag.variable for flag in FLAGS}) == len(FLAGS)
    assert set(POSITIONALS) <= set(SUMMARIES)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("1m30s", 90.0), ("500ms", 0.5), ("1.5h", 5400.0), ("15", 15.0), ("0", 0.0), ("2m0.5s", 120.5)],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    """Durations are written as Go's programs take them, or as plain seconds."""
    assert duration(text) == seconds


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    """No text gives anything but seconds or a sentence."""
    try:
        value: Any = duration(text)
    except argparse.ArgumentTypeError:
        return
    assert 0 <= value <= 365 * 86400
