"""A method as the loop has it before its first step."""

from typing import Any

from prunus.configs.methods.union import MethodSpec
from prunus.jobs.methods import Method, Start, build_method


def started(spec: MethodSpec, start: Start) -> Method[Any]:
    """Attached to its weights; no masks yet."""
    method = build_method(spec)
    method.attach(start)
    return method
