"""The seam between the service and Ray: six calls. ``ray_jobs`` is the real one, ``fake`` ships for tests.

Ray's word about a job is a hint (it can say RUNNING of a dead job for minutes): the scheduler weighs it last.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from prunus.configs import Launch

RayStatus = Literal["pending", "running", "succeeded", "failed", "stopped", "unknown"]
"""``unknown``: Ray does not know the submission."""


@dataclass(frozen=True)
class Poll:
    """What Ray says of one submission."""

    status: RayStatus
    message: str = ""


@dataclass(frozen=True)
class Node:
    """One live node and what it offers in total."""

    node_id: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Capacity:
    """What the live cluster offers in total, used or not."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)


class Executor(Protocol):
    """Starts and watches attempts. Every call may raise ClusterUnreachable."""

    def submit(self, launch: Launch) -> None:
        """Start one attempt under the id ``launch.attempt_id``; if Ray knows the id already, adopt it.

        ``launch.json`` lies in the job's directory already.
        """

    def publish(self, launch: Launch, submission_id: str) -> None:
        """Start ``jobs.tracking.late_publish`` for an ended job; if Ray knows the id already, adopt it.
        ``poll`` and ``stop`` take
        the id.

        ``launch`` lies in the job's directory already, as ``JobDirectory.publish_launch``.
        """

    def poll(self, attempt_id: str) -> Poll:
        """Ask Ray for the state of an attempt."""

    def stop(self, attempt_id: str) -> None:
        """Ask Ray to stop an attempt; no error if it has ended or is unknown."""

    def driver_log(self, attempt_id: str) -> str:
        """Return the driver's whole output so far ("" if there is none): readers count bytes from its beginning."""

    def capacity(self) -> Capacity:
        """Return what the live nodes offer."""
