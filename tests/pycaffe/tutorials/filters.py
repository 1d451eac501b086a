# Looks at the filters of the first layer, normalised and tiled into one picture (vis_square).
import sys

import numpy as np

import caffeconv.pycaffe as caffe

caffe.set_mode_cpu()
net = caffe.Net(sys.argv[1] + "deploy.prototxt", caffe.TEST, weights=sys.argv[1] + "digits.caffemodel")


def vis_square(data):
    data = (data - data.min()) / (data.max() - data.min())
    n = int(np.ceil(np.sqrt(data.shape[0])))
    padding = ((0, n**2 - data.shape[0]), (0, 1), (0, 1)) + ((0, 0),) * (data.ndim - 3)
    data = np.pad(data, padding, mode="constant", constant_values=1)
    data = data.reshape((n, n) + data.shape[1:]).transpose((0, 2, 1, 3) + tuple(range(4, data.ndim + 1)))
    return data.reshape((n * data.shape[1], n * data.shape[3]) + data.shape[4:])


filters = net.params["conv1"][0].data
tiled = vis_square(filters.transpose(0, 2, 3, 1)[:, :, :, 0])

blobs = caffe.proto.caffe_pb2.NetParameter()
with open(sys.argv[1] + "digits.caffemodel", "rb") as f:
    blobs.ParseFromString(f.read())
in_file = {layer.name: caffe.io.blobproto_to_array(layer.blobs[0]) for layer in blobs.layer if layer.blobs}
