"""What is refused before anything starts."""

from pathlib import Path

import pytest

from prunus.service.errors import Refused, StartFailed
from prunus.service.local import checks
from prunus.service.local.state import UpOptions, read_state
from prunus.service.local.up import up


@pytest.mark.usefixtures("modes")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "laptop.example"])
def test_a_server_for_others_needs_a_token(home: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("PRUNUS_HOST", host)
    with pytest.raises(Refused, match=f"PRUNUS_HOST is {host}: .*set PRUNUS_TOKEN or PRUNUS_TOKEN_FILE"):
        up(home)
    assert read_state(home) is None


@pytest.mark.parametrize("mlflow", [None, "http://127.0.0.1:5000", "http://localhost:5000"])
def test_ranks_elsewhere_are_not_sent_to_the_mlflow_of_this_machine(home: Path, mlflow: str | None) -> None:
    options = UpOptions(ray_address="http://192.0.2.10:8265", mlflow_uri=mlflow)
    with pytest.raises(Refused, match="give --mlflow-uri"):
        up(home, options)


@pytest.mark.usefixtures("modes")
def test_an_existing_ray_on_this_machine_uses_the_mlflow_that_is_started(home: Path) -> None:
    state = up(home, UpOptions(ray_address="http://localhost:8265"))
    assert set(state.parts) == {"server", "mlflow"}


def test_a_missing_package_is_told_with_its_remedy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise checks.PackageNotFoundError(name)

    monkeypatch.setattr(checks, "version", absent)
    with pytest.raises(StartFailed, match=r"MLflow server is not installed here; install 'prunus\[train\]'"):
        up(home)
