"""podtally's account of itself."""

from __future__ import annotations

import errno

import psutil
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from collector.loop import Ticking
from collector.metrics.account import Account, AccountCollector, KubeletAgreement
from collector.metrics.catalogue import SELF
from collector.model import SOURCES, SourceName, Tally
from tests.filled import answered, filling
from tests.replays import last_tally, replayed_upstream


def page(account: Account, tally: Tally | None) -> str:
    """The account as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AccountCollector(account, lambda: tally, lambda: 1.5))
    return generate_latest(registry).decode()


@pytest.mark.parametrize("source", SOURCES)
def test_every_row_of_the_catalogue_is_exported_and_no_other(source: SourceName) -> None:
    """With answers and a scrape, the account has each podtally_ and process_ family of its source with its labels."""
    rows = [row for row in SELF if source in row.sources]
    if source == "cgroup":
        # A pod of it is filled, as without one there is no upstream.
        collector: Ticking = filling(answered("gvisor-empty-subcontainers"))
        collector.account.descriptors_held = collector.account.descriptors_limit = lambda: 1
        collector.account.opened_reads = lambda: 1
        collector.account.agreement = lambda: KubeletAgreement(
            {"cpu": 2}, {"cpu": 0}, {("cpu", "median"): 0.01}, {"ok": 1}, age_seconds=5.0
        )
    else:
        collector = replayed_upstream("parity-1hz.tar.zst", source)
    tally = list(collector.tallies())[-1]
    account = collector.account
    account.scraped("/metrics", 0.1)
    account.web_config_successful = lambda: True
    account.refusals, account.reviews = {"forbidden": 1}, {("201", "token"): 1}
    account.busy_answers, account.ended_connections = lambda: 1, {"room": 1}
    families = {family.name: family for family in text_string_to_metric_families(page(account, tally))}

    assert set(families) == {row.name.removesuffix("_total") for row in rows}
    for row in rows:
        family = families[row.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (row.type, row.help)
        assert {tuple(sorted(sample.labels)) for sample in family.samples} == {row.labels}


def test_before_the_first_tally_there_are_no_numbers_of_one() -> None:
    """What is not known is absent: no pods, no age of names; the source of names is none."""
    text = page(Account(), None)

    assert "podtally_pods " not in text
    assert "podtally_names_age_seconds" not in text
    assert 'podtally_names_source{source="none"} 1.0' in text


def test_each_reason_is_there_from_the_start() -> None:
    """Counters by reason start at 0, so that increase() sees the first error."""
    text = page(Account(), last_tally("restart"))

    for reason in ("denied", "exhausted", "failed", "malformed"):
        assert f'podtally_read_errors_total{{reason="{reason}"}} 0.0' in text
    for reason in ("unnamed_pod", "unnamed_container", "unread_container"):
        assert f'podtally_pods_incomplete{{reason="{reason}"}}' in text


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "no"), psutil.AccessDenied()])
def test_what_cannot_be_read_of_the_process_is_left_out(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc cannot be read, as no descriptor is left, the page has all but ``process_*``."""

    def fail(_: psutil.Process) -> object:
        raise error

    monkeypatch.setattr(psutil.Process, "create_time", fail)
    text = page(Account(), None)

    assert "process_" not in text
    assert 'podtally_ticks_total{result="ok"} 0.0' in text
