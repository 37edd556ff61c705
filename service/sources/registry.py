"""What the server asks a model registry: a protocol, and one that knows nothing."""

from dataclasses import dataclass
from typing import Protocol

from prunus.service.errors import NotFound


@dataclass(frozen=True)
class RegistryEntry:
    """What an alias points to."""

    run_id: str
    job_id: str | None
    """Our job that made it, if one did."""


class Registry(Protocol):
    """The model registry."""

    def look_up(self, name: str, alias: str) -> RegistryEntry:
        """Follow an alias. Raises NotFound, or Unreachable if the registry does not answer."""

    def run_url(self, run_id: str) -> str | None:
        """Where a browser shows a run; None if unknown. Never waits for long."""

    def end_parent(self, run_id: str, status: str) -> bool:
        """End the run that this one hangs under; False: there is none. Raises Unreachable."""


class NoRegistry:
    """No MLflow is configured."""

    def look_up(self, name: str, alias: str) -> RegistryEntry:
        raise NotFound(
            f"models:/{name}@{alias} needs a model registry, and this server has none; start it with --mlflow-uri"
        )

    def run_url(self, run_id: str) -> str | None:  # noqa: ARG002
        return None

    def end_parent(self, run_id: str, status: str) -> bool:  # noqa: ARG002
        return False


def follow_alias(registry: Registry, source: str) -> RegistryEntry:
    """Look up ``models:/NAME@ALIAS``; raises as ``Registry.look_up``."""
    name, _, alias = source.removeprefix("models:/").partition("@")
    return registry.look_up(name, alias)
