"""What the report says of facts that are written down here."""

import pytest

from prunus.configs import __version__
from prunus.service.doctor.facts import Clock, Cpu, Disk, Facts, Gpu, Package, Python
from prunus.service.doctor.lines import (
    REPAIR,
    can_run_jobs,
    clock_lines,
    cpu_line,
    gpu_line,
    home_line,
    memory_line,
    package_line,
    ports_line,
    python_line,
    report,
    shared_memory_line,
    variables_line,
    versions_line,
)

NO_GPU = Gpu(cuda=None, devices=(), nccl=None, device_files=0)
CPU = Cpu(cores=2, memory_gb=16.0, free_memory_gb=8.0, bf16=True, amx=False)
TORCH = Package(version="2.13.0+cpu")
UNLOADABLE = "OSError: Could not load this library: /site/torchaudio/lib/_torchaudio.abi3.so"
GOOD = Facts(
    python=Python(version="3.12.1", executable="/usr/bin/python"),
    variables={"PRUNUS_HOME": "/home/me"},
    cpu=CPU,
    compiler=None,
    ports={8711: True},
    home=Disk(path="/home/me", free_gb=50.0),
    shared_memory=Disk(path="/dev/shm", free_gb=8.0),
    clocks=(),
    versions={"torch": "2.13.0+cpu", "ray": "2.60.0"},
    packages={"torch": TORCH, "ray": Package(version="2.60.0")},
    gpu=NO_GPU,
)
TESTED = {"torch": "2.13.0", "ray": "2.60.0"}


def test_a_good_environment_has_nothing_to_note() -> None:
    lines = report(GOOD, TESTED)
    assert {line.state for line in lines} == {"ok"}
    assert [line.name for line in lines] == [
        *("prunus", "Python", "torch", "ray", "GPU", "CPU", "memory", "compiler", "ports", "disk", "shared memory"),
        *("clock", "variables", "versions"),
    ]
    assert lines[0].text == __version__
    assert can_run_jobs(lines)


def test_every_line_that_is_not_ok_has_a_remedy() -> None:
    bad = Facts(
        python=Python(version="3.14.0", executable="/usr/bin/python"),
        variables={"PRUNUS_HOEM": "/home/me"},
        cpu=CPU.model_copy(update={"bf16": False, "free_memory_gb": 1.0}),
        ports={8711: False},
        home=Disk(path="/", free_gb=0.1),
        shared_memory=Disk(path="/dev/shm", free_gb=0.06),
        clocks=(Clock(name="server", address="http://here", ahead_s=None),),
        versions={"torch": "2.12.0"},
        packages={"torch": Package(version=None), "torchaudio": Package(version="2.11.0", error=UNLOADABLE)},
        gpu=NO_GPU.model_copy(update={"device_files": 8}),
        ended="the probe was stopped after 120 s",
    )
    lines = [line for line in report(bad, TESTED) if line.name not in {"prunus", "compiler"}]
    assert len(lines) == 13
    assert all(line.state != "ok" and line.remedy for line in lines)
    assert not can_run_jobs(lines)


def test_facts_that_the_probe_did_not_reach_have_no_line() -> None:
    lines = report(Facts(ended="the probe ended with code -11: "), {})
    assert [(line.name, line.state) for line in lines] == [("probe", "missing"), ("prunus", "ok"), ("compiler", "ok")]


@pytest.mark.parametrize(
    ("version", "state"), [("3.11.7", "ok"), ("3.13.0", "ok"), ("3.14.0", "note"), ("3.1.1", "note")]
)
def test_python(version: str, state: str) -> None:
    assert python_line(Python(version=version, executable="/python")).state == state


@pytest.mark.parametrize(
    ("package", "state", "text", "remedy"),
    [
        (Package(version="5.23.0"), "ok", "5.23.0", ""),
        (Package(version=None), "missing", "not installed", "run `pip install 'prunus[train]'`"),
        (Package(version="5.0", error=UNLOADABLE), "missing", f"5.0 cannot be imported: {UNLOADABLE}", REPAIR),
        (
            Package(version="5.0", error="ImportError: no torch"),
            *("missing", "5.0 cannot be imported: ImportError: no torch"),
            "run `pip install --force-reinstall transformers`",
        ),
    ],
)
def test_a_package(package: Package, state: str, text: str, remedy: str) -> None:
    line = package_line("transformers", package, None)
    assert (line.state, line.text, line.remedy) == (state, text, remedy)


@pytest.mark.parametrize(("cuda", "words"), [(None, "built for CPUs"), ("13.0", "built for CUDA 13.0")])
def test_torch_with_its_build(cuda: str | None, words: str) -> None:
    gpu = NO_GPU.model_copy(update={"cuda": cuda})
    assert package_line("torch", TORCH, gpu).text == f"2.13.0+cpu, {words}"


