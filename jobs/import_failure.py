"""What a rank says when its libraries cannot be imported. Loads nothing but this room's errors.

PyPI's torchaudio links CUDA's libraries. Beside a torch for CPUs its import raises OSError, and so does the import of
almost any model, since transformers imports torchaudio where it is installed.
"""

import os
import sys
import time

from prunus.configs import Launch, RankError
from prunus.configs.artifacts.atomic_write import write_atomic
from prunus.configs.artifacts.layout import JobDirectory
from prunus.jobs.errors import UserError


def unloadable_torchaudio(error: BaseException) -> UserError | None:
    """Explain an error whose cause is torchaudio's compiled parts; None: it is another one."""
    found: BaseException | None = error
    while found is not None:
        text = str(found)
        if isinstance(found, OSError) and "Could not load this library" in text and "torchaudio" in text:
            return UserError(
                f"torchaudio's compiled parts do not load in {sys.executable}: they need CUDA's libraries, and torch is"
                " a build for CPUs; run `prunus doctor --repair` in that environment, on every node"
            )
        found = found.__cause__ or found.__context__
    return None


def report_import_failure(launch: Launch, error: BaseException) -> None:
    """Leave ``error-rank-N.json`` for the driver if the error can be explained.

    Raises:
        UserError: The explanation.
    """
    problem = unloadable_torchaudio(error)
    if problem is None:
        return
    rank = int(os.environ.get("RANK", "0"))
    record = RankError(
        rank=rank, reason=problem.reason, message=str(problem), retryable=problem.retryable, time=time.time()
    )
    write_atomic(JobDirectory(launch.job_dir).rank_error(launch.attempt, rank), record.model_dump_json())
    raise problem from error
