"""A net as pycaffe has it, on onnxruntime."""
