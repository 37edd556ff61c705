"""Which code belongs to which spec. Explicit: no scanning, no decorators."""

from typing import Any

from prunus.configs.methods.union import MethodSpec
from prunus.jobs.methods.base import Method, Start
from prunus.jobs.methods.dense import DenseMethod
from prunus.jobs.methods.gradual_magnitude import GradualMagnitudeMethod
from prunus.jobs.methods.locked import LockedMethod
from prunus.jobs.methods.movement import MovementMethod
from prunus.jobs.methods.parp import ParpMethod

METHODS: dict[str, type[Method[Any]]] = {
    "dense": DenseMethod,
    "gradual_magnitude": GradualMagnitudeMethod,
    "locked": LockedMethod,
    "movement": MovementMethod,
    "parp": ParpMethod,
}


__all__ = ["METHODS", "Method", "Start", "build_method"]


def build_method(spec: MethodSpec) -> Method[Any]:
    """Make the method that a spec asks for; it knows no weights yet."""
    return METHODS[spec.name](spec)
