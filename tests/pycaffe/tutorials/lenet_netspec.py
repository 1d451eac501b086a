# Writes LeNet with NetSpec over a database, and tests it, as Caffe's notebook 01-learning-lenet does before training.
import sys

import caffeconv.pycaffe as caffe
from caffeconv.pycaffe import layers as L
from caffeconv.pycaffe import params as P


def lenet(lmdb, batch_size):
    # our version of LeNet: a series of linear and simple nonlinear transformations
    n = caffe.NetSpec()

    n.data, n.label = L.Data(batch_size=batch_size, backend=P.Data.LMDB, source=lmdb, ntop=2)
    n.scaled = L.Power(n.data, scale=0.00390625)

    n.conv1 = L.Convolution(n.scaled, kernel_size=5, num_output=8, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.conv2 = L.Convolution(n.pool1, kernel_size=5, num_output=16, weight_filler=dict(type="xavier"))
    n.pool2 = L.Pooling(n.conv2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool2, num_output=64, weight_filler=dict(type="xavier"), name="ip1")
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=10, weight_filler=dict(type="xavier"), name="ip2")
    n.loss = L.SoftmaxWithLoss(n.score, n.label)

    return n.to_proto()


with open("lenet_auto_test.prototxt", "w") as f:
    f.write(str(lenet(sys.argv[1], 5)))

caffe.set_random_seed(0)
net = caffe.Net("lenet_auto_test.prototxt", caffe.TEST)
untrained = net.forward()["loss"].copy()

# each output is (batch size, feature dim, spatial dim)
shapes = [(k, v.data.shape) for k, v in net.blobs.items()]

net.copy_from(sys.argv[2])
correct = 0
for test_it in range(2):
    net.forward()
    correct += sum(net.blobs["score"].data.argmax(1) == net.blobs["label"].data)

# start the forward pass at conv1 to avoid loading new data
net.forward()
labels = net.blobs["label"].data.copy()
net.forward(start="conv1")
again = net.blobs["score"].data.argmax(1)
