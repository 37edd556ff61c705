"""Whether an MLflow server answers."""

from collections.abc import Callable

import httpx


def ask_health(uri: str) -> Callable[[], bool]:
    """Make the question whether an MLflow server answers, within 3 s. A store without a server always does."""

    def answers() -> bool:
        try:
            return httpx.get(f"{uri.rstrip('/')}/health", timeout=3.0).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    return answers if uri.startswith(("http://", "https://")) else lambda: True
