"""What can go wrong between the service and Ray.

ClusterError               base; the message says what, the value and the remedy
├── ClusterUnreachable     the dashboard does not answer (retryable)
├── ClusterRefused         it answered with an error (not retryable)
└── EmbeddedRayFailed      the local Ray did not start
"""


class ClusterError(Exception):
    """Base of this room's errors."""

    retryable = False


class ClusterUnreachable(ClusterError):
    """No answer from Ray's dashboard: nothing may be concluded about jobs."""

    retryable = True


class ClusterRefused(ClusterError):
    """Ray answered, and said no."""


class EmbeddedRayFailed(ClusterError):
    """The Ray that ``prunus up`` starts did not come up."""
