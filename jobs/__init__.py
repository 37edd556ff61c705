"""Torch side: one process per rank. Never imports cluster or service; Ray only in ``jobs.ray_report``."""

from jobs import torchaudio_import

torchaudio_import.repair()
