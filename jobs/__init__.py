"""Torch side: one process per rank. Never imports cluster, service or Ray."""

from prunus.jobs import torchaudio_import

torchaudio_import.repair()
