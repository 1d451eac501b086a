"""The project's own small net converts and classifies its pictures; what its README claims is measured."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

import caffeconv
from caffeconv.data.images import read_image
from caffeconv.data.input_images import image_transform
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.training.events import Event, Iteration
from caffeconv.training.solver import Solver
from caffeconv.training.solver_file import read_solver

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

DIGITS = Path(__file__).resolve().parents[1] / "fixtures" / "digits"


@pytest.fixture(scope="module")
def session() -> InferenceSession:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = caffeconv.convert(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel")
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def training_script() -> ModuleType:
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("digits_train", DIGITS / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_are_classified_right(session: InferenceSession) -> None:
    transform = image_transform(1, (28, 28))
    images = [read_image(DIGITS / f"{digit}.png", color=False) for digit in range(10)]
    pictures = np.stack([transform.apply(transform.planes(image), "") for image in images])
    (prob,) = session.run(None, {"data": pictures})
    assert prob.argmax(axis=1).tolist() == list(range(10))
    assert prob.max(axis=1).min() > 0.9


def test_picture_list_and_labels_fit_the_pictures() -> None:
    listed = [line.split() for line in (DIGITS / "pictures.txt").read_text().splitlines()]
    assert listed == [[f"{digit}.png", str(digit)] for digit in range(10)]
    assert (DIGITS / "labels.txt").read_text().split()[3] == "three"


def test_training_net_has_the_same_parameters() -> None:
    deploy, training = (
        caffeconv.convert(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"),
        caffeconv.convert(DIGITS / "train_val.prototxt", DIGITS / "digits.caffemodel", phase="TRAIN"),
    )
    weights = {tensor.name: tensor.raw_data for tensor in deploy.graph.initializer}
    trained = {tensor.name: tensor.raw_data for tensor in training.graph.initializer}
    assert {name: trained[name] for name in weights} == weights


def test_held_out_accuracy_is_what_the_readme_says(session: InferenceSession) -> None:
    script = training_script()
    drawn, labels = script.pictures()
    held_out = slice(script.TRAINING_ITEMS, None)
    # the net scales its input itself
    (prob,) = session.run(None, {"data": script.net_inputs(drawn[held_out])})
    accuracy = float((prob.argmax(axis=1) == labels[held_out]).mean())
    assert f"{accuracy * 100:.1f} %" in (DIGITS / "README.md").read_text()


def test_training_learns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A few iterations are enough to see that the solver, its data and the net fit together."""
    monkeypatch.chdir(DIGITS.parents[1])
    events: list[Event] = []
    compute = ComputeOptions("cpu", 1, nhwc=False, half=False)
    solver = Solver(
        replace(read_solver(DIGITS / "solver.prototxt"), display=1, test_interval=0),
        lambda source, options: caffeconv.Net.of_source(source, options, compute),
        events.append,
    )
    solver.step(60)
    losses = [event.smoothed_loss for event in events if isinstance(event, Iteration)]
    assert losses[0] > 2
    assert losses[-1] < 1.5
