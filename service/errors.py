"""What can go wrong in this room, with the exit code of the command line and the HTTP status of each class.

ServiceError               base; the message says what, the value and the remedy             exit 1   HTTP 500
├── Unreachable            no answer from the server (retryable)                              exit 4   HTTP 503
├── NotFound               no job, campaign, artifact or file of that name                    exit 3   HTTP 404
├── Refused                the server looked, and said no: mend what was sent                 exit 2   HTTP 422
│   └── Unauthorized       the bearer token is missing or wrong                               exit 2   HTTP 401
├── ServerFault            a defect on the server's side; its log tells more (retryable)      exit 5   HTTP 500
├── StartFailed            the server, or what ``prunus up`` starts, cannot start             exit 5   HTTP 500
└── StoreError             the database refused                                               exit 5   HTTP 500
    ├── StoreLocked        another server owns this database
    └── StaleTransition    a job was no longer in the state that a decision was made from

Exit code 0 is success; 1 is also what ``wait`` gives for a job that did not succeed; a ``ConfigError`` is 2. Errors of
fetched files (``configs.errors.ArtifactError``): missing 3, refused 2, damaged 6.
"""

from prunus.configs.errors import ArtifactError, ArtifactMissing, ArtifactRefused, Damaged


class ServiceError(Exception):
    """Base of this room's errors."""

    retryable = False
    exit_code = 1
    """What the command line returns."""
    status = 500
    """What the HTTP API answers."""


class Unreachable(ServiceError):
    """No answer: nothing may be concluded about jobs."""

    retryable = True
    exit_code = 4
    status = 503


class NotFound(ServiceError):
    """What was asked for does not exist."""

    exit_code = 3
    status = 404


class Refused(ServiceError):
    """The request cannot be met as it stands."""

    exit_code = 2
    status = 422


class Unauthorized(Refused):
    """The bearer token is missing or wrong."""

    status = 401


class ServerFault(ServiceError):
    """The server answered with a fault of its own."""

    retryable = True
    exit_code = 5


class StartFailed(ServiceError):
    """Something that must run first did not come up."""

    exit_code = 5


class StoreError(ServiceError):
    """The database refused."""

    exit_code = 5


class StoreLocked(StoreError):
    """One server per SQLite file."""


class StaleTransition(StoreError):
    """A guarded update found the row in another state; the decision behind it is void."""


ARTIFACT_EXIT_CODES: dict[type[ArtifactError], int] = {ArtifactMissing: 3, ArtifactRefused: 2, Damaged: 6}
"""What the command line returns for errors of fetched files."""


def error_for_status(status: int, message: str) -> ServiceError:
    """Build the error that an HTTP answer stands for.

    Args:
        status: HTTP status of at least 400.
        message: The server's words.
    """
    kinds: dict[int, type[ServiceError]] = {401: Unauthorized, 403: Refused, 404: NotFound}
    kind = kinds.get(status) or (Unreachable if status in {502, 503, 504} else None)
    if kind is None:
        kind = ServerFault if status >= 500 else Refused
    return kind(message)
