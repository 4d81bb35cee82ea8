"""Made-up pods as a status tells of them, for tests of what is made of it."""

from __future__ import annotations

from collections.abc import Iterable

from collector.model import Container, ContainerState, Pod


def container(
    name: str, state: ContainerState = "running", *, id_: str = "", started_ns: int | None = None
) -> Container:
    """A container whose id is its name, if no other is given."""
    return Container(name=name, container_id=id_ or name, kind="app", state=state, image="", started_ns=started_ns)


def pod(
    *containers: Container,
    running: Iterable[str] = (),
    ended: Iterable[str] = (),
    awaited: Iterable[str] = (),
    uid: str = "u",
    name: str = "p",
    phase: str = "Running",
    created_ns: int = 0,
    runtime_class: str = "",
    awaits: bool = False,
    ending: bool = False,
    told_ns: int = 0,
) -> Pod:
    """The pod ns/p, with containers whose ids are their names."""
    every = [
        *containers,
        *(container(one, "running") for one in running),
        *(container(one, "ended") for one in ended),
        *(container(one, "awaited") for one in awaited),
    ]
    return Pod(
        namespace="ns",
        name=name,
        uid=uid,
        phase=phase,
        qos_class="Burstable",
        node="n",
        created_ns=created_ns,
        host_network=False,
        labels={},
        owner_kind="",
        owner_name="",
        containers={one.container_id: one for one in every},
        runtime_class=runtime_class,
        awaits=awaits,
        ending=ending,
        told_ns=told_ns,
    )
