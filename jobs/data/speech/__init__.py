"""Recorded speech: from files to each rank's batches. Entered through ``recognition`` and ``pretraining``."""
