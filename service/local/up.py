"""The embedded default: Ray, MLflow and our server on one machine, started by ``prunus up``, ended by ``prunus down``.

HOME/ (0700)   up.json         what was started: process ids with start times, ports, addresses (0600, atomic)
               cluster-id      value of PRUNUS_CLUSTER in the environment of every process that belongs to this home
               logs/           ray.log, mlflow.log, server.log (one earlier start kept as .1)
               ray/ ray-token  Ray's sockets and logs; the token that guards it
               mlflow.db mlflow-artifacts/   prunus.db storage/

up:    lock -> what is alive and answers is kept -> leftovers of the rest are swept -> the rest starts, side by side
       -> wait until all answer -> up.json.  A failure shows the end of the log and stops what this call started.
down:  server, then Ray and MLflow: TERM, grace, KILL; sweep by marker; nothing may be left.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Literal

from prunus.cluster.embedded_ray import LOOPBACK, prepare_temp_dir
from prunus.configs import __version__
from prunus.service.errors import StartFailed
from prunus.service.local.checks import check_packages, check_reach
from prunus.service.local.free_ports import pick_port, pick_ports
from prunus.service.local.parts import answers, launch, local_url
from prunus.service.local.processes import end, is_alive, marked
from prunus.service.local.readiness import Say, wait_ready
from prunus.service.local.state import (
    MARKER,
    PART,
    Part,
    PartName,
    UpOptions,
    UpState,
    differences,
    locked,
    read_marker,
    read_state,
    wanted,
    write_state,
)
from prunus.service.settings import DEFAULT_HOME, DEFAULT_PORT, Settings

_GRACE_S = {"server": 10.0, "ray": 20.0, "mlflow": 5.0}

Health = Literal["running", "not answering", "stopped", "external"]


def default_home() -> Path:
    """Home of the embedded default: PRUNUS_HOME, else ``~/.prunus``."""
    return Path(os.environ.get("PRUNUS_HOME") or DEFAULT_HOME).expanduser().resolve()


def running_url(home: Path) -> str | None:
    """Address of the embedded server if its process lives, else None. Costs no network round trip."""
    state = read_state(home)
    part = state.parts.get("server") if state else None
    return part.url if part and is_alive(part.process) else None


def status(home: Path) -> dict[str, tuple[Health, str]]:
    """Health and address of the three parts; {} if nothing was started."""
    state = read_state(home)
    if state is None:
        return {}
    urls: dict[PartName, str] = {"ray": state.ray_url, "mlflow": state.mlflow_url, "server": state.server_url}
    return {name: (_health(home, state, name), url) for name, url in urls.items()}


def up(home: Path, options: UpOptions | None = None, say: Say = lambda _: None) -> UpState:
    """Start what does not run yet, and wait until all of it answers.

    Args:
        home: Directory of this embedded default; created with mode 0700.
        options: What to use instead of embedded parts; None: as at the last ``up``.
        say: Called with one line of progress at a time.

    Raises:
        StartFailed: A package is missing, other options are in use, or a part did not come up.
        Refused: The server would be open to others without a token, or ranks elsewhere could not reach MLflow.
    """
    home = home.expanduser().resolve()
    with locked(home):
        before = read_state(home)
        healthy = _healthy_parts(home, before)
        chosen = options or (before.options if before else UpOptions())
        if before and healthy and chosen != before.options:
            differ = differences(before.options, chosen)
            raise StartFailed(f"{home} is up with other options: {differ}; run `prunus down` first")
        needed = wanted(chosen)
        missing = [name for name in needed if name not in healthy]
        if before and not missing:
            say(f"already up: {before.server_url}")
            return before
        settings = Settings.load(home=home)
        host = before.host if before and healthy else chosen.host or settings.host
        check_reach(chosen, host, has_token=settings.bearer_token is not None)
        check_packages(missing)
        state = _plan(home, chosen, host, before, healthy)
        for name in missing:
            _end_part(state, name)
        return _start(home, state, missing, say)


def down(home: Path, say: Say = lambda _: None) -> bool:
    """End everything that ``up`` started, its jobs included, and check that nothing is left.

    Returns:
        False if nothing ran.

    Raises:
        StartFailed: A process could not be ended.
    """
    home = home.expanduser().resolve()
    if not (home / "cluster-id").exists():
        return False
    with locked(home):
        state, marker = read_state(home), read_marker(home)
        ran = bool(marked(MARKER, marker))
        for stopping in ("server", "mlflow", "ray"):
            part = state.parts.get(stopping) if state else None
            if part:
                say(f"stopping {stopping}")
                end([part.process], PART, f"{stopping}:{marker}", _GRACE_S[stopping])
        left = end([], MARKER, marker, 0.0)
        if left:
            raise StartFailed(f"still running after TERM and KILL: process {', '.join(map(str, left))}; end by hand")
        if state and state.ray_temp_dir and Path(state.ray_temp_dir).parent != home:
            shutil.rmtree(state.ray_temp_dir, ignore_errors=True)
        (home / "up.json").unlink(missing_ok=True)
        return ran


def _plan(home: Path, options: UpOptions, host: str, before: UpState | None, healthy: dict[str, Part]) -> UpState:
    """Choose ports and addresses; parts that are kept, or come back after a crash, keep theirs."""
    if before and healthy:
        return before.model_copy(update={"parts": dict(healthy), "version": __version__})
    settings = Settings.load(home=home)
    ports = pick_ports()
    server_port = pick_port(settings.port or None)
    mlflow_port = pick_port(int(os.environ.get("PRUNUS_MLFLOW_PORT") or DEFAULT_PORT + 1))
    local_ray = options.ray_address is None
    old_temp = Path(before.ray_temp_dir) if before and before.ray_temp_dir else None
    return UpState(
        marker=read_marker(home),
        options=options,
        ray_url=options.ray_address or f"http://{LOOPBACK}:{ports.dashboard}",
        mlflow_url=options.mlflow_uri or f"http://{LOOPBACK}:{mlflow_port}",
        server_url=local_url(host, server_port),
        host=host,
        num_cpus=_num_cpus(options) if local_ray else None,
        ray_ports=(ports.dashboard, ports.gcs, ports.client, ports.agent) if local_ray else None,
        ray_temp_dir=str(prepare_temp_dir(home, old_temp)) if local_ray else None,
    )


def _num_cpus(options: UpOptions) -> int:
    text = os.environ.get("PRUNUS_CPUS", "")
    if options.num_cpus is None and text and not (text.isdecimal() and int(text) > 0):
        raise StartFailed(f"PRUNUS_CPUS is {text!r}; write a whole number of CPUs, at least 1")
    return options.num_cpus or int(text or len(os.sched_getaffinity(0)))


def _start(home: Path, state: UpState, missing: list[PartName], say: Say) -> UpState:
    begun = time.monotonic()

    def restart(state: UpState, name: PartName) -> UpState:
        _end_part(state, name)
        return _launch(home, state, name)

    started: dict[PartName, Part] = {}
    try:
        for name in missing:
            state = _launch(home, state, name)
            started[name] = state.parts[name]
        say(f"starting {', '.join(sorted(missing))} (logs in {home / 'logs'})")
        state = wait_ready(home, state, missing, say, restart)
    except BaseException:
        for name in started:
            _end_part(state, name)
        kept = {name: part for name, part in state.parts.items() if name not in started}
        write_state(home, state.model_copy(update={"parts": kept}))
        raise
    say(f"up after {time.monotonic() - begun:.0f} s: {state.server_url} (MLflow {state.mlflow_url})")
    return state


def _launch(home: Path, state: UpState, name: PartName) -> UpState:
    state = state.model_copy(update={"parts": {**state.parts, name: launch(home, state, name)}})
    write_state(home, state)
    return state


def _health(home: Path, state: UpState, name: PartName) -> Health:
    if name not in wanted(state.options):
        return "external"
    part = state.parts.get(name)
    if part is None or not is_alive(part.process):
        return "stopped"
    return "running" if answers(home, name, part.url, timeout_s=10.0) else "not answering"


def _healthy_parts(home: Path, state: UpState | None) -> dict[str, Part]:
    if state is None:
        return {}
    return {name: state.parts[name] for name in wanted(state.options) if _health(home, state, name) == "running"}


def _end_part(state: UpState, name: str) -> None:
    part = state.parts.get(name)
    known = [part.process] if part else []
    end(known, PART, f"{name}:{state.marker}", _GRACE_S[name])
