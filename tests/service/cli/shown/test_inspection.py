"""The page of ``prunus inspect``."""

from prunus.configs.artifacts.zeros_report import Layer, Report, total
from prunus.service.cli.shown.inspection import report_page
from tests.service.cli.shown.views import text


def test_a_report_names_its_denominators() -> None:
    layers = [Layer(name=f"l{i}.weight", shape=(10, 10), weights=100, zeros=90, counted=i < 2) for i in range(3)]
    totals = (total("prunable weights", layers[:2], 3), total("all weights", layers, 3))
    report = Report(path="out", kind="model", layers=tuple(layers), totals=totals)
    shown = text(report_page(report))
    assert "prunable weights (2 of 3 tensors, 200 weights): 0.9000" in shown
    assert "all weights (3 of 3 tensors, 300 weights): 0.9000" in shown
