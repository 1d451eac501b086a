"""Engines that a converted model is compared with, the most independent first."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from caffeconv.caffe_format.prototxt_writer import net_to_text
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.conversion.load import Loaded
from caffeconv.errors import CaffeconvError
from caffeconv.frontend.open_axes import fixed_dims
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import FloatArray

EngineName = Literal["caffe", "opencv", "self"]
PYTHON_VARIABLE = "CAFFECONV_VERIFY_PYTHON"
"""Names the Python that has Caffe or OpenCV, in the environment."""
SECONDS = 900
"""How long another engine may take."""


class EngineUnfitError(CaffeconvError):
    """An engine is not there, or cannot run this net; the message says why."""


@dataclass(frozen=True)
class Subject:
    """A net with its weights as it was loaded, its graph at the shapes that it is tried with, and the form that is wanted."""

    loaded: Loaded
    graph: Graph
    options: NetOptions


@dataclass(frozen=True)
class Computation:
    """What an engine has computed."""

    blobs: Mapping[str, FloatArray]
    """Value of the graph → what it holds."""
    versions: Mapping[str, str]
    """Of the programs that took part, by their names."""


@dataclass(frozen=True)
class Engine:
    """Something that computes the blobs of a net."""

    name: EngineName
    title: str
    independence: str
    run: Callable[[Subject, Mapping[str, FloatArray]], Computation]
    """(net, inputs) → its blobs. EngineUnfitError where the engine cannot."""
    advice: str = ""
    """What to do where a model differs from it."""


def engines(name: EngineName | None = None) -> tuple[Engine, ...]:
    """All of them in order of preference, or the one of that name."""
    all_engines = (
        Engine("caffe", "Caffe (pycaffe)", "Caffe itself: nothing of caffeconv takes part", _run_caffe),
        Engine(
            "opencv", "OpenCV's importer for Caffe",
            "a reader and kernels of its own, but no Caffe: where they differ, look which of the two is right", _run_opencv,
            "OpenCV is not Caffe and departs from it in some layers; `verify_with='caffe'` or self is a second opinion",
        ),
        Engine(
            "self", "caffeconv's own graph: nothing folded, NCHW, float32, optimisations off",
            "not independent of how caffeconv reads the net and writes its layers; it shows what folding, layout, "
            "precision, preprocessing and onnxruntime's optimisations do",
            _run_self,
        ),
    )  # fmt: skip
    return tuple(engine for engine in all_engines if name in (None, engine.name))


def _run_self(subject: Subject, inputs: Mapping[str, FloatArray]) -> Computation:
    import onnxruntime

    from caffeconv.emit.model import emit_model
    from caffeconv.runtime.session import Session

    graph = subject.graph
    input_names = set(graph.inputs)
    values = tuple(value for node in graph.nodes for value in node.tops if value not in input_names)
    model = emit_model(replace(graph, outputs=values, dims=fixed_dims(graph)), values)
    session = Session(model, "cpu", python_host=subject.loaded.net.python_host, optimise=False)
    blobs = session.run({name: inputs[name] for name in session.inputs})
    return Computation(blobs, {"onnxruntime": onnxruntime.__version__})


def _run_caffe(subject: Subject, inputs: Mapping[str, FloatArray]) -> Computation:
    if other_python() is None and importlib.util.find_spec("caffe") is None:
        raise EngineUnfitError(f"there is no module caffe here; {PYTHON_VARIABLE}=PATH names the Python that has it")
    loaded = subject.loaded
    if loaded.net.python_host is None and any(node.layer.has_dynamic_shapes for node in subject.graph.nodes):
        raise EngineUnfitError("it would run the net's Python layers, which `allow_python=True` has not allowed")
    last = loaded.net.last_value
    blobs, versions = _run_in_child("pycaffe_child.py", subject, inputs)
    return Computation({last[name]: values for (name, _), values in blobs.items() if name in last}, versions)


def _run_opencv(subject: Subject, inputs: Mapping[str, FloatArray]) -> Computation:
    if other_python() is None:
        _require_importer()
    weights = subject.loaded.files[1:]
    if len(weights) > 1 or any(path.suffix != ".caffemodel" for path in weights):
        raise EngineUnfitError("it reads one caffemodel, no more and nothing else")
    if not weights and any(node.params for node in subject.graph.nodes):
        raise EngineUnfitError("it needs a caffemodel beside the net")
    tops = {node.name: node.tops for node in subject.graph.nodes if node.layer.stands_in_net}
    blobs, versions = _run_in_child("opencv_child.py", subject, inputs)
    of_net = {tops[layer][i]: values for (layer, i), values in blobs.items() if layer in tops and i < len(tops[layer])}
    return Computation(of_net, versions)


def _require_importer() -> None:
    """EngineUnfitError where this Python's OpenCV cannot read Caffe's nets."""
    if importlib.util.find_spec("cv2") is None:
        raise EngineUnfitError(
            "there is no module cv2; `pip install caffeconv[verify]` brings one that reads Caffe's nets"
        )
    import cv2

    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise EngineUnfitError(
            f"OpenCV {cv2.__version__} has no importer for Caffe any more; `pip install caffeconv[verify]` brings 4.x, or "
            f"{PYTHON_VARIABLE}=PATH names a Python that has it"
        )


def other_python() -> str | None:
    """The Python that the environment names for other engines; None where this one is meant."""
    return os.environ.get(PYTHON_VARIABLE) or None


def _run_in_child(
    script: str, subject: Subject, inputs: Mapping[str, FloatArray]
) -> tuple[Mapping[tuple[str, int], FloatArray], Mapping[str, str]]:
    """What a script beside this file makes of the net, in a Python of its own, and the versions of what took part.

    Raises EngineUnfitError where it makes nothing of it.
    """
    with tempfile.TemporaryDirectory(prefix="caffeconv-") as folder_name:
        folder = Path(folder_name)
        np.savez(folder / "inputs.npz", *inputs.values())
        request = {
            "net": str(_net_for_others(subject, folder)),
            "phase": subject.loaded.net.phase,
            "weights": [str(path) for path in subject.loaded.files[1:]],
            "names": list(inputs),
            "layers": [
                node.name for node in subject.graph.nodes if node.layer.stands_in_net and not node.layer.is_input
            ],
            "inputs": str(folder / "inputs.npz"),
            "outputs": str(folder / "outputs.npz"),
        }
        answer = json.loads(_run_script(script, json.dumps(request)))
        with np.load(folder / "outputs.npz") as arrays:
            blobs = {
                (layer, i): np.asarray(arrays[f"arr_{k}"], np.float32) for k, (layer, i) in enumerate(answer["names"])
            }
        return blobs, answer["versions"]


def _run_script(script: str, request: str) -> str:
    """The last line that a script writes; EngineUnfitError with its complaint where it fails."""
    source = Path(__file__).with_name(script).read_text(encoding="utf-8")
    command = [other_python() or sys.executable, "-c", source]
    try:
        child = subprocess.run(command, input=request, capture_output=True, text=True, timeout=SECONDS, check=False)
    except OSError as error:
        raise EngineUnfitError(f"{command[0]} cannot be run: {error.strerror}; a Python was needed") from None
    except subprocess.TimeoutExpired:
        raise EngineUnfitError(f"it was not done after {SECONDS} seconds") from None
    if child.returncode or not child.stdout.strip():
        raise EngineUnfitError(_complaint(child.stderr) or f"it ended with status {child.returncode}")
    return child.stdout.splitlines()[-1]


def _complaint(stderr: str) -> str:
    """The line that says what went wrong: Caffe's check, OpenCV's error, or the last one of a traceback."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    error_lines = [line for line in lines if "Check failed" in line or " error: (" in line]
    return (error_lines[:1] or lines[-1:] or [""])[0][:300]


def _net_for_others(subject: Subject, folder: Path) -> Path:
    """The prototxt itself where that is all that another engine needs; else the net as caffeconv read it, in `folder`.

    Written anew: a net in deploy form, one with data layers or of another state than TEST, one out of a caffemodel.
    """
    source, inputs = subject.loaded.files[0], [node for node in subject.graph.nodes if node.layer.is_input]
    if subject.options.keeps_net and source.suffix != ".caffemodel" and all(_states_shape(node) for node in inputs):
        return source
    net = NetParameter(name=subject.loaded.net.name)
    net.layer.extend(
        _input_layer(node) if node.layer.is_input else _without_rules(node)
        for node in subject.graph.nodes
        if node.layer.stands_in_net
    )
    path = folder / "net.prototxt"
    path.write_text(net_to_text(net), encoding="utf-8")
    return path


def _states_shape(node: Node) -> bool:
    """Whether the net states an input's shape."""
    return bool(node.definition.proto.HasField("input_param"))


def _input_layer(node: Node) -> LayerParameter:
    layer = LayerParameter(name=node.name, type="Input", top=node.definition.tops)
    for shape in node.top_shapes:
        layer.input_param.shape.add().dim.extend(shape)
    return layer


def _without_rules(node: Node) -> LayerParameter:
    layer = LayerParameter()
    layer.CopyFrom(node.definition.proto)
    layer.name = node.name
    for name in ("include", "exclude", "phase", "blobs"):
        layer.ClearField(name)
    return layer
