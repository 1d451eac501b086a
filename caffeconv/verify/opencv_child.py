"""Runs a net in OpenCV's importer for Caffe, in a process of its own.

Standard input: JSON as for pycaffe_child. Standard output: JSON of (layer, number of the top).
"""

import json
import sys

sys.path[:] = [folder for folder in sys.path if folder]  # not the current folder: what lies there is not to be run
import numpy as np  # noqa: E402


def main() -> None:
    asked = json.load(sys.stdin)
    import cv2

    net = cv2.dnn.readNetFromCaffe(asked["net"], *asked["weights"])  # type: ignore[attr-defined,unused-ignore]
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableFusion(False)
    with np.load(asked["inputs"]) as inputs:
        for i, name in enumerate(asked["names"]):
            net.setInput(inputs[f"arr_{i}"], name)
    layers = [name for name in net.getLayerNames() if name in asked["layers"]]
    results = net.forwardAndRetrieve(layers)
    made = {(layer, i): blob for layer, blobs in zip(layers, results, strict=True) for i, blob in enumerate(blobs)}
    np.savez(asked["outputs"], *made.values())
    json.dump(list(made), sys.stdout)


main()
