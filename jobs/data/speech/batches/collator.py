"""Clips as tensors: scaled, padded, with the numbers of their units and SpecAugment's masks; steps and evaluation.

Shapes: B clips of a micro-batch, S samples, U units, T frames, H channels of the encoder's input.

Models that are not told which samples are padding (``SpeechInput.sees_padding``: group norm over time) say something
else of a clip when the padding behind it changes. So that 1 rank = N ranks holds for them too, all micro-batches of a
training step are padded to the step's longest clip, and evaluation takes one clip at a time, without padding. Those
that are told are padded a little more, to tenths of a second, so that shapes recur.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from prunus.jobs.data.pipeline.batches import EVAL_EPOCH, Batch, EvalBatches, StepBatches
from prunus.jobs.data.pipeline.order import Indices
from prunus.jobs.data.speech.batches.plan import Plan, deal
from prunus.jobs.data.speech.batches.spec_augment import SpecAugmentMasks
from prunus.jobs.data.speech.clips.audio import BadAudio
from prunus.jobs.data.speech.clips.clip_cache import Recordings
from prunus.jobs.data.speech.clips.probes import num_workers
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.data.text.masking import IGNORE
from prunus.jobs.errors import DataError
from prunus.jobs.ranks import Ranks

log = logging.getLogger(__name__)
_SHAPES_PER_S = 10
"""Batches are padded to multiples of a tenth of a second where the model sees what is padding: oneDNN compiles its
convolutions anew for every shape, which with lengths as they come was a fifth of a step of a small model."""
_FULL_SCALE = np.float32(2**-15)
_VARIANCE_FLOOR = 1e-7  # transformers' feature extractor


@dataclass(frozen=True)
class Clips:
    """The clips of a split.

    Attributes:
        recordings: Of each source.
        places_N2: (source, number in it) of each clip.
        num_samples_N: Samples of each clip.
        labels: Numbers of the units of all clips, one after the other.
        bounds: Where the units of clip i begin and end: bounds[i], bounds[i + 1].
        groups_N: Number of each clip's evaluation group.
        names: Of each clip, for messages.
        keys_N: What SpecAugment draws a clip's masks from, beside the epoch.
    """

    recordings: Sequence[Recordings]
    places_N2: npt.NDArray[np.int64]
    num_samples_N: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.int64]
    groups_N: npt.NDArray[np.int64]
    names: Sequence[str]
    keys_N: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.num_samples_N)


class Collator:
    """Makes batches of clips.

    Args:
        clips: The split.
        inputs: What the model asks for.
        masks: SpecAugment; None for none.
        at_use: Clips are decoded here, several at a time.
        max_bad: Share of the clips that may turn out to be corrupt here.
    """

    def __init__(
        self, clips: Clips, inputs: SpeechInput, masks: SpecAugmentMasks | None, *, at_use: bool, max_bad: float
    ) -> None:
        self.clips = clips
        self.inputs = inputs
        self._masks = masks
        self._pool = ThreadPoolExecutor(num_workers()) if at_use else None
        self._max_bad = max_bad
        self._bad: set[int] = set()

    def batch(self, indices_B: Indices, epochs_B: Indices, weights_B: npt.ArrayLike, pad_to: int = 0) -> Batch:
        """Return clips as a batch, padded to the longest (see ``_SHAPES_PER_S``) or to ``pad_to`` samples.

        A clip that cannot be decoded here becomes silence of weight 0.

        Raises:
            DataError: More than ``max_bad`` of the clips were such.
        """
        clips, num_rows = self.clips, len(indices_B)
        lengths_B = clips.num_samples_N[indices_B].tolist()
        width = max(pad_to, *lengths_B)
        if self.inputs.sees_padding:
            multiple = max(1, self.inputs.sampling_rate // _SHAPES_PER_S)
            width = -(-width // multiple) * multiple
        values_BS = np.zeros((num_rows, width), dtype=np.float32)
        mask_BS = np.zeros(values_BS.shape, dtype=np.int64)
        units = [clips.labels[clips.bounds[i] : clips.bounds[i + 1]] for i in indices_B]
        labels_BU = np.full((num_rows, max(1, *map(len, units))), IGNORE, dtype=np.int64)
        for row, (length, numbers) in enumerate(zip(lengths_B, units, strict=True)):
            mask_BS[row, :length] = 1
            labels_BU[row, : len(numbers)] = numbers
        rows = [values_S[:length] for values_S, length in zip(values_BS, lengths_B, strict=True)]
        heard = self._pool.map(self._hear, indices_B, rows) if self._pool else map(self._hear, indices_B, rows)
        weight_B = np.asarray(weights_B, dtype=np.float32) * np.fromiter(heard, np.float32, num_rows)
        batch = {
            "input_values": torch.from_numpy(values_BS),
            "attention_mask": torch.from_numpy(mask_BS),
            "labels": torch.from_numpy(labels_BU),
            "weight": torch.from_numpy(weight_B),
            "group": torch.from_numpy(clips.groups_N[indices_B]),
        }
        return batch | self._masked(indices_B, epochs_B, self.inputs.frames(values_BS.shape[1]))

    def _masked(self, indices_B: Indices, epochs_B: Indices, num_frames: int) -> Batch:
        """Return what is masked in the batch's frames; tasks may do it in another way."""
        if self._masks is None:
            return {}
        time_BT = np.zeros((len(indices_B), num_frames), dtype=bool)
        channels = []
        for row, (index, epoch) in enumerate(zip(indices_B.tolist(), epochs_B.tolist(), strict=True)):
            frames = self.inputs.frames(int(self.clips.num_samples_N[index]))
            time_BT[row, :frames], channel_H = self._masks.of(epoch, int(self.clips.keys_N[index]), frames)
            channels.append(channel_H)
        return {"time_mask": torch.from_numpy(time_BT), "channel_mask": torch.from_numpy(np.stack(channels))}

    def _hear(self, index: int, out_S: npt.NDArray[np.float32]) -> bool:
        """Write a clip's samples; False where it gives none."""
        source, number = self.clips.places_N2[index]
        try:
            np.multiply(self.clips.recordings[source].samples(int(number)), _FULL_SCALE, out=out_S)
        except BadAudio as error:
            self._count(int(index), error)
            return False
        if self.inputs.extractor.do_normalize:
            out_S -= out_S.mean()
            out_S /= np.sqrt(np.square(out_S).mean() + np.float32(_VARIANCE_FLOOR))
        return True

    def _count(self, index: int, error: BadAudio) -> None:
        if index not in self._bad:
            log.warning("%s: %s; it is left out", self.clips.names[index], error)
        self._bad.add(index)
        if len(self._bad) > self._max_bad * len(self.clips):
            raise DataError(
                f"{len(self._bad)} of {len(self.clips)} clips could not be decoded where they are used, more than "
                f"task.data.max_bad {self._max_bad:g}; the last one is {self.clips.names[index]}: {error}"
            ) from error


