"""Puts the server's objects together: store, sources, scheduler, publisher, application. What Ray and MLflow are is
given from outside, so that a test assembles the same server around a fake."""

import logging
import threading
from types import TracebackType
from typing import Self

from fastapi import FastAPI

from prunus.cluster.executor import Executor
from prunus.service.api.app import create_app
from prunus.service.api.parts import Parts
from prunus.service.publishing.campaign_runs import CampaignRuns
from prunus.service.publishing.mlflow_health import ask_health
from prunus.service.publishing.publisher import Publisher
from prunus.service.scheduling.scheduler import Scheduler
from prunus.service.settings import Settings
from prunus.service.sources.registry import Registry
from prunus.service.sources.resolve import Sources
from prunus.service.store.database import Database
from prunus.service.store.store import Store

log = logging.getLogger(__name__)


class Assembly:
    """A whole server but for its socket. Use as a context manager: inside, the scheduler runs in a thread,
    and, where there is an MLflow, the publisher in another.

    Args:
        settings: Where everything is.
        executor: Ray.
        registry: MLflow.

    Raises:
        StoreLocked: Another server owns the database.
        StoreError: It cannot be opened.
    """

    def __init__(self, settings: Settings, executor: Executor, registry: Registry) -> None:
        settings.home.mkdir(parents=True, exist_ok=True)
        settings.storage.mkdir(parents=True, exist_ok=True)
        settings.cache.mkdir(parents=True, exist_ok=True)
        self.store = Store(Database(settings.store))
        self._stop = threading.Event()
        sources = Sources(self.store, settings, registry)
        self.scheduler = Scheduler(self.store, executor, sources, settings)
        self._thread = threading.Thread(target=self.scheduler.run, args=(self._stop,), name="scheduler", daemon=True)
        self._threads = [self._thread]
        if settings.mlflow_uri is not None:
            runs = CampaignRuns(self.store, registry)
            answers = ask_health(settings.mlflow_uri)
            publisher = Publisher(self.store, executor, settings, answers, end_campaigns=runs.step)
            self._threads.append(
                threading.Thread(target=publisher.run, args=(self._stop,), name="publisher", daemon=True)
            )
        parts = Parts(
            settings=settings,
            store=self.store,
            executor=executor,
            registry=registry,
            wake=self.scheduler.wake,
            ready=self._thread.is_alive,
        )
        self.app: FastAPI = create_app(parts)

    def __enter__(self) -> Self:
        num_live = len(self.store.active())
        log.info("server: begins with %d live attempts to take up again", num_live)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self.scheduler.wake()
        for thread in self._threads:
            thread.join(timeout=30.0)
        self.store.close()
