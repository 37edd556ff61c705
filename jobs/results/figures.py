"""Pictures of one job for MLflow: sparsity per layer, schedule against what was reached, mask IOU over the updates.

Colours of ``cividis`` and shapes besides colours, so that people with colour-vision deficiency read them too.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from prunus.jobs.training.curves import History


def sparsity_per_layer(sparsity: dict[str, float], path: Path) -> None:
    """Bars: share removed of each prunable weight."""
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.18 * len(sparsity)), layout="constrained")
    names = list(sparsity)
    axes.barh(range(len(names)), list(sparsity.values()), color="#31446b")
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="sparsity (share of the weight's elements that are zero)")
    _write(figure, path)


def sparsity_schedule(history: History, target: list[tuple[int, float]], path: Path) -> None:
    """Lines: the schedule, and the sparsity reached at each mask update."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot([s for s, _ in target], [v for _, v in target], color="#31446b", label="schedule")
    axes.plot([h[0] for h in history], [h[2] for h in history], "o", color="#c9a227", mec="black", label="reached")
    axes.set(xlabel="optimizer step", ylabel="sparsity of the prunable weights", ylim=(0, 1))
    axes.legend()
    _write(figure, path)


def iou_over_updates(history: History, path: Path) -> None:
    """Heat map: IOU of kept positions between each mask and the one before; weights down, updates across."""
    names = list(history[0][3])
    table = np.array([[h[3][name] for h in history] for name in names])
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.18 * len(names)), layout="constrained")
    image = axes.imshow(table, aspect="auto", cmap="cividis", vmin=0, vmax=1)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    shown = np.unique(np.linspace(0, len(history) - 1, min(10, len(history))).astype(int))
    axes.set_xticks(shown, [str(history[i][0]) for i in shown])
    axes.set_xlabel("mask update at optimizer step")
    figure.colorbar(image, label="IOU of kept positions with the mask before")
    _write(figure, path)


def _write(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
