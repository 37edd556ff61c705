"""A server without a socket, around the fake cluster, with a clock that a test moves by hand."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.cluster.fake import FakeExecutor
from prunus.configs import Campaign, JobSpec
from prunus.configs.artifacts.layout import JobDirectory
from prunus.service.api.app import create_app
from prunus.service.api.parts import Parts
from prunus.service.scheduling.scheduler import Scheduler
from prunus.service.settings import Settings
from prunus.service.sources.registry import NoRegistry, Registry
from prunus.service.sources.resolve import Sources
from prunus.service.store.database import Database
from prunus.service.store.rows import AttemptRow, JobRow
from prunus.service.store.store import Store
from prunus.service.submission.submit import Submitter
from prunus.service.wire import JobState


def make_spec(name: str, start: str = "org/base", **more: Any) -> JobSpec:
    """The smallest job; ``start`` is its ``model: from``."""
    files = {"files": ["/data/rows.csv"]}
    values: dict[str, Any] = {
        "name": name,
        "task": {"name": "classification", "data": {"train": files, "eval": files}},
        "model": {"from": start},
        "train": {"num_steps": 10, "batch_size": 8, "lr": {"peak": 1e-3}},
        **more,
    }
    return JobSpec.model_validate(values)


def make_campaign(*specs: JobSpec, name: str | None = None, max_parallel: int | None = None) -> Campaign:
    return Campaign(name=name, jobs=specs, max_parallel=max_parallel)


HOST = "http://127.0.0.1"


@dataclass
class Clock:
    """Unix seconds that stand still until a test moves them."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class World:
    """Store, fake cluster and scheduler. ``restart`` is a new server process on the same files."""

    home: Path
    registry: Registry = field(default_factory=NoRegistry)
    clock: Clock = field(default_factory=Clock)
    cluster: FakeExecutor = field(default_factory=FakeExecutor)

    def __post_init__(self) -> None:
        self.settings = Settings.load({}, home=self.home)
        self._open()

    def _open(self) -> None:
        self.store = Store(Database(self.settings.store), self.clock)
        self.sources = Sources(self.store, self.settings, self.registry)
        self.scheduler = Scheduler(self.store, self.cluster, self.sources, self.settings, clock=self.clock)
        self.submitter = Submitter(self.store, self.cluster, embedded=False, clock=self.clock)

    def restart(self) -> None:
        self.store.close()
        self._open()

    def submit(self, *specs: JobSpec, name: str | None = None, max_parallel: int | None = None) -> str:
        return self.submitter.submit(make_campaign(*specs, name=name, max_parallel=max_parallel))

    def step(self, times: int = 1) -> None:
        """Steps with a second between them."""
        for _ in range(times):
            self.scheduler.step()
            self.clock.tick(1.0)

    def job(self, name: str) -> JobRow:
        return self.store.find_job(name)

    def state(self, name: str) -> JobState:
        return self.job(name).state

    def attempt(self, name: str) -> AttemptRow:
        return self.store.attempts([self.job(name).id])[self.job(name).id][-1]

    def attempt_id(self, name: str) -> str:
        return self.attempt(name).id

    def directory(self, name: str) -> JobDirectory:
        return JobDirectory(self.settings.job_directory(self.job(name).id))

    def start(self, name: str) -> str:
        """Bring a queued job to RUNNING; returns its attempt's id."""
        self.step()
        attempt_id = self.attempt_id(name)
        self.cluster.beat(attempt_id, self.clock.now)
        self.step()
        assert self.state(name) is JobState.RUNNING
        return attempt_id


def make_app(world: World, **settings: Any) -> Any:
    parts = Parts(
        settings=Settings.load({}, home=world.home, **settings),
        store=world.store,
        executor=world.cluster,
        registry=world.registry,
    )
    return create_app(parts)


def finish(world: World, name: str, files: dict[str, str]) -> str:
    """Run a queued job to its end with an artifact."""
    attempt = world.start(name)
    world.cluster.leave_artifact(attempt, files)
    world.cluster.finish(attempt)
    world.step()
    assert world.state(name) is JobState.SUCCEEDED
    return attempt
