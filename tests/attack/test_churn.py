"""Ticks over a node in memory that changes, in little, and what a campaign says of its attacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from attack import run, served
from attack.attacks import ATTACKS
from attack.churn import Churned, churn
from attack.fuzz import Done, Escape, Sample
from attack.node import MIB, limit_bytes, place, tree
from attack.pods import Comings
from attack.rows import Row, table

HELD = Churned(1000, 10, 5, 3, (), (40 * MIB,) * 20)


def test_ticks_go_on_under_churn() -> None:
    """Ticks over pods that come and go, while the clock jumps and cgroups fail, give no defect and no absurd rate."""
    done = churn(seed=14, ticks=800)

    assert done.wrong == ()
    assert done.ticks == 800
    assert min(done.changes, done.jumps, done.failures) > 10


def test_a_defect_in_a_tick_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception out of a tick ends the run, and is what it says."""
    monkeypatch.setattr("collector.tally.Tally", None)
    monkeypatch.setattr("collector.loop.tally", lambda *_, **__: 1 // 0)

    done = churn(seed=14, ticks=100)

    assert done.ticks < 100
    assert done.wrong[0].startswith("defect: ZeroDivisionError")


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([HELD], None),
        ([HELD._replace(rss_bytes=(40 * MIB,) * 19 + (49 * MIB,))], "it grows: 9.0 MiB after the first quarter"),
        ([HELD._replace(rss_bytes=(20 * MIB, 49 * MIB, *(40 * MIB,) * 18))], None),
        ([HELD._replace(ticks=999)], "fewer than 1,000 in this time"),
        ([HELD._replace(wrong=("a pod uses -1 cores",))], "a pod uses -1 cores"),
    ],
)
def test_ticks_in_a_row_are_judged(parts: list[Churned], fault: str | None) -> None:
    """Growth after the first quarter, too few ticks and wrong rates are faults."""
    assert list(run.churned(parts, 1000).faults) == ([fault] if fault is not None else [])


@pytest.mark.parametrize(
    ("sizes", "faults"),
    [
        ((50, 200, 58), 0),
        ((50, 257, 50), 1),
        ((50, 200, 59), 1),
        ((50, 300, 300), 2),
    ],
)
def test_memory_is_judged(sizes: tuple[int, int, int], faults: int) -> None:
    """The peak is held to the limit, and what is held afterwards to what was before, within 8 MiB."""
    before, peak, after = (size * MIB for size in sizes)

    assert len(served.verdicts(before, peak, after, 256 * MIB)) == faults


def test_the_limit_is_the_manifests() -> None:
    """The limit is read where it is set."""
    text = (run.ROOT / "daemonset" / "base" / "daemonset.yaml").read_text(encoding="utf-8")

    assert f"limits:\n              memory: {limit_bytes() // MIB}Mi" in text


def test_a_page_tells_what_failed() -> None:
    """The page has a row for each attack, and what escaped with the command that shows it again."""
    campaign = run.Campaign(900, 14, "")
    campaign.rows = [Row("one", "1,000", (), 50 * MIB, 60 * MIB, 50 * MIB, (3, 3), 0), Row("two", "5", ("it | grows",))]
    escape = Escape("answers", 14, 3, "KeyError at x.py:1: 'a'", (Sample("/pods", (b"{}",)),))
    campaign.inputs = [run.fuzzed("answers", "what peers say", Done(10, 4, [escape]))]
    campaign.escapes = [escape.told()]

    text = run.page(campaign)

    assert "**2 failed.**" in text
    assert "| one | 1,000 | 50 | 60 | 50 | 3 of 3 | 0 | ok |  |" in text
    assert "| two | 5 | - | - | - | - | - | **FAILED** | it \\| grows |" in text
    assert "| answers | 10 | **FAILED** | 1 escaped; what peers say |" in text
    assert "python -m attack.run --seed 14 --only 'answers' --block 3" in text


def test_a_table_has_the_columns_that_are_needed() -> None:
    """A column in which no row has anything is left out."""
    assert table([Row("one", "5")]) == ["| attack | done |  |", "| --- | --- | --- |", "| one | 5 | ok |"]
    assert table([]) == []


def test_attacks_have_names_and_sentences() -> None:
    """Each attack can be chosen by its name, and says what it does."""
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack.act.__doc__ for attack in ATTACKS)


def test_pods_come_and_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The list has the pods whose cgroups are there, with the containers of now; afterwards all are there again."""
    monkeypatch.setattr("attack.node.place", lambda: str(tmp_path))
    with tree(6) as of:
        comings = Comings(of, seed=14)
        sizes = set()
        for _ in range(40):
            comings.change()
            text = comings.pods_json().decode()
            pods = list((of.cgroup_root / "kubepods.slice").rglob("*-pod*.slice"))
            sizes.add(len(pods))
            assert text.count('"creationTimestamp"') == len(pods)
            assert all(sum(f"//{leaf.name[15:-6]}" in text for leaf in pod.glob("*.scope")) == 2 for pod in pods)
        comings.settle()
        assert len(list((of.cgroup_root / "kubepods.slice").rglob("*-pod*.slice"))) == 6
    assert len(sizes) > 2


def test_trees_are_made_in_memory_where_there_is_some() -> None:
    """A folder for trees is a folder, or the system's choice."""
    assert place() is None or Path(str(place())).is_dir()


def test_a_campaign_wants_something(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that nothing has, a block of nothing and no time are said, and exit with 2."""
    for arguments in (["--only", "nothing of this kind"], ["--block", "3"], ["--seconds", "0"]):
        with pytest.raises(SystemExit) as ended:
            run.main([*arguments, "--no-write"])
        assert ended.value.code == 2
    assert "nothing has 'nothing of this kind' in its name" in capsys.readouterr().err
