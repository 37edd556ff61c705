"""Data of the task ``wav2vec2_pretraining``: the clips of ``ctc`` without transcripts, with masks and negatives.

What is saved beside the model is the feature extractor alone: there are no units.
"""

from pathlib import Path

import numpy as np

from prunus.configs import JobSpec
from prunus.configs.tasks.wav2vec2_pretraining import Wav2Vec2Pretraining
from prunus.jobs.data.pipeline.batches import Batch, TaskData
from prunus.jobs.data.pipeline.cache import content_key
from prunus.jobs.data.pipeline.order import Indices
from prunus.jobs.data.speech.batches.clip_batches import SpeechBatches, SpeechEvalBatches
from prunus.jobs.data.speech.batches.collator import Clips, Collator
from prunus.jobs.data.speech.batches.pretraining_masks import PretrainingMasks
from prunus.jobs.data.speech.ctc import clip_facts, eval_limits, plan_steps, steps_per_epoch, works_ahead
from prunus.jobs.data.speech.preparation import Preparation, join
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks


class PretrainingCollator(Collator):
    """Adds ``time_mask`` and ``negatives`` to the batches, in evaluation too."""

    def __init__(self, clips: Clips, inputs: SpeechInput, spec: JobSpec) -> None:
        task = spec.task
        assert isinstance(task, Wav2Vec2Pretraining)
        super().__init__(clips, inputs, None, at_use=task.data.streaming, max_bad=task.data.max_bad)
        self._hidden = PretrainingMasks(
            time_prob=task.time_prob,
            time_length=task.time_length,
            num_negatives=task.num_negatives,
            seed=spec.train.seed,
        )

    def _masked(self, indices_B: Indices, epochs_B: Indices, num_frames: int) -> Batch:
        frames = [self.inputs.frames(int(self.clips.num_samples_N[index])) for index in indices_B]
        keys_B = self.clips.keys_N[indices_B]
        return self._hidden.batch(np.asarray(frames, dtype=np.int64), keys_B, epochs_B, num_frames)


def pretraining_data(spec: JobSpec, inputs: SpeechInput, cache_dir: Path, ranks: Ranks) -> TaskData:
    """Prepare both splits, or find them in the cache.

    Raises:
        DataError: Clips cannot serve the task.
        StorageError: The cache cannot be written.
    """
    task = spec.task
    assert isinstance(task, Wav2Vec2Pretraining)
    data = task.data
    preparation = Preparation(data, None, task.time_length, inputs, cache_dir, ranks)
    train = [preparation.part("train", i, source) for i, source in enumerate(data.train)]
    held_out = [preparation.part("eval", i, source) for i, source in enumerate(data.eval or ())]
    clips = join(train, None, ())
    plan = plan_steps(spec, data, clips, inputs.sampling_rate)
    evaluation = None
    if held_out:
        eval_clips = join(held_out, None, ())
        _check_some_masked(eval_clips, inputs, task)
        eval_collator = PretrainingCollator(eval_clips, inputs, spec)
        evaluation = SpeechEvalBatches(eval_collator, *eval_limits(spec, data, inputs), ranks)
    collator, ahead = PretrainingCollator(clips, inputs, spec), works_ahead(data, ranks)
    return TaskData(
        train=SpeechBatches(collator, plan, ranks, spec.accumulation_steps, ahead=ahead),
        eval=evaluation,
        num_train_sequences=len(clips),
        labels=(),
        digest=content_key(
            task.name,
            *(part.digest for part in [*train, *held_out]),
            task.model_dump_json(exclude={"data"}),
            (data.group_by_length, data.streaming, spec.train.batch_seconds, spec.train.micro_batch_seconds),
            (inputs.extractor.do_normalize, inputs.sees_padding, len(data.train)),
        ),
        processor=inputs.extractor,
        steps_per_epoch=steps_per_epoch(plan),
        facts=clip_facts(inputs, train, held_out),
    )


def _check_some_masked(clips: Clips, inputs: SpeechInput, task: Wav2Vec2Pretraining) -> None:
    """Held-out clips may be shorter than a span, but not all of them: there would be nothing to count."""
    longest = inputs.frames(int(clips.num_samples_N.max()))
    if longest < max(2, task.time_length):
        raise DataError(
            f"task.data.eval: the longest clip has {longest} frames, task.time_length is {task.time_length}, so that "
            "nothing would be masked; give longer clips, or leave eval out"
        )
