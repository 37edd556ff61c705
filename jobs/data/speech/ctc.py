"""Data of the task ``ctc``: clips and transcripts.

The way of a clip: ``clips`` (which there are) -> ``probes`` and ``subset`` (which are used) -> ``audio`` and
``clip_cache`` (samples on disk) -> ``order`` (which at which step) -> ``batches``. That of a transcript:
``transcripts`` (units) -> ``vocabulary`` (their numbers). ``parts`` joins the two.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunus.configs import JobSpec
from prunus.configs.tasks.ctc import CTC
from prunus.configs.tasks.speech_data import SpeechData
from prunus.jobs.data.pipeline.batches import StepBatches, TaskData
from prunus.jobs.data.pipeline.cache import content_key
from prunus.jobs.data.speech.batches.clip_batches import SpeechBatches, SpeechEvalBatches
from prunus.jobs.data.speech.batches.clip_stream import check_streamable, speech_stream
from prunus.jobs.data.speech.batches.collator import Clips, Collator
from prunus.jobs.data.speech.batches.plan import Plan, RowsPerStep, SecondsPerStep, least_micro_batches
from prunus.jobs.data.speech.batches.spec_augment import SpecAugmentMasks
from prunus.jobs.data.speech.clips.subset import REASONS
from prunus.jobs.data.speech.preparation import Part, Preparation, join
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.data.speech.units.vocabulary import Vocabulary, build_vocabulary
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks

log = logging.getLogger(__name__)
_MOSTLY = 0.5
_LONGEST_PHONE = 4
"""Signs: ``t\u0361\u0283\u02d0`` is a long affricate."""
_NAMED = 10


def ctc_data(spec: JobSpec, inputs: SpeechInput, cache_dir: Path, ranks: Ranks) -> TaskData:
    """Prepare both splits, or find them in the cache.

    Raises:
        DataError: Clips or transcripts cannot serve the task.
        StorageError: The cache cannot be written.
    """
    task = spec.task
    assert isinstance(task, CTC)
    data = task.data
    from_hub = data.streaming and any(source.hub for source in data.train)
    if from_hub:
        check_streamable(spec, task)
    masks, min_frames = _masks(spec, task, inputs)
    preparation = Preparation(data, task.transcripts, min_frames, inputs, cache_dir, ranks)
    listed = () if from_hub else data.train
    train = [preparation.part("train", i, source) for i, source in enumerate(listed)]
    held_out = [preparation.part("eval", i, source) for i, source in enumerate(data.eval or ())]
    vocabulary = build_vocabulary(task.transcripts, inputs, (units for part in train for units in part.units))
    if ranks.is_main and task.transcripts.units == "phones":
        _warn_of_words(vocabulary)
    unknown = _check_units(task, vocabulary, {"train": train, "eval": held_out}, ranks)
    groups = tuple(dict.fromkeys(part.group for part in held_out))
    digest = [part.digest for part in (*train, *held_out)]

    batches: StepBatches
    num_clips, first_epoch = None, None
    if from_hub:
        batches, stream_digest = speech_stream(spec, task, inputs, vocabulary, masks, min_frames, ranks)
        digest.append(stream_digest)
    else:
        clips = join(train, vocabulary, groups)
        collator = Collator(clips, inputs, masks, at_use=data.streaming, max_bad=data.max_bad)
        plan = plan_steps(spec, data, clips, inputs.sampling_rate)
        batches = SpeechBatches(collator, plan, ranks, spec.accumulation_steps, ahead=works_ahead(data, ranks))
        num_clips = len(clips)
        first_epoch = steps_per_epoch(plan)
    evaluation = None
    if held_out:
        eval_clips = join(held_out, vocabulary, groups)
        eval_collator = Collator(eval_clips, inputs, None, at_use=data.streaming, max_bad=data.max_bad)
        evaluation = SpeechEvalBatches(eval_collator, *eval_limits(spec, data, inputs), ranks)
    return TaskData(
        train=batches,
        eval=evaluation,
        num_train_sequences=num_clips,
        labels=vocabulary.tokens,
        digest=_digest(spec, task, inputs, vocabulary, digest),
        processor=vocabulary.processor(inputs),
        steps_per_epoch=first_epoch,
        eval_groups=groups if len(groups) > 1 else (),
        facts={"data/units": float(len(vocabulary))} | clip_facts(inputs, train, held_out) | unknown,
    )


def _masks(spec: JobSpec, task: CTC, inputs: SpeechInput) -> tuple[SpecAugmentMasks | None, int]:
    """Return SpecAugment's masks, and the frames of a span: the least that a clip must have."""
    augment, config = task.spec_augment, inputs.config
    if augment is None:
        return None, 1
    if augment.channel_prob and augment.channel_length > config.hidden_size:
        raise DataError(
            f"task.spec_augment.channel_length {augment.channel_length} is more than the model's "
            f"{config.hidden_size} channels; give a shorter span, or channel_prob: 0"
        )
    masks = SpecAugmentMasks(
        augment,
        hidden_size=config.hidden_size,
        min_time_spans=int(getattr(config, "mask_time_min_masks", 0)),
        min_channel_spans=int(getattr(config, "mask_feature_min_masks", 0)),
        seed=spec.train.seed,
    )
    return masks, augment.time_length if augment.time_prob else 1


