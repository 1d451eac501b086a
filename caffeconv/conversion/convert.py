"""prototxt + weights → ONNX model: runs the stages in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from caffeconv.caffe_format.terms import Phase
from caffeconv.conversion.load import Loaded, load, source_metadata
from caffeconv.conversion.to_onnx import choose_outputs, to_onnx
from caffeconv.emit.metadata import Layout, Preprocess
from caffeconv.emit.model_options import ModelOptions
from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike
from caffeconv.files.sha256 import hashing
from caffeconv.frontend.open_files import Weights, read_net, weight_paths, weights_files
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import Infogain
from caffeconv.tensor.window import INT_MAX

if TYPE_CHECKING:
    from onnx import ModelProto

    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.emit.onnx_writer import Storage, Written


def convert(
    net: PathLike, weights: Weights = None, *, phase: Phase = "TEST", level: int = 0, stages: Sequence[str] = (),
    outputs: Sequence[str] | Literal["all"] | None = None, batch: int | Literal["dynamic", "keep"] = "dynamic",
    shapes: Mapping[str, Sequence[int]] | None = None, layout: Layout = "nchw", half: bool = False,
    keep_io: bool = False, preprocess: Preprocess | bool = False, opset: int | None = None, fold: bool = True,
    deploy: bool = False, extended: bool = False, seed: int = 0, infogain: Infogain | None = None,
    allow_python: bool = False, ignore_unknown_fields: bool = False, fully_convolutional: bool = False,
    dialect: str | None = None, root: PathLike | None = None,
) -> ModelProto:  # fmt: skip
    """The ONNX model of a Caffe net, checked by onnx.checker.

    Args:
        net: the prototxt, or a caffemodel that carries its own net.
        weights: caffemodel or Caffe's HDF5; several are applied in order. None: parameters stay at their fillers.
        phase, level, stages: Caffe's NetState.
        outputs: blobs that the model gives; "all": every blob; None: those that no layer reads.
        batch: "dynamic": any batch size where every layer allows it; "keep": the prototxt's; or a number.
        shapes: blob → shape of an input, instead of the prototxt's (axis order as in Caffe, NCHW).
        layout: axis order of the model's inputs and outputs of four axes and more; "nhwc": channels last.
        half: weights and computation in float16, except for losses and statistics; inputs and outputs too, unless keep_io.
        preprocess: what the model does to pictures, its input then being uint8; True: what the net's data layer does.
        opset: ONNX operator set, 17 where None.
        fold: take out layers that change nothing and fold BatchNorm, Scale and Bias into the layer before them.
        deploy: turn a training net into a deploy net first: no data layers, labels and losses, but predictions.
        extended: let layers do what Caffe refuses, where that has one clear meaning (pooling of 5-D blobs).
        seed: for fillers that draw at random.
        infogain: what InfogainLoss layers are given: "logits" (Caffe 1.0), or "probabilities" (before April 2017).
        allow_python: import and run the module of a `type: "Python"` layer, to learn its shapes and parameters.
        ignore_unknown_fields: ignore prototxt fields that the schema lacks.
        fully_convolutional: write InnerProduct layers as convolutions, whose windows are what the layers see at the
            net's own size; height and width are open where every layer allows it.
        dialect: the fork whose rules count where forks have several of one name; None: by what the net itself says.
        root: the folder that every file the net names has to lie in or below; None: they may lie anywhere.

    Raises:
        CaffeconvError: whatever is wrong with the net, the weights or the arguments.
    """
    options = NetOptions(
        phase, level, stages, {} if shapes is None else shapes, deploy, extended, infogain, allow_python,
        ignore_unknown_fields, seed, fully_convolutional, dialect, _blobs(outputs), root,
    )  # fmt: skip
    model_options = _model_options(net, options, ModelOptions(layout, half, keep_io, fold=fold), preprocess)
    loaded = load(net, weights, options)
    request = _Request(model_options, outputs, batch, opset, any_size=fully_convolutional)
    return _to_lazy(loaded, request, source_metadata(loaded)).materialize()


def convert_to(
    out: PathLike, net: PathLike, weights: Weights = None, *, storage: Storage | None = None, phase: Phase = "TEST",
    level: int = 0, stages: Sequence[str] = (), outputs: Sequence[str] | Literal["all"] | None = None,
    batch: int | Literal["dynamic", "keep"] = "dynamic", shapes: Mapping[str, Sequence[int]] | None = None,
    layout: Layout = "nchw", half: bool = False, keep_io: bool = False, preprocess: Preprocess | bool = False,
    opset: int | None = None, fold: bool = True, deploy: bool = False, extended: bool = False, seed: int = 0,
    infogain: Infogain | None = None, allow_python: bool = False, ignore_unknown_fields: bool = False,
    fully_convolutional: bool = False, dialect: str | None = None, root: PathLike | None = None,
) -> Written:  # fmt: skip
    """Writes the ONNX model of a Caffe net to a file, of any size, in little memory.

    Args:
        out: the file to write.
        storage: where the weights go. "embed": into it; "external": beside it, ``OUT.<digits>.data``; "link": nowhere,
            the model points into the weights file, which must lie in its folder or below, and what layers would change
            in these weights stays as it is. None: "embed", or "external" where the model is too large for one file.
        net and all others: as `convert`. A model with another `layout`, `half` or `preprocess` is made in memory, and
            cannot be linked.

    Raises:
        CaffeconvError: as `convert`, and where `out` cannot be written.
    """
    from caffeconv.emit.onnx_writer import choose_storage, write_model
    from caffeconv.files.atomic import refuse_input_as_output

    out = arguments.path("out", out)
    refuse_input_as_output(out, (arguments.path("net", net), *weight_paths(weights)))
    _refuse_other_files(out)
    if storage is not None:
        arguments.one_of("storage", storage, ("embed", "external", "link"))
    options = NetOptions(
        phase, level, stages, {} if shapes is None else shapes, deploy, extended, infogain, allow_python,
        ignore_unknown_fields, seed, fully_convolutional, dialect, _blobs(outputs), root,
    )  # fmt: skip
    model_options = _model_options(net, options, ModelOptions(layout, half, keep_io, fold=fold), preprocess)
    refuse_changed_links(model_options, storage)
    with hashing(weights_files(net, weights)) as hashes:
        loaded = load(net, weights, options)
        request = _Request(model_options, outputs, batch, opset, link=storage == "link", any_size=fully_convolutional)
        model = _to_lazy(loaded, request)
        metadata = partial(source_metadata, loaded, hashes)
        return write_model(model, out, choose_storage(model, storage), hashes, metadata)


def _refuse_other_files(path: Path) -> None:
    """Raises CaffeconvError where a file's name does not say that it is to hold a model."""
    if path.suffix.lower() != ".onnx" and (path.is_file() or not path.exists()):
        raise CaffeconvError(
            f"{path}: this writes ONNX models; a name that ends in .onnx was needed. `caffeconv convert` in a shell writes "
            "weights too"
        )


