"""The kubelet's and the API server's answers, asked over HTTPS with the pod's service account.

- kubelet: ``GET https://<node>:10250/pods``, authorised as ``get nodes/pods`` (``pkg/kubelet/server/auth.go``,
  fine-grained authorisation, on by default since Kubernetes 1.33).
- API server: ``GET /api/v1/pods?fieldSelector=spec.nodeName=<node>&resourceVersion=0``, from its cache, and only while
  the kubelet does not answer.
- API server: ``POST`` of TokenReviews and SubjectAccessReviews, with ``serve --authenticate`` alone.

Whatever goes wrong is an :class:`Answer` too: with the status code and reason, for the log, the metric and ``/readyz``.

A list of pods is stripped while it comes (:mod:`collector.pods.strip`): what podtally does not read of a pod is held no
longer than the item that it is in, and goes nowhere. Every other answer has a size that it may have.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import aiohttp

from collector import failures
from collector.errors import AnswerError, AnswerTooLarge, UsageError
from collector.model import Answer, FailureKind
from collector.pods.strip import Stripper, is_pod_list

log = logging.getLogger(__name__)

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

_TIMEOUT_SECONDS = 10.0
_REVIEW_TIMEOUT_SECONDS = 4.0
"""Two reviews have to fit into the 10 s that a scrape waits."""
_CHUNK_BYTES = 64 << 10

_MOST_BYTES: Mapping[str, int] = {
    "kubelet/metrics_cadvisor.txt": 32 << 20,
    "review": 1 << 20,
}
"""Sizes that answers may have, by name. cAdvisor's page of 500 pods is 27 MiB; it is recorded, and not parsed."""
_MOST_BYTES_OF_OTHERS = 8 << 20
"""The kubelet's numbers of 1,000 pods, or the metrics API's of 10,000, to parse which takes some 80 MiB."""
_MOST_BYTES_OF_A_LIST = 1 << 30
"""What is read of a list of pods, of which no more than an item is held: no node comes near it."""
_MOST_RAW_BYTES = 16 << 20
"""Likewise where it is to be kept as it comes, and so is held whole."""
_MOST_REFUSAL_BYTES = 64 << 10
"""What is read of a refusal, whose first line is told."""
_MOST_WAITING_BYTES = 16 << 20
"""Lists of pods that no tick has taken yet, in all."""
_MOST_WAITING_EXTRAS_BYTES = 48 << 20
"""Likewise with what is asked along: cAdvisor's page is one of them."""

_SUCCESSES = (200, 201)
"""A review is created."""

_SHORTEST_GAP_SECONDS = 1.0
"""Between two questions, however many names are missing."""

_CERTIFICATE_KINDS: Mapping[int, FailureKind] = {
    9: "not_yet_valid",
    10: "expired",
    18: "unknown_signer",
    19: "unknown_signer",
    20: "unknown_signer",
    21: "unknown_signer",
    62: "wrong_name",
    64: "wrong_name",
}
"""By OpenSSL's ``X509_V_ERR_*``: self-signed or signed by somebody unknown are four of them."""


Tls = Callable[[], ssl.SSLContext | None]
"""Gives the client context of now; ``None`` for plain HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A peer that answers, and how to reach it."""

    name: str
    """``the kubelet`` or ``the API server``."""
    url: str
    token_file: str | None
    tls: Tls


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to ask of whom; ``answer`` is the path that the answer has in a recording."""

    answer: str
    endpoint: Endpoint
    path: str
    raw: bool = False
    """A list of pods is not stripped: to be recorded as it comes, which somebody has asked for."""


def tls_context(url: str, ca_file: str | None, *, insecure: bool) -> ssl.SSLContext | None:
    """A client context for ``url``: verified by ``ca_file``, or by the system's CAs without one; ``None`` for HTTP.

    Raises :class:`UsageError` if ``ca_file`` cannot be read.
    """
    if not url.startswith("https:"):
        return None
    if insecure:
        # Not the default context: the system's CAs, which nothing is checked against, are megabytes.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot read the CA certificates {ca_file}: {error}") from error
    # Python 3.13 refuses a CA without keyUsage by default, which Go and so every other client of the cluster takes.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _stamp(path: str) -> tuple[int, ...]:
    """What differs once a file is another, or has been written, also within one tick of its clock."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def client_tls(url: str, ca_file: str | None, *, insecure: bool) -> Tls:
    """:func:`tls_context`, made anew when ``ca_file`` has changed: a cluster's CA rotates too, if seldom.

    A file that cannot be read just then leaves the last context. Raises :class:`UsageError` if it cannot be at first.
    """
    made = tls_context(url, ca_file, insecure=insecure)
    if made is None or insecure or ca_file is None:
        return lambda: made
    read, told = _stamp(ca_file), ""

    def current() -> ssl.SSLContext | None:
        nonlocal made, read, told
        try:
            stamp = _stamp(ca_file)
            if stamp != read:
                made, read = tls_context(url, ca_file, insecure=False), stamp
            told = ""
        except (OSError, UsageError) as error:
            # Asked for with each question: told once, until it is mended.
            if told != (told := str(error)):
                log.warning("the last CA certificates stay: %s", error)
        return made

    return current


