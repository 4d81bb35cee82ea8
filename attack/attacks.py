"""Attacks on the program while it serves a node: what a client, the kubelet or a tenant does to it, one after the other.

Each does something so many times, or until its time is over, and says what must not have happened. What it held before,
at its peak and after is looked at for all of them by :mod:`attack.served`.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import bcrypt
import trustme

from attack.clients import (
    abort,
    basic,
    flood_malformed,
    go_slow,
    guess_passwords,
    half_close,
    hold_idle,
    hold_silent_tls,
    never_read,
    scrape_at_once,
    show_tokens,
)
from attack.kubelet import come_and_go, cut_answers, large_list
from attack.node import KNOWN_TOKEN, MIB, wait_for
from attack.under import Attack, Setting, Told, Under

_FAKES: Final = 140
"""Pods beside those of the node: with them the list is nearly as large as one that is kept may be."""
_LISTS: Final = "[" + ",".join(["[]"] * 600_000) + "]"
"""What Python takes the most memory for, by its characters; within what is parsed of a pod."""


def _filled(item: dict[str, Any], annotation: str) -> bytes:
    """The pod as JSON, with about as much in it as is kept of one, and an annotation, which is not kept."""
    status = item["status"]["containerStatuses"][0]
    item["spec"]["initContainers"] = [{"name": "n", "image": "i"}] * 64
    item["status"]["initContainerStatuses"] = [
        {**status, "name": f"init-{number}", "containerID": f"containerd://{number:064x}"} for number in range(64)
    ]
    text = json.dumps({**item, "metadata": {**item["metadata"], "annotations": {"a": 0}}})
    return text.replace('{"a": 0}', f'{{"a": {annotation}}}').encode()


def all_at_once(under: Under) -> Told:
    """The worst of clients, the kubelet and tenants at one time: what each may hold, they hold together."""
    items = json.loads(under.tree.pods_json)["items"]
    filled = [_filled(item, _LISTS if number % 8 == 0 else '""') for number, item in enumerate(items)]
    uid = items[1]["metadata"]["uid"].encode()
    filled += [filled[1].replace(uid, f"0000-{number:08}".encode()) for number in range(_FAKES)]
    body = b'{"kind":"PodList","items":[' + b",".join(filled) + b"]}"
    kubelet = under.node.kubelet
    ordinary, kubelet.body = kubelet.body, lambda: body
    told = Told()

    def act(each: Callable[[Under], Told]) -> None:
        while not under.over:
            # One takes connections from another, as it may.
            with suppress(OSError, http.client.HTTPException):
                each(replace(under, count=100))
                told.done += 1

    acts = (abort, never_read, scrape_at_once, go_slow, flood_malformed)
    threads = [threading.Thread(target=act, args=(each,)) for each in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kubelet.body = ordinary
    asked = kubelet.asked
    wait_for(lambda: kubelet.asked > asked + 1, 30)
    told.note = f"{', '.join(one.__name__ for one in acts)}, beside a list of {len(body) / MIB:.0f} MiB each second"
    return told


# --- how the program is started -------------------------------------------------------------------------------------

_KNOWN: Final = {"Authorization": basic("prometheus", "right")}


def _often(_: Path) -> Setting:
    return Setting(arguments=("--pods-interval", "1s"))


def _few_files(_: Path) -> Setting:
    return Setting(most_files=1000)


def _with_passwords(folder: Path) -> Setting:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()
    (folder / "web.yml").write_text(f"basic_auth_users:\n  prometheus: {hashed}\n  fresh: {hashed}\n", encoding="utf-8")
    return Setting(arguments=("--web.config.file", str(folder / "web.yml")), headers=_KNOWN)


def _with_tokens(_: Path) -> Setting:
    return Setting(arguments=("--authenticate",), headers={"Authorization": f"Bearer {KNOWN_TOKEN}"})


def _with_tls(folder: Path) -> Setting:
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "tls.key"))
    (folder / "tls.crt").write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    config = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n"
    (folder / "web.yml").write_text(config, encoding="utf-8")
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return Setting(arguments=("--web.config.file", str(folder / "web.yml")), tls=client)


ATTACKS: Final = (
    Attack(name="scrapes given up", count=1000, seconds=180, act=abort),
    Attack(name="scrapes never read", count=200, seconds=30, act=never_read),
    Attack(name="scrapes never read, TLS", count=200, seconds=40, act=never_read, setting=_with_tls),
    Attack(name="scrapers at once, no gzip", count=100, seconds=40, act=scrape_at_once),
    Attack(name="list of pods of 64 MiB", count=3, seconds=40, act=large_list, setting=_often),
    Attack(name="idle and slow clients", count=1000, seconds=25, act=go_slow),
    Attack(name="idle clients, 1,000 descriptors", count=990, seconds=20, act=hold_idle, setting=_few_files),
    Attack(name="silent connections to TLS", count=280, seconds=25, act=hold_silent_tls, setting=_with_tls),
    Attack(name="malformed requests", count=0, seconds=15, act=flood_malformed),
    Attack(name="guessed passwords", count=0, seconds=15, act=guess_passwords, setting=_with_passwords),
    Attack(name="unknown tokens", count=0, seconds=15, act=show_tokens, setting=_with_tokens),
    Attack(name="all at once", count=0, seconds=40, act=all_at_once, setting=_often, settles=False),
    Attack(name="half-closed clients", count=100, seconds=15, act=half_close, pods=20),
    Attack(name="cut answers of 8 MiB", count=500, seconds=400, act=cut_answers, setting=_often, beside=True),
    Attack(name="pods that come and go", count=0, seconds=600, act=come_and_go, pods=30, beside=True),
)
