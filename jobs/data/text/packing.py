"""Text to fixed-length sequences, and those sequences on disk.

All texts are joined to one run of tokens, with [SEP] (or the tokenizer's end of text) between two of them; the run
is cut into pieces of ``sequence_length`` less the special tokens, and each piece becomes ``[CLS] piece [SEP]``. Empty
texts are skipped. The last, short piece is dropped, unless it is the only one: then it is kept and padded.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from prunus.jobs.data.pipeline.cache import open_array, read_meta, token_dtype
from prunus.jobs.data.pipeline.rows import Rows
from prunus.jobs.errors import DataError

ROWS_PER_CALL = 1000
"""Texts handed to the tokenizer at a time; it spreads them over the cores by itself."""

MIN_TOKENS = 8
"""A corpus with fewer tokens than this is taken for a mistake."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """What stands around and between the texts.

    Attributes:
        length: Tokens per sequence, special tokens included.
        start: Before each piece ([CLS]), if the tokenizer has one.
        end: After each piece ([SEP]).
        between: Between two texts ([SEP]).
        pad_id: Fills a sequence that is too short.
    """

    length: int
    start: tuple[int, ...]
    end: tuple[int, ...]
    between: tuple[int, ...]
    pad_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, length: int) -> "Frame":
        """Read the special tokens of a tokenizer."""
        start = () if tokenizer.cls_token_id is None else (int(tokenizer.cls_token_id),)
        end = () if tokenizer.sep_token_id is None else (int(tokenizer.sep_token_id),)
        stop = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        return cls(length, start, end, () if stop is None else (int(stop),), int(tokenizer.pad_token_id or 0))

    @property
    def piece_length(self) -> int:
        """Tokens of text per sequence."""
        return self.length - len(self.start) - len(self.end)

    def around(self, pieces_NP: Ids) -> Ids:
        """Return the pieces with their special tokens."""
        rows = len(pieces_NP)
        start, end = np.tile(self.start, (rows, 1)), np.tile(self.end, (rows, 1))
        return np.concatenate([start, pieces_NP, end], axis=1).astype(np.int64)


class Packer:
    """Cuts a run of tokens that arrives in parts. ``rest`` is what no piece has taken yet."""

    def __init__(self, frame: Frame, rest: Iterable[int] = (), *, begun: bool = False) -> None:
        self._frame = frame
        self.rest: list[int] = list(rest)
        self.begun = begun
        """Whether a text came before."""

    def add(self, texts: Iterable[list[int]]) -> Ids:
        """Take the tokens of some texts; return the sequences that are full, (N, length)."""
        for ids in texts:
            if ids:
                if self.begun:
                    self.rest.extend(self._frame.between)
                self.rest.extend(ids)
                self.begun = True
        size = self._frame.piece_length
        full = len(self.rest) // size
        pieces_NP = np.asarray(self.rest[: full * size], dtype=np.int64).reshape(full, size)
        del self.rest[: full * size]
        return self._frame.around(pieces_NP)

    def last(self) -> Ids:
        """Return the short piece as one unpadded sequence, (1, <= length)."""
        return self._frame.around(np.asarray([self.rest], dtype=np.int64))


def plain_encoder(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return the fast tokenizer without padding and truncation, whatever state it was saved in."""
    if not tokenizer.is_fast:
        raise DataError(f"tokenizer {type(tokenizer).__name__} has no fast version; save it with a tokenizer.json")
    encoder = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    encoder.no_padding()
    encoder.no_truncation()
    return encoder


def encode(encoder: Tokenizer, texts: list[Any], rows: Rows, column: str) -> Iterator[list[int]]:
    """Tokenise texts without special tokens; a missing text gives no tokens.

    Raises:
        DataError: A value is not text.
    """
    wrong = next((text for text in texts if not isinstance(text, str | None)), None)
    if wrong is not None:
        raise DataError(
            f"{rows.name}: column {column!r} holds {type(wrong).__name__} {wrong!r}, not text; choose another"
        )
    encoded = encoder.encode_batch_fast([text or "" for text in texts], add_special_tokens=False)
    return (encoding.ids for encoding in encoded)


def write_packed(
    folder: Path, rows: Rows, column: str, encoder: Tokenizer, frame: Frame, limit: int | None
) -> dict[str, Any]:
    """Tokenise and pack a split into ``folder``, at most ``limit`` sequences; return the meta data.

    Raises:
        DataError: The split cannot be read, or holds next to no text.
    """
    dtype = token_dtype(encoder.get_vocab_size(with_added_tokens=True))
    packer, count = Packer(frame), 0
    with (folder / "tokens.bin").open("wb") as file:
        for batch in rows.read_batches((column,), ROWS_PER_CALL):
            full_NL = packer.add(encode(encoder, [row[column] for row in batch], rows, column))
            full_NL = full_NL[: None if limit is None else limit - count]
            full_NL.astype(dtype).tofile(file)
            count += len(full_NL)
            if count == limit:
                break
        if count:
            return {"dtype": dtype, "count": count, "last_length": frame.length}
        if len(packer.rest) < MIN_TOKENS:
            raise DataError(
                f"{rows.name}: column {column!r} holds {len(packer.rest)} tokens in all; give at least {MIN_TOKENS}"
            )
        only_1L = packer.last()
        padded = np.pad(only_1L, ((0, 0), (0, frame.length - only_1L.shape[1])), constant_values=frame.pad_id)
        padded.astype(dtype).tofile(file)
    return {"dtype": dtype, "count": 1, "last_length": only_1L.shape[1]}


def open_packed(folder: Path, length: int) -> tuple[npt.NDArray[Any], int]:
    """Map what :func:`write_packed` left: tokens (N, length) and how many tokens of the last sequence are real."""
    meta = read_meta(folder)
    return open_array(folder, "tokens.bin", meta["dtype"], (meta["count"], length)), meta["last_length"]
