"""From any exception to what it means for the job."""

import torch

from prunus.configs import (
    ConfigError,
    StopReason,
)
from prunus.configs.errors import ArtifactError
from prunus.jobs.errors import JobError, StorageError, UserError
from prunus.jobs.import_failure import unloadable_torchaudio
from prunus.jobs.training.checkpoint import is_storage_failure


def classify(error: Exception) -> JobError:
    """Say of any exception what it means for the job."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, ConfigError | ArtifactError):
        return UserError(str(error))
    if (broken := unloadable_torchaudio(error)) is not None:
        return broken
    text = f"{type(error).__name__}: {str(error).strip()[:800]}"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: can't allocate" in text:
        found = JobError(
            f"out of memory ({text}); lower train.micro_batch_size or task.data.sequence_length, raise "
            "engine.strategy to a higher ZeRO stage, or set engine.activation_checkpointing"
        )
        found.reason = StopReason.OUT_OF_MEMORY
        return found
    if getattr(error, "errno", None) is not None or (not isinstance(error, OSError) and is_storage_failure(error)):
        return StorageError(f"storage failed: {text}; free space or check that it is reachable")
    if isinstance(error, torch.distributed.DistError) or "gloo/transport" in text:  # closed, reset, timed out
        found = JobError(f"another rank is gone ({text})")
        found.reason, found.retryable = StopReason.WORKER_LOST, True
        return found
    return JobError(f"unexpected {text}; this is a defect of prunus or of a library: see the rank's log")
