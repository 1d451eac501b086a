"""Reads the cases in fixtures/goldens, and compares results with what Caffe computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

import caffeconv
from caffeconv.layers import LAYERS

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "fixtures" / "goldens"
DATABASES = frozenset(("Data", "HDF5Data", "ImageData", "WindowData", "MemoryData", "HDF5Output", "Python"))
Array = NDArray[np.float32]


class NetState(TypedDict):
    """The arguments that say which layers take part."""

    phase: Literal["TRAIN", "TEST"]
    level: int
    stages: tuple[str, ...]
    dialect: str | None


@dataclass(frozen=True)
class Case:
    """One case: a net, its weights, and Caffe's blobs."""

    folder: Path
    about: dict[str, object]

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def net(self) -> str:
        return "net.prototxt" if (self.folder / "net.prototxt").exists() else "deploy.prototxt"

    @property
    def weights(self) -> str | None:
        named = self.about.get("weights")
        if named:
            return str(named)
        for name in ("weights.caffemodel", "weights.caffemodel.h5"):
            if (self.folder / name).exists():
                return name
        return None

    @property
    def state(self) -> NetState:
        stages = self.about.get("stages", ())
        assert isinstance(stages, (list, tuple))
        level = self.about.get("level", 0)
        assert isinstance(level, int)
        dialect = self.about.get("dialect")
        assert dialect is None or isinstance(dialect, str)
        phase: Literal["TRAIN", "TEST"] = "TRAIN" if self.about.get("phase") == "TRAIN" else "TEST"
        return NetState(phase=phase, level=level, stages=tuple(stages), dialect=dialect)

    @property
    def types(self) -> frozenset[str]:
        layers = self.about.get("layers", ())
        assert isinstance(layers, list)
        return frozenset(layers)

    @property
    def reshaped(self) -> bool:
        return bool(self.about.get("reshape_inputs") or self.about.get("input_shapes"))

    @property
    def steps(self) -> int:
        steps = self.about.get("steps", 0)
        assert isinstance(steps, int)
        return steps

    def records(self) -> Iterator[dict[str, Array]]:
        """Every recorded run of the case."""
        for path in sorted(self.folder.glob("blobs*.npz")):
            with np.load(path) as archive:
                yield {name: archive[name] for name in archive.files if not name.endswith("(automatic)")}


def cases(*sets: str, root: Path = GOLDENS) -> list[Case]:
    """The cases of some sets; of the zoo, when `root` is its folder and no set is named."""
    folders = (
        [folder for name in sets for folder in sorted((root / name).iterdir())] if sets else sorted(root.iterdir())
    )
    return [Case(f, json.loads((f / "case.json").read_text())) for f in folders if (f / "case.json").exists()]


def runnable(case: Case) -> bool:
    """Whether the case needs nothing but arrays, and only layer types that are known."""
    return not case.types & DATABASES and not case.about.get("memory_data") and case.types <= LAYERS.keys()


def runs_in_a_net(case: Case) -> bool:
    """Whether all its layer types are known; such a case may read a database of its own, or write a file."""
    return case.types <= LAYERS.keys()


def forward(net: caffeconv.Net, feeds: dict[str, Array], blobs: list[str] | None = None) -> dict[str, Array]:
    """net.forward with inputs by name from a dict."""
    return net.forward(blobs, **feeds)  # type: ignore[arg-type]


def part(record: dict[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays below a prefix: ``in/``, ``blob/``, ``step0/``."""
    return {name[len(prefix) :]: values for name, values in record.items() if name.startswith(prefix)}


def difference(case: Case, name: str, got: Array, want: Array) -> str | None:
    """How a blob differs from Caffe's, or None."""
    detections = case.about.get("detections", ())
    assert isinstance(detections, (list, tuple))
    if name in detections:
        return _detections_differ(case, name, got, want)
    if got.shape != want.shape:
        return f"{name}: shape {got.shape}, Caffe has {want.shape}"
    if case.about.get("random"):
        return None
    rtol, atol = float(str(case.about.get("rtol", 1e-4))), float(str(case.about.get("atol", 1e-5)))
    close = np.isclose(got.astype("f8"), want.astype("f8"), rtol, atol, equal_nan=True)
    if close.all():
        return None
    place = tuple(np.argwhere(~close)[0])
    return f"{name}: {np.count_nonzero(~close)} of {close.size} differ, first {got[place]!r} where Caffe has {want[place]!r}"


def _detections_differ(case: Case, name: str, got: Array, want: Array) -> str | None:
    """Rows as a set: those whose scores almost tie may change places, or drop out at the threshold."""
    atol = float(str(case.about.get("detection_atol", 2e-3)))
    rest = list(got.reshape(-1, 7).astype("f8"))
    missing = []
    for row in want.reshape(-1, 7).astype("f8"):
        near = [i for i, other in enumerate(rest) if (other[:2] == row[:2]).all() and np.abs(other - row).max() <= atol]
        if near:
            rest.pop(near[0])
        else:
            missing.append(row)
    least = min((row[2] for row in want.reshape(-1, 7)), default=0)
    wrong = [row for row in missing + rest if row[2] > least + 1e-5]
    return f"{name}: {len(wrong)} detections differ, e.g. {np.round(wrong[0], 4)}" if wrong else None
