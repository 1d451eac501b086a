"""Runs a net in OpenCV's importer for Caffe, in a process of its own.

Standard input: JSON as for pycaffe_child. Standard output: JSON {"names": [[layer, number of the top], …], "versions"}.
"""

import json
import sys

sys.path[:] = [folder for folder in sys.path if folder]  # not the current folder: what lies there is not to be run
import numpy as np  # noqa: E402


def main():  # type: ignore[no-untyped-def]
    request = json.load(sys.stdin)
    import cv2

    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        sys.exit("OpenCV %s has no importer for Caffe any more; 4.x has" % cv2.__version__)

    net = cv2.dnn.readNetFromCaffe(request["net"], *request["weights"])  # type: ignore[attr-defined,unused-ignore]
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableFusion(False)
    inputs = np.load(request["inputs"])
    for i, name in enumerate(request["names"]):
        net.setInput(inputs["arr_%d" % i], str(name))
    layers = [name for name in net.getLayerNames() if name in request["layers"]]
    results = net.forwardAndRetrieve(layers)
    outputs = {(layer, i): blob for layer, blobs in zip(layers, results) for i, blob in enumerate(blobs)}
    np.savez(request["outputs"], *outputs.values())
    versions = {"python": sys.version.split()[0], "numpy": np.__version__, "opencv": cv2.__version__}
    json.dump({"names": list(outputs), "versions": versions}, sys.stdout)


main()
