"""The training service for pruning at scale. The rooms of the house are folders at the top of the repository."""
