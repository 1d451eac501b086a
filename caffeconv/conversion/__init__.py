"""The pipeline: load a net, convert it, write it, upgrade a file."""
