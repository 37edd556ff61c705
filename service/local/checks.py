"""What is refused before anything starts: a server open to all, ranks that could not reach MLflow, missing packages."""

from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from urllib.parse import urlsplit

from prunus.cluster.embedded_ray import LOOPBACK, check_installed
from prunus.cluster.errors import ClusterError
from prunus.service.errors import Refused, StartFailed
from prunus.service.local.state import PartName, UpOptions, masked


def check_reach(options: UpOptions, host: str, *, has_token: bool) -> None:
    """Refuse a server that anybody could use, and ranks elsewhere that would look for MLflow on their own machine.

    Args:
        host: Address that the server will listen on.
        has_token: The server will ask for a token.

    Raises:
        Refused: With what to give.
    """
    if not is_loopback(host) and not has_token:
        raise Refused(
            f"PRUNUS_HOST is {host}: others could run code through a server that asks for no token; set PRUNUS_TOKEN "
            "or PRUNUS_TOKEN_FILE (openssl rand -hex 32 > api-token), or leave PRUNUS_HOST unset"
        )
    if options.ray_address is None or is_loopback(urlsplit(options.ray_address).hostname or ""):
        return
    mlflow = options.mlflow_uri
    if mlflow is None or is_loopback(urlsplit(mlflow).hostname or ""):
        what = f"--mlflow-uri is {masked(mlflow)}" if mlflow else f"MLflow would be started here, on {LOOPBACK}"
        raise Refused(
            f"--ray-address {masked(options.ray_address)} is another machine, and {what}, which its ranks would look "
            "for on their own; give --mlflow-uri (PRUNUS_MLFLOW_URI) of a server that they reach"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that name or address."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_packages(missing: list[PartName]) -> None:
    """Refuse before anything starts where a package is missing.

    Raises:
        StartFailed: Ray or the MLflow server is not installed.
    """
    try:
        if "ray" in missing:
            check_installed()
        if "mlflow" in missing:
            version("mlflow")
    except ClusterError as error:
        raise StartFailed(str(error)) from error
    except PackageNotFoundError as error:
        raise StartFailed(
            "the MLflow server is not installed here; install 'prunus[train]', give --mlflow-uri of one that runs, "
            "or set PRUNUS_URL"
        ) from error
