"""What pruning, masks and distillation cost. ``make bench`` runs these; README.md holds the results."""
