"""Where data layers get their values: databases, lists of pictures, HDF5 files, windows, the caller's memory.

Nothing here knows of nets or ONNX; a source gives the tops of one layer, a batch at a time, as Caffe's layer would.
"""
