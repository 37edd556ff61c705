"""The picture of a recipe."""

from pathlib import Path

import pytest

from prunus.configs import Campaign
from prunus.service.cli.drawing.picture import save_png
from prunus.service.errors import Refused


def test_the_picture(campaign: Campaign, tmp_path: Path) -> None:
    save_png(campaign, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Refused, match="cannot be written"):
        save_png(campaign, tmp_path / "no" / "plan.png")
