"""Clips as the tensors of a step: which clips, padded how, masked where."""
