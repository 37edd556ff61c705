"""The Python client: ``from prunus.service.client.client import Client``. httpx and the wire
types only, so that it loads fast.

    with Client("http://127.0.0.1:8711") as client:
        campaign = client.submit(load_file(Path("recipe.yaml")))
        client.job("prune").state

A reference ``ref`` of a job is its id, its NAME (the newest of that name), or CAMPAIGN/NAME. A reference of a campaign
is its id or its name (the newest). Every method raises the errors of ``service.errors``: ``Unreachable``, ``NotFound``,
``Refused``, ``Unauthorized``, ``Conflict`` or ``ServerFault``.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from prunus.configs import Campaign, __version__
from prunus.service.errors import Refused, ServerFault, Unreachable, error_for_status
from prunus.service.wire import (
    ENDED,
    NEXT_OFFSET,
    ArtifactView,
    CampaignCancelled,
    CampaignSummary,
    CampaignView,
    JobDetail,
    JobState,
    JobView,
    Problem,
    ServerInfo,
    Submission,
)

View = TypeVar("View", bound=BaseModel)
Read = TypeVar("Read")
_JOBS = TypeAdapter(list[JobView])
_CAMPAIGNS = TypeAdapter(list[CampaignSummary])


@dataclass(frozen=True)
class LogChunk:
    """A piece of a log file."""

    data: bytes
    """At most 1 MiB; never ends inside a UTF-8 character while the log still grows."""
    next_offset: int
    """Byte offset to ask for next."""
    ended: bool
    """The attempt is over and this chunk reached the end of its log."""

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", errors="replace")


class Client:
    """Talks to one prunus server. Usable from several threads; close it, or use it as a context manager.

    Args:
        url: Root of the server, for example ``http://127.0.0.1:8711``.
        token: Bearer token, where the server asks for one.
        timeout_s: Longest wait for one answer, in seconds.
        transport: For tests: anything httpx takes instead of the network.

    Raises:
        Refused: The address or the token cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
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

    def info(self) -> ServerInfo:
        """Ask what server this is."""
        return self._view(ServerInfo, "GET", "/v1/info")

    def submit(self, campaign: Campaign, idempotency_key: str | None = None) -> CampaignView:
        """Queue the jobs of a campaign.

        Args:
            campaign: What ``configs.load_file`` returned.
            idempotency_key: A repeat with the same key and campaign queues nothing and gives the first answer.
                None: a fresh key, so that the repeats this client makes after a broken connection are harmless.

        Raises:
            Refused: The server found a mistake, or the cluster can never hold a job; nothing was queued.
        """
        key = idempotency_key or uuid.uuid4().hex
        body = Submission(campaign=campaign).model_dump_json(by_alias=True).encode()
        headers = {"idempotency-key": key, "content-type": "application/json"}
        try:
            return self._view(CampaignView, "POST", "/v1/campaigns", content=body, headers=headers)
        except Unreachable:
            return self._view(CampaignView, "POST", "/v1/campaigns", content=body, headers=headers)

    def jobs(
        self, campaign: str | None = None, state: JobState | Iterable[JobState] | None = None, limit: int = 100
    ) -> list[JobView]:
        """List jobs, newest first.

        Args:
            campaign: Reference of a campaign: its jobs only.
            state: One state or several: jobs in one of them only.
            limit: At most so many, in [1, 10000].
        """
        states = [state] if isinstance(state, JobState) else list(state or [])
        params: dict[str, Any] = {"limit": limit, "state": [s.value for s in states]}
        if campaign is not None:
            params["campaign"] = campaign
        answer = self._request("GET", "/v1/jobs", params=params)
        return _parse(lambda: _JOBS.validate_json(answer.content), answer)

    def job(self, ref: str) -> JobDetail:
        """Return one job with its spec."""
        return self._view(JobDetail, "GET", f"/v1/jobs/{_segment(ref)}")

    def campaign(self, ref: str) -> CampaignView:
        """Return a campaign with all its jobs and their counts."""
        return self._view(CampaignView, "GET", f"/v1/campaigns/{_segment(ref)}")

    def campaigns(self, limit: int = 100) -> list[CampaignSummary]:
        """List campaigns with the counts of their jobs, newest first; a job submitted alone is none.

        Args:
            limit: At most so many, in [1, 10000].
        """
        answer = self._request("GET", "/v1/campaigns", params={"limit": limit})
        return _parse(lambda: _CAMPAIGNS.validate_json(answer.content), answer)

    def cancel_campaign(self, ref: str) -> CampaignCancelled:
        """Ask for the end of all jobs of a campaign that have not ended, blocked ones included, all at once.

        A repeat changes nothing, and its ``cancelled`` is empty.
        """
        return self._view(CampaignCancelled, "POST", f"/v1/campaigns/{_segment(ref)}/cancel")

    def cancel(self, ref: str) -> JobView:
        """Ask for the end of a job. A job that has ended stays as it is; the answer tells the state now."""
        return self._view(JobView, "POST", f"/v1/jobs/{_segment(ref)}/cancel")

    def log(self, ref: str, rank: int | None = None, attempt: int | None = None, offset: int = 0) -> LogChunk:
        """Read a piece of a log.

        Args:
            ref: The job.
            rank: Whose log; None for rank 0's (the driver's, where an attempt ended before any rank wrote), -1 for the
                driver's, which ends with the cause of a failure.
            attempt: 1 for the first; None for the newest.
            offset: Bytes to skip; give ``next_offset`` of the last chunk to follow.
        """
        params = {"rank": rank, "attempt": attempt, "offset": offset}
        answer = self._request(
            "GET", f"/v1/jobs/{_segment(ref)}/log", params={k: v for k, v in params.items() if v is not None}
        )
        next_offset = int(answer.headers.get(NEXT_OFFSET, offset + len(answer.content)))
        return LogChunk(answer.content, next_offset, answer.headers.get(ENDED) == "true")

    def artifacts(self, source: str) -> ArtifactView:
        """List the files of an artifact.

        Args:
            source: ``job:NAME``, ``job:ID`` or ``models:/NAME@ALIAS``.
        """
        return self._view(ArtifactView, "GET", "/v1/artifacts", params={"source": source})

    @contextlib.contextmanager
    def open_file(self, source: str, path: str, offset: int = 0) -> Iterator[Iterator[bytes]]:
        """Stream one file of an artifact from byte ``offset`` on.

            with client.open_file("job:prune", "model/config.json") as chunks:
                for chunk in chunks: ...

        A cut connection raises ``Unreachable`` from the iterator: ask again with the offset that was reached.
        Nothing is verified here; compare with ``FileView.sha256``.
        """
        params = {"source": source, "path": path}
        # As they are: offsets count the file's bytes, and a proxy that compresses would make them count others.
        headers = {"accept-encoding": "identity"} | ({"range": f"bytes={offset}-"} if offset else {})
        with (
            self._translated(),
            self._http.stream("GET", "/v1/artifacts/file", params=params, headers=headers) as answer,
        ):
            if answer.status_code == 416:  # Nothing is left after the offset.
                yield iter(())
                return
            if answer.status_code >= 400:
                answer.read()
                raise _error(answer)
            if offset and answer.status_code != 206:
                raise ServerFault(
                    f"{self.url} ignored the byte range of {path}; a proxy between may strip Range headers"
                )
            yield self._chunks(answer)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _view(self, kind: type[View], method: str, path: str, **request: Any) -> View:
        answer = self._request(method, path, **request)
        return _parse(lambda: kind.model_validate_json(answer.content), answer)

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._translated():
            try:
                answer = self._http.request(method, path, **request)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # Most often a kept connection that the server had closed in the meantime; reading twice does no harm.
                if method != "GET":
                    raise
                answer = self._http.request(method, path, **request)
        if answer.status_code >= 400:
            raise _error(answer)
        return answer

    def _chunks(self, answer: httpx.Response) -> Iterator[bytes]:
        with self._translated():
            yield from answer.iter_bytes(256 * 1024)

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


def _segment(ref: str) -> str:
    """One path segment: CAMPAIGN/NAME travels as CAMPAIGN:NAME, so that no route is ambiguous.

    Raises:
        Refused: It names nothing.
    """
    if not ref.strip("./: "):
        raise Refused(f"{ref!r} names no job; give a NAME, CAMPAIGN/NAME or id, as `prunus list` shows them")
    return quote(ref.replace("/", ":"), safe=":")


def _parse(read: Callable[[], Read], answer: httpx.Response) -> Read:
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
