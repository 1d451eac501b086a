"""Real Caffe models through the tools that people use for other frameworks, against what Caffe computed.

    python benchmarks/other_frameworks.py [--zoo FOLDER] [--tool TOOL]

Each model of the folder (deploy.prototxt, weights.caffemodel, blobs.npz with Caffe's own blobs) is converted to ONNX, goes
through each tool that is installed, and its outputs are held against Caffe's. Prints a table of the largest absolute
deviations. Tools: openvino; onnx2torch (PyTorch); coreml (onnx2torch, then coremltools; converts only, as Core ML runs on
Apple's systems alone); onnx2tf (TensorFlow's saved model and LiteRT, once TFLite).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import caffeconv

Blobs = Mapping[str, NDArray[np.float32]]
ROOT = Path(__file__).resolve().parents[1]
CUT = {"detection_out": ("mbox_loc", "mbox_conf_flatten")}
"""Where tools cannot take a detector's last layer: the blobs to stop at."""


@dataclass(frozen=True)
class Case:
    """A model with what Caffe made of one input; images and outputs with their axes in Caffe's order (NCHW)."""

    name: str
    model: Path
    inputs: Blobs
    outputs: tuple[str, ...]
    blobs: Blobs
    """Of each output that Caffe's values are known of."""


def read_case(folder: Path, scratch: Path, *, cut: bool) -> Case:
    """Converts a model for the batch and size of its recorded input."""
    import onnx

    with np.load(folder / "blobs.npz") as recorded:
        blobs = {name: recorded[name] for name in recorded.files}
    inputs = {name[3:]: values[:1] for name, values in blobs.items() if name.startswith("in/")}
    net, weights = folder / "deploy.prototxt", folder / "weights.caffemodel"
    shapes = {name: values.shape for name, values in inputs.items()}
    model = caffeconv.convert(net, weights, batch="keep", shapes=shapes)
    outputs = tuple(value.name for value in model.graph.output)
    if cut and outputs[0] in CUT:
        model = caffeconv.convert(net, weights, batch="keep", shapes=shapes, outputs=CUT[outputs[0]])
        outputs = CUT[outputs[0]]
    path = scratch / f"{folder.name}{'_cut' if cut else ''}.onnx"
    onnx.save(model, path)
    known = {name: blobs[f"blob/{name}"][:1] for name in outputs if f"blob/{name}" in blobs}
    return Case(folder.name, path, inputs, outputs, known)


def by_openvino(case: Case) -> Blobs:
    """Runs the ONNX file as it is."""
    import openvino

    compiled = openvino.Core().compile_model(str(case.model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled([case.inputs[value.get_any_name()] for value in compiled.inputs])
    return {name: results[name] for name in case.outputs}


def by_onnx2torch(case: Case) -> Blobs:
    """Runs it as a torch.nn.Module."""
    import onnx
    import onnx2torch
    import torch

    module = onnx2torch.convert(onnx.load(case.model)).eval()
    with torch.no_grad():
        results = module(*(torch.from_numpy(values) for values in case.inputs.values()))
    arrays = [results] if len(case.outputs) == 1 else list(results)
    return {name: array.numpy() for name, array in zip(case.outputs, arrays, strict=True)}


def by_coreml(case: Case) -> Blobs:
    """Converts to an ML program; nothing runs."""
    import coremltools
    import onnx
    import onnx2torch
    import torch

    module = onnx2torch.convert(onnx.load(case.model)).eval()
    traced = torch.jit.trace(module, tuple(torch.from_numpy(values) for values in case.inputs.values()))
    inputs = [coremltools.TensorType(shape=values.shape) for values in case.inputs.values()]
    coremltools.convert(traced, inputs=inputs, convert_to="mlprogram").save(str(case.model.with_suffix(".mlpackage")))
    return {}


def by_onnx2tf(case: Case) -> Blobs:
    """Runs the .tflite that onnx2tf writes; its images are NHWC."""
    from ai_edge_litert.interpreter import Interpreter

    folder = case.model.with_suffix("")
    command = ["onnx2tf", "-i", str(case.model), "-o", str(folder), "-n", "-coion"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    runner = Interpreter(str(folder / f"{case.model.stem}_float32.tflite")).get_signature_runner()
    inputs = {name: np.moveaxis(values, 1, -1) for name, values in case.inputs.items()}
    results = runner(**{given: inputs[name] for given, name in zip(runner.get_input_details(), inputs, strict=True)})
    return {name: np.moveaxis(v, -1, 1) if (v := results[name]).ndim == 4 else v for name in case.outputs}


TOOLS: dict[str, tuple[str, Callable[[Case], Blobs]]] = {
    "openvino": ("openvino", by_openvino),
    "onnx2torch": ("onnx2torch", by_onnx2torch),
    "coreml": ("coremltools", by_coreml),
    "onnx2tf": ("onnx2tf", by_onnx2tf),
}


def deviation(case: Case, run: Callable[[Case], Blobs]) -> str:
    """The largest absolute deviation from Caffe over all outputs, or what went wrong."""
    try:
        with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):  # noqa: PTH123
            results = run(case)
    except Exception as error:  # whatever a tool raises belongs into the table
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:90]}"
    if not results:
        return "converted"
    worst = [float(np.abs(results[name] - values).max()) for name, values in case.blobs.items()]
    return f"{max(worst):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--zoo", type=Path, default=Path(os.environ.get("CAFFECONV_ZOO", ROOT.parent / "shared" / "zoo"))
    )
    parser.add_argument("--tool", choices=TOOLS, action="append")
    arguments = parser.parse_args()
    folders = sorted(path.parent for path in arguments.zoo.glob("*/blobs.npz"))
    if not folders:
        sys.exit(f"{arguments.zoo}: no models there; give --zoo")
    tools = arguments.tool or [name for name, (module, _) in TOOLS.items() if importlib.util.find_spec(module)]
    with tempfile.TemporaryDirectory() as scratch:
        for tool in tools:
            print(tool)
            for folder in folders:
                print(f"  {folder.name:20}", end=" ", flush=True)
                case = read_case(folder, Path(scratch), cut=False)
                print(deviation(case, TOOLS[tool][1]))
                if case.outputs[0] in CUT and tool != "openvino":
                    case = read_case(folder, Path(scratch), cut=True)
                    print(f"  {'':20} up to {', '.join(case.outputs)}: {deviation(case, TOOLS[tool][1])}")


if __name__ == "__main__":
    main()
