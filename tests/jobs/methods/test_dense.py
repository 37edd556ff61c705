"""No pruning: no masks, no state, no weights asked for."""

import torch

from prunus.configs.methods.dense import Dense
from prunus.jobs.methods import METHODS, Start
from prunus.jobs.methods.base import Finished
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.masked_weights import MaskedWeights
from tests.jobs.methods.started import started


def test_dense_training_has_no_masks_and_changes_nothing() -> None:
    ranks = Ranks(0, 1, torch.device("cpu"))
    method = started(Dense(), Start(MaskedWeights([], None, ranks), 10, ranks, None))
    method.first_masks()
    method.read_gradients(0)
    assert method.after_step(10) is None
    assert method.target_sparsity(10) is None
    assert method.state_dict() == {}
    method.load_state_dict({})
    assert method.finish() == Finished("dense", {}, "given")
    assert not METHODS["dense"].prunes
