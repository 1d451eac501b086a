# Classifies a picture, as Caffe's notebook 00-classification does.
import sys

import numpy as np

import caffeconv.pycaffe as caffe

caffe_root, model = sys.argv[1:3]
caffe.set_mode_cpu()

net = caffe.Net(
    caffe_root + "deploy.prototxt",  # defines the structure of the model
    caffe_root + model,  # contains the trained weights
    caffe.TEST,
)

transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
transformer.set_transpose("data", (2, 0, 1))
transformer.set_raw_scale("data", 255)

net.blobs["data"].reshape(5, 1, 28, 28)
image = caffe.io.load_image(caffe_root + "7.png", color=False)
transformed_image = transformer.preprocess("data", image)
net.blobs["data"].data[...] = transformed_image

output = net.forward()
output_prob = output["prob"][0]
predicted = output_prob.argmax()

labels = np.loadtxt(caffe_root + "labels.txt", str, delimiter="\t")
top_inds = output_prob.argsort()[::-1][:5]
print("output label:", labels[predicted])
print(list(zip(output_prob[top_inds], labels[top_inds])))

# for each layer, show the output shape, then the parameters
for layer_name, blob in net.blobs.items():
    print(layer_name + "\t" + str(blob.data.shape))
for layer_name, param in net.params.items():
    print(layer_name + "\t" + str(param[0].data.shape), str(param[1].data.shape))

filters = net.params["conv1"][0].data
feat = net.blobs["conv1"].data[0, :36]
hist = np.histogram(feat[feat > 0], bins=100)
