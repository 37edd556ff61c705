"""What pruning, masks and distillation cost. ``make bench`` runs these; README.md holds the results."""

# First: without its repair of torchaudio, transformers cannot be imported beside a CPU build of torch.
import prunus.jobs  # noqa: F401
