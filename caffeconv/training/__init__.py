"""Caffe's solver: the solver file, learning rates, update rules, snapshots, and the log."""
