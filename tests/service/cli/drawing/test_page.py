"""What the terminal shows of a recipe."""

import io
from pathlib import Path

from rich.console import Console
from typer.testing import CliRunner

from prunus.configs import Campaign
from prunus.service.cli.drawing.page import page
from prunus.service.cli.main import app
from tests.service.cli.drawing.conftest import RECIPE


def test_the_page_fits_its_width_and_says_what_happens(campaign: Campaign) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(page(campaign, 80))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "dense: masked_lm x dense, 3 epochs, drawn as 1,000 steps" in text
    assert "0.9 from step 50; masks chosen 9 times, the last after step 80" in text


def test_the_command_draws_every_job_without_a_server(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    drawn = CliRunner().invoke(app, ["plan", str(tmp_path / "r.yaml"), "--png", str(tmp_path / "r.png")])
    assert drawn.exit_code == 0, drawn.output
    for title in ("dense: masked_lm", "sparse: masked_lm", "one-shot: masked_lm"):
        assert title in drawn.stdout
    assert (tmp_path / "r.png").is_file()
