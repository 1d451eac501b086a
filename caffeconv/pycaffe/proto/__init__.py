"""Caffe's protobuf messages under pycaffe's name for them: `caffe.proto.caffe_pb2`."""

from caffeconv.pycaffe.proto import caffe_pb2

__all__ = ["caffe_pb2"]
