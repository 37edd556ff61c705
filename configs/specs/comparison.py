"""Jobs that train nothing and compare what others left: what is asked (``ComparisonSpec``), what is answered
(``Comparison``, the file ``comparison.json``), and ``AnySpec``, a job of either kind.
"""

import re
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from prunus.configs.specs.job import JobBase, JobSpec
from prunus.configs.values.base import Record, Strict
from prunus.configs.values.sources import source_kind

COMPARISON_FILE = "comparison.json"
MOST_IN_A_TABLE = 12
"""So many masks make a matrix that a person reads as numbers; more are for pictures and machines."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class Compare(Strict):
    """Whose masks and metrics are compared."""

    jobs: tuple[str, ...]
    """Names of jobs of this campaign (that of a job with a matrix means its cells), or what exists already: job:NAME,
    models:/NAME@ALIAS, a directory."""
    by: tuple[str, ...] = ("method",)
    """What tells the curves apart: labels, ``task``, ``method``, ``campaign``, or paths into a job's spec such as
    ``method.pattern``."""

    @model_validator(mode="after")
    def _several(self) -> Self:
        references = [_reference(item) for item in self.jobs]
        twice = sorted({one for one in references if references.count(one) > 1})
        if twice:
            raise ValueError(f"jobs names {twice[0].removeprefix('job:')} twice; name each once")
        if not self.by:
            raise ValueError("by names nothing; name a label, task, method, campaign or a path into the spec")
        if len(references) < 2:
            named = f" ({references[0].removeprefix('job:')})" if references else ""
            raise ValueError(
                f"jobs names {len(references)} to compare{named}; name at least two, or a job of this campaign with a "
                "matrix"
            )
        return self


class ComparisonSpec(JobBase):
    """One job that compares: masks with each other, metrics against sparsity. One rank, no GPU."""

    compare: Compare

    @property
    def names(self) -> tuple[str, ...]:
        """Those of ``compare.jobs`` that are names of jobs of this campaign."""
        return tuple(item for item in self.compare.jobs if _NAME.fullmatch(item))

    @property
    def sources(self) -> dict[str, str]:
        """References by what is compared: NAME for ``job:NAME``, any other by itself."""
        return {(found := _reference(item)).removeprefix("job:"): found for item in self.compare.jobs}

    @model_validator(mode="before")
    @classmethod
    def _trains_nothing(cls, data: Any) -> Any:
        theirs = JobSpec.model_fields.keys() - cls.model_fields.keys()
        if isinstance(data, dict) and (odd := [key for key in data if key in theirs]):
            raise ValueError(
                f"{odd[0]} belongs to a job that trains, and compare: makes this one compare; take {odd[0]} out, or "
                "write two jobs"
            )
        return data

    @model_validator(mode="after")
    def _one_rank(self) -> Self:
        if self.resources.num_ranks > 1 or self.resources.gpus_per_rank:
            raise ValueError(
                f"resources.num_ranks {self.resources.num_ranks} and gpus_per_rank {self.resources.gpus_per_rank}: a "
                "comparison runs on one rank without GPUs; leave both out"
            )
        return self


def _reference(item: str) -> str:
    if _NAME.fullmatch(item):
        return f"job:{item}"
    try:
        kind = source_kind(item)
    except ValueError:
        kind = "hub"
    if kind == "hub":
        raise ValueError(
            f"jobs names {item!r}, which is no job and no directory; write a name of this campaign, job:NAME, "
            "models:/NAME@ALIAS or a directory (starting with / or ./)"
        )
    return item


def is_comparison(job: Any) -> bool:
    """Tell the kind of a job, of a spec or of what may become one."""
    return "compare" in job if isinstance(job, dict) else isinstance(job, ComparisonSpec)


KINDS = ("a job that trains", "a job that compares")
"""Tags of the two kinds; pydantic puts them into the paths of its messages, where no reader needs them."""
AnySpec = Annotated[
    Annotated[JobSpec, Tag(KINDS[0])] | Annotated[ComparisonSpec, Tag(KINDS[1])],
    Discriminator(lambda job: KINDS[is_comparison(job)]),
]
"""A job of either kind; ``compare`` tells them apart."""


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