@pytest.mark.parametrize(
    ("gpu", "state", "text"),
    [
        (NO_GPU, "ok", "none; ranks train on CPUs and talk through gloo"),
        (
            Gpu(cuda="13.0", devices=("A (80 GB)",) * 2, nccl="2.28.9", device_files=2),
            "ok",
            "2 x A (80 GB); NCCL 2.28.9",
        ),
        (Gpu(cuda="13.0", devices=("A (80 GB)", "B (24 GB)"), nccl=None, device_files=2), "note", "no NCCL"),
        (Gpu(cuda=None, devices=(), nccl=None, device_files=4), "note", "4 on this machine, but torch can use none"),
    ],
)
def test_gpus(gpu: Gpu, state: str, text: str) -> None:
    line = gpu_line(gpu)
    assert line.state == state
    assert text in line.text


def test_a_torch_for_cpus_and_a_broken_driver_have_different_remedies() -> None:
    unused = NO_GPU.model_copy(update={"device_files": 1})
    assert "torch built for CUDA" in gpu_line(unused).remedy
    assert "nvidia-smi" in gpu_line(unused.model_copy(update={"cuda": "13.0"})).remedy


def test_number_formats_of_the_cpu() -> None:
    assert cpu_line(CPU).text == "2 cores, bf16 without AMX"
    assert cpu_line(CPU.model_copy(update={"amx": True})).text == "2 cores, bf16 with AMX"
    assert cpu_line(CPU.model_copy(update={"bf16": False})).remedy == "set engine.precision: fp32 for jobs on CPUs"


@pytest.mark.parametrize(("free_gb", "state"), [(8.0, "ok"), (4.0, "ok"), (3.9, "note")])
def test_memory(free_gb: float, state: str) -> None:
    line = memory_line(CPU.model_copy(update={"free_memory_gb": free_gb}))
    assert (line.state, line.text) == (state, f"{free_gb} of 16.0 GB free")


@pytest.mark.parametrize(("free_gb", "state"), [(10.0, "ok"), (9.9, "note"), (1.0, "note"), (0.9, "missing")])
def test_room_for_jobs(free_gb: float, state: str) -> None:
    assert home_line(Disk(path="/home/me", free_gb=free_gb)).state == state


@pytest.mark.parametrize(("free_gb", "state"), [(0.3, "ok"), (0.0671, "note")])
def test_a_container_has_64_mib_of_shared_memory_which_is_too_little(free_gb: float, state: str) -> None:
    assert shared_memory_line(Disk(path="/dev/shm", free_gb=free_gb)).state == state


def test_ports() -> None:
    assert ports_line({8711: True, 8265: True}).text == "8711, 8265 are free"
    assert ports_line({8711: True, 8265: False}).text == "in use: 8265"


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [
        (0.4, "ok", "0.4 s ahead"),
        (-5.0, "ok", "5.0 s behind"),
        (61.0, "note", "61.0 s ahead"),
        (None, "note", "no answer"),
    ],
)
def test_clocks(ahead_s: float | None, state: str, words: str) -> None:
    (line,) = clock_lines((Clock(name="server", address="http://here", ahead_s=ahead_s),))
    assert line.state == state
    assert words.replace("no answer", "does not answer at http://here") in line.text


def test_variables() -> None:
    assert variables_line({}, "").text == "no PRUNUS_* variable is set"
    line = variables_line({"PRUNUS_HOME": "/a", "PRUNUS_HOEM": "/b", "PRUNUS_TOKEN": "***"}, "")
    assert (line.state, line.text) == ("note", "PRUNUS_HOME=/a PRUNUS_HOEM=/b PRUNUS_TOKEN=***")
    assert line.remedy.startswith("PRUNUS_HOEM: no such setting")
    wrong = variables_line({"PRUNUS_PORT": "x"}, "the setting port is 'x'; change or unset it")
    assert (wrong.state, wrong.remedy) == ("missing", "the setting port is 'x'; change or unset it")


def test_versions_differ_by_release_and_not_by_build() -> None:
    tested = {"torch": "2.13.0", "pyyaml": "6.0.3"}
    assert versions_line({"torch": "2.13.0+cu130", "PyYAML": "6.0.3", "ray": None}, tested).state == "ok"
    line = versions_line({"torch": "2.12.0", "PyYAML": "6.0.3"}, tested)
    expected = "1 of 2 packages are not as tested together: torch 2.12.0 (tested: 2.13.0)"
    assert (line.state, line.text) == ("note", expected)
