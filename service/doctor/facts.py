"""What the probe finds, as it crosses from its process to ours. None: that probe did not come to an end."""

from pydantic import Field

from prunus.configs.values.base import Record


class Python(Record):
    """The interpreter."""

    version: str
    executable: str


class Package(Record):
    """One package that a job imports."""

    version: str | None
    """None: not installed."""
    error: str = ""
    """Last line of what its import raised; empty: it was imported."""


class Gpu(Record):
    """What torch sees of GPUs."""

    cuda: str | None
    """CUDA release that torch is built for; None: a build for CPUs."""
    devices: tuple[str, ...]
    """Name and memory of each GPU that torch can use."""
    nccl: str | None
    device_files: int
    """NVIDIA devices that the kernel shows, whatever torch says."""


class Cpu(Record):
    """Cores, memory, and the number formats that the CPU computes with."""

    cores: int
    memory_gb: float
    free_memory_gb: float
    bf16: bool
    amx: bool


class Disk(Record):
    """Room on one file system."""

    path: str
    free_gb: float


class Clock(Record):
    """Another machine's clock beside ours."""

    name: str
    """Whose clock: ``server``, ``MLflow``, ``database``."""
    address: str
    ahead_s: float | None
    """Seconds that it is ahead of ours, to about 1 s; None: no answer."""


class Facts(Record):
    """All that the probe found, in the order in which it looks."""

    python: Python | None = None
    variables: dict[str, str] | None = None
    """Every ``PRUNUS_*`` variable, secrets hidden."""
    settings_error: str = ""
    """Why the variables cannot be used."""
    cpu: Cpu | None = None
    compiler: str | None = None
    """Path of a C++ compiler."""
    ports: dict[int, bool] | None = None
    """Preferred ports of the embedded default, and whether each is free."""
    home: Disk | None = None
    shared_memory: Disk | None = None
    clocks: tuple[Clock, ...] | None = None
    versions: dict[str, str | None] | None = None
    """Installed release of every package that prunus asks for."""
    packages: dict[str, Package] = Field(default_factory=dict)
    """What was imported, by import name."""
    gpu: Gpu | None = None
    ended: str = ""
    """How the probe ended, if not by itself."""
