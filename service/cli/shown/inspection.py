"""What people see of a checkpoint: zeros per tensor and in total. Pure."""

from rich.console import Group
from rich.text import Text

from prunus.configs.artifacts.zeros_report import Report, Total
from prunus.service.cli.shown.words import new_table


def report_page(report: Report) -> Group:
    """Page of ``prunus inspect``."""
    table = new_table("TENSOR", "SHAPE", "WEIGHTS", "ZEROS", "SPARSITY", "COUNTED")
    for layer in report.layers:
        cells = (
            layer.name,
            " x ".join(map(str, layer.shape)) or "scalar",
            f"{layer.weights:,}",
            f"{layer.zeros:,}",
            f"{layer.sparsity:.4f}",
            "yes" if layer.counted else "",
        )
        table.add_row(*(Text(cell) for cell in cells))
    return Group(table, Text(""), *(Text(total_line(t)) for t in report.totals), *(Text(n) for n in report.notes))


def total_line(total: Total) -> str:
    """``prunable weights (36 of 103 tensors, 10,616,832 weights): 0.9000``."""
    return (
        f"{total.of} ({total.tensors} of {total.of_tensors} tensors, {total.weights:,} weights): {total.sparsity:.4f}"
    )
