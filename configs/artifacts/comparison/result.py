"""The answer of a comparison: the file ``comparison.json``."""

from pydantic import Field

from prunus.configs.values.base import Record

COMPARISON_FILE = "comparison.json"

FIGURES = "figures"
"""Below the folder of a comparison: where its pictures lie."""

MOST_IN_A_TABLE = 12
"""So many masks make a matrix that a person reads as numbers; more are for pictures and machines."""


class Entry(Record):
    """One of what is compared."""

    name: str
    """Short and unlike the others'."""
    source: str
    """The reference or directory."""
    task: str = ""
    method: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    group: tuple[str, ...] = ()
    """Values of ``Comparison.by``: the curve it belongs to."""
    sparsity: float | None = None
    """Share removed of the masked weights (of the prunable weights, without a mask); None: not known."""
    num_weights: int = 0
    """Positions of the mask; 0: it has none."""
    sparsity_by_weight: dict[str, float] = Field(default_factory=dict)
    """Share removed of each masked weight."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Final values of ``eval/*``, finite ones."""


Matrix = tuple[tuple[float | None, ...], ...]
"""Rows and columns in the order of ``Comparison.masked``; None where two masks are not of the same weights."""


class Comparison(Record):
    """``comparison.json``. Sparsity is the share removed; True keeps."""

    schema_version: int = 1
    by: tuple[str, ...]
    entries: tuple[Entry, ...]
    """By group in the order in which its values were first named, then by sparsity."""
    masked: tuple[str, ...] = ()
    """Names of the entries that have a mask."""
    iou_kept: Matrix = ()
    """Both keep / either keeps."""
    random_iou_kept: Matrix = ()
    """The same at the mean overlap of masks that keep as many of each weight, drawn at random."""
    iou_removed: Matrix = ()
    """Both remove / either removes."""
    random_iou_removed: Matrix = ()
    flipped: Matrix = ()
    """Share of the positions whose bit differs."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""

    @property
    def metric_names(self) -> list[str]:
        """Every ``eval/NAME`` that an entry has. Those of a part of the data (``eval/NAME/PART``) are for machines."""
        found = {name for entry in self.entries for name in entry.metrics}
        return sorted(name for name in found if name.count("/") == 1)
