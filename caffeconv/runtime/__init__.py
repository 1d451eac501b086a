"""Runs ONNX models: sessions, pictures and arrays in, predictions out. Nothing here knows Caffe's nets."""