def plan_steps(spec: JobSpec, data: SpeechData, clips: Clips, rate: int) -> Plan:
    """Say which clips meet at which step.

    Raises:
        DataError: A clip is longer than a batch.
    """
    train, grouped = spec.train, data.group_by_length
    if train.batch_seconds is None:
        return RowsPerStep(clips.num_samples_N, train.batch_size, train.seed, group_by_length=grouped)
    micro = train.micro_batch_seconds or train.batch_seconds
    longest = int(clips.num_samples_N.max())
    for name, seconds in (("batch_seconds", train.batch_seconds), ("micro_batch_seconds", micro)):
        if longest > round(seconds * rate):
            raise DataError(
                f"train.{name} {seconds:g} is less than the longest clip ({longest / rate:.1f} s: "
                f"{clips.names[int(clips.num_samples_N.argmax())]}); raise it, or lower task.data.max_s"
            )
    return SecondsPerStep(
        clips.num_samples_N,
        round(train.batch_seconds * rate),
        round(micro * rate),
        least_micro_batches(train.batch_seconds, micro),
        train.seed,
        group_by_length=grouped,
    )


def steps_per_epoch(plan: Plan) -> float | None:
    """Return the steps of the first epoch, where they follow from the clips' lengths."""
    return float(plan.steps_of_first_epoch) if isinstance(plan, SecondsPerStep) else None


def works_ahead(data: SpeechData, ranks: Ranks) -> bool:
    """Say whether the next step is prepared while one is computed: on a CPU the two would only share it."""
    return data.streaming or ranks.device.type == "cuda"


def eval_limits(spec: JobSpec, data: SpeechData, inputs: SpeechInput) -> tuple[int, int]:
    """Return the most clips and samples of an evaluation batch: as much memory as training needs."""
    train, rate = spec.train, inputs.sampling_rate
    if not inputs.sees_padding:
        return 1, 0
    if train.batch_seconds is None:
        return spec.micro_batch_size, round(spec.micro_batch_size * data.max_s * rate)
    seconds = train.micro_batch_seconds or train.batch_seconds / spec.resources.num_ranks
    return round(seconds / data.min_s) + 1, round(seconds * rate)


def _warn_of_words(vocabulary: Vocabulary) -> None:
    """Tell who gave a column of sentences where phones are asked for: each word would become a unit."""
    long = [unit for unit in vocabulary.tokens if len(unit) > _LONGEST_PHONE and not vocabulary.is_special(unit)]
    if len(long) > _MOSTLY * len(vocabulary):
        log.warning(
            "task.transcripts.units is phones, and most of the %d units look like words: %s; is text_column the one "
            "with the phones?", len(vocabulary), ", ".join(map(repr, long[:_NAMED])),
        )  # fmt: skip


def _check_units(
    task: CTC, vocabulary: Vocabulary, splits: Mapping[str, Sequence[Part]], ranks: Ranks
) -> dict[str, float]:
    """Count units that the vocabulary lacks, by split.

    Raises:
        DataError: ``unknown: refuse`` and there are some, or most of the train units are unknown.
    """
    facts: dict[str, float] = {}
    for split, parts in splits.items():
        seen = Counter(unit for part in parts for units in part.units for unit in units)
        lacking = {unit: count for unit, count in seen.most_common() if vocabulary.lacks(unit)}
        share = sum(lacking.values()) / max(1, seen.total())
        facts[f"data/{split}_unknown_units"] = share
        if not lacking:
            continue
        named = ", ".join(f"{unit!r} {count} times" for unit, count in list(lacking.items())[:_NAMED])
        what = f"task.data.{split}: {share:.2%} of the units are not in the vocabulary: {named}"
        if task.transcripts.unknown == "refuse":
            raise DataError(f"{what}; correct transcripts or vocabulary, or set task.transcripts.unknown: replace")
        if split == "train" and share > _MOSTLY:
            raise DataError(
                f"{what}. Nothing could be learned: compare task.transcripts.lowercase (some vocabularies are upper "
                f"case) and units, or use vocabulary: train"
            )
        if ranks.is_main:
            log.warning("%s; they count as %s", what, vocabulary.unknown)
    return facts


def _digest(spec: JobSpec, task: CTC, inputs: SpeechInput, vocabulary: Vocabulary, parts: Sequence[str]) -> str:
    """Return a key that changes with whatever changes a batch."""
    train = spec.train
    return content_key(
        "ctc",
        *parts,
        *(source.language for source in (*task.data.train, *(task.data.eval or ()))),
        *vocabulary.tokens,
        task.transcripts.model_dump_json(),
        task.spec_augment.model_dump_json() if task.spec_augment else "",
        (task.data.group_by_length, task.data.streaming, train.batch_seconds, train.micro_batch_seconds),
        (inputs.extractor.do_normalize, inputs.sees_padding, len(task.data.train)),
    )


def clip_facts(inputs: SpeechInput, train: Sequence[Part], held_out: Sequence[Part]) -> dict[str, float]:
    """Return clips, hours and what was left out, for the run's metrics."""
    facts: dict[str, float] = {}
    for prefix, parts in (("data/", train), ("data/eval_", held_out)):
        if not parts:
            continue
        facts[f"{prefix}clips"] = float(sum(len(part.numbers) for part in parts))
        facts[f"{prefix}hours"] = sum(part.num_samples for part in parts) / inputs.sampling_rate / 3600
        facts[f"{prefix}skipped"] = float(sum(part.left_out.total for part in parts))
        for reason in REASONS:
            facts[f"{prefix}skipped_{reason}"] = float(sum(part.left_out.count(reason) for part in parts))
    return facts
