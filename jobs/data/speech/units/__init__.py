"""Transcripts as the units that are learned: characters or phones, and their numbers."""
