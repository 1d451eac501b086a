# The layers of python_data_layer.py: this module says `import caffe`, as it did for Caffe.
import os

import caffe
import numpy as np


class DigitDataLayer(caffe.Layer):
    """Pictures of digits and their labels."""

    def setup(self, bottom, top):
        params = eval(self.param_str)
        self.folder, self.batch_size = params["folder"], params["batch_size"]
        if len(top) != 2:
            raise Exception("Need to define two tops: data and label.")
        if len(bottom) != 0:
            raise Exception("Do not define a bottom.")
        self.transformer = caffe.io.Transformer({"data": (1, 1, 28, 28)})
        self.transformer.set_transpose("data", (2, 0, 1))
        self.transformer.set_raw_scale("data", 255)
        self.indices = list(range(10))
        top[0].reshape(self.batch_size, 1, 28, 28)
        top[1].reshape(self.batch_size)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        for i in range(self.batch_size):
            digit = self.indices[0]
            self.indices = self.indices[1:] + [digit]
            image = caffe.io.load_image(os.path.join(self.folder, "%d.png" % digit), False)
            top[0].data[i, ...] = self.transformer.preprocess("data", image)
            top[1].data[i, ...] = digit

    def backward(self, top, propagate_down, bottom):
        pass


class SquaredLossLayer(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")

    def reshape(self, bottom, top):
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - np.eye(10)[bottom[1].data.astype(int)]
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff[0] * self.diff / bottom[0].num
