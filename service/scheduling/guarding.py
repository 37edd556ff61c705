"""Keeps one job's trouble from all others, and says once that Ray does not answer."""

import logging
from collections.abc import Callable

from prunus.cluster.errors import ClusterUnreachable
from prunus.service.errors import StaleTransition, StoreError
from prunus.service.store.rows import JobRow

log = logging.getLogger(__name__)


class Guard:
    """One per scheduler."""

    def __init__(self) -> None:
        self._ray_answers = True

    def run(self, job: JobRow, act: Callable[[], None]) -> None:
        """Do one job's part of a step, so that no job can stop the others.

        Raises:
            StoreError: The database refused: that stops all.
        """
        try:
            act()
        except StaleTransition as error:
            log.info("job=%s %s", job.id, error)
        except ClusterUnreachable as error:
            self.note_ray(answers=False, why=str(error))
        except StoreError:
            raise
        except Exception:
            # One job with, say, an unreadable directory must not keep all others from being looked at.
            log.exception("job=%s its part of the step failed; tried again at the next step", job.id)

    def note_ray(self, *, answers: bool, why: str = "") -> None:
        """Log when Ray falls silent, and when it is back."""
        if answers == self._ray_answers:
            return
        self._ray_answers = answers
        if answers:
            log.info("Ray answers again")
        else:
            log.warning("Ray does not answer, nothing is concluded about attempts: %s", why)
