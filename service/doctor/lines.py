"""From facts to lines: what is there, what is missing, and what to do about it. Pure functions.

``missing`` says that a job cannot run here; ``note`` that something is slower or other than it should be.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from prunus.configs import __version__
from prunus.configs.values.base import Record
from prunus.service.doctor.facts import Clock, Cpu, Disk, Facts, Gpu, Package, Python
from prunus.service.doctor.lock import normalise
from prunus.service.settings import Settings

REPAIR = "run `prunus doctor --repair`"
_TRAIN = "run `pip install 'prunus[train]'`"
_PYTHONS = ("3.11", "3.12", "3.13")
_LEAST_HOME_GB = 1.0
_GOOD_HOME_GB = 10.0
_GOOD_SHARED_MEMORY_GB = 0.3
"""Ray's object store takes 256 MiB of it."""
_GOOD_MEMORY_GB = 4.0
_MOST_AHEAD_S = 5.0
KNOWN_VARIABLES = {f"PRUNUS_{name.upper()}" for name in Settings.model_fields} | {
    "PRUNUS_CPUS",
    "PRUNUS_MLFLOW_PORT",
    "PRUNUS_TEST_POSTGRES",
    "PRUNUS_CLUSTER",
    "PRUNUS_PART",
    "PRUNUS_JOB",
    "PRUNUS_ATTEMPT",
}

State = Literal["ok", "note", "missing"]


class Line(Record):
    """One line of the report."""

    name: str
    state: State
    text: str
    remedy: str = ""


def report(facts: Facts, tested: Mapping[str, str]) -> list[Line]:
    """Turn facts into lines.

    Args:
        facts: What the probe found.
        tested: Release by normalised name, of what was tested together.
    """
    return list(_all_lines(facts, tested))


def can_run_jobs(lines: list[Line]) -> bool:
    """Tell whether nothing that a job needs is missing."""
    return all(line.state != "missing" for line in lines)


def _all_lines(facts: Facts, tested: Mapping[str, str]) -> Iterator[Line]:
    if facts.ended:
        yield Line(
            name="probe",
            state="missing",
            text=f"{facts.ended}; what follows is not complete",
            remedy="run `python -m prunus.service.doctor.probe` to see where it ends",
        )
    yield Line(name="prunus", state="ok", text=__version__)
    if facts.python is not None:
        yield python_line(facts.python)
    for name, package in facts.packages.items():
        yield package_line(name, package, facts.gpu)
    if facts.gpu is not None:
        yield gpu_line(facts.gpu)
    if facts.cpu is not None:
        yield cpu_line(facts.cpu)
        yield memory_line(facts.cpu)
    yield compiler_line(facts.compiler)
    if facts.ports is not None:
        yield ports_line(facts.ports)
    if facts.home is not None:
        yield home_line(facts.home)
    if facts.shared_memory is not None:
        yield shared_memory_line(facts.shared_memory)
    if facts.clocks is not None:
        yield from clock_lines(facts.clocks)
    if facts.variables is not None:
        yield variables_line(facts.variables, facts.settings_error)
    if facts.versions is not None:
        yield versions_line(facts.versions, tested)


def python_line(python: Python) -> Line:
    """Say which Python this is, and whether tests run on it."""
    text = f"{python.version} ({python.executable})"
    if python.version.rpartition(".")[0] in _PYTHONS:
        return Line(name="Python", state="ok", text=text)
    return Line(name="Python", state="note", text=f"{text}, never tested", remedy=f"use {' or '.join(_PYTHONS)}")


def package_line(name: str, package: Package, gpu: Gpu | None) -> Line:
    """Say of a package of the train extra whether a job could import it."""
    if package.version is None:
        return Line(name=name, state="missing", text="not installed", remedy=_TRAIN)
    if package.error:
        remedy = REPAIR if is_torchaudio_at_fault(package.error) else f"run `pip install --force-reinstall {name}`"
        return Line(
            name=name, state="missing", text=f"{package.version} cannot be imported: {package.error}", remedy=remedy
        )
    if name == "torch" and gpu is not None:
        build = f"built for CUDA {gpu.cuda}" if gpu.cuda else "built for CPUs"
        return Line(name=name, state="ok", text=f"{package.version}, {build}")
    return Line(name=name, state="ok", text=package.version)


def is_torchaudio_at_fault(error: str) -> bool:
    """Tell whether an import failed because torchaudio's compiled parts do not load."""
    return error.startswith("OSError") and "torchaudio" in error


def gpu_line(gpu: Gpu) -> Line:
    """Say which GPUs ranks can use, and how they would talk to each other."""
    if gpu.devices:
        kinds = {name: gpu.devices.count(name) for name in dict.fromkeys(gpu.devices)}
        names = ", ".join(f"{count} x {name}" for name, count in kinds.items())
        if gpu.nccl is None:
            remedy = "install a build of torch with NCCL, or use one rank"
            return Line(name="GPU", state="note", text=f"{names}; no NCCL", remedy=remedy)
        return Line(name="GPU", state="ok", text=f"{names}; NCCL {gpu.nccl}")
    if gpu.device_files:
        text = f"{gpu.device_files} on this machine, but torch can use none of them"
        remedy = "install a torch built for CUDA" if gpu.cuda is None else "check the driver with `nvidia-smi`"
        return Line(name="GPU", state="note", text=text, remedy=remedy)
    return Line(name="GPU", state="ok", text="none; ranks train on CPUs and talk through gloo")


