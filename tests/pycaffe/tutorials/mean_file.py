# Turns a mean file into an .npy and classifies with it (the snippet of a hundred answers).
import sys

import numpy as np

import caffeconv.pycaffe as caffe

blob = caffe.proto.caffe_pb2.BlobProto()
data = open(sys.argv[1], "rb").read()
blob.ParseFromString(data)
arr = np.array(caffe.io.blobproto_to_array(blob))
np.save("mean.npy", arr[0])

mu = np.load("mean.npy")
mu = mu.mean(1).mean(1)  # average over pixels to obtain the mean (BGR) pixel values
transformer = caffe.io.Transformer({"data": (1, len(mu), 8, 8)})
transformer.set_transpose("data", (2, 0, 1))
transformer.set_mean("data", mu)
transformer.set_raw_scale("data", 255)
transformer.set_channel_swap("data", (2, 1, 0))
image = np.full((16, 16, 3), (1.0, 0.5, 0.0), np.float32)
x = transformer.preprocess("data", image)
