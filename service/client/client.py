"""The Python client: ``from prunus.service.client.client import Client``. httpx and the wire
types only, so that it loads fast.

    with Client("http://127.0.0.1:8711") as client:
        campaign = client.submit(load_file(Path("recipe.yaml")))
        client.job("prune").state

A reference ``ref`` of a job is its id, its NAME (the newest of that name), or CAMPAIGN/NAME. A reference of a campaign
is its id or its name (the newest). Every method raises the errors of ``service.errors``: ``Unreachable``, ``NotFound``,
``Refused``, ``Unauthorized`` or ``ServerFault``.
"""

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import TypeAdapter
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from prunus.configs import Campaign
from prunus.service.client.connection import Connection, parse, segment
from prunus.service.errors import ServerFault, Unreachable
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
    ServerInfo,
    Submission,
)

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
        self._server = Connection(url, token, timeout_s, transport)

    @property
    def url(self) -> str:
        """Root of the server."""
        return self._server.url

    def info(self) -> ServerInfo:
        """Ask what server this is."""
        return self._server.view(ServerInfo, "GET", "/v1/info")

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
        asking = Retrying(retry=retry_if_exception_type(Unreachable), stop=stop_after_attempt(2), reraise=True)
        queued: CampaignView = asking(
            self._server.view, CampaignView, "POST", "/v1/campaigns", content=body, headers=headers
        )
        return queued

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
        answer = self._server.request("GET", "/v1/jobs", params=params)
        return parse(lambda: _JOBS.validate_json(answer.content), answer)

    def job(self, ref: str) -> JobDetail:
        """Return one job with its spec."""
        return self._server.view(JobDetail, "GET", f"/v1/jobs/{segment(ref)}")

    def campaign(self, ref: str) -> CampaignView:
        """Return a campaign with all its jobs and their counts."""
        return self._server.view(CampaignView, "GET", f"/v1/campaigns/{segment(ref)}")

    def campaigns(self, limit: int = 100) -> list[CampaignSummary]:
        """List campaigns with the counts of their jobs, newest first; a job submitted alone is none.

        Args:
            limit: At most so many, in [1, 10000].
        """
        answer = self._server.request("GET", "/v1/campaigns", params={"limit": limit})
        return parse(lambda: _CAMPAIGNS.validate_json(answer.content), answer)

    def cancel_campaign(self, ref: str) -> CampaignCancelled:
        """Ask for the end of all jobs of a campaign that have not ended, blocked ones included, all at once.

        A repeat changes nothing, and its ``cancelled`` is empty.
        """
        return self._server.view(CampaignCancelled, "POST", f"/v1/campaigns/{segment(ref)}/cancel")

    def cancel(self, ref: str) -> JobView:
        """Ask for the end of a job. A job that has ended stays as it is; the answer tells the state now."""
        return self._server.view(JobView, "POST", f"/v1/jobs/{segment(ref)}/cancel")

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
        answer = self._server.request(
            "GET", f"/v1/jobs/{segment(ref)}/log", params={k: v for k, v in params.items() if v is not None}
        )
        next_offset = int(answer.headers.get(NEXT_OFFSET, offset + len(answer.content)))
        return LogChunk(answer.content, next_offset, answer.headers.get(ENDED) == "true")

    def artifacts(self, source: str) -> ArtifactView:
        """List the files of an artifact.

        Args:
            source: ``job:NAME``, ``job:ID`` or ``models:/NAME@ALIAS``.
        """
        return self._server.view(ArtifactView, "GET", "/v1/artifacts", params={"source": source})

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
        with self._server.stream("/v1/artifacts/file", params, headers) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # Nothing is left after the offset.
                yield iter(())
                return
            if offset and answer.status_code != httpx.codes.PARTIAL_CONTENT:
                raise ServerFault(
                    f"{self.url} ignored the byte range of {path}; a proxy between may strip Range headers"
                )
            yield self._server.chunks(answer)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
