"""Why a rank stops, as a tree. ``reason`` says which budget of retries it is charged to.

JobError
├── UserError              the spec, the data or a checkpoint cannot work (never retried)
│   ├── DataError          a file, column, label or split is missing or empty
│   ├── ModelError         a source is no model, or does not fit the task or the teacher
│   └── PruningError       a pattern matches nothing, a target cannot be reached, a mask does not fit
├── CheckpointError        no committed checkpoint is usable (user_error: a person must look)
├── StorageError           disk full, storage unreachable (retryable)
└── StaleAttempt           a newer attempt exists; this one must not write any more
"""

from prunus.configs import StopReason


class JobError(Exception):
    """Base: the message says what failed, the value, and what to do."""

    reason = StopReason.INTERNAL
    retryable = False


class UserError(JobError):
    """A person has to change something."""

    reason = StopReason.USER_ERROR


class DataError(UserError):
    """A file, column, label or split is missing, empty or of the wrong form."""


class ModelError(UserError):
    """A source holds no usable model, or one that does not fit."""


class PruningError(UserError):
    """A pattern matches no weight, a target cannot be reached, or a mask does not fit the model."""


class CheckpointError(UserError):
    """A checkpoint is damaged or does not belong to this job."""


class StorageError(JobError):
    """Writing to storage failed; the last committed checkpoint is still whole."""

    reason = StopReason.STORAGE
    retryable = True


class StaleAttempt(JobError):
    """A newer attempt of the job has started; this one stops without writing."""

    reason = StopReason.CANCELLED
