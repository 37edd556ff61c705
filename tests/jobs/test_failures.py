"""What any exception of a rank means for its job: whose budget it is charged to, and whether it is tried again."""

import errno

import pytest
import torch

from prunus.configs import ConfigError, StopReason
from prunus.jobs.errors import (
    CheckpointError,
    DataError,
    JobError,
    ModelError,
    PruningError,
    StaleAttempt,
    StorageError,
)
from prunus.jobs.failures import classify


@pytest.mark.parametrize("kind", [DataError, ModelError, PruningError, CheckpointError, StorageError, StaleAttempt])
def test_our_own_errors_stay_what_they_are(kind: type[JobError]) -> None:
    error = kind("what, value, remedy")
    assert classify(error) is error


@pytest.mark.parametrize(
    ("kind", "reason", "retryable"),
    [
        (ModelError, StopReason.USER_ERROR, False),
        (CheckpointError, StopReason.USER_ERROR, False),
        (StorageError, StopReason.STORAGE, True),
        (StaleAttempt, StopReason.CANCELLED, False),
        (JobError, StopReason.INTERNAL, False),
    ],
)
def test_every_class_has_its_budget(kind: type[JobError], reason: StopReason, retryable: bool) -> None:
    assert (kind.reason, kind.retryable) == (reason, retryable)


@pytest.mark.parametrize(
    ("error", "reason", "retryable", "said"),
    [
        (ConfigError("num_ranks is 0", remedy="give 1"), StopReason.USER_ERROR, False, "num_ranks is 0"),
        (torch.OutOfMemoryError("CUDA out of memory"), StopReason.OUT_OF_MEMORY, False, "lower train.micro_batch_size"),
        (MemoryError(), StopReason.OUT_OF_MEMORY, False, "raise engine.strategy"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            StopReason.OUT_OF_MEMORY,
            False,
            "out of memory",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), StopReason.STORAGE, True, "No space left"),
        (OSError(errno.EIO, "Input/output error"), StopReason.STORAGE, True, "storage failed"),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:123"),
            StopReason.WORKER_LOST,
            True,
            "another rank is gone",
        ),
        (
            RuntimeError(
                "[/pytorch/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer."
            ),
            StopReason.WORKER_LOST,
            True,
            "another rank is gone",
        ),
        (torch.distributed.DistNetworkError("store is gone"), StopReason.WORKER_LOST, True, "another rank is gone"),
        (torch.distributed.DistBackendError("NCCL error"), StopReason.WORKER_LOST, True, "another rank is gone"),
        (ZeroDivisionError("division by zero"), StopReason.INTERNAL, False, "defect of prunus or of a library"),
        (OSError("a library's own, without number"), StopReason.INTERNAL, False, "defect"),
    ],
)
def test_exceptions_of_others_are_classed_and_explained(
    error: Exception, reason: StopReason, retryable: bool, said: str
) -> None:
    found = classify(error)
    assert (found.reason, found.retryable) == (reason, retryable)
    assert said in str(found)


def test_the_reason_of_one_error_does_not_stick_to_the_class() -> None:
    classify(MemoryError())
    assert JobError("x").reason is StopReason.INTERNAL


def test_a_long_message_is_cut() -> None:
    assert len(str(classify(ValueError("x" * 100_000)))) < 1_000
