"""Clips as tensors: scaled, padded, with the numbers of their units and SpecAugment's masks; steps and evaluation.

Shapes: B clips of a micro-batch, S samples, U units, T frames, H channels of the encoder's input.

Models that are not told which samples are padding (``SpeechInput.sees_padding``: group norm over time) say something
else of a clip when the padding behind it changes. So that 1 rank = N ranks holds for them too, all micro-batches of a
training step are padded to the step's longest clip, and evaluation takes one clip at a time, without padding. Those
that are told are padded a little more, to tenths of a second, so that shapes recur.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from prunus.jobs.data.pipeline.batches import Batch
from prunus.jobs.data.pipeline.order import Indices
from prunus.jobs.data.speech.batches.spec_augment import SpecAugmentMasks
from prunus.jobs.data.speech.clips.audio import BadAudio
from prunus.jobs.data.speech.clips.clip_cache import Recordings
from prunus.jobs.data.speech.clips.probes import num_workers
from prunus.jobs.data.speech.speech_input import SpeechInput
from prunus.jobs.data.text.masking import IGNORE
from prunus.jobs.errors import DataError

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
