"""What is written down when an attempt is over."""

from prunus.configs import StopReason
from prunus.service.wire import JobState
from tests.service.world import World, make_spec


def test_the_rank_that_failed_first_gives_the_message_where_there_is_no_outcome(world: World) -> None:
    world.submit(make_spec("a", resources={"num_ranks": 2}))
    attempt = world.start("a")
    world.cluster.fail_rank(attempt, 0, StopReason.WORKER_LOST, "lost its peer", time=20.0)
    world.cluster.fail_rank(attempt, 1, StopReason.OUT_OF_MEMORY, "out of memory; halve micro_batch_size", time=10.0)
    world.cluster.say(attempt, "failed")
    world.clock.tick(60.0)
    world.step(3)
    assert world.attempt("a").reason is StopReason.OUT_OF_MEMORY
    assert world.attempt("a").message == "rank 1: out of memory; halve micro_batch_size"


def test_a_curve_that_became_nan_hides_neither_progress_nor_outcome(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.finish(attempt, metrics={"loss/train": float("nan"), "eval/accuracy": 0.25})
    world.step()
    assert world.state("a") is JobState.SUCCEEDED
    assert world.job("a").metrics == {"eval/accuracy": 0.25}


def test_the_driver_log_is_kept_when_an_attempt_ends(world: World) -> None:
    world.submit(make_spec("a"))
    attempt = world.start("a")
    world.cluster.logs[attempt] = "the driver's words\n"
    world.cluster.finish(attempt)
    world.step()
    assert (world.directory("a").attempt(1) / "driver.log").read_text() == "the driver's words\n"
