"""Our own code as a zip, for clusters that have no prunus of this release."""

import io
import zipfile
from importlib import resources
from typing import Any, cast

_SHIPPED = ("configs", "jobs", "cluster")
"""Rooms of ``prunus`` that an attempt needs on the cluster."""


def code_archive() -> bytes:
    """Zip ``configs``, ``jobs`` and ``cluster`` of this installation, with fixed times so that equal code has equal
    bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _write(archive, "prunus/__init__.py", resources.files("prunus").joinpath("__init__.py").read_bytes())
        for room in _SHIPPED:
            _add(archive, cast(Any, resources.files(f"prunus.{room}")), f"prunus/{room}")
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, folder: Any, name: str) -> None:
    for item in sorted(folder.iterdir(), key=lambda entry: str(entry.name)):
        if item.is_dir() and item.name != "__pycache__":
            _add(archive, item, f"{name}/{item.name}")
        elif item.is_file() and not item.name.endswith(".pyc"):
            _write(archive, f"{name}/{item.name}", item.read_bytes())


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
