"""Where this process finds everything: one frozen class, the only reader of ``PRUNUS_*`` environment variables.

Order: what the command line gave, then the environment, then the default. Imports nothing heavy.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator

from prunus.configs.values.base import Strict
from prunus.service.errors import Refused

DEFAULT_PORT = 8711
DEFAULT_HOME = Path("~/.prunus")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Settings(Strict):
    """Every field ``x`` is also the environment variable ``PRUNUS_X``."""

    home: Path = DEFAULT_HOME
    """Directory of this machine's state: database, logs, lock."""
    url: str | None = None
    """Client side: the server to talk to; None: the embedded one."""
    token: SecretStr | None = None
    """Bearer token of our API, both sides; None: none is asked for."""
    token_file: Path | None = None
    """File with that token, instead of ``token``."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=DEFAULT_PORT, ge=0, lt=65536)
    """Port to listen on; 0: any free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Host headers that are answered. Empty: loopback names when listening on loopback, else every name."""
    store: str = ""
    """SQLAlchemy URL; empty: SQLite under ``home``. ``postgresql://USER@HOST/DB`` for production."""
    storage: Path = Path()
    """Directory of jobs and caches, shared with every node of the cluster; empty: ``home/storage``."""
    ray_address: str = "http://127.0.0.1:8265"
    """Ray's dashboard, where Ray Jobs answers."""
    ray_token_file: Path | None = None
    """File with Ray's token; None: Ray asks for none."""
    python: str = ""
    """Interpreter on the cluster; empty: ours when embedded, else ``python``."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray runtime environment of every attempt; JSON in the environment variable."""
    ship_code: bool = False
    """Upload our code with every attempt; off where the cluster has prunus of the same version installed."""
    mlflow_uri: str | None = None
    """Tracking and registry server; None: metrics stay in the spool, ``models:/`` is refused."""
    mlflow_experiment: str = "prunus"
    embedded: bool = False
    """Server, Ray and files are on one machine."""
    poll_interval_s: float = Field(default=1.0, gt=0.0)
    """Pause between two steps of the scheduler, in seconds."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        home = Path(values.get("home") or DEFAULT_HOME).expanduser().resolve()
        filled = {**values, "home": home}
        filled["store"] = values.get("store") or f"sqlite:///{home / 'prunus.db'}"
        filled["storage"] = Path(values.get("storage") or home / "storage").expanduser().resolve()
        filled["python"] = values.get("python") or (sys.executable if values.get("embedded") else "python")
        return filled

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Build the settings of this process.

        Args:
            environ: The environment; None: this process's own.
            given: What the command line gave, by field name; None values are ignored.

        Raises:
            Refused: A variable has a value that cannot be used.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name in cls.model_fields:
            text = environ.get(f"PRUNUS_{name.upper()}", "")
            if text:
                values[name] = _parse(name, text)
        values.update({name: value for name, value in given.items() if value is not None})
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else ""
            raise Refused(
                f"the setting {name} (PRUNUS_{name.upper()}) is {first['input']!r}: {first['msg']}; change or unset it"
            ) from error

    @property
    def bearer_token(self) -> str | None:
        """The API's token from ``token`` or ``token_file``.

        Raises:
            Refused: The file cannot be read.
        """
        if self.token is not None:
            return self.token.get_secret_value()
        return _read_secret(self.token_file, "token_file")

    @property
    def ray_token(self) -> str | None:
        """Ray's token; same errors as ``bearer_token``."""
        return _read_secret(self.ray_token_file, "ray_token_file")

    @property
    def trusted_hosts(self) -> list[str]:
        """Host headers that are answered; ``["*"]`` for every one."""
        if self.allowed_hosts:
            return list(self.allowed_hosts)
        return sorted(_LOOPBACK) if self.host in _LOOPBACK else ["*"]

    @property
    def cache(self) -> Path:
        """Tokenised data, shared with the cluster."""
        return self.storage / "cache"

    def job_directory(self, job_id: str) -> Path:
        """Root of one job's files on shared storage."""
        return self.storage / "jobs" / job_id


def _parse(name: str, text: str) -> Any:
    if name == "allowed_hosts":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if name == "runtime_env":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise Refused(f"PRUNUS_RUNTIME_ENV is not JSON: {error}; write an object such as {{}}") from error
    return text


def _read_secret(path: Path | None, name: str) -> str | None:
    if path is None:
        return None
    try:
        return path.expanduser().read_text(encoding="utf-8").strip() or None
    except OSError as error:
        raise Refused(f"{name} {path} cannot be read: {error.strerror}; name a readable file or unset it") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{name} {path} is not text; write the token into it again, or unset it") from error
