"""BERT masking: the published generator, the shares within 5 standard deviations, and what it depends on."""

import math
from typing import Any

import numpy as np

from prunus.jobs.data.text import masking
from prunus.jobs.data.text.masking import IGNORE, mask_tokens, sequence_keys

MASK, VOCAB, TOKEN = 103, 30522, 5000


def _masked(num: int = 600, length: int = 128, seed: int = 1, epoch: int = 0, probability: float = 0.15) -> Any:
    ids_BL = np.full((num, length), TOKEN, dtype=np.int64)
    special_BL = np.zeros((num, length), dtype=bool)
    special_BL[:, 0] = True
    keys_B = sequence_keys(seed, np.full(num, epoch, np.int64), np.arange(num, dtype=np.int64))
    inputs_BL, labels_BL = mask_tokens(
        ids_BL, special_BL, keys_B, probability=probability, mask_id=MASK, vocab_size=VOCAB
    )
    return inputs_BL, labels_BL


def _close(count: float, n: int, p: float) -> bool:
    return abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_the_generator_is_splitmix64() -> None:
    # First three outputs of SplitMix64 with seed 0, as published with the reference code.
    states = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert masking._mix(states).tolist() == expected


def test_predicts_15_percent_and_treats_them_80_10_10() -> None:
    inputs_BL, labels_BL = _masked()
    predicted_BL = labels_BL != IGNORE
    n = int(predicted_BL.sum())
    assert _close(n, 600 * 127, 0.15)
    assert (labels_BL[predicted_BL] == TOKEN).all()
    assert (inputs_BL[~predicted_BL] == TOKEN).all()
    chosen = inputs_BL[predicted_BL]
    is_random = (chosen != MASK) & (chosen != TOKEN)
    assert _close((chosen == MASK).sum(), n, 0.8)
    assert _close((chosen == TOKEN).sum(), n, 0.1)
    assert _close(is_random.sum(), n, 0.1)


def test_random_tokens_come_from_the_whole_vocabulary() -> None:
    inputs_BL, labels_BL = _masked(num=3000)
    chosen = inputs_BL[labels_BL != IGNORE]
    random = chosen[(chosen != MASK) & (chosen != TOKEN)]
    assert random.min() >= 0 and random.max() < VOCAB
    for share in range(8):  # each eighth of the vocabulary gets an eighth of the draws
        inside = ((random >= share * VOCAB // 8) & (random < (share + 1) * VOCAB // 8)).sum()
        assert _close(inside, len(random), 1 / 8)


def test_neighbours_are_chosen_independently() -> None:
    predicted_BL = _masked()[1][:, 1:] != IGNORE
    for both in (predicted_BL[:, 1:] & predicted_BL[:, :-1], predicted_BL[1:] & predicted_BL[:-1]):
        assert _close(both.sum(), both.size, 0.15**2)


def test_special_tokens_are_never_predicted() -> None:
    inputs_BL, labels_BL = _masked(probability=1.0)
    assert (labels_BL[:, 0] == IGNORE).all() and (inputs_BL[:, 0] == TOKEN).all()
    assert (labels_BL[:, 1:] == TOKEN).all()


def test_probability_zero_changes_nothing() -> None:
    inputs_BL, labels_BL = _masked(probability=0.0)
    assert (inputs_BL == TOKEN).all() and (labels_BL == IGNORE).all()


def test_a_sequence_is_masked_alike_in_any_batch() -> None:
    whole, whole_labels = _masked(num=6)
    ids_BL, special_BL = np.full((2, 128), TOKEN, dtype=np.int64), np.zeros((2, 128), dtype=bool)
    special_BL[:, 0] = True
    keys_B = sequence_keys(1, np.zeros(2, np.int64), np.array([4, 1], np.int64))
    part, labels = mask_tokens(ids_BL, special_BL, keys_B, probability=0.15, mask_id=MASK, vocab_size=VOCAB)
    assert (part == whole[[4, 1]]).all() and (labels == whole_labels[[4, 1]]).all()


def test_seed_epoch_and_sequence_each_change_the_mask() -> None:
    base = _masked(num=2)[1]
    assert (base == _masked(num=2)[1]).all()
    assert (base != _masked(num=2, seed=2)[1]).any()
    assert (base != _masked(num=2, epoch=1)[1]).any()
    assert (base[0] != base[1]).any()
