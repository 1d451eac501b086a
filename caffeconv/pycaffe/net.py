"""`caffe.Net`: caffeconv.Net, made and called as pycaffe's (caffe: _caffe.cpp, pycaffe.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from caffeconv.caffe_format.terms import Phase
from caffeconv.errors import CaffeconvError, InvalidNetError
from caffeconv.files.atomic import PathLike
from caffeconv.net import net as caffeconv_net
from caffeconv.net.blobs import NetBlob
from caffeconv.pycaffe import mode
from caffeconv.pycaffe.errors import PycaffeNetError, PycaffeRuntimeError, PycaffeTypeError
from caffeconv.python_layers.host import AllowPython
from caffeconv.tensor.shape import FloatArray

_PHASES: tuple[Phase, Phase] = ("TRAIN", "TEST")
Stages = str | Iterable[str] | None


class Net(caffeconv_net.Net):
    """A net as pycaffe has it.

    Args:
        network_file: the prototxt.
        phase: caffe.TRAIN or caffe.TEST.
        level, stages: Caffe's NetState.
        weights: caffemodel or Caffe's HDF5; also as the second argument, before the phase.
        allow_python: where modules of `type: "Python"` layers may come from. "path": where Python itself looks, as in
            Caffe; True: also the current folder and the prototxt's; False: none is imported, and such a net refused.
        output_dir: the folder that HDF5Output layers may write in; None: the current one, unless `allow_python` is False.

    Raises:
        RuntimeError: a file is not there.
        TypeError: no phase, or arguments of other kinds.
        CaffeconvError: whatever is wrong with the net or the weights; it is the base of those raised for the above. What
            a Python layer raises in its `setup` is a RuntimeError too, as any fault of the net.
    """

    @overload
    def __init__(
        self, network_file: PathLike, phase: int, level: int = 0, stages: Stages = None, weights: PathLike | None = None,
        *, allow_python: AllowPython = "path", output_dir: PathLike | None = None,
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self, network_file: PathLike, weights: PathLike, phase: int, *, allow_python: AllowPython = "path",
        output_dir: PathLike | None = None,
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self, network_file: PathLike, *, phase: int, weights: PathLike | None = None, level: int = 0,
        stages: Stages = None, allow_python: AllowPython = "path", output_dir: PathLike | None = None,
    ) -> None: ...  # fmt: skip

    def __init__(  # the overloads say which of these go together
        self, network_file: PathLike, *positional: PathLike | int | Stages, phase: int | None = None,
        level: int | None = None, stages: Stages = None, weights: PathLike | None = None,
        allow_python: AllowPython = "path", output_dir: PathLike | None = None,
    ) -> None:  # fmt: skip
        arguments = _Arguments.of(positional, {"phase": phase, "level": level, "stages": stages, "weights": weights})
        for path in (network_file, arguments.weights):
            # caffe: _caffe.cpp, CheckFile
            if path is not None and not Path(path).is_file():
                raise PycaffeRuntimeError(f"Could not open file {path}; it is not there, seen from {Path.cwd()}")
        current = mode.current()
        try:
            super().__init__(
                network_file, arguments.weights, arguments.phase, level=arguments.level, stages=arguments.stages,
                allow_python=allow_python, output_dir=output_dir, provider=current.provider, seed=current.seed,
            )  # fmt: skip
        except InvalidNetError as error:
            raise PycaffeNetError(error.diagnostics) from error

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: ArrayLike
    ) -> dict[str, FloatArray]:
        """As caffeconv.Net.forward; all inputs or none are given, in batches of the net's size.

        Raises CaffeconvError where they are not, and as caffeconv.Net.forward.
        """
        if inputs and inputs.keys() != set(self.inputs):
            raise CaffeconvError(
                f"Input blob arguments do not match net inputs. Given: {', '.join(inputs)}; "
                f"the net's: {', '.join(self.inputs) or 'none, its data layers read'}"
            )
        for name, values in inputs.items():
            number = np.shape(values)[:1]
            if number != self.blobs[name].shape[:1]:
                raise CaffeconvError(
                    f"Input is not batch sized: '{name}' has {number[0] if number else 'no'} items, the net takes "
                    f"{self.blobs[name].num}. blobs['{name}'].reshape(…) gives it another size; forward_all takes any"
                )
        return super().forward(blobs, start, end, **inputs)

    def before_backward(self, call: Callable[[int], object]) -> None:
        """Not supported: raises CaffeconvError; the backward pass runs as one piece."""
        raise CaffeconvError("before_backward: a backward pass runs as one piece; backward(start=…, end=…) runs a part")

    def after_backward(self, call: Callable[[int], object]) -> None:
        """As `before_backward`."""
        raise CaffeconvError("after_backward: a backward pass runs as one piece; backward(start=…, end=…) runs a part")

    @property
    def _layer_names(self) -> list[str]:
        return self.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blobs(self) -> list[NetBlob]:
        return list(self.blobs.values())


@dataclass(frozen=True)
class _Arguments:
    """What a net is made with besides its prototxt."""

    phase: Phase
    level: int
    stages: tuple[str, ...]
    weights: str | None

    @classmethod
    def of(cls, positional: Sequence[object], keywords: Mapping[str, object]) -> _Arguments:
        """From (phase, level, stages, weights), or (weights, phase), and keywords; TypeError for anything else."""
        old = bool(positional) and isinstance(positional[0], (str, os.PathLike))
        names = ("weights", "phase") if old else ("phase", "level", "stages", "weights")
        by_keyword = {name: value for name, value in keywords.items() if value is not None}
        by_position = dict(zip(names, positional, strict=False))
        if len(positional) > len(names) or by_position.keys() & by_keyword.keys():
            raise _usage_error("too many arguments, or one of them twice")
        values = {**by_position, **by_keyword}
        phase, level, stages, weights = (values.get(name) for name in ("phase", "level", "stages", "weights"))
        if not isinstance(phase, (int, np.integer)) or phase not in (0, 1):
            what = "missing" if phase is None else repr(phase)
            raise _usage_error(f"phase is {what}; caffe.TEST (1) or caffe.TRAIN (0) was needed")
        if not isinstance(level, (int, np.integer, type(None))):
            raise _usage_error(f"level is {level!r}; a whole number was needed")
        if not isinstance(stages, (Iterable, type(None))):
            raise _usage_error(f"stages is {stages!r}; a list of names was needed")
        if not isinstance(weights, (str, os.PathLike, type(None))):
            raise _usage_error(f"weights is {weights!r}; the path of a weights file was needed")
        named_stages = (stages,) if isinstance(stages, str) else tuple(str(stage) for stage in stages or ())
        return cls(_PHASES[int(phase)], int(level or 0), named_stages, None if weights is None else str(weights))


def _usage_error(what: str) -> PycaffeTypeError:
    return PycaffeTypeError(f"Net(…): {what}. Write Net(net, phase, weights=…) or Net(net, weights, phase)")
