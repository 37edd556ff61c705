"""What references mean when a job is dispatched."""

from collections.abc import Callable

from prunus.service.errors import NotFound, Unreachable
from prunus.service.sources.registry import RegistryEntry
from prunus.service.wire import JobState
from tests.service.world import World, make_spec


def test_a_parent_without_its_artifact_fails_the_child_as_user_error(world: World) -> None:
    world.submit(make_spec("a"), make_spec("b", "job:a"))
    attempt = world.start("a")
    world.cluster.finish(attempt)
    world.step()
    assert world.state("b") is JobState.FAILED
    assert world.job("b").why.startswith("user_error: job:a is j-")


def test_a_manifest_that_changed_since_it_was_made_is_not_used(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.leave_artifact(attempt, {"model/config.json": "{}"})
    world.cluster.finish(attempt)
    world.step()
    world.cluster.leave_artifact(attempt, {"model/config.json": '{"tampered": 1}'})
    world.submit(make_spec("b", "job:a"))
    world.step()
    assert world.state("b") is JobState.FAILED
    assert "has changed since it was made" in world.job("b").why


def test_a_later_campaign_reads_from_the_newest_job_of_that_name(world: World) -> None:
    world.cluster.automatic = True
    world.submit(make_spec("a"))
    world.step(2)
    world.submit(make_spec("a"))
    world.step(2)
    newest = world.job("a").id
    world.submit(make_spec("b", "job:a"))
    assert world.job("b").parents == (newest,)
    world.step(2)
    assert newest in world.cluster.launches[world.attempt_id("b")].sources["model"].location


class _Registry:
    """One alias that may not answer."""

    def __init__(self) -> None:
        self.answer: RegistryEntry | Exception = Unreachable("MLflow does not answer")
        self.num_asked = 0

    def look_up(self, name: str, alias: str) -> RegistryEntry:
        self.num_asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def run_url(self, run_id: str) -> str | None:
        return None

    def end_parent(self, run_id: str, status: str) -> bool:
        return False


def test_a_registry_that_does_not_answer_delays_its_job_and_no_other(make_world: Callable[..., World]) -> None:
    registry = _Registry()
    world = make_world(registry=registry)
    world.submit(make_spec("wants", "models:/sparse@best"))
    world.submit(make_spec("other"))
    world.step(5)
    assert (world.state("wants"), world.state("other")) == (JobState.QUEUED, JobState.STARTING)
    assert "MLflow does not answer" in world.job("wants").why
    assert registry.num_asked == 1
    registry.answer = RegistryEntry("run-9", None)
    world.clock.tick(15.0)
    world.step()
    source = world.cluster.launches[world.attempt_id("wants")].sources["model"]
    assert (source.kind, source.location) == ("run", "run-9")


def test_an_unknown_alias_fails_its_job(make_world: Callable[..., World]) -> None:
    registry = _Registry()
    registry.answer = NotFound("the registry has no models:/sparse@best")
    world = make_world(registry=registry)
    world.submit(make_spec("wants", "models:/sparse@best"))
    world.step()
    assert world.state("wants") is JobState.FAILED
    assert "the registry has no models:/sparse@best" in world.job("wants").why


def test_an_alias_of_our_own_job_is_its_artifact(make_world: Callable[..., World]) -> None:
    registry = _Registry()
    world = make_world(registry=registry)
    world.cluster.automatic = True
    world.submit(make_spec("a"))
    world.step(2)
    registry.answer = RegistryEntry("run-1", world.job("a").id)
    world.submit(make_spec("b", "models:/sparse@best"))
    world.step()
    source = world.cluster.launches[world.attempt_id("b")].sources["model"]
    assert (source.kind, source.location) == ("artifact", str(world.directory("a").artifacts))
