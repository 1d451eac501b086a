"""Reads one array out of a MATLAB file from before version 7.3, in a process of its own: scipy's reader trusts the file.

Argument: the file. Standard output: the array called H, or the only one of numbers, as .npy. Standard error: why not.
"""

import math
import pathlib
import sys

NUMBERS = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


def main() -> None:
    path = pathlib.Path(sys.argv[1])
    try:
        import numpy as np
        from scipy.io import loadmat, whosmat
    except ImportError:
        sys.exit(
            "a MATLAB file from before version 7.3, which only scipy reads; `pip install scipy`, or save it with "
            "save(…, '-v7.3')"
        )
    try:
        shapes = {name: shape for name, shape, kind in whosmat(str(path)) if kind in NUMBERS}
        if "H" not in shapes and len(shapes) != 1:
            sys.exit(f"no array of numbers called 'H'; it has {', '.join(shapes) or 'none'}")
        name = "H" if "H" in shapes else next(iter(shapes))
        claimed, stored = 8 * math.prod(shapes[name]), path.stat().st_size
        if claimed > 1 << 28 and claimed > 100 * stored:
            sys.exit(f"{claimed} bytes of values in a file of {stored}; save it without compression")
        values = loadmat(str(path), variable_names=[name])[name]
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
            sys.exit(f"no array of numbers called '{name}'")
        np.save(sys.stdout.buffer, values, allow_pickle=False)
    except Exception as error:  # scipy's reader raises whatever a damaged file makes it stumble over
        sys.exit(f"not readable as a MATLAB file: {error!r}")


main()
