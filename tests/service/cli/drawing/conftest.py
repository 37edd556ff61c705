"""A recipe of three jobs."""

import pytest

from prunus.configs import Campaign, load_text

RECIPE = """
campaign: c
defaults:
  task: {name: masked_lm, data: {train: {files: [x.txt]}}}
  model: {from: ./m}
jobs:
  - name: dense
    train: {num_epochs: 3, lr: {peak: 1.0e-4, warmup: 0.0, schedule: constant}}
  - name: sparse
    method: {name: gradual_magnitude, final_sparsity: 0.9, update_every: 10}
    train: {num_steps: 100, lr: {peak: 2.0e-4, warmup: 0.1}}
  - name: one-shot
    method:
      name: gradual_magnitude
      initial_sparsity: 0.5
      final_sparsity: 0.5
      growth_window: [0, 0]
      selection_window: [0, 0]
    train: {num_steps: 7, lr: {peak: 2.0e-4}}
"""


@pytest.fixture
def campaign() -> Campaign:
    return load_text(RECIPE)
