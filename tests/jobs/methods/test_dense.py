"""No pruning: no masks, no state, no weights asked for."""

import torch

from prunus.configs.methods.dense import Dense
from prunus.jobs.methods import METHODS, Start, build_method
from prunus.jobs.ranks import Ranks
from prunus.jobs.sparsity.masked_weights import MaskedWeights


def test_dense_training_has_no_masks_and_changes_nothing() -> None:
    ranks = Ranks(0, 1, torch.device("cpu"))
    method = build_method(Dense(), Start(MaskedWeights([], None, ranks), 10, ranks, None))
    method.attach()
    method.before_forward(0)
    assert method.extra_loss(0) is None
    assert method.after_step(10) is None
    assert method.target_sparsity(10) == 0.0
    assert method.masks() == {}
    assert method.state_dict() == {}
    method.load_state_dict({})
    method.finish()
    assert not METHODS["dense"].prunes
