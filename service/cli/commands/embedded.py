"""The embedded default: ``prunus up``, ``down`` and ``status``."""

import json
from typing import Annotated

import typer

from prunus.service.cli.options import Home, Json
from prunus.service.cli.terminal import note
from prunus.service.local.state import UpOptions
from prunus.service.local.up import default_home, down, status, up


def start(
    home: Home = None,
    ray_address: Annotated[
        str | None, typer.Option(envvar="PRUNUS_RAY_ADDRESS", help="Dashboard of a Ray cluster to use.")
    ] = None,
    mlflow_uri: Annotated[str | None, typer.Option(envvar="PRUNUS_MLFLOW_URI", help="MLflow server to use.")] = None,
    store: Annotated[str | None, typer.Option(envvar="PRUNUS_STORE", help="Database, an SQLAlchemy URL.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs for jobs (PRUNUS_CPUS; default: all).")] = None,
    host: Annotated[
        str | None, typer.Option(envvar="PRUNUS_HOST", help="Address to listen on; off loopback a token is needed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start Ray, MLflow and the server on this machine; what runs already is kept, what crashed is started again."""
    given = UpOptions(ray_address=ray_address, mlflow_uri=mlflow_uri, store=store, num_cpus=cpus, host=host)
    options = given if given != UpOptions() else None
    state = up(home or default_home(), options, note)
    addresses = {"server": state.server_url, "mlflow": state.mlflow_url, "ray": state.ray_url}
    if as_json:
        typer.echo(json.dumps(addresses))
    else:
        for name, url in addresses.items():
            typer.echo(f"{name:<8}{url}")


def end(home: Home = None) -> None:
    """End what `up` started, running jobs included; the queue, models and metrics stay on disk."""
    if not down(home or default_home(), note):
        note("nothing was running")


def show_parts(home: Home = None, as_json: Json = False) -> None:
    """Tell which parts of the embedded default run."""
    parts = status(home or default_home())
    if as_json:
        typer.echo(json.dumps({name: {"health": health, "url": url} for name, (health, url) in parts.items()}))
    elif not parts:
        typer.echo("nothing was started; `prunus up` starts the embedded default")
    else:
        for name, (health, url) in parts.items():
            typer.echo(f"{name:<8}{health:<15}{url}")
