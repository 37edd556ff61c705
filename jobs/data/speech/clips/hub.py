"""Clips of a Hugging Face data set: its audio column is never decoded by ``datasets`` (which needs FFmpeg for it)."""

from typing import Any

import datasets

from prunus.configs.tasks.speech_data import SpeechSource
from prunus.jobs.data.pipeline.rows import Rows
from prunus.jobs.data.speech.clips.layouts import Clip, ClipList, columns_of
from prunus.jobs.errors import DataError


class AudioRows(Rows):
    """A hub data set whose audio columns hold bytes or a path."""

    def open(self) -> Any:
        """Open it.

        Raises:
            DataError: The hub cannot be read.
        """
        opened = super().open()
        for column, feature in (opened.features or {}).items():
            if isinstance(feature, datasets.Audio):
                opened = opened.cast_column(column, datasets.Audio(decode=False))
        return opened


def hub_rows(source: SpeechSource, where: str, *, streaming: bool) -> AudioRows:
    """Return the rows of a hub source."""
    return AudioRows(where, source, (), streaming)


def hub_clips(source: SpeechSource, where: str, *, transcribed: bool = True) -> ClipList:
    """Return the clips of a hub source; they are called by the number of their row.

    Raises:
        DataError: The hub cannot be read, or there is no such column.
    """
    rows = hub_rows(source, where, streaming=False)
    opened = rows.open()
    audio, text = columns_of(source, opened.column_names, rows.name, transcribed=transcribed)
    texts = list(opened[text]) if text else [None] * len(opened)
    clips = [
        Clip(f"row {number}", written, number - 1)
        if isinstance(written, str) or text is None
        else Clip(f"row {number}", None, None, f"column {text!r} holds no text")
        for number, written in enumerate(texts, 1)
    ]
    if not clips:
        raise DataError(f"{rows.name}: holds no rows; give a split with at least one")
    return ClipList(rows.name, clips, opened, audio, rows.fingerprint())