class SpeechBatches(StepBatches):
    """Training batches: a pure function of (seed, step).

    Args:
        collator: Of the train split.
        plan: Which clips meet at a step.
        ranks: This rank.
        accumulation_steps: Micro-batches per rank and step.
        ahead: Prepare the next step while one is computed.
    """

    def __init__(self, collator: Collator, plan: Plan, ranks: Ranks, accumulation_steps: int, *, ahead: bool) -> None:
        self._collator = collator
        self._plan = plan
        self._ranks = ranks
        self._accumulation_steps = accumulation_steps
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._next: tuple[int, Future[list[Batch]]] | None = None

    def at(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a step (0-based)."""
        if self._pool is None:
            return self._make(step)
        if self._next is None or self._next[0] != step:
            self._next = (step, self._pool.submit(self._make, step))
        batches = self._next[1].result()
        self._next = (step + 1, self._pool.submit(self._make, step + 1))
        return batches

    def _make(self, step: int) -> list[Batch]:
        epochs_G, indices_G = self._plan.at(step)
        lengths_G = self._collator.clips.num_samples_N[indices_G]
        pad_to = 0 if self._collator.inputs.sees_padding else int(lengths_G.max())
        shortest = int(lengths_G.argmin())
        batches = []
        for places in deal(len(indices_G), self._ranks.rank, self._ranks.world_size, self._accumulation_steps):
            # Engines want every micro-batch: where no clip is left for one, the shortest is repeated and not counted.
            rows_B = np.asarray(places if len(places) else [shortest], dtype=np.int64)
            weights_B = np.full(len(rows_B), float(len(places) > 0), dtype=np.float32)
            batches.append(self._collator.batch(indices_G[rows_B], epochs_G[rows_B], weights_B, pad_to))
        return batches


class SpeechEvalBatches(EvalBatches):
    """This rank's share of the held-out clips, longest first, equally many batches on every rank.

    Args:
        collator: Of the eval split.
        max_rows: Clips of a batch.
        max_samples: Clips x longest clip of a batch; a longer clip stands alone.
        ranks: This rank.
    """

    def __init__(self, collator: Collator, max_rows: int, max_samples: int, ranks: Ranks) -> None:
        lengths_N = collator.clips.num_samples_N
        self.num_rows = len(lengths_N)
        self._collator = collator
        order_N = np.argsort(-lengths_N, kind="stable")
        each = -(-self.num_rows // ranks.world_size)
        places = ranks.rank + ranks.world_size * np.arange(each)
        self._rows = order_N[np.minimum(places, self.num_rows - 1)]
        self._weights = (places < self.num_rows).astype(np.float32)
        # Rank 0 has the longest of each round: cut by its clips, so that all ranks cut alike.
        longest = lengths_N[order_N[:: ranks.world_size]].tolist()
        self._bounds = [0]
        for place in range(1, each):
            rows = place + 1 - self._bounds[-1]
            if rows > max_rows or rows * longest[self._bounds[-1]] > max_samples:
                self._bounds.append(place)
        self._bounds.append(each)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        for start, end in zip(self._bounds, self._bounds[1:], strict=False):
            rows_B = self._rows[start:end]
            yield self._collator.batch(rows_B, np.full_like(rows_B, EVAL_EPOCH), self._weights[start:end])
