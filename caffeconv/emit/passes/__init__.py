"""ONNX model → ONNX model: half precision, channels last, preprocessing."""
