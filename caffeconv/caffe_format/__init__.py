"""Caffe's own files, in both directions: prototxt, caffemodel, HDF5, and old ones in today's form."""
