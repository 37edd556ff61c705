"""What the routes ask."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from prunus.cluster.executor import Executor
from prunus.service.api.views import Views
from prunus.service.attempts.logs import JobLogs
from prunus.service.settings import Settings
from prunus.service.sources.artifacts import Artifacts
from prunus.service.sources.registry import Registry
from prunus.service.store.store import Store
from prunus.service.submission.submit import Submitter


@dataclass(frozen=True)
class Parts:
    """The server's objects, put together in ``service.assembly``, or by a test."""

    settings: Settings
    store: Store
    executor: Executor
    registry: Registry
    wake: Callable[[], None] = lambda: None
    """Makes the scheduler look at once."""
    ready: Callable[[], bool] = lambda: True
    """The scheduler runs."""

    @property
    def views(self) -> Views:
        """Builds answers."""
        return Views(self.store, self.registry.run_url)

    @property
    def artifacts(self) -> Artifacts:
        """Finds files of artifacts."""
        return Artifacts(self.store, self.settings, self.registry)

    @property
    def logs(self) -> JobLogs:
        """Reads logs."""
        return JobLogs(self.store, self.executor, self.settings)

    @property
    def submitter(self) -> Submitter:
        """Queues campaigns."""
        return Submitter(self.store, self.executor, embedded=self.settings.embedded)


async def parts_of(request: Request) -> Parts:
    """Give a route the parts of its application."""
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


Asked = Annotated[Parts, Depends(parts_of)]
"""An argument of a route: what it asks."""
