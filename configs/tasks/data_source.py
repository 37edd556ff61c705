"""Where a split comes from."""

from typing import Self

from pydantic import model_validator

from prunus.configs.values.base import Strict


class DataSource(Strict):
    """One split: local files or a data set of the Hugging Face hub."""

    files: tuple[str, ...] = ()
    """Paths or globs of text, jsonl, csv, tsv or parquet files, seen by every node. Relative paths are resolved
    against the directory where ``prunus submit`` was called."""
    hub: str | None = None
    """Hub id of a data set, instead of ``files``."""
    config: str | None = None
    """Configuration of the hub data set."""
    split: str = "train"
    """Split of the hub data set, ``datasets`` slicing syntax allowed."""
    header: bool = True
    """csv and tsv: the first line names the columns. If false, columns are named "0", "1", ..."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.files) == bool(self.hub):
            raise ValueError("give exactly one of files and hub")
        return self
