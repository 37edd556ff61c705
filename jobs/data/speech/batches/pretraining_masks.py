"""Which frames of a clip are hidden in pre-training, and among which others each is to be found (arXiv 2006.11477,
sections 3.1 and 3.2).

Both depend on (seed, epoch, clip) alone: the same on any number of ranks, in any batch and after a resume. Spans are
those of SpecAugment; negatives are drawn evenly, with replacement, from the clip's OTHER masked frames, as in fairseq
and ``transformers`` (``_sample_negative_indices``). A clip with fewer than two masked frames has no negatives: none of
it is masked, and it does not count. Letters: B clips, T frames, K negatives.
"""

import numpy as np
import numpy.typing as npt
import torch

from prunus.jobs.data.pipeline.batches import EVAL_EPOCH, Batch
from prunus.jobs.data.pipeline.order import Indices
from prunus.jobs.data.speech.batches.spec_augment import Mask, span_mask

_EVAL_SEED = 0  # fixed for all jobs, so that their eval/loss counts the same frames
_MIN_SPANS = 2  # fairseq's and transformers'


class PretrainingMasks:
    """Draws masks and negatives of clips.

    Args:
        time_prob: Share of the frames that would be masked if no spans overlapped.
        time_length: Frames of a span.
        num_negatives: K.
        seed: Of the job.
    """

    def __init__(self, *, time_prob: float, time_length: int, num_negatives: int, seed: int) -> None:
        self._time_prob = time_prob
        self._time_length = time_length
        self._num_negatives = num_negatives
        self._seed = seed

    def of(self, epoch: int, clip: int, num_frames: int) -> tuple[Mask, npt.NDArray[np.int64]]:
        """Return which frames of a clip are masked, shape (T,), and the negatives of each, shape (T, K): frames of the
        same clip, 0 where not masked."""
        seed = _EVAL_SEED if epoch == EVAL_EPOCH else self._seed
        rng = np.random.Generator(np.random.PCG64([seed, epoch - EVAL_EPOCH, clip]))
        mask_T = span_mask(num_frames, self._time_prob, self._time_length, _MIN_SPANS, rng)
        if mask_T.sum() < 2:
            mask_T[:] = False
        return mask_T, draw_negatives(mask_T, self._num_negatives, rng)

    def batch(self, num_frames_B: Indices, keys_B: Indices, epochs_B: Indices, num_frames: int) -> Batch:
        """Return ``time_mask`` (B, T) bool and ``negatives`` (B, T, K) int64 of clips with so many frames each, padded
        to T = ``num_frames``.
        """
        time_mask_BT = np.zeros((len(keys_B), num_frames), dtype=bool)
        negatives_BTK = np.zeros((len(keys_B), num_frames, self._num_negatives), dtype=np.int64)
        for row, (epoch, clip, frames) in enumerate(zip(epochs_B, keys_B, num_frames_B, strict=True)):
            time_mask_BT[row, :frames], negatives_BTK[row, :frames] = self.of(int(epoch), int(clip), int(frames))
        return {"time_mask": torch.from_numpy(time_mask_BT), "negatives": torch.from_numpy(negatives_BTK)}


def draw_negatives(mask_T: Mask, num_negatives: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return (T, K): for each masked frame K others that are masked, for the rest 0.

    Args:
        mask_T: At least two frames, or none.
    """
    masked_M = mask_T.nonzero()[0]
    negatives_TK = np.zeros((len(mask_T), num_negatives), dtype=np.int64)
    if len(masked_M):
        drawn_MK = rng.integers(0, len(masked_M) - 1, (len(masked_M), num_negatives))
        drawn_MK += drawn_MK >= np.arange(len(masked_M))[:, None]  # never the frame itself
        negatives_TK[masked_M] = masked_M[drawn_MK]
    return negatives_TK
