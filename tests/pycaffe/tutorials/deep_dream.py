# Changes a picture so that a layer's activations grow (as Google's deepdream notebook: text_format, end, start, diff).
import sys

import numpy as np
from google.protobuf import text_format

import caffeconv.pycaffe as caffe

# patch the model to be able to compute gradients
model = caffe.io.caffe_pb2.NetParameter()
text_format.Merge(open(sys.argv[1] + "deploy.prototxt").read(), model)
model.force_backward = True
open("tmp.prototxt", "w").write(str(model))

net = caffe.Classifier("tmp.prototxt", sys.argv[1] + "digits.caffemodel", mean=np.float32([0.0]))


def objective_L2(dst):
    dst.diff[:] = dst.data


def make_step(net, step_size=1.5, end="conv2", objective=objective_L2):
    src = net.blobs["data"]  # input image is stored in Net's 'data' blob
    dst = net.blobs[end]
    net.forward(end=end)
    objective(dst)
    net.backward(start=end)
    g = src.diff[0]
    src.data[:] += step_size / np.abs(g).mean() * g
    return float((dst.data**2).sum())


src = net.blobs["data"]
src.reshape(1, 1, 28, 28)
src.data[0] = net.transformer.preprocess("data", caffe.io.load_image(sys.argv[1] + "5.png", False) * 255)
energy = [make_step(net) for i in range(6)]
