"""Losses and test outputs over iterations, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from caffeconv.training.metrics_log import Row

FORMATS = (".png", ".svg")


def check_plot(path: Path) -> None:
    """Raises CaffeconvError for another kind of file, and where matplotlib is missing."""
    if path.suffix not in FORMATS:
        raise CaffeconvError(f"{path}: a plot's name ends in {' or '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CaffeconvError(
            f"{path}: plots are drawn by matplotlib, which is not installed: pip install 'caffeconv[plot]'"
        ) from None


class Curves:
    """Collects rows and draws them: losses above, what tests gave below, the learning rate at the right."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)

    def draw(self, path: Path) -> None:
        """Writes the picture whole or not at all."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        tests = sorted({name for row in self._rows for name in row if name.startswith("test")})
        figure = Figure(figsize=(8, 8 if tests else 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2 if tests else 1, 1, squeeze=False, sharex=True)[:, 0]
        self._line(axes[0], "loss", "training loss")
        axes[0].set_ylabel("loss")
        rate = axes[0].twinx()
        self._line(rate, "lr", "learning rate", color="0.7", linestyle="--")
        rate.set_ylabel("learning rate")
        for name in tests:
            self._line(axes[-1], name, name, marker=".")
        for axis in axes:
            axis.legend()
        axes[-1].set_xlabel("iteration")
        with whole_file(path) as file:
            figure.savefig(file, format=path.suffix[1:])

    def _line(
        self, axes: Axes, name: str, label: str, *, color: str | None = None, linestyle: str = "-", marker: str = ""
    ) -> None:  # fmt: skip
        points: Sequence[tuple[float, float]] = [(row["iteration"], row[name]) for row in self._rows if name in row]
        axes.plot(*zip(*points, strict=True), label=label, color=color, linestyle=linestyle, marker=marker)
