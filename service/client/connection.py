"""The connection to one server: checks its address, asks, reads the answer as a type of ``wire``, or
raises our errors.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from prunus.configs import __version__
from prunus.service.errors import Refused, ServerFault, Unreachable, error_for_status
from prunus.service.wire import Problem

View = TypeVar("View", bound=BaseModel)
Read = TypeVar("Read")

_CUTS = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""Most often a kept connection that the server had closed in the meantime."""


class Connection:
    """Usable from several threads. Arguments and errors: see ``Client``."""

    def __init__(self, url: str, token: str | None, timeout_s: float, transport: httpx.BaseTransport | None) -> None:
        _check_url(url)
        headers = {"user-agent": f"prunus/{__version__}"}
        if token:
            _check_token(token)
            headers["authorization"] = f"Bearer {token}"
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            transport=transport or httpx.HTTPTransport(retries=2),
        )

    def view(self, kind: type[View], method: str, path: str, **request: Any) -> View:
        """Ask, and read the answer as one value of ``kind``."""
        answer = self.request(method, path, **request)
        return parse(lambda: kind.model_validate_json(answer.content), answer)

    def request(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Ask; a GET whose connection was cut is asked once more, which does no harm."""
        num_tries = 2 if method == "GET" else 1
        asking = Retrying(retry=retry_if_exception_type(_CUTS), stop=stop_after_attempt(num_tries), reraise=True)
        with self._translated():
            answer = asking(self._http.request, method, path, **request)
        if answer.status_code >= 400:
            raise _error(answer)
        return answer

    @contextlib.contextmanager
    def stream(self, path: str, params: dict[str, str], headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Ask for a body that is read piece by piece; 416 is an answer, not an error."""
        with self._translated(), self._http.stream("GET", path, params=params, headers=headers) as answer:
            if answer.status_code >= 400 and answer.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                answer.read()
                raise _error(answer)
            yield answer

    def chunks(self, answer: httpx.Response) -> Iterator[bytes]:
        """Pieces of a streamed body; a cut raises ``Unreachable``."""
        with self._translated():
            yield from answer.iter_bytes(256 * 1024)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.InvalidURL as error:
            raise Refused(f"this cannot be asked of {self.url}: {error}; shorten the name") from error
        except httpx.HTTPError as error:
            cause = str(error) or type(error).__name__
            raise Unreachable(
                f"no answer from the prunus server at {self.url} ({cause}); is it running? `prunus up` starts one"
            ) from error


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
        why = "" if parsed.scheme in {"http", "https"} and parsed.host else "scheme or host is missing"
        if parsed.port is not None and not 0 < parsed.port < 65536:
            why = f"there is no port {parsed.port}"
    except (httpx.InvalidURL, ValueError) as error:
        why = str(error)
    if why:
        raise Refused(f"the server's address {url!r} cannot be used: {why}; write --url (PRUNUS_URL) http://HOST:PORT")


def _check_token(token: str) -> None:
    """A header carries visible ASCII; the token itself is told to nobody."""
    for place, character in enumerate(token, start=1):
        if not "!" <= character <= "~":
            raise Refused(
                f"the token (PRUNUS_TOKEN, or its file) has U+{ord(character):04X} at place {place} of {len(token)}; "
                "only ASCII letters, digits and signs can be sent: give the server another token, without spaces or "
                "line ends"
            )


def segment(ref: str) -> str:
    """One path segment: CAMPAIGN/NAME travels as CAMPAIGN:NAME, so that no route is ambiguous.

    Raises:
        Refused: It names nothing.
    """
    if not ref.strip("./: "):
        raise Refused(f"{ref!r} names no job; give a NAME, CAMPAIGN/NAME or id, as `prunus list` shows them")
    return quote(ref.replace("/", ":"), safe=":")


def parse(read: Callable[[], Read], answer: httpx.Response) -> Read:
    """Read an answer.

    Raises:
        ServerFault: It is of another release.
    """
    try:
        return read()
    except ValidationError as error:
        raise ServerFault(
            f"{answer.request.url} answered what this client ({__version__}) cannot read: {error.error_count()} "
            "fields differ; use the same prunus version on both sides"
        ) from error


def _error(answer: httpx.Response) -> Exception:
    try:
        message = Problem.model_validate_json(answer.content).error
    except ValidationError:
        kind = answer.headers.get("content-type", "no content type")
        message = f"{answer.request.url} answered {answer.status_code} ({kind}); is that a prunus server?"
    return error_for_status(answer.status_code, message)
