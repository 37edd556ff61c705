"""BERT's masking of tokens (Devlin et al., arXiv 1810.04805, section 3.1), drawn anew in every epoch.

What happens to a token depends on (seed, epoch, sequence, position) alone: a counter-based generator (the finaliser
of SplitMix64) is evaluated at each token, so that every layout of ranks and batches sees the same masks and nothing
but the numbers themselves is state. Shapes: B sequences, L tokens.

Differs from the paper: each token is drawn independently (the share of predicted tokens is 15% on average, not
exactly per sequence), as in RoBERTa and in every common library; special tokens, [UNK] included, are never predicted.
"""

import numpy as np
import numpy.typing as npt

IGNORE = -100
"""Label of a token that is not predicted."""

Ids = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

_SHARE_MASKED = 0.8
_SHARE_RANDOM = 0.1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def sequence_keys(seed: int, epochs_B: Ids, indices_B: Ids) -> Keys:
    """Return one key of randomness per sequence."""
    key = _mix(np.full(len(indices_B), seed, np.uint64))
    key = _mix(key + epochs_B.astype(np.uint64) * _GOLDEN)
    return _mix(key + indices_B.astype(np.uint64) * _GOLDEN)


def mask_tokens(
    input_ids_BL: Ids,
    special_BL: npt.NDArray[np.bool_],
    keys_B: Keys,
    *,
    probability: float,
    mask_id: int,
    vocab_size: int,
) -> tuple[Ids, Ids]:
    """Hide tokens and return (inputs, labels).

    Args:
        input_ids_BL: Tokens.
        special_BL: True where a token may not be predicted (special tokens, padding).
        keys_B: Randomness, from :func:`sequence_keys`.
        probability: Share of the other tokens to predict, in [0, 1]. Paper: 0.15.
        mask_id: Id of [MASK].
        vocab_size: Random tokens are drawn from all ids below this.

    Returns:
        Tokens of which, where predicted, 80% are [MASK], 10% random and 10% unchanged; and labels, the original
        token where predicted and -100 elsewhere.
    """
    predicted_BL = (_uniform(keys_B, input_ids_BL.shape[1], 0) < probability) & ~special_BL
    kind_BL = _uniform(keys_B, input_ids_BL.shape[1], 1)
    random_BL = (_uniform(keys_B, input_ids_BL.shape[1], 2) * vocab_size).astype(np.int64)
    masked_BL = np.where(kind_BL < _SHARE_MASKED, mask_id, input_ids_BL)
    masked_BL = np.where(kind_BL >= 1.0 - _SHARE_RANDOM, random_BL, masked_BL)
    return np.where(predicted_BL, masked_BL, input_ids_BL), np.where(predicted_BL, input_ids_BL, IGNORE)


def _uniform(keys_B: Keys, length: int, draw: int) -> npt.NDArray[np.float64]:
    """Return numbers in [0, 1) per token: the top 53 bits of a hash of (key, position, number of the draw)."""
    counters_L = (np.arange(length, dtype=np.uint64) * np.uint64(3) + np.uint64(draw + 1)) * _GOLDEN
    return (_mix(keys_B[:, None] + counters_L) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: Keys) -> Keys:
    """Finaliser of SplitMix64 (Steele, Lea, Flood, 2014): a bijection on 64 bits that scatters them well."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
