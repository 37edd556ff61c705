"""What is shipped to a cluster without prunus is enough to run an attempt there."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from prunus.cluster.code_archive import code_archive


def test_equal_code_has_equal_bytes() -> None:
    assert code_archive() == code_archive()


def test_the_archive_is_the_package_alone_and_starts_a_driver(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(code_archive())) as archive:
        archive.extractall(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["prunus"]
    assert sorted(path.name for path in (tmp_path / "prunus").iterdir()) == [
        "__init__.py",
        "cluster",
        "configs",
        "jobs",
    ]
    modules = "prunus.jobs.kinds, prunus.cluster.driver, prunus.jobs.tracking.late_publish"
    code = f"import prunus, {modules}; print(prunus.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DS_ACCELERATOR": "cpu"}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip().splitlines()[-1] == str(tmp_path / "prunus/__init__.py")
