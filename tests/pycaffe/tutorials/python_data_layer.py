# A data layer in Python, and a loss in Python, in a net written beside it (as in the multilabel and FCN examples).
import sys

import numpy as np

import caffeconv.pycaffe as caffe
from caffeconv.pycaffe import layers as L

sys.path.insert(0, sys.argv[1])  # where digit_layers.py is

n = caffe.NetSpec()
n.data, n.label = L.Python(
    module="digit_layers", layer="DigitDataLayer", ntop=2, param_str=str(dict(folder=sys.argv[2], batch_size=2))
)
n.scaled = L.Power(n.data, scale=0.00390625)
n.score = L.InnerProduct(n.scaled, num_output=10, weight_filler=dict(type="constant", value=0.001))
n.loss = L.Python(n.score, n.label, module="digit_layers", layer="SquaredLossLayer", loss_weight=1)
with open("net.prototxt", "w") as f:
    f.write("force_backward: true\n" + str(n.to_proto()))

net = caffe.Net("net.prototxt", caffe.TEST)
seen = []
for i in range(3):
    net.forward()
    seen.append(net.blobs["label"].data.copy())
loss = float(net.blobs["loss"].data.squeeze())
by_hand = ((net.blobs["score"].data - np.eye(10)[seen[-1].astype(int)]) ** 2).sum() / 4
net.backward()
gradient = net.params["score"][1].diff.copy()
gradient_by_hand = (net.blobs["score"].data - np.eye(10)[seen[-1].astype(int)]).sum(0) / 2
print(net.layers[0].indices)
