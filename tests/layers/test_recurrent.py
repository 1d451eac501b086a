"""LSTM, RNN and LSTMUnit against slow numpy in float64, written from Caffe's source, one number at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import checker
from support.small_nets import Array, net_text, run_model, run_net, session_of, write_net, write_weights

import caffeconv
from caffeconv.conversion.load import load
from caffeconv.conversion.to_onnx import to_onnx
from caffeconv.emit.model import emit_model

Exact = NDArray[np.float64]
few = settings(max_examples=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recurrent")


def close(got: Array, want: object) -> None:
    np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=2e-5, atol=2e-6)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def product(w: Exact, x: Exact) -> Exact:
    return np.array([sum(w[i, j] * x[j] for j in range(len(x))) for i in range(len(w))])


def lstm_unit(c: Exact, gates: Exact, cont: float) -> tuple[Exact, Exact]:
    size = len(c)
    cell, hidden = np.zeros(size), np.zeros(size)
    for d in range(size):
        forget = 0.0 if cont == 0 else cont * sigmoid(gates[size + d])
        cell[d] = forget * c[d] + sigmoid(gates[d]) * math.tanh(gates[3 * size + d])
        hidden[d] = sigmoid(gates[2 * size + d]) * math.tanh(cell[d])
    return cell, hidden


@dataclass(frozen=True)
class Problem:
    kind: str
    x: Array
    cont: Array
    static: Array | None
    exposed: tuple[Array, ...]
    size: int
    blobs: tuple[Array, ...]

    @property
    def state_count(self) -> int:
        return 2 if self.kind == "LSTM" else 1

    @property
    def feeds(self) -> dict[str, Array]:
        static = {} if self.static is None else {"s": self.static}
        return {"x": self.x, "cont": self.cont, **static, **dict(zip("hc", self.exposed, strict=False))}

    @property
    def layer(self) -> str:
        bottoms = "".join(f' bottom: "{name}"' for name in self.feeds)
        tops = "".join(f' top: "{top}"' for top in ("y", "hT", "cT")[: 1 + len(self.exposed)])
        flag = "expose_hidden: true" if self.exposed else ""
        param = f"recurrent_param {{ num_output: {self.size} {flag} debug_info: true }}"
        return f'layer {{ name: "r" type: "{self.kind}"{bottoms}{tops} {param} }}\n'

    def expected(self, start: Sequence[Exact]) -> tuple[Exact, list[Exact]]:
        """The output, T×N×D, and the states after the last step, 1×N×D each, from the states before."""
        blobs = [blob.astype(float) for blob in self.blobs]
        w_x, b = blobs[:2]
        w_static = blobs.pop(2) if self.static is not None else None
        w_h = blobs[2]
        steps, streams = self.cont.shape
        y, ends = np.zeros((steps, streams, self.size)), [state.copy() for state in start]
        for n in range(streams):
            states = [state[0, n] for state in start]
            for t in range(steps):
                cont = float(self.cont[t, n])
                gates = product(w_x, self.x[t, n].ravel().astype(float)) + b + product(w_h, states[0] * cont)
                if w_static is not None and self.static is not None:
                    gates += product(w_static, self.static[n].ravel().astype(float))
                if self.kind == "LSTM":
                    cell, hidden = lstm_unit(states[1], gates, cont)
                    states, y[t, n] = [hidden, cell], hidden
                else:
                    states = [np.tanh(gates)]
                    y[t, n] = np.tanh(product(blobs[3], states[0]) + blobs[4])
            for end, state in zip(ends, states, strict=True):
                end[0, n] = state
        return y, ends

    def zeros(self) -> list[Exact]:
        return [np.zeros((1, self.x.shape[1], self.size)) for _ in range(self.state_count)]


@st.composite
def problems(draw: st.DrawFn, *, exposed: bool | None = None) -> Problem:
    kind = draw(st.sampled_from(["LSTM", "RNN"]))
    steps, streams, size = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rest = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    static = draw(st.none() | st.lists(st.integers(1, 3), min_size=1, max_size=2))
    return make(
        kind, steps, streams, size, rest, static, seed=draw(st.integers(0, 1 << 30)),
        exposed=draw(st.booleans()) if exposed is None else exposed,
    )  # fmt: skip


def make(
    kind: str, steps: int, streams: int, size: int, rest: list[int], static: list[int] | None, *, exposed: bool,
    seed: int,
) -> Problem:  # fmt: skip
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> Array:
        return rng.normal(0, 0.7, shape).astype(np.float32)

    gates = 4 * size if kind == "LSTM" else size
    blobs = [some(gates, math.prod(rest)), some(gates)]
    if static is not None:
        blobs.append(some(gates, math.prod(static)))
    blobs.append(some(gates, size))
    if kind == "RNN":
        blobs += [some(size, size), some(size)]
    cont = rng.choice([0, 1, 1, 0.5], (steps, streams)).astype(np.float32)
    states = tuple(some(1, streams, size) for _ in range(2 if kind == "LSTM" else 1)) if exposed else ()
    x_static = None if static is None else some(streams, *static)
    return Problem(kind, some(steps, streams, *rest), cont, x_static, states, size, tuple(blobs))


def weights_of(folder: Path, problem: Problem) -> Path:
    return write_weights(folder / "weights.caffemodel", "r", list(problem.blobs))


@few
@given(problems())
def test_recurrent_layer(folder: Path, problem: Problem) -> None:
    got = run_net(folder, problem.layer, problem.feeds, weights=weights_of(folder, problem))
    start = [state.astype(float) for state in problem.exposed] or problem.zeros()
    y, ends = problem.expected(start)
    assert got["y"].shape == y.shape
    close(got["y"], y)
    for name, end in zip(("hT", "cT"), ends, strict=False):
        if problem.exposed:
            close(got[name], end)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_number_of_steps_is_open(folder: Path, kind: str) -> None:
    short, long = (make(kind, steps, 2, 3, [4], [2], exposed=True, seed=1) for steps in (4, 7))
    shapes = {name: values.shape for name, values in short.feeds.items()}
    model = caffeconv.convert(write_net(folder, shapes, short.layer), weights_of(folder, short))
    long = replace(long, blobs=short.blobs)
    close(run_model(model, long.feeds)["y"], long.expected([state.astype(float) for state in long.exposed])[0])


@few
@given(problems(exposed=False))
def test_states_go_from_pass_to_pass(folder: Path, problem: Problem) -> None:
    shapes = {name: values.shape for name, values in problem.feeds.items()}
    loaded = load(write_net(folder, shapes, problem.layer), weights_of(folder, problem))
    session = session_of(to_onnx(loaded, loaded.graph.outputs, batch="keep", stateful=True).materialize())
    node = next(node for node in loaded.graph.nodes if node.name == "r")
    kept = node.layer.state_shapes(node.bottom_shapes)
    assert [i.name for i in session.get_inputs()] == [*problem.feeds, *(f"r/{name}_in" for name in kept)]
    assert [o.name for o in session.get_outputs()] == ["y", *(f"r/{name}_out" for name in kept)]
    states: Mapping[str, Array] = {name: np.zeros(shape, np.float32) for name, shape in kept.items()}
    exact = problem.zeros()
    for _ in range(3):
        feeds = {**problem.feeds, **{f"r/{name}_in": value for name, value in states.items()}}
        y, *ends = session.run(None, feeds)
        states = dict(zip(states, ends, strict=True))
        want, exact = problem.expected(exact)
        close(y, want)
        for end, state in zip(ends, exact, strict=True):
            close(end, state)


def test_states_of_layers_that_no_output_needs_are_left_out(folder: Path) -> None:
    problem = make("LSTM", 2, 2, 2, [3], None, exposed=False, seed=0)
    shapes = {name: values.shape for name, values in problem.feeds.items()}
    other = problem.layer.replace('"r"', '"other"').replace('top: "y"', 'top: "z"')
    loaded = load(write_net(folder, shapes, problem.layer + other))
    model = to_onnx(loaded, ["z"], batch="keep", stateful=True).materialize()
    assert [i.name for i in model.graph.input] == ["x", "cont", "other/h_in", "other/c_in"]
    assert [o.name for o in model.graph.output] == ["z", "other/h_out", "other/c_out"]
    assert not any(node.name.startswith("r") for node in model.graph.node)
    assert {*map(len, (loaded.graph.outputs, caffeconv.convert(folder / "net.prototxt").graph.input))} == {2}


@few
@given(problems())
def test_unrolled_steps_give_the_same(folder: Path, problem: Problem) -> None:
    shapes = {name: values.shape for name, values in problem.feeds.items()}
    loaded = load(write_net(folder, shapes, problem.layer), weights_of(folder, problem))
    graph = replace(loaded.graph, dims=dict(loaded.graph.shapes))
    model = emit_model(graph, graph.outputs, unroll=True)
    checker.check_model(model, full_check=True)
    assert "Scan" not in {node.op_type for node in model.graph.node}
    start = [state.astype(float) for state in problem.exposed] or problem.zeros()
    close(run_model(model, problem.feeds)["y"], problem.expected(start)[0])


@pytest.mark.parametrize("opset", [13, 15, 16, 18, 19, 21])
def test_every_opset(folder: Path, opset: int) -> None:
    for kind in ("LSTM", "RNN"):
        problem = make(kind, 3, 2, 3, [2, 2], [2], exposed=False, seed=2)
        got = run_net(folder, problem.layer, problem.feeds, weights=weights_of(folder, problem), opset=opset)
        close(got["y"], problem.expected(problem.zeros())[0])


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1 << 30))
def test_lstm_unit(folder: Path, streams: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    c, gates = (rng.normal(0, 1, (1, streams, width)).astype(np.float32) for width in (size, 4 * size))
    cont = rng.choice([0, 1, 0.5], (1, streams)).astype(np.float32)
    text = 'layer { name: "u" type: "LSTMUnit" bottom: "c" bottom: "g" bottom: "k" top: "c1" top: "h1" }'
    got = run_net(folder, text, {"c": c, "g": gates, "k": cont})
    for n in range(streams):
        cell, hidden = lstm_unit(c[0, n].astype(float), gates[0, n].astype(float), float(cont[0, n]))
        close(got["c1"][0, n], cell)
        close(got["h1"][0, n], hidden)


def test_parameters_are_named_and_shaped_as_in_caffe(folder: Path) -> None:
    found = {}
    for kind in ("LSTM", "RNN"):
        problem = make(kind, 2, 2, 3, [5, 2], [4], exposed=False, seed=0)
        text = net_text({name: values.shape for name, values in problem.feeds.items()}, problem.layer)
        (folder / "named.prototxt").write_text(text)
        found[kind] = {param.name: param.shape for param in load(folder / "named.prototxt").graph.nodes[-1].params}
        assert list(found[kind].values()) == [blob.shape for blob in problem.blobs]
    assert list(found["LSTM"]) == ["W_xc", "b_c", "W_xc_static", "W_hc"]
    assert list(found["RNN"]) == ["W_xh", "b_h", "W_xh_static", "W_hh", "W_ho", "b_o"]


@dataclass(frozen=True)
class Refused:
    kind: str
    inputs: dict[str, tuple[int, ...]]
    message: str
    tops: str = "y"
    extra: str = "num_output: 4"


X: dict[str, tuple[int, ...]] = {"x": (3, 2, 5), "k": (3, 2)}
UNIT: dict[str, tuple[int, ...]] = {"c": (1, 2, 3), "g": (1, 2, 12), "k": (1, 2)}
REFUSED = {
    "no size": Refused("LSTM", X, "num_output must be positive", extra=""),
    "no size rnn": Refused("RNN", X, "num_output must be positive", extra=""),
    "1 axis": Refused("RNN", {"x": (3,), "k": (3, 2)}, "must have at least 2 axes -- (#timesteps, #streams, ...)"),
    "2 axes": Refused("RNN", {"x": (3, 2), "k": (3, 2)}, "axis 2 out of range for 2-D Blob"),
    "cont": Refused("LSTM", {"x": (3, 2, 5), "k": (3, 2, 1)}, "must have exactly 2 axes -- (#timesteps, #streams)"),
    "steps": Refused("LSTM", {"x": (3, 2, 5), "k": (2, 2)}, "bottom[1] is 2×2, bottom[0] 3×2×5; 3×2 was needed"),
    "static": Refused("LSTM", {**X, "s": (3, 4)}, "bottom[2], the static input, is 3×4; 2×… was needed"),
    "static 1": Refused("LSTM", {**X, "s": (2,)}, "axis 1 out of range for 1-D Blob"),
    "bottoms": Refused("LSTM", {**X, "s": (2, 4), "h": (1, 2, 4)}, "4 bottoms; LSTM Layer takes 2 to 3"),
    "exposed": Refused("LSTM", X, "2 bottoms; LSTM Layer takes 4 to 5", extra="num_output: 4 expose_hidden: true"),
    "tops": Refused("RNN", X, "2 tops; RNN Layer produces 1 top blob(s)", tops="yz"),
    "hidden": Refused(
        "RNN", {**X, "h": (1, 2, 3)}, "bottom[2] shape must match hidden state input shape: 1×2×4", "yz",
        "num_output: 4 expose_hidden: true",
    ),
    "unit axes": Refused("LSTMUnit", {**UNIT, "k": (1, 2, 1)}, "2 == bottom[2]->num_axes()", "ab", ""),
    "unit steps": Refused("LSTMUnit", {**UNIT, "g": (2, 2, 12)}, "1 step of 2 num_instances", "ab", ""),
    "unit gates": Refused(
        "LSTMUnit", {**UNIT, "g": (1, 2, 9)}, "4 * hidden_dim_ == bottom[1]->shape(2) (12 vs. 9)", "ab", ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    refused = REFUSED[case]
    names = "".join(f' bottom: "{b}"' for b in refused.inputs) + "".join(f' top: "{t}"' for t in refused.tops)
    text = f'layer {{ name: "l" type: "{refused.kind}"{names} recurrent_param {{ {refused.extra} }} }}'
    with pytest.raises(caffeconv.CaffeconvError, match=re.escape(refused.message)) as refusal:
        caffeconv.convert(write_net(tmp_path, refused.inputs, text))
    assert str(refusal.value).startswith(f"l ({refused.kind}), line")
