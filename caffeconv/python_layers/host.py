"""The user's own Python layers: their modules imported, their objects set up, reshaped and run, as Caffe does it.

caffe: layer_factory.cpp (GetPythonLayer), include/caffe/layers/python_layer.hpp.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Literal

import numpy as np

from caffeconv.caffe_format.terms import Phase
from caffeconv.errors import CaffeconvError
from caffeconv.python_layers import blobs
from caffeconv.python_layers.blobs import Blob, BlobVec, Layer
from caffeconv.tensor.shape import FloatArray, Shape, Shapes

MAX_SHAPES = 256
"""For how many shapes of its bottoms a layer remembers those of its tops."""


class PythonLayerError(CaffeconvError):
    """The user's code went wrong; the message holds its traceback, and `__cause__` is the exception itself."""


class PythonModuleError(PythonLayerError):
    """The user's module is not there, or has no such class."""


@dataclass(frozen=True)
class PythonParam:
    """What the prototxt says of a Python layer. in_place: for each top, the bottom that is the same blob, if one is."""

    module: str
    layer: str
    param_str: str
    phase: Phase
    in_place: tuple[int | None, ...]


class PythonLayerHost:
    """The user's code of one net: what the caller allows to be imported and run.

    Modules are looked for where Python looks (PYTHONPATH), in the current folder, and beside the prototxt. Those of the
    latter two belong to this net alone: two nets may each have a `layers.py` beside them. Without a `directory`, the
    prototxt's, they are looked for where Python looks, and nowhere else.
    """

    def __init__(self, directory: Path | None) -> None:
        self.layers: dict[str, PythonLayer] = {}
        """Key → layer: its name, or one made of it where an earlier layer has the same."""
        self._directory = None if directory is None else str(directory.absolute())
        self._modules: dict[str, ModuleType] = {}
        self._caffe_installed = _finds_caffe()

    def layer(self, name: str, where: str, tops: tuple[str, ...], param: PythonParam) -> PythonLayer:
        """The layer of that name that makes the values `tops`; made when first asked for, set up when its shapes are."""
        key, number = name, 1
        while key in self.layers and (self.layers[key].tops, self.layers[key].param) != (tops, param):
            number += 1
            key = f"{name}_{number}"
        return self.layers.setdefault(key, PythonLayer(self, key, where, tops, param))

    def finds(self, module: str) -> bool:
        """Whether there is such a module; the packages around it are imported to tell."""
        with self.running():
            try:
                return importlib.util.find_spec(module) is not None
            except (ModuleNotFoundError, ValueError):
                return False
            except Exception:  # whatever code around it raises: importing it says so again, in words
                return True

    def begin_pass(self) -> None:
        """From here on every layer runs once more; until then it gives again what it gave."""
        for layer in self.layers.values():
            layer.ran = False

    def learn_shapes(self) -> None:
        """Makes what the last pass made of some bottoms' shapes the plan for these."""
        for layer in self.layers.values():
            layer.learn_shapes()

    def find_class(self, param: PythonParam) -> type[Layer]:
        """The class that a layer names; UserCodeError where it cannot be imported."""
        folders = self._folders()
        with self.running():
            importlib.invalidate_caches()
            try:
                module = importlib.import_module(param.module)
            except ModuleNotFoundError as error:
                if error.name is None or error.name != param.module[: len(error.name)]:
                    raise
                places = (
                    f"on sys.path (PYTHONPATH), in {folders[0]} and beside the prototxt, in {folders[-1]}"
                    if folders
                    else "on sys.path only: put its folder on PYTHONPATH, or pass allow_python=True, with which it is "
                    "looked for in the current folder and beside the prototxt too"
                )
                raise PythonModuleError(f"No module named '{error.name}'; it was looked for {places}") from None
        kind: type[Layer] | None = getattr(module, param.layer, None)
        if not isinstance(kind, type):
            classes = [
                name for name, value in vars(module).items() if isinstance(value, type) and hasattr(value, "setup")
            ]
            listed = f"; layers in it: {', '.join(classes)}" if classes else ""
            raise PythonModuleError(f"module '{param.module}' ({module.__file__}) has no class '{param.layer}'{listed}")
        return kind

    @contextmanager
    def running(self) -> Iterator[None]:
        """Where imports of the user's code, also those made while it runs, find this net's modules and `caffe`."""
        added = [folder for folder in dict.fromkeys(self._folders()) if folder not in sys.path]
        own = {name: module for name, module in self._modules.items() if name not in sys.modules}
        if "caffe" not in sys.modules and not self._caffe_installed:
            own |= _pycaffe()
        sys.modules.update(own)
        before = len(sys.modules)
        sys.path.extend(added)
        try:
            yield
        finally:
            for folder in added:
                sys.path.remove(folder)
            for name in list(sys.modules)[before:] if len(sys.modules) > before else ():  # the last ones are new
                if _lies_in(added, name, sys.modules[name]):
                    self._modules[name] = own[name] = sys.modules[name]
            for name, module in own.items():
                if sys.modules.get(name) is module:
                    del sys.modules[name]

    def _folders(self) -> tuple[str, ...]:
        return () if self._directory is None else (str(Path.cwd()), self._directory)


