"""Which server a command talks to: the one that is configured, else the embedded default."""

from pathlib import Path

from prunus.service.cli.terminal import note
from prunus.service.client import Client
from prunus.service.local.state import UpOptions
from prunus.service.local.up import default_home, running_url, up
from prunus.service.settings import Settings


def connect(url: str | None, *, repair: bool = False) -> Client:
    """Client of the server that is configured, else of the embedded default, which is started if it does not run.

    Args:
        repair: Look at all parts of a running embedded default, and start again what has crashed.
    """
    home = default_home()
    settings = Settings.load(home=home)
    address = url or settings.url
    if address is None:
        running = running_url(home)
        address = running if running and not repair else _start(home, None if running else settings)
    return Client(address, settings.bearer_token)


def _start(home: Path, settings: Settings | None) -> str:
    """Start the embedded default, or what has crashed of it; ``settings`` None: it was started before."""
    if settings is None:
        return up(home, None, note).server_url
    note(f"no server is configured (PRUNUS_URL, --url): using the one in {home}, which `prunus down` ends")
    return up(home, up_options(settings), note).server_url


def up_options(settings: Settings) -> UpOptions | None:
    """What PRUNUS_* variables bring instead of the embedded parts, as `prunus up` reads them; None: nothing."""
    own_store = Settings.load({}, home=settings.home).store
    options = UpOptions(
        ray_address=settings.ray_address if "ray_address" in settings.model_fields_set else None,
        mlflow_uri=settings.mlflow_uri,
        store=settings.store if settings.store != own_store else None,
        host=settings.host if "host" in settings.model_fields_set else None,
    )
    return options if options != UpOptions() else None
