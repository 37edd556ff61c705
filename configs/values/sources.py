"""Where weights come from: the four forms of ``from:``, ``teacher:`` and ``mask:``.

- job:NAME              an earlier job (of the same campaign first, then the newest of that name)
- models:/NAME@ALIAS    an entry of the MLflow model registry
- /a/dir, ./a/dir       a directory on storage that the cluster sees
- org/name, name        a Hugging Face hub id
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

SourceKind = Literal["job", "registry", "directory", "hub"]

_JOB = re.compile(r"job:[A-Za-z0-9][A-Za-z0-9._-]*")
_REGISTRY = re.compile(r"models:/[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def source_kind(reference: str) -> SourceKind:
    """Tell which of the four forms ``reference`` has.

    Raises:
        ValueError: It has none of them.
    """
    if reference.startswith("job:"):
        if _JOB.fullmatch(reference):
            return "job"
        raise ValueError(f"not a job reference: {reference!r}; write job:NAME")
    if reference.startswith("models:"):
        if _REGISTRY.fullmatch(reference):
            return "registry"
        raise ValueError(f"not a registry reference: {reference!r}; write models:/NAME@ALIAS")
    if reference.startswith(("/", "./", "../", "~")) or reference in {".", ".."}:
        return "directory"
    if _HUB.fullmatch(reference):
        return "hub"
    raise ValueError(
        f"not a source: {reference!r}; write job:NAME, models:/NAME@ALIAS, a directory "
        "(starting with / or ./) or a hub id"
    )


def job_name(reference: str) -> str:
    """Return NAME of ``job:NAME``."""
    assert source_kind(reference) == "job", reference
    return reference.removeprefix("job:")


def _check(reference: str) -> str:
    source_kind(reference)
    return reference


Source = Annotated[str, AfterValidator(_check)]
"""A reference in one of the four forms."""
