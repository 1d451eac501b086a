"""The data that flows, the contract that a layer type fulfils, and the builder that it writes ONNX to."""
