"""The probe's own functions on what is made here, and the whole of it as a process."""

import sys
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from prunus.configs import __version__
from prunus.service.doctor import probe
from prunus.service.doctor.ask import ask, gather
from prunus.service.doctor.facts import Package, Python

CPUINFO = "processor\t: 0\nflags\t\t: fpu avx512_bf16 sse\n\nprocessor\t: 1\nflags\t\t: fpu\n"


def test_secrets_are_hidden() -> None:
    environ = {
        "PATH": "/bin",
        "PRUNUS_TOKEN": "abc",
        "PRUNUS_TOKEN_FILE": "/etc/token",
        "PRUNUS_STORE": "postgresql://me:secret@db/prunus",
        "PRUNUS_RUNTIME_ENV": '{"env_vars": {"KEY": "secret"}}',
    }
    assert probe.shown_variables(environ) == {
        "PRUNUS_RUNTIME_ENV": "***",
        "PRUNUS_STORE": "postgresql://me:***@db/prunus",
        "PRUNUS_TOKEN": "***",
        "PRUNUS_TOKEN_FILE": "/etc/token",
    }


@pytest.mark.parametrize(
    ("text", "bf16", "amx"),
    [
        (CPUINFO, True, False),
        (CPUINFO.replace("sse", "amx_bf16"), True, True),
        (CPUINFO.replace("avx512_bf16", ""), False, False),
        ("Features\t: fp asimd bf16\n", True, False),
        ("", False, False),
    ],
)
def test_number_formats_by_the_flags_of_the_cpu(text: str, bf16: bool, amx: bool) -> None:
    cpu = probe.probe_cpu(text)
    assert (cpu.bf16, cpu.amx) == (bf16, amx)
    assert cpu.cores >= 1


def test_room_at_a_folder_that_is_not_made_yet(tmp_path: Path) -> None:
    disk = probe.probe_disk(tmp_path / "not/there")
    assert disk.path == str(tmp_path / "not/there")
    assert disk.free_gb > 0


def test_a_package_that_is_not_installed_and_one_that_is() -> None:
    assert probe.probe_package("no-such-package", "json") == Package(version=None)
    assert probe.probe_package("prunus", "json") == Package(version=__version__)


def test_a_package_that_cannot_be_imported_gives_the_first_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library.py").write_text(
        "try:\n    raise OSError('one\\nCould not load this library: x.so')\n"
        "except OSError as error:\n    raise ImportError('no model') from error\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = probe.probe_package("prunus", "broken_library")
    assert found == Package(version=__version__, error="ImportError: Could not load this library: x.so")


class OneHourAhead(BaseHTTPRequestHandler):
    """Answers 401 with a clock that is an hour ahead."""

    def do_GET(self) -> None:
        self.send_response_only(401)
        self.send_header("Date", formatdate(time.time() + 3600, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_clock_that_is_ahead() -> None:
    with HTTPServer(("127.0.0.1", 0), OneHourAhead) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        clock = probe.http_clock("server", f"http://me:pw@127.0.0.1:{server.server_port}/v1/info")
        thread.join()
        port = server.server_port
    assert clock.ahead_s is not None and abs(clock.ahead_s - 3600) < 2
    assert clock.address == f"http://me:***@127.0.0.1:{port}/v1/info"


def test_nobody_answers() -> None:
    assert probe.http_clock("MLflow", "http://127.0.0.1:1/health").ahead_s is None
    assert probe.database_clock("postgresql://127.0.0.1:1/none").ahead_s is None


def test_prunus_asks_for_more_than_its_light_install_but_not_for_linters() -> None:
    names = probe.required_packages()
    assert {"pydantic", "torch", "transformers", "mlflow"} <= set(names)
    assert not {"ruff", "pytest", "babel"} & set(names)


def test_output_of_libraries_between_the_facts_is_passed_over() -> None:
    printed = (
        'hello\n{"python": {"version": "3.11.7", "executable": "/python"}}\n[1]\n'
        '{"packages": {"torch": {"version": "2.13.0", "error": ""}}}\n{"packages": {"ray": {"version": null}}}\n{"gpu'
    )
    facts = gather(printed, "the probe was stopped")
    assert facts.python == Python(version="3.11.7", executable="/python")
    assert facts.packages == {"torch": Package(version="2.13.0"), "ray": Package(version=None)}
    assert (facts.gpu, facts.ended) == (None, "the probe was stopped")


FIRST_FACT = """import sys; print('{"compiler": "/usr/bin/g++"}', flush=True); """


def test_what_was_printed_before_a_crash_counts() -> None:
    facts = ask((sys.executable, "-c", FIRST_FACT + "sys.exit('no such device')"))
    assert (facts.compiler, facts.ended) == ("/usr/bin/g++", "the probe ended with code 1: no such device")


def test_a_probe_that_hangs_is_stopped() -> None:
    facts = ask((sys.executable, "-c", FIRST_FACT + "sys.stdin.close(); import time; time.sleep(60)"), timeout_s=1.0)
    assert facts.compiler == "/usr/bin/g++"
    assert facts.ended.startswith("the probe was stopped after 1 s")


def test_the_probe_comes_to_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRUNUS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PRUNUS_PORT", "none")
    facts = ask((sys.executable, "-c", f"from prunus.service.doctor import probe; {NO_IMPORTS}; probe.main()"))
    assert facts.ended == ""
    assert facts.settings_error.startswith("the setting port (PRUNUS_PORT) is 'none'")
    assert facts.variables == {"PRUNUS_HOME": str(tmp_path / "home"), "PRUNUS_PORT": "none"}
    assert facts.ports is not None and list(facts.ports) == [8711, 8712, 8265]
    assert facts.versions is not None and facts.versions["pydantic"] == "2.14.3"
    assert facts.packages["torch"].version is None
    assert facts.gpu is not None and facts.gpu.devices == ()


NO_IMPORTS = "probe.IMPORTS = {'torch': 'torch'}; probe.installed_version = {'pydantic': '2.14.3'}.get"
"""Imports of torch and others take 15 s; that they work is shown by ``prunus doctor`` itself."""
