"""Measurements of what pruning, masks and distillation cost. ``make bench`` runs them; README.md holds the results."""

import jobs as jobs  # first: without its repair of torchaudio, transformers cannot be imported beside a CPU build of torch
