# Takes features of pictures from a layer, in batches, and saves them.
import os
import sys

import h5py
import numpy as np

import caffeconv.pycaffe as caffe

model_dir, weights, layer, out_file = sys.argv[1:5]
image_list = [os.path.join(model_dir, line.split()[0]) for line in open(os.path.join(model_dir, "pictures.txt"))]
image_list = [path if os.path.exists(path) else os.path.join(model_dir, os.path.basename(path)) for path in image_list]

net = caffe.Classifier(os.path.join(model_dir, "deploy.prototxt"), os.path.join(model_dir, weights), raw_scale=255)
predictions = net.predict([caffe.io.load_image(path, False) for path in image_list], oversample=False)

batch_size = 4
features = []
for i in range(0, len(image_list), batch_size):
    batch = image_list[i : i + batch_size]
    net.blobs["data"].reshape(len(batch), *net.blobs["data"].data.shape[1:])
    for j, path in enumerate(batch):
        net.blobs["data"].data[j] = net.transformer.preprocess("data", caffe.io.load_image(path, False))
    net.forward(end=layer)
    features.append(net.blobs[layer].data.copy())
features = np.vstack(features)

with h5py.File(out_file, "w") as f:
    f.create_dataset("features", data=features)
