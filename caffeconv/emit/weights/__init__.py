"""Weights alone: channels last for TensorFlow and Keras, or as Caffe's own files."""
