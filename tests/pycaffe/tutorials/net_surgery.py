# Edits filters and makes a classifier fully convolutional, as Caffe's notebook net_surgery does.
import sys

import numpy as np

import caffeconv.pycaffe as caffe

caffe_root, model, full_conv = sys.argv[1:4]

net = caffe.Net(caffe_root + "deploy.prototxt", caffe_root + model, caffe.TEST)
print("blobs {}\nparams {}".format(net.blobs.keys(), net.params.keys()))

# pick first filter, and blur with it
im_input = caffe.io.load_image(caffe_root + "3.png", color=False).transpose(2, 0, 1)[np.newaxis] * 255
params = list(net.params.keys())
fc_params = {pr: (net.params[pr][0].data, net.params[pr][1].data) for pr in params if pr.startswith("ip")}
for fc in fc_params:
    print(
        "{} weights are {} dimensional and biases are {} dimensional".format(
            fc, fc_params[fc][0].shape, fc_params[fc][1].shape
        )
    )

# Load the fully convolutional network to transplant the parameters.
net_full_conv = caffe.Net(full_conv, caffe_root + model, caffe.TEST)
params_full_conv = ["ip1-conv", "ip2-conv"]
conv_params = {pr: (net_full_conv.params[pr][0].data, net_full_conv.params[pr][1].data) for pr in params_full_conv}

for pr, pr_conv in zip(["ip1", "ip2"], params_full_conv):
    conv_params[pr_conv][0].flat = fc_params[pr][0].flat  # flat unrolls the arrays
    conv_params[pr_conv][1][...] = fc_params[pr][1]

net_full_conv.save("full_conv.caffemodel")

# make classification map by forward and print prediction indices at each location
net_full_conv.blobs["data"].reshape(*im_input.shape)
net_full_conv.reshape()
net_full_conv.blobs["data"].data[...] = im_input
out = net_full_conv.forward()
prob_map = out["prob"][0]
print(prob_map.argmax(axis=0))

# the same weights in the file, and in the net at each place that its window can take
again = caffe.Net(full_conv, "full_conv.caffemodel", caffe.TEST)
again.blobs["data"].reshape(*im_input.shape)
prob_again = again.forward_all(data=im_input)["prob"][0]
places = [(y, x) for y in range(prob_map.shape[1]) for x in range(prob_map.shape[2])]
crops = np.concatenate([im_input[:, :, 4 * y : 4 * y + 28, 4 * x : 4 * x + 28] for y, x in places])
prob_windows = net.forward_all(data=crops)["prob"]

# filters that do nothing
net.params["conv1"][0].data[1:] = 0.0
net.params["conv1"][1].data[...] = 0
one_filter = net.forward_all(blobs=["conv1"], data=crops[:1])["conv1"]
