"""SpecAugment's masks for wav2vec 2.0 (arXiv 1904.08779; 2006.11477, appendix B): spans of frames and of channels.

::

    spans n = floor(prob * length / span + u),  u uniform in [0, 1): the share is right on average
    starts: n of the length - span + 1 places, without replacement; spans may overlap, so less than prob is covered

What is masked depends on (seed, epoch, clip) alone. Spans lie over the clip's own frames, never over its padding.

Differs from fairseq: a clip is not cut down to the number of masked frames of its batch's shortest, which would make
its mask depend on its neighbours. Same as ``transformers`` (``_compute_mask_indices``), with u drawn per clip.
"""

import numpy as np
import numpy.typing as npt

from prunus.configs.tasks.speech_data import SpecAugment

Mask = npt.NDArray[np.bool_]


def span_mask(length: int, prob: float, span: int, min_spans: int, rng: np.random.Generator) -> Mask:
    """Return a mask (length,), True where masked.

    Args:
        length: Frames or channels.
        prob: Share that would be masked if no spans overlapped, in [0, 1].
        span: Length of a span; with length < span nothing is masked.
        min_spans: Least number of spans, as far as they fit.
        rng: Randomness.
    """
    mask = np.zeros(length, dtype=bool)
    if prob == 0.0 or length < span:
        return mask
    num_spans = max(int(prob * length / span + rng.random()), min_spans)
    if num_spans * span > length:
        num_spans = length // span
    num_spans = min(num_spans, length - span + 1)
    starts = rng.choice(length - span + 1, num_spans, replace=False)
    mask[(starts[:, None] + np.arange(span)).reshape(-1)] = True
    return mask


class SpecAugmentMasks:
    """Masks of clips.

    Args:
        spec: Shares and lengths.
        hidden_size: Channels of the encoder's input.
        min_time_spans: ``mask_time_min_masks`` of the model.
        min_channel_spans: ``mask_feature_min_masks``.
        seed: Of the job.
    """

    def __init__(
        self, spec: SpecAugment, *, hidden_size: int, min_time_spans: int, min_channel_spans: int, seed: int
    ) -> None:
        self._spec = spec
        self._hidden_size = hidden_size
        self._min_time_spans = min_time_spans
        self._min_channel_spans = min_channel_spans
        self._seed = seed

    def of(self, epoch: int, clip: int, num_frames: int) -> tuple[Mask, Mask]:
        """Return the masks over a clip's frames and over the channels."""
        rng = np.random.Generator(np.random.PCG64([self._seed, epoch, clip]))
        spec = self._spec
        time_T = span_mask(num_frames, spec.time_prob, spec.time_length, self._min_time_spans, rng)
        channel_H = span_mask(self._hidden_size, spec.channel_prob, spec.channel_length, self._min_channel_spans, rng)
        return time_T, channel_H
