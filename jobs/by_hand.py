"""What a server would say of a job, for one that runs without a server."""

import os
from collections.abc import Callable
from pathlib import Path

from prunus.configs import AnySpec, ConfigError, Launch, ResolvedSource, __version__
from prunus.configs.values.sources import source_kind


def source_by_hand(role: str, reference: str) -> ResolvedSource:
    """Say where a source is without a server: a directory, or the hub.

    Raises:
        ConfigError: Only a server can resolve it.
    """
    kind = source_kind(reference)
    if kind not in {"directory", "hub"}:
        raise ConfigError(f"{role}: {reference} needs a server", remedy="by hand, give a directory or a hub id")
    return ResolvedSource(reference=reference, kind="directory" if kind == "directory" else "hub", location=reference)


def launch_by_hand(spec: AnySpec, out: Path, resolve: Callable[[str, str], ResolvedSource] = source_by_hand) -> Launch:
    """Say where a job without a server finds its sources and leaves its files.

    Args:
        resolve: Takes role and reference of a source.

    Raises:
        ConfigError: A source that only a server can resolve.
    """
    sources = {role: resolve(role, reference) for role, reference in spec.sources.items()}
    return Launch(
        prunus_version=__version__,
        job_id=spec.name,
        job_name=spec.name,
        attempt=1,
        attempt_id=f"{spec.name}-a1",
        token="1",  # noqa: S106 - a fencing token, no secret
        job_dir=str(out),
        cache_dir=str(out / "cache"),
        spec=spec,
        sources=sources,
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI"),
    )