def base_url(flag: str, value: str) -> str:
    """``value`` with an IPv6 host in brackets: a manifest can only write ``https://$(HOST_IP):10250``.

    Raises :class:`UsageError`, which names ``flag``, if it is no URL.

    >>> base_url("--kubelet-url", "https://fd00::7:10250"), base_url("--kubelet-url", "https://10.0.0.7:10250/")
    ('https://[fd00::7]:10250', 'https://10.0.0.7:10250')
    """
    try:
        parts = urlsplit(value)
        host, _, port = parts.netloc.rpartition(":")
        netloc = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else parts.netloc
        whole = urlsplit(f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}")
        if whole.scheme in ("http", "https") and whole.hostname and whole.port != 0:
            return whole.geturl()
    except ValueError:
        # Brackets that are not closed, or a port that is no number.
        pass
    raise UsageError(f"{flag} {value!r} is no URL: give https://HOST:PORT")


def is_loopback_url(url: str) -> bool:
    """True if what is sent there stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def in_cluster_url() -> str | None:
    """The API server's URL as the kubelet tells it to every pod; ``None`` outside of a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def node_pods_path(node: str) -> str:
    """The API server's list of a node's pods."""
    return f"/api/v1/pods?fieldSelector={quote(f'spec.nodeName={node}', safe='')}&resourceVersion=0"


class _TokenError(Exception):
    pass


def _token(path: str) -> str:
    """The token, read for each question, as the kubelet rotates it: a small file of a tmpfs, twice a minute."""
    try:
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
    except (OSError, ValueError) as error:
        raise _TokenError(error) from error
    if not token:
        raise _TokenError(f"{path} holds no token")
    return token


