"""One engine with one net in a process of its own: runs it as often as a line of stdin says, and answers with the seconds.

    python engine_child.py ENGINE FOLDER THREADS

ENGINE: onnxruntime, openvino-provider, OpenCV or OpenVINO. FOLDER: net.prototxt, net.caffemodel, net.onnx, input.npz.
Needs numpy and the engine alone, so that it runs in the environment of any of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[], object]


def onnxruntime_run(folder: Path, threads: int, provider: str = "CPUExecutionProvider") -> tuple[Run, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    settings = {"num_of_threads": str(threads), "precision": "FP32"} if provider.startswith("OpenVINO") else {}
    session = onnxruntime.InferenceSession(str(folder / "net.onnx"), options, providers=[(provider, settings)])
    feeds = dict(np.load(folder / "input.npz"))
    return lambda: session.run(None, feeds), onnxruntime.__version__


def opencv_run(folder: Path, threads: int) -> tuple[Run, str]:
    import cv2

    cv2.setNumThreads(threads)
    read = vars(cv2.dnn)["readNetFromCaffe"]  # OpenCV 5 has it no more
    net = read(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
    feeds = dict(np.load(folder / "input.npz"))
    names = net.getUnconnectedOutLayersNames()

    def run() -> object:
        for name, values in feeds.items():
            net.setInput(values, name)
        return net.forward(names)

    return run, cv2.__version__


def openvino_run(folder: Path, threads: int) -> tuple[Run, str]:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(folder / "net.onnx"), "CPU", settings).create_infer_request()
    feeds = dict(np.load(folder / "input.npz"))
    return lambda: request.infer(feeds), openvino.__version__


ENGINES: dict[str, Callable[[Path, int], tuple[Run, str]]] = {
    "onnxruntime": onnxruntime_run,
    "openvino-provider": lambda folder, threads: onnxruntime_run(folder, threads, "OpenVINOExecutionProvider"),
    "OpenCV": opencv_run,
    "OpenVINO": openvino_run,
}


def main() -> None:
    engine, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    try:
        run, version = ENGINES[engine](folder, threads)
        run()
    except Exception as error:  # every engine has exceptions of its own; the parent says which one could not
        print(json.dumps({"error": f"{type(error).__name__}: {error}".splitlines()[0]}), flush=True)
        return
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
