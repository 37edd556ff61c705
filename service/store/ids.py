"""The ids that we give: they sort by time, and are safe in paths and addresses. Pure."""

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32, lower case: no letter that a person takes for a digit; sorts as the numbers do."""

_RANDOM_BITS = 20

_ID_DIGITS = 13


def new_ids(prefix: str, count: int, now: float) -> list[str]:
    """Make ids that sort by time, then by place in the list: ``j-`` and 13 letters, safe in paths and addresses.

    Args:
        prefix: ``j`` or ``c``.
        now: Unix seconds.
    """
    first = (int(now * 1000) << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    return [f"{prefix}-{_base32(first + index)}" for index in range(count)]


def _base32(number: int) -> str:
    digits = ""
    for _ in range(_ID_DIGITS):
        number, digit = divmod(number, 32)
        digits = _ALPHABET[digit] + digits
    return digits