async def fetch(
    session: aiohttp.ClientSession, question: Question, *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> Answer:
    """Ask once. Never raises for what the peer or the network does."""
    headers = {"Accept": "application/json"} if question.answer.endswith(".json") else {}
    return await _asked(session, question, "GET", headers, None, timeout_seconds)


async def _asked(
    session: aiohttp.ClientSession,
    question: Question,
    method: str,
    headers: dict[str, str],
    data: bytes | None,
    timeout_seconds: float,
) -> Answer:
    endpoint = question.endpoint
    time_ns = time.time_ns()
    try:
        # The kubelet's read-only port asks for no token, and none goes over the network in the clear.
        if endpoint.token_file is not None and endpoint.url.startswith("https:"):
            headers["Authorization"] = f"Bearer {_token(endpoint.token_file)}"
        async with session.request(
            method,
            endpoint.url + question.path,
            headers=headers,
            data=data,
            ssl=endpoint.tls() or True,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        ) as response:
            if response.status not in _SUCCESSES:
                refusal = await _beginning(response)
                return Answer(question.answer, time_ns, response.status, refusal_reason(response.reason, refusal), None)
            try:
                body = await _body(response, question)
            except AnswerError as error:
                kind: FailureKind = "too_large" if isinstance(error, AnswerTooLarge) else "not_the_list"
                _let_go(error)
                return Answer(question.answer, time_ns, response.status, str(error), None, kind)
            return Answer(question.answer, time_ns, response.status, None, body)
    except (aiohttp.ClientError, OSError, ValueError, asyncio.TimeoutError, _TokenError) as error:
        kind, reason = _failure(error, question, timeout_seconds)
        _let_go(error)
    return Answer(question.answer, time_ns, None, reason, None, kind)


def _let_go(error: BaseException | None) -> None:
    """Have an error hold nothing that it has passed.

    aiohttp keeps the error that ends an answer, and the error's frames keep aiohttp's objects and what has come of the
    answer: a cycle, which would stay until Python looks for cycles.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _failure(error: Exception, question: Question, timeout_seconds: float) -> tuple[FailureKind, str]:
    """Why nothing has answered: the kind, and a sentence."""
    endpoint = question.endpoint
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        kind, why = _certificate_failure(error.certificate_error)
        # Whoever reads the log is told what it takes, and at what price.
        what_to_do = failures.step(kind, question.answer)
        return kind, f"{endpoint.url}: {endpoint.name}'s certificate is refused: {why}: {what_to_do}"
    if isinstance(error, aiohttp.ClientConnectorError):
        kind = _connection_failure(error.os_error)
        return kind, f"{endpoint.url} cannot be reached: {_connection_reason(error.os_error)}"
    if isinstance(error, asyncio.TimeoutError):
        return "timeout", f"{endpoint.url} did not answer within {timeout_seconds:g} s"
    if isinstance(error, _TokenError):
        return "no_token", f"{endpoint.url}: {error}"
    return "broken", f"{endpoint.url}: {' '.join(str(error).split()) or type(error).__name__}"


def _certificate_failure(error: Exception) -> tuple[FailureKind, str]:
    """What is wrong with a certificate, and OpenSSL's words for it."""
    code = getattr(error, "verify_code", None)
    kind = _CERTIFICATE_KINDS.get(code, "bad_certificate") if code is not None else "bad_certificate"
    return kind, str(getattr(error, "verify_message", error)).rstrip(".")


def _connection_failure(error: OSError) -> FailureKind:
    if isinstance(error, ssl.SSLError):
        return "no_tls"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return "broken"
    return "refused" if isinstance(error, ConnectionRefusedError) else "unreachable"


async def _body(response: aiohttp.ClientResponse, question: Question) -> bytes:
    """The body as it is kept. Raises :class:`AnswerError` for a list of pods that is none, :class:`AnswerTooLarge`."""
    if is_pod_list(question.answer):
        return await _pod_list(response, keep=question.raw)
    return await _limited(response, _MOST_BYTES.get(question.answer, _MOST_BYTES_OF_OTHERS))


async def _limited(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > most:
                raise AnswerTooLarge(f"the answer is larger than {most >> 20} MiB")
        return bytes(body)
    finally:
        body.clear()


async def _pod_list(response: aiohttp.ClientResponse, *, keep: bool) -> bytes:
    """A list of pods, stripped; whole if it is to be kept so, once it is known to be one."""
    stripper, whole, taken = Stripper(), bytearray(), 0
    try:
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            taken += len(chunk)
            if taken > _MOST_BYTES_OF_A_LIST:
                raise AnswerTooLarge(f"the answer is larger than {_MOST_BYTES_OF_A_LIST >> 20} MiB")
            stripper.feed(chunk)
            if keep:
                whole += chunk
                if taken > _MOST_RAW_BYTES:
                    raise AnswerTooLarge(
                        f"the answer is larger than {_MOST_RAW_BYTES >> 20} MiB, as much as --raw-answers keeps"
                    )
        stripped = stripper.end()
        return bytes(whole) if keep else stripped
    finally:
        whole.clear()


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of a refusal."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) >= _MOST_REFUSAL_BYTES:
            break
    return bytes(body[:_MOST_REFUSAL_BYTES])


def _connection_reason(error: OSError) -> str:
    """What the system says of a failed connection; asyncio and aiohttp put sentences of their own around it."""
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection ({error.reason or error})"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def refusal_reason(reason: str | None, body: bytes) -> str:
    """What the peer says of its refusal: a Status object's message, or the first line of the text."""
    text = body.decode(errors="replace").strip()
    try:
        message = json.loads(text).get("message")
    except (ValueError, AttributeError, RecursionError):
        message = None
    first = (message if isinstance(message, str) else text).splitlines()[:1]
    return (first[0][:300] if first and first[0] else reason) or "refused"


class LiveReviewer:
    """Posts reviews to the API server; satisfies :class:`collector.seams.Reviewer`. One event loop.

    Connections are kept between reviews; the token is the service account's, read for each.
    """

    def __init__(self, apiserver: Endpoint, timeout_seconds: float = _REVIEW_TIMEOUT_SECONDS) -> None:
        self._apiserver = apiserver
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def create(self, path: str, body: bytes) -> Answer:
        """Post once."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        question = Question(answer="review", endpoint=self._apiserver, path=path)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        return await _asked(self._session, question, "POST", headers, body, self._timeout_seconds)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


class LiveAnswers:
    """Asks on a timer, and at once when asked to; satisfies :class:`collector.seams.AnswerSource`.

    Runs in an event loop; :meth:`take` and :meth:`ask` are called from the ticks' thread.
    """

    def __init__(
        self,
        kubelet: Question | None,
        apiserver: Question | None,
        *,
        interval: float,
        extras: tuple[Question, ...] = (),
        extras_interval: float = 5.0,
        tell_refusals: bool = False,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        """``timeout_seconds`` is for each question. ``extras`` are asked along for a recording or to compare with; an
        answer to them that is refused is logged once, and left out unless ``tell_refusals``.
        """
        self._kubelet = kubelet
        self._apiserver = apiserver
        self._interval = interval
        self._extras = extras
        self._extras_interval = extras_interval
        self._tell_refusals = tell_refusals
        self._timeout_seconds = timeout_seconds
        self._refused: set[str] = set()
        self._lock = threading.Lock()
        self._answers: deque[Answer] = deque(maxlen=64)
        self._most_waiting_bytes = _MOST_WAITING_EXTRAS_BYTES if extras else _MOST_WAITING_BYTES
        self._wanted: Callable[[], None] | None = None
        self.first_round = threading.Event()
        """Set once the kubelet, and the API server if need be, have been asked."""

    @property
    def refused(self) -> tuple[str, ...]:
        """Extras that were refused."""
        return tuple(sorted(self._refused))

    def take(self) -> list[Answer]:
        """What came in since, one of a name; further ones wait for the next tick."""
        taken: dict[str, Answer] = {}
        later: list[Answer] = []
        with self._lock:
            for answer in self._answers:
                if answer.name in taken:
                    later.append(answer)
                else:
                    taken[answer.name] = answer
            self._answers.clear()
            self._answers.extend(later)
        return list(taken.values())

    def ask(self) -> None:
        """Ask again soon."""
        if self._wanted is not None:
            self._wanted()

    async def run(self) -> None:
        """Ask for ever."""
        loop = asyncio.get_running_loop()
        wanted = asyncio.Event()

        def want() -> None:
            # A tick of the last moment may ask when the event loop is closed already.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(wanted.set)

        self._wanted = want
        async with aiohttp.ClientSession() as session:
            extras = asyncio.ensure_future(self._ask_extras(session)) if self._extras else None
            try:
                while True:
                    wanted.clear()
                    await self._ask_names(session)
                    self.first_round.set()
                    await asyncio.sleep(min(_SHORTEST_GAP_SECONDS, self._interval))
                    try:
                        await asyncio.wait_for(wanted.wait(), max(0.0, self._interval - _SHORTEST_GAP_SECONDS))
                    except asyncio.TimeoutError:
                        continue
            finally:
                if extras is not None:
                    extras.cancel()

    async def _ask_names(self, session: aiohttp.ClientSession) -> None:
        """The kubelet; the API server only if the kubelet gives no list. Both answers are for one tick to take."""
        answers: list[Answer] = []
        if self._kubelet is not None:
            answers.append(await self._fetch(session, self._kubelet))
        if self._apiserver is not None and not any(answer.body is not None for answer in answers):
            answers.append(await self._fetch(session, self._apiserver))
        self._put(*answers)

    async def _fetch(self, session: aiohttp.ClientSession, question: Question) -> Answer:
        return await fetch(session, question, timeout_seconds=self._timeout_seconds)

    async def _ask_extras(self, session: aiohttp.ClientSession) -> None:
        while True:
            for question in self._extras:
                answer = await self._fetch(session, question)
                if answer.body is not None or self._tell_refusals:
                    self._put(answer)
                if answer.body is None and question.answer not in self._refused:
                    self._refused.add(question.answer)
                    status = f"HTTP {answer.status}: " if answer.status is not None else ""
                    log.warning("%s is left out: %s%s", question.answer, status, answer.error)
            await asyncio.sleep(self._extras_interval)

    def _put(self, *answers: Answer) -> None:
        with self._lock:
            self._answers.extend(answers)
            # Of ticks that hang the oldest answers are lost first.
            while len(self._answers) > 1 and self._waiting_bytes() > self._most_waiting_bytes:
                self._answers.popleft()

    def _waiting_bytes(self) -> int:
        return sum(len(answer.body or b"") for answer in self._answers)
