"""Data of the task ``ctc``: clips and transcripts."""

from pathlib import Path

from configs import JobSpec
from jobs.data.batches import TaskData
from jobs.data.speech_input import SpeechInput
from jobs.ranks import Ranks


def ctc_data(spec: JobSpec, inputs: SpeechInput, cache_dir: Path, ranks: Ranks) -> TaskData:
    """Prepare both splits, or find them in the cache.

    Raises:
        DataError: Clips or transcripts cannot serve the task.
        StorageError: The cache cannot be written.
    """
    raise NotImplementedError
