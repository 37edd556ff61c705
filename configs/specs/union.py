"""A job of any kind, and how a document says which."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from prunus.configs.specs.comparison import ComparisonSpec
from prunus.configs.specs.job import JobSpec


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
