"""How messages name a few of many things."""

from collections.abc import Collection


def listed(names: Collection[object], most: int = 3) -> str:
    """Name the first few: ``a, b, c and 17 more``; ``none`` without any."""
    shown = ", ".join(str(name) for name in list(names)[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown or "none"
