"""Runs a net in pycaffe, in a process of its own: Caffe ends the process where something is wrong.

Standard input: JSON {"net", "weights", "inputs", "outputs"}. Standard output: JSON {"names": [[blob, -1], …],
"versions"}, or nothing. Written for Python 2.7 and 3.5 on, which Caffe was built for.
"""

import json
import sys

sys.path[:] = [folder for folder in sys.path if folder]  # not the current folder: what lies there is not to be run
import numpy as np  # noqa: E402


def text(value):  # type: ignore[no-untyped-def]
    """A name as this Python's Caffe takes it."""
    return value.encode("utf-8") if sys.version_info[0] == 2 else value


def main():  # type: ignore[no-untyped-def]
    request = json.load(sys.stdin)
    import caffe  # type: ignore[import-not-found,unused-ignore]

    if not hasattr(caffe, "_caffe") or "caffeconv" in sys.modules:
        sys.exit("%s is not the pycaffe that comes with Caffe" % getattr(caffe, "__file__", "caffe"))
    caffe.set_mode_cpu()
    net = caffe.Net(text(request["net"]), caffe.TRAIN if request["phase"] == "TRAIN" else caffe.TEST)
    for path in request["weights"]:
        net.copy_from(text(path))
    inputs = np.load(request["inputs"])
    arrays = {text(name): inputs["arr_%d" % i] for i, name in enumerate(request["names"])}
    for name, array in arrays.items():
        net.blobs[name].reshape(*array.shape)
    net.reshape()
    for name, array in arrays.items():
        net.blobs[name].data[...] = array
    net.forward()
    names = list(net.blobs)
    np.savez(request["outputs"], *[net.blobs[name].data for name in names])
    versions = {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "caffe": getattr(caffe, "__version__", "unknown"),
    }
    json.dump({"names": [[name, -1] for name in names], "versions": versions}, sys.stdout)


main()
