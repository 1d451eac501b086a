"""What a blob is without its layer: shapes, parameter values wherever they lie, windows, axis orders."""