def cpu_line(cpu: Cpu) -> Line:
    """Say how many cores there are, and whether they compute in bf16."""
    if cpu.bf16:
        how = "bf16 with AMX" if cpu.amx else "bf16 without AMX"
        return Line(name="CPU", state="ok", text=f"{cpu.cores} cores, {how}")
    text = f"{cpu.cores} cores, no bf16 instructions: bf16 is emulated"
    return Line(name="CPU", state="note", text=text, remedy="set engine.precision: fp32 for jobs on CPUs")


def memory_line(cpu: Cpu) -> Line:
    """Say how much memory is free."""
    text = f"{cpu.free_memory_gb:.1f} of {cpu.memory_gb:.1f} GB free"
    if cpu.free_memory_gb >= _GOOD_MEMORY_GB:
        return Line(name="memory", state="ok", text=text)
    return Line(
        name="memory", state="note", text=text, remedy=f"free {_GOOD_MEMORY_GB:.0f} GB for Ray, MLflow and a rank"
    )


def compiler_line(compiler: str | None) -> Line:
    """Say whether DeepSpeed could compile operators, which prunus does not use."""
    return Line(
        name="compiler", state="ok", text=f"{compiler or 'none'}; not needed: no job compiles DeepSpeed's operators"
    )


def ports_line(ports: Mapping[int, bool]) -> Line:
    """Say whether the embedded default would get the ports that it prefers."""
    taken = [str(port) for port, free in ports.items() if not free]
    if not taken:
        return Line(name="ports", state="ok", text=f"{', '.join(map(str, ports))} are free")
    remedy = "none if `prunus status` shows them as ours; else `prunus up` takes other ports"
    return Line(name="ports", state="note", text=f"in use: {', '.join(taken)}", remedy=remedy)


def home_line(home: Disk) -> Line:
    """Say how much room jobs have for checkpoints and caches."""
    text = f"{home.free_gb:.1f} GB free at {home.path}"
    if home.free_gb >= _GOOD_HOME_GB:
        return Line(name="disk", state="ok", text=text)
    state: State = "note" if home.free_gb >= _LEAST_HOME_GB else "missing"
    remedy = f"free {_GOOD_HOME_GB:.0f} GB, or set PRUNUS_HOME to a larger disk"
    return Line(name="disk", state=state, text=text, remedy=remedy)


def shared_memory_line(disk: Disk) -> Line:
    """Say whether Ray's object store fits into shared memory."""
    text = f"{disk.free_gb:.1f} GB free at {disk.path}"
    if disk.free_gb >= _GOOD_SHARED_MEMORY_GB:
        return Line(name="shared memory", state="ok", text=text)
    return Line(name="shared memory", state="note", text=text, remedy="start the container with --shm-size=1g")


def clock_lines(clocks: tuple[Clock, ...]) -> Iterator[Line]:
    """Say how far other clocks are from ours: leases and time limits compare them."""
    if not clocks:
        yield Line(name="clock", state="ok", text="no server runs or is configured: nothing to compare with")
    for clock in clocks:
        if clock.ahead_s is None:
            text = f"{clock.name} does not answer at {clock.address}"
            yield Line(name="clock", state="note", text=text, remedy="start it, or correct its address")
            continue
        side = "ahead" if clock.ahead_s > 0 else "behind"
        text = f"{clock.name} at {clock.address} is {abs(clock.ahead_s):.1f} s {side}"
        if abs(clock.ahead_s) <= _MOST_AHEAD_S:
            yield Line(name="clock", state="ok", text=text)
        else:
            yield Line(name="clock", state="note", text=text, remedy="synchronise both machines' clocks with NTP")


def variables_line(variables: Mapping[str, str], error: str) -> Line:
    """Show our variables, and name those that nothing reads."""
    shown = " ".join(f"{name}={value}" for name, value in variables.items()) or "no PRUNUS_* variable is set"
    if error:
        return Line(name="variables", state="missing", text=shown, remedy=error)
    unknown = [name for name in variables if name not in KNOWN_VARIABLES]
    if unknown:
        remedy = f"{', '.join(unknown)}: no such setting; correct its name or unset it"
        return Line(name="variables", state="note", text=shown, remedy=remedy)
    return Line(name="variables", state="ok", text=shown)


def versions_line(versions: Mapping[str, str | None], tested: Mapping[str, str]) -> Line:
    """Compare the installed releases with those that were tested together; local parts (``+cpu``) do not count."""
    installed = {name: found.partition("+")[0] for name, found in versions.items() if found is not None}
    pairs = {name: (found, tested.get(normalise(name))) for name, found in installed.items()}
    differing = [f"{name} {found} (tested: {wanted})" for name, (found, wanted) in pairs.items() if found != wanted]
    if not differing:
        return Line(name="versions", state="ok", text=f"all {len(pairs)} packages are as tested together")
    text = f"{len(differing)} of {len(pairs)} packages are not as tested together: {', '.join(differing)}"
    return Line(
        name="versions", state="note", text=text, remedy="none while jobs work; else install from requirements.lock"
    )
