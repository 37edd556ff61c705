"""Jobs that train nothing and compare what others left."""

import re
from typing import Any, ClassVar, Self

from pydantic import model_validator

from prunus.configs.specs.base import JobBase
from prunus.configs.specs.job import JobSpec
from prunus.configs.values.base import Strict
from prunus.configs.values.sources import source_kind

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

    needs_gang: ClassVar[bool] = False

    compare: Compare
    """Whose masks and metrics are compared."""

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
