"""The social network's API on loopback or in a pod, of several services that do real work: for trying load tests out.

``python application.py`` is all of it in one process. ``--role nginx-thrift`` is the front alone, which asks the
services behind it over HTTP at ``http://<service>:9090``; ``--role home-timeline-service`` is one of those. Where there
is no DNS, ``--behind http://127.0.0.1:{port}`` has each service's own port (``PORTS``). It needs aiohttp and nothing
else, so that podtally's own image runs it with this file mounted.

Work: a request burns CPU in the services that it passes through (``--work``), and posts are kept in memory
(``--post-bytes``).

Faults, by ``--fault`` or at run time by ``POST /fault/<name>``: ``none``; ``fail``, every request is a 500;
``compose``, posts alone are; ``flaky``, every third request is; ``stall``, nothing is answered for two seconds out of
four; ``empty``, reads find nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import ClientSession, web

FAULTS = ("none", "fail", "compose", "flaky", "stall", "empty")
FRONT = "nginx-thrift"
TIMELINES = ("user-timeline-service", "home-timeline-service")
SERVICES = ("user-service", "social-graph-service", "post-storage-service", *TIMELINES, "compose-post-service")
STALL_EVERY_SECONDS, STALL_SECONDS = 4.0, 2.0
PORTS = {FRONT: 8080, **{name: 9091 + index for index, name in enumerate(SERVICES)}}
"""What each listens on where all have one address."""
_KEPT_A_USER = 200
_HASHES_A_UNIT = 100
"""Of some 2000 bytes each: a quarter of a millisecond on a core of today."""

Call = Callable[[str, str, Mapping[str, Any]], Awaitable[Any]]
"""Ask a service for an operation: its name, the operation, its arguments."""


def burn(units: float) -> None:
    """Use the CPU for a while that depends on nothing but the processor."""
    data = b""
    for _ in range(int(units * _HASHES_A_UNIT)):
        data = hashlib.sha256(data).digest() * 64


class Services:
    """What the services behind the front do, each by its own name. State is by process, as a database of its own."""

    def __init__(self, call: Call, work: float, post_bytes: int) -> None:
        self._call = call
        self._work = work
        self._post_bytes = post_bytes
        self._media: list[bytes] = []
        self._users: dict[str, int] = {}
        self._followers: defaultdict[int, set[int]] = defaultdict(set)
        self._posts: dict[str, dict[str, Any]] = {}
        self._timelines: dict[str, defaultdict[int, list[str]]] = {name: defaultdict(list) for name in TIMELINES}
        self._ids = itertools.count(1)

    async def user_service(self, operation: str, asked: Mapping[str, Any]) -> Any:
        """Registers, and refuses a name that is taken in the words of the real one."""
        if operation == "register":
            if asked["username"] in self._users:
                return {"error": f"User registration failure: User {asked['username']} already existed"}
            self._users[asked["username"]] = int(asked["user_id"])
        return {}

    async def social_graph_service(self, operation: str, asked: Mapping[str, Any]) -> Any:
        """Keeps who follows whom; a second time is nothing new."""
        if operation == "follow":
            self._followers[int(asked["followee_id"])].add(int(asked["user_id"]))
            return {}
        return sorted(self._followers[int(asked["user_id"])])

    async def post_storage_service(self, operation: str, asked: Mapping[str, Any]) -> Any:
        """Keeps posts by id."""
        burn(self._work * 0.5)
        if operation == "store":
            self._posts[asked["post"]["post_id"]] = asked["post"]
            self._media.append(b"\1" * self._post_bytes)
            return {}
        return [self._posts[name] for name in asked["ids"] if name in self._posts]

    async def _timeline(self, service: str, operation: str, asked: Mapping[str, Any]) -> Any:
        """One of the two timeline services: the newest first."""
        burn(self._work)
        timelines = self._timelines[service]
        if operation == "write":
            for user in asked["users"]:
                kept = timelines[user]
                kept.insert(0, asked["post_id"])
                del kept[_KEPT_A_USER:]
            return {}
        start, stop = int(asked["start"]), int(asked["stop"])
        ids = timelines[int(asked["user_id"])][start:stop] if 0 <= start < stop else []
        return await self._call("post-storage-service", "read", {"ids": ids}) if ids else []

    async def compose_post_service(self, operation: str, asked: Mapping[str, Any]) -> Any:
        """Writes a post into the storage, its author's timeline and his followers' home timelines."""
        del operation
        burn(self._work * 2)
        user = int(asked["user_id"])
        post = {
            "post_id": f"{time.time_ns()}{next(self._ids):06d}",
            "creator": {"user_id": str(user), "username": asked["username"]},
            "text": asked["text"],
            "media": [{"media_id": name, "media_type": "png"} for name in json.loads(asked.get("media_ids") or "[]")],
            "timestamp": str(time.time_ns() // 10**6),
        }
        followers = await self._call("social-graph-service", "followers", {"user_id": user})
        await self._call("post-storage-service", "store", {"post": post})
        for service, users in (("user-timeline-service", [user]), ("home-timeline-service", followers)):
            await self._call(service, "write", {"users": users, "post_id": post["post_id"]})
        return {}

    def handler(self, service: str) -> Callable[[str, Mapping[str, Any]], Awaitable[Any]]:
        """What answers for a service."""
        if service in TIMELINES:
            return partial(self._timeline, service)
        found: Callable[[str, Mapping[str, Any]], Awaitable[Any]] = getattr(self, service.replace("-", "_"))
        return found


class Front:
    """nginx-thrift: the HTTP that users see."""

    def __init__(self, call: Call, work: float, fault: str) -> None:
        self._call = call
        self._work = work
        self.fault = fault
        self._requests = itertools.count(1)

    @web.middleware
    async def faults(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Any:
        """Do as told, before anything else is done."""
        path = request.path
        if path.startswith(("/fault/", "/healthz")):
            return await handler(request)
        failing = {"fail": True, "compose": path.endswith("/compose"), "flaky": next(self._requests) % 3 == 0}
        if failing.get(self.fault, False):
            return web.Response(status=500, text="failure: as told\n")
        if self.fault == "stall":
            into = time.monotonic() % STALL_EVERY_SECONDS
            await asyncio.sleep(max(0.0, STALL_SECONDS - into))
        burn(self._work * 0.5)
        return await handler(request)

    async def set_fault(self, request: web.Request) -> web.Response:
        """Another fault from now on."""
        name = request.match_info["name"]
        if name not in FAULTS:
            return web.Response(status=400, text=f"there are {', '.join(FAULTS)}\n")
        self.fault = name
        return web.Response(text=f"{name}\n")

    async def read(self, request: web.Request) -> web.Response:
        """A timeline; an empty one is written as the Lua of the real front writes it."""
        asked = request.query
        if not all(asked.get(name) for name in ("user_id", "start", "stop")):
            return web.Response(status=400, text="Incomplete arguments\n")
        service = f"{request.match_info['which']}-service"
        posts = [] if self.fault == "empty" else await self._call(service, "read", dict(asked))
        return web.Response(text=f"{json.dumps(posts) if posts else '{}'}\n", content_type="application/json")

    async def _form(self, request: web.Request, names: tuple[str, ...]) -> dict[str, str] | None:
        asked = {name: str(value) for name, value in (await request.post()).items()}
        return asked if all(asked.get(name) for name in names) else None

    async def compose(self, request: web.Request) -> web.Response:
        """A post."""
        asked = await self._form(request, ("username", "user_id", "text", "post_type"))
        if asked is None:
            return web.Response(status=400, text="Incomplete arguments\n")
        await self._call("compose-post-service", "compose", asked)
        return web.Response(text="Successfully upload post\n")

    async def register(self, request: web.Request) -> web.Response:
        """A user; 500 for one that is there, as the real front has it."""
        asked = await self._form(request, ("first_name", "last_name", "username", "password", "user_id"))
        if asked is None:
            return web.Response(status=400, text="Incomplete arguments\n")
        answer = await self._call("user-service", "register", asked)
        return web.Response(status=500, text=answer["error"]) if "error" in answer else web.Response(text="Success!\n")

    async def follow(self, request: web.Request) -> web.Response:
        """One user follows another."""
        asked = await self._form(request, ("user_id", "followee_id"))
        if asked is None:
            return web.Response(status=400, text="Incomplete arguments\n")
        await self._call("social-graph-service", "follow", asked)
        return web.Response(text="Success!\n")

    def routes(self) -> list[web.RouteDef]:
        """The paths of the real front that a load test uses, and the two that are for tests."""
        return [
            web.get("/wrk2-api/{which:(home|user)-timeline}/read", self.read),
            web.post("/wrk2-api/post/compose", self.compose),
            web.post("/wrk2-api/user/register", self.register),
            web.post("/wrk2-api/user/follow", self.follow),
            web.post("/fault/{name}", self.set_fault),
        ]


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def application(
    role: str, *, work: float = 1.0, post_bytes: int = 0, fault: str = "none", behind: str = "http://{}:9090"
) -> web.Application:
    """The whole (role ``all``), the front, or one of the services."""
    session: list[ClientSession] = []

    async def inside(service: str, operation: str, asked: Mapping[str, Any]) -> Any:
        return await services.handler(service)(operation, asked)

    async def over_http(service: str, operation: str, asked: Mapping[str, Any]) -> Any:
        async with session[0].post(
            f"{behind.format(service, port=PORTS[service])}/{service}/{operation}", json=asked
        ) as answer:
            answer.raise_for_status()
            return await answer.json()

    call = inside if role == "all" else over_http
    services = Services(call, work, post_bytes)
    front = Front(call, work, fault)

    async def serve(request: web.Request) -> web.Response:
        return web.json_response(await services.handler(role)(request.match_info["operation"], await request.json()))

    is_front = role in ("all", FRONT)
    app = web.Application(middlewares=[front.faults] if is_front else [])
    app.add_routes([web.get("/healthz", _healthz)])
    app.add_routes(front.routes() if is_front else [web.post(f"/{role}/{{operation}}", serve)])

    async def connected(_: web.Application) -> Any:
        async with ClientSession() as opened:
            session.append(opened)
            yield

    app.cleanup_ctx.append(connected)
    return app


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", choices=("all", FRONT, *SERVICES), default="all")
    parser.add_argument(
        "--listen", default="127.0.0.1:8080", help="host:port; port 0 takes a free one, which is printed"
    )
    parser.add_argument("--work", type=float, default=1.0, help="CPU that a request costs: 1 is some 0.25 ms a service")
    parser.add_argument("--post-bytes", type=int, default=0, help="memory that a post takes beside its text")
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--behind", default="http://{}:9090", help="where a service is, of its name {} and {port}")
    given = parser.parse_args()
    host, _, port = given.listen.rpartition(":")
    made = {name: getattr(given, name) for name in ("work", "post_bytes", "fault", "behind")}
    asyncio.run(_serve(application(given.role, **made), host, int(port)))


async def _serve(app: web.Application, host: str, port: int) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    print(f"listening on {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
