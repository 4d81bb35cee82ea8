"""The page: what a person sees."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from collector.errors import Gone
from collector.loop import Published
from collector.server.page import LINKS, render
from collector.sources.recording import RecordedAnswers, RecordedTree
from tests.support import LEAF_A, LEAF_B, UID, Answers, collector_over, live, recording, v2_root

HOSTILE = "<script>alert('&')</script>"


class Reader(HTMLParser):
    """The page's text, tags and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key == "href"]

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []


def published(name: str) -> Published:
    """The last tally of a recording."""
    tree = RecordedTree(recording(name))
    return Published(list(collector_over(tree, RecordedAnswers(tree)).tallies())[-1], 0, 0, 0)


def test_the_page_shows_the_table() -> None:
    """The pods stand as kubectl top prints them, under the node's name."""
    texts = Reader(render(published("static-pod"), None)).texts

    begin = texts.index("NAMESPACE")
    assert texts[begin : begin + 12] == [
        *("NAMESPACE", "NAME", "CPU(cores)", "MEMORY(bytes)"),
        *("kube-system", "static-web-node1", "50m", "10Mi"),
        *("team-a", "db", "100m", "18Mi"),
    ]
    assert "node1" in texts


def test_the_page_links_to_everything() -> None:
    """Each path of the server is one click away."""
    assert Reader(render(None, None)).links == [path for path, _ in LINKS]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    """A name that is HTML, which only a broken or hostile peer can give, stays text."""
    status = {"name": "c", "containerID": f"containerd://{LEAF_B}", "state": {"running": {}}}
    item = {
        "metadata": {"namespace": HOSTILE, "name": HOSTILE, "uid": UID},
        "status": {"phase": "Running", "containerStatuses": [status, {**status, "containerID": f"x://{LEAF_A}"}]},
    }
    body = json.dumps({"items": [item]}).encode()
    collector = collector_over(live(v2_root(tmp_path / "cgroup")), Answers(body))

    page = Reader(render(Published(collector.tick(), 0, 0, 0), f"{HOSTILE} failed"))

    assert "script" not in page.tags
    assert (page.texts.count(HOSTILE), any(text.endswith(f"{HOSTILE} failed") for text in page.texts)) == (2, True)
    collector.close()


def test_the_page_tells_what_is_wrong() -> None:
    """A failed tick, names of the second choice and withheld sums are told in words."""
    static = Reader(render(published("static-pod"), str(Gone("kubepods", 2)))).texts
    missing = Reader(render(published("missing-files"), None)).texts

    assert "The last tick failed, this is the tally before it: kubepods: No such file or directory" in static
    assert any(text.startswith("Names come from the API server: the kubelet: HTTP 403: Forbidden") for text in static)
    assert "1 pod without sums: unnamed_container: no status names one of its containers." in missing
