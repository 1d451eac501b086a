"""What `debug_info` tells: Caffe's lines, in Caffe's order, with the numbers of the pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from caffeconv.net.net import Net
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.training.events import Event, Note
from caffeconv.training.solver import Solver
from caffeconv.training.solver_file import read_solver

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { name: "w{}" } convolution_param { num_output: 4
  kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "a" type: "InnerProduct" bottom: "conv" top: "a" param { lr_mult: 0 } param { lr_mult: 1 }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "conv" top: "b" inner_product_param { num_output: 3 bias_term: false
  weight_filler { type: "xavier" } } }
layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "s" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" top: "loss" }
"""
LINES = """
[Forward] Layer data, top blob data
[Forward] Layer label, top blob label
[Forward] Layer conv, top blob conv
[Forward] Layer conv, param blob w{}
[Forward] Layer conv, param blob 1
[Forward] Layer relu, top blob conv
[Forward] Layer conv_relu_0_split, top blob conv_relu_0_split_0
[Forward] Layer conv_relu_0_split, top blob conv_relu_0_split_1
[Forward] Layer a, top blob a
[Forward] Layer a, param blob 0
[Forward] Layer a, param blob 1
[Forward] Layer b, top blob b
[Forward] Layer b, param blob 0
[Forward] Layer s, top blob s
[Forward] Layer loss, top blob loss
[Backward] Layer loss, bottom blob s
[Backward] Layer s, bottom blob a
[Backward] Layer s, bottom blob b
[Backward] Layer b, bottom blob conv_relu_0_split_1
[Backward] Layer b, param blob 0
[Backward] Layer a, bottom blob conv_relu_0_split_0
[Backward] Layer a, param blob 1
[Backward] Layer conv_relu_0_split, bottom blob conv
[Backward] Layer relu, bottom blob conv
[Backward] Layer conv, param blob 0
[Backward] Layer conv, param blob 1
""".strip().split("\n")


def traced(folder: Path, passes: int) -> tuple[Solver[Net], list[str]]:
    """A solver after one iteration, and what the log has of its passes."""
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(
        f'net: "{folder / "net.prototxt"}" base_lr: 0 lr_policy: "fixed" debug_info: true iter_size: {passes}'
    )
    events: list[Event] = []
    compute = ComputeOptions("cpu", 1, nhwc=False, half=False)
    solver = Solver(
        read_solver(folder / "solver.prototxt"), lambda source, options: Net.of_source(source, options, compute),
        events.append,
    )  # fmt: skip
    solver.net.blobs["data"].data[...] = np.random.default_rng(0).standard_normal((2, 1, 6, 6))
    solver.step(1)
    lines = [event.line for event in events if isinstance(event, Note)]
    return solver, [line.text.strip() for line in lines if line.source.startswith("net.cpp")]


def numbers(lines: list[str]) -> Iterator[tuple[str, float]]:
    for line in lines:
        what, _, value = line.rpartition(": ")
        yield what.rpartition(" ")[0], float(value)


def test_lines_and_numbers(tmp_path: Path) -> None:
    solver, lines = traced(tmp_path, 1)
    total = lines.pop()
    means = dict(numbers(lines))
    assert list(means) == LINES
    net = solver.net
    for what, blob in (
        ("relu, top blob conv", "conv"), ("a, top blob a", "a"), ("loss, top blob loss", "loss"),
        ("data, top blob data", "data"),
    ):  # fmt: skip
        assert means[f"[Forward] Layer {what}"] == pytest.approx(np.abs(net.blobs[blob].data).mean(), rel=1e-4)
    # in place the log has the values from before too
    assert means["[Forward] Layer conv, top blob conv"] > means["[Forward] Layer relu, top blob conv"]
    weight = net.params["conv"][0].data
    assert means["[Forward] Layer conv, param blob w{}"] == pytest.approx(np.abs(weight).mean(), rel=1e-4)
    net.backward()
    assert means["[Backward] Layer loss, bottom blob s"] == pytest.approx(np.abs(net.blobs["s"].diff).mean(), rel=1e-4)
    values = [blob.data for blobs in net.params.values() for blob in blobs]
    length = np.sqrt(sum(np.square(value).sum() for value in values))
    assert total.startswith("[Backward] All net params (data, diff): L1 norm = (")
    assert f"L2 norm = ({length:g}"[:14] in total


def test_each_pass_of_an_iteration(tmp_path: Path) -> None:
    _, lines = traced(tmp_path, 2)
    assert len(lines) == 2 * (len(LINES) + 1)
    first, second = (dict(numbers(lines[i * len(lines) // 2 :][: len(LINES)])) for i in (0, 1))
    # the same data again: values stay, and the diffs of parameters add up
    for what, value in first.items():
        factor = 2 if what.startswith("[Backward]") and "param blob" in what else 1
        assert second[what] == pytest.approx(factor * value, rel=1e-4), what