def _finds_caffe() -> bool:
    """Whether a Caffe of the user's own could be imported; it goes before what stands for it here."""
    try:
        spec = importlib.util.find_spec("caffe")
    except (ImportError, ValueError):
        return False
    # a folder called caffe (its sources, say) is a namespace package: no module
    return spec is not None and spec.origin is not None


def _pycaffe() -> dict[str, ModuleType]:
    """caffeconv.pycaffe and its parts under the names `caffe`, `caffe.io`, …"""
    # by name, because it stands above this stage: it is the user's module that imports it, from here we only say where
    # it is
    ours = importlib.import_module("caffeconv.pycaffe").__name__
    return {
        f"caffe{name.removeprefix(ours)}": module
        for name, module in list(sys.modules.items())
        if name == ours or name.startswith(f"{ours}.")
    }


def _lies_in(folders: Sequence[str], name: str, module: ModuleType) -> bool:
    """Whether a module was found in one of the folders itself: a file there, or part of a package there."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    root = name.partition(".")[0]
    starts = tuple(f"{Path(folder) / root}{end}" for folder in folders for end in (".", "/", "\\"))
    return any(f"{place}/".startswith(starts) for place in places if place)


class PythonLayer:
    """One Python layer of a net: the object of the user's class, and its blobs."""

    def __init__(self, code: PythonLayerHost, key: str, where: str, tops: tuple[str, ...], param: PythonParam) -> None:
        self.key = key
        self.where = where
        self.tops = tops
        self.param = param
        self.ran = False
        """Whether it has run in this pass."""
        self.open_axis: int | None = None
        """0 once a pass made another number of rows than `reshape` had said."""
        self._code = code
        self.object: Layer | None = None
        """The object of the user's class, once it is set up."""
        self._failed: PythonLayerError | None = None
        self._bottoms: list[Blob] = []
        self._bottoms_before: tuple[Shape, ...] = ()
        self._tops: list[Blob] = []
        self._shapes: dict[tuple[Shape, ...], tuple[Shape, ...]] = {}
        self._given_params: list[FloatArray] = []
        self._first_values: list[FloatArray] = []

    @property
    def _what(self) -> str:
        return f"layer '{self.param.layer}' of module '{self.param.module}'"

    # -- shapes --------------------------------------------------------------------------------------------------------

    def top_shapes(self, bottoms: Shapes) -> tuple[Shape, ...]:
        """The tops' shapes by the layer's `reshape`, or as a pass made them; the first call sets the layer up."""
        key = tuple(tuple(shape) for shape in bottoms)
        if self.object is None:
            self._set_up(key)
        if key not in self._shapes:
            if len(self._shapes) >= MAX_SHAPES:
                del self._shapes[next(iter(self._shapes))]
            self._shapes[key] = self._planned(key)
        return self._shapes[key]

    def learn_shapes(self) -> None:
        """Makes the tops' shapes of this pass those that the bottoms' shapes give."""
        if not self.ran:
            return
        bottoms, actual = self._bottoms_before, self.actual_shapes
        planned = self._shapes.get(bottoms, actual)
        if planned != actual and all(a[1:] == b[1:] and len(a) == len(b) for a, b in zip(planned, actual, strict=True)):
            self.open_axis = 0
        self._shapes[bottoms] = actual

    @property
    def actual_shapes(self) -> tuple[Shape, ...]:
        """The tops' shapes after the last pass."""
        return tuple(top.shape for top in self._tops)

    def param_shapes(self) -> tuple[Shape, ...]:
        return tuple(values.shape for values in self._first_values)

    def first_values(self, index: int) -> FloatArray:
        """What `setup` put into a parameter."""
        return self._first_values[index]

    def _set_up(self, bottoms: tuple[Shape, ...]) -> None:
        if self._failed is not None:
            raise self._failed
        self._bottoms = [Blob(*shape) for shape in bottoms]
        self._tops = self._blobs_of_tops(self._bottoms)
        try:
            layer = self._make()
            with self._code.running():
                self._call("setup", layer, self._bottoms, self._tops)
                self._call("reshape", layer, self._bottoms, self._tops)
        except PythonLayerError as error:
            self._failed = error
            raise
        self.object = layer
        self._shapes[bottoms] = self.actual_shapes
        self._bottoms_before = bottoms
        self._first_values = [np.array(blob.data) for blob in layer.blobs]

    def _make(self) -> Layer:
        with self._placed("import"):
            kind = self._code.find_class(self.param)
            # a real pycaffe's Layer can be made by Caffe only
            layer = kind(None) if Layer in kind.__mro__ else kind.__new__(kind)
            layer.param_str = layer.param_str_ = self.param.param_str
            layer.phase = blobs.TRAIN if self.param.phase == "TRAIN" else blobs.TEST
            layer.blobs = BlobVec()
        return layer

    def _planned(self, bottoms: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """What `reshape` says, asked of a copy, so that the layer keeps what it has for the shapes it is at."""
        assert self.object is not None
        scratch = [Blob(*shape) for shape in bottoms]
        tops = self._blobs_of_tops(scratch)
        for top, current, aliased in zip(tops, self._tops, self.param.in_place, strict=True):
            if aliased is None:
                top.reshape(*current.shape)
        with self._code.running():
            self._call("reshape", _copied(self.object), scratch, tops)
        return tuple(top.shape for top in tops)

    def _blobs_of_tops(self, bottoms: Sequence[Blob]) -> list[Blob]:
        return [Blob() if index is None else bottoms[index] for index in self.param.in_place]

    # -- passes --------------------------------------------------------------------------------------------------------

    def forward(self, bottoms: Sequence[FloatArray], params: Sequence[FloatArray]) -> list[FloatArray]:
        """The tops; runs the user's `reshape` and `forward` unless they have run in this pass."""
        assert self.object is not None
        if self.ran:
            return [top.data for top in self._tops]
        for blob, values in zip(self._bottoms, bottoms, strict=True):
            blob.reshape(*values.shape)
            blob.data[...] = values
        self._bottoms_before = tuple(values.shape for values in bottoms)
        self._give_params(params)
        with self._code.running():
            self._call("reshape", self.object, self._bottoms, self._tops)
            self._call("forward", self.object, self._bottoms, self._tops)
        self.ran = True
        return [top.data for top in self._tops]

    def backward(self, top_diffs: Sequence[FloatArray], propagate_down: Sequence[bool]) -> list[FloatArray]:
        """The diffs of all bottoms, then of all parameters, which hold what earlier passes left until the code writes there."""
        assert self.object is not None
        for top, diff in zip(self._tops, top_diffs, strict=True):
            top.diff[...] = diff
        with self._code.running():
            self._call("backward", self.object, self._tops, list(propagate_down), self._bottoms)
        return [blob.diff for blob in (*self._bottoms, *self.object.blobs)]

    def write(self, bottoms: Sequence[FloatArray]) -> None:
        """What a layer without tops does in a pass."""
        self.ran = False
        self.forward(bottoms, ())

    def _give_params(self, params: Sequence[FloatArray]) -> None:
        """Puts values that are new into the layer's blobs; what the layer itself writes there stays otherwise."""
        assert self.object is not None
        if len(self._given_params) == len(params) and all(map(np.array_equal, self._given_params, params)):
            return
        self._given_params = [np.array(values) for values in params]
        for blob, values in zip(self.object.blobs, params, strict=True):
            blob.data[...] = values.reshape(blob.shape)

    def _call(self, method: str, layer: Layer, *arguments: object) -> None:
        with self._placed(method):
            getattr(layer, method)(*arguments)

    @contextmanager
    def _placed(self, step: str) -> Iterator[None]:
        try:
            yield
        except PythonLayerError:
            raise
        except Exception as error:
            own = _of_the_user(error.__traceback__)
            text = "".join(traceback.format_exception(type(error), error, own)).rstrip()
            raise PythonLayerError(f"{self._what} failed in {step}\n{text}") from error.with_traceback(own)


def _copied(layer: Layer) -> Layer:
    """A copy of the user's object, or the object itself where its class (a real pycaffe's) allows none."""
    try:
        return copy.copy(layer)
    except Exception:  # whatever the user's own __reduce__, or Boost, raises
        return layer


def _of_the_user(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is neither ours nor the import system's."""
    here = {__file__, importlib.__file__, contextmanager.__code__.co_filename}
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in here and not file.startswith("<frozen importlib"):
            return trace
        trace = trace.tb_next
    return None


AllowPython = bool | Literal["path"]
"""Whether the modules of Python layers, which are the user's code, may be imported and run; "path": only those that
Python itself finds, on sys.path, as in Caffe."""