def _blobs(outputs: Sequence[str] | Literal["all"] | None) -> tuple[str, ...]:
    is_all = isinstance(outputs, str) and outputs == "all"
    return () if outputs is None or is_all else arguments.names("outputs", outputs)


@dataclass(frozen=True)
class _Request:
    """What `convert` and `convert_to` ask of a loaded net."""

    model_options: ModelOptions
    outputs: Sequence[str] | Literal["all"] | None
    batch: int | Literal["dynamic", "keep"]
    opset: int | None
    link: bool = False
    any_size: bool = False

    def __post_init__(self) -> None:
        """Raises CaffeconvError for a batch or an opset that means nothing."""
        if not isinstance(self.batch, str):
            arguments.whole_number("batch", self.batch, 1, INT_MAX)
        elif self.batch not in ("dynamic", "keep"):
            raise CaffeconvError(f"`batch={self.batch!r}`: 'dynamic', 'keep' or a number was needed")
        if self.opset is not None:
            arguments.whole_number("opset", self.opset, 1)


def _to_lazy(loaded: Loaded, request: _Request, metadata: Mapping[str, str] | None = None) -> LazyModel:
    model = to_onnx(
        loaded, choose_outputs(loaded.graph, request.outputs), batch=request.batch, opset=request.opset,
        fold=request.model_options.fold, link=request.link, metadata=metadata, any_size=request.any_size,
    )  # fmt: skip
    if request.model_options.is_plain:
        return model
    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.emit.passes.pipeline import run_onnx_passes

    return LazyModel(run_onnx_passes(model.materialize(), request.model_options), {})


def _model_options(
    net: PathLike, options: NetOptions, model_options: ModelOptions, preprocess: Preprocess | bool
) -> ModelOptions:
    """`model_options` with what is to be done to pictures; CaffeconvError for what does not go together."""
    layout: Layout = "nhwc" if arguments.one_of("layout", model_options.layout, ("nchw", "nhwc")) == "nhwc" else "nchw"
    for name in ("half", "keep_io", "fold"):
        arguments.truth(name, getattr(model_options, name))
    if model_options.keep_io and not model_options.half:
        raise CaffeconvError(
            "keep_io without half: inputs and outputs are float32 as it is; give half=True, or leave it out"
        )
    if not isinstance(preprocess, (bool, Preprocess)):
        raise CaffeconvError(f"`preprocess={preprocess!r}`: True or a caffeconv.Preprocess was needed")
    if preprocess is True:
        from caffeconv.conversion.own_preprocess import own_preprocess

        preprocess = own_preprocess(read_net(net, is_built=True), options)
    return replace(model_options, layout=layout, preprocess=preprocess or None)


def refuse_changed_links(model_options: ModelOptions, storage: Storage | None, *, int8: bool = False) -> None:
    """Raises CaffeconvError where a model shall point to weights that its form changes."""
    if storage == "link" and (int8 or not model_options.is_plain):
        raise CaffeconvError(
            "linked weights stay as they are in their file, and half precision, eight bits, preprocessing and channels last "
            "change them; external weights were needed, or a plain model"
        )
