"""Caffe's messages and enums (caffeconv.caffe_pb2)."""

from caffeconv.caffe_pb2 import *  # noqa: F403 - the whole schema, as in Caffe's own module
