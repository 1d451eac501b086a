"""Brings old net definitions to today's form: an ordered list of (needed?, upgrade), as Caffe's UpgradeNetAsNeeded.

V0 (`layers { layer { type: "conv" } }`, 2013) becomes V1 (`layers { type: CONVOLUTION }`, 2014), V1 becomes V2
(`layer { type: "Convolution" }`, 2015), and single fields that moved since follow. The rules are those of Caffe's
upgrade_proto.cpp; where Caffe loses a part of the net without a word, the net is refused instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import replace

from google.protobuf.message import Message

from caffeconv.caffe_format.crop_offset import BlobPlaces, CannotAlignError
from caffeconv.caffe_format.prototxt import NetSource, is_repeated
from caffeconv.caffe_pb2 import LayerParameter, NetParameter, V0LayerParameter, V1LayerParameter
from caffeconv.errors import CaffeconvError, near_name

MOST_NAMES = 5
"""Layers of another form that are named."""


def upgrade_net(source: NetSource) -> NetSource:
    """The net in today's form; `source` itself is left as it is. Raises CaffeconvError where Caffe refuses the net."""
    return upgrade_and_tell(source)[0]


def upgrade_and_tell(source: NetSource) -> tuple[NetSource, tuple[str, ...]]:
    """As `upgrade_net`, with what was done: a line for each upgrade that was needed, and for each field left out."""
    net = NetParameter()
    net.CopyFrom(source.net)
    notes = list(_ignored_v0_fields(source)) if has_v0_layers(net) else []
    source = replace(source, net=net)
    for needed, upgrade, what in UPGRADES:
        if needed(source.net):
            source = upgrade(source)
            notes.append(what)
    return source, tuple(notes)


def _where(source: NetSource, name: str, line: int) -> str:
    return f"{source.path or 'net'}: layer '{name}'" + (f", line {line}" if line else "")


def _suggestion(name: str, names: Sequence[str]) -> str:
    near = near_name(name, names)
    return f" Did you mean {near}?" if near else ""


# -- V0 → V1 -----------------------------------------------------------------------------------------------------------

_V0_TYPES = {
    "accuracy": V1LayerParameter.ACCURACY,
    "bnll": V1LayerParameter.BNLL,
    "concat": V1LayerParameter.CONCAT,
    "conv": V1LayerParameter.CONVOLUTION,
    "data": V1LayerParameter.DATA,
    "dropout": V1LayerParameter.DROPOUT,
    "euclidean_loss": V1LayerParameter.EUCLIDEAN_LOSS,
    "flatten": V1LayerParameter.FLATTEN,
    "hdf5_data": V1LayerParameter.HDF5_DATA,
    "hdf5_output": V1LayerParameter.HDF5_OUTPUT,
    "im2col": V1LayerParameter.IM2COL,
    "images": V1LayerParameter.IMAGE_DATA,
    "infogain_loss": V1LayerParameter.INFOGAIN_LOSS,
    "innerproduct": V1LayerParameter.INNER_PRODUCT,
    "lrn": V1LayerParameter.LRN,
    "multinomial_logistic_loss": V1LayerParameter.MULTINOMIAL_LOGISTIC_LOSS,
    "pool": V1LayerParameter.POOLING,
    "relu": V1LayerParameter.RELU,
    "sigmoid": V1LayerParameter.SIGMOID,
    "softmax": V1LayerParameter.SOFTMAX,
    "softmax_loss": V1LayerParameter.SOFTMAX_LOSS,
    "split": V1LayerParameter.SPLIT,
    "tanh": V1LayerParameter.TANH,
    "window_data": V1LayerParameter.WINDOW_DATA,
}

_V0_FIELDS: dict[str, dict[str, str]] = {
    "num_output": {"conv": "convolution_param.num_output", "innerproduct": "inner_product_param.num_output"},
    "biasterm": {"conv": "convolution_param.bias_term", "innerproduct": "inner_product_param.bias_term"},
    "weight_filler": {"conv": "convolution_param.weight_filler", "innerproduct": "inner_product_param.weight_filler"},
    "bias_filler": {"conv": "convolution_param.bias_filler", "innerproduct": "inner_product_param.bias_filler"},
    "pad": {"conv": "convolution_param.pad", "pool": "pooling_param.pad"},
    "kernelsize": {"conv": "convolution_param.kernel_size", "pool": "pooling_param.kernel_size"},
    "group": {"conv": "convolution_param.group"},
    "stride": {"conv": "convolution_param.stride", "pool": "pooling_param.stride"},
    "pool": {"pool": "pooling_param.pool"},
    "dropout_ratio": {"dropout": "dropout_param.dropout_ratio"},
    "local_size": {"lrn": "lrn_param.local_size"},
    "alpha": {"lrn": "lrn_param.alpha"},
    "beta": {"lrn": "lrn_param.beta"},
    "k": {"lrn": "lrn_param.k"},
    "source": {
        "data": "data_param.source",
        "hdf5_data": "hdf5_data_param.source",
        "images": "image_data_param.source",
        "window_data": "window_data_param.source",
        "infogain_loss": "infogain_loss_param.source",
    },
    "batchsize": {
        "data": "data_param.batch_size",
        "hdf5_data": "hdf5_data_param.batch_size",
        "images": "image_data_param.batch_size",
        "window_data": "window_data_param.batch_size",
    },
    "rand_skip": {"data": "data_param.rand_skip", "images": "image_data_param.rand_skip"},
    "shuffle_images": {"images": "image_data_param.shuffle"},
    "new_height": {"images": "image_data_param.new_height"},
    "new_width": {"images": "image_data_param.new_width"},
    "concat_dim": {"concat": "concat_param.concat_dim"},
    "det_fg_threshold": {"window_data": "window_data_param.fg_threshold"},
    "det_bg_threshold": {"window_data": "window_data_param.bg_threshold"},
    "det_fg_fraction": {"window_data": "window_data_param.fg_fraction"},
    "det_context_pad": {"window_data": "window_data_param.context_pad"},
    "det_crop_mode": {"window_data": "window_data_param.crop_mode"},
    "hdf5_output_param": {"hdf5_output": "hdf5_output_param"},
}
"""Field of a V0 layer → its type → where the value stands in a V1 layer."""

_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
"""Field of a V0 layer of any type → field of transform_param."""


def _ignored_v0_fields(source: NetSource) -> Iterator[str]:
    """What V0 layers say that their types do not read; Caffe warns of it and goes on without it."""
    # where the net has both forms, the upgrade says so
    for line, layer in zip(source.lines, source.net.layers, strict=False):
        kind = layer.layer.type
        for field, _ in layer.layer.ListFields():
            if kind != "padding" and field.name in _V0_FIELDS and kind not in _V0_FIELDS[field.name]:
                where = _where(source, layer.layer.name, line)
                yield f"{where}: Unknown parameter {field.name} for layer type {kind}; left out, as Caffe does"


def has_v0_layers(net: NetParameter) -> bool:
    return any(layer.HasField("layer") for layer in net.layers)


def is_folded_away(kind: str) -> bool:
    """Whether a V0 layer of this type becomes a setting of other layers (`fold_padding`)."""
    return kind == "padding"


def upgrade_v0(source: NetSource) -> NetSource:
    """`layers { layer { type: "conv" } }` → `layers { type: CONVOLUTION }` (caffe: UpgradeV0Net)."""
    _refuse_what_v0_loses(source)
    source = fold_padding(source)
    old = source.net
    # caffe: the name, the inputs and force_backward are all that is taken over beside the layers
    net = NetParameter(input=old.input, input_dim=old.input_dim)
    for field in ("name", "force_backward"):
        if old.HasField(field):
            setattr(net, field, getattr(old, field))
    net.layers.extend(
        _upgrade_v0_layer(source, layer, line) for layer, line in zip(old.layers, source.lines, strict=True)
    )
    return replace(source, net=net)


def _refuse_what_v0_loses(source: NetSource) -> None:
    _refuse_layer_and_layers(source)
    net = source.net
    for line, layer in zip(source.lines, net.layers, strict=True):
        if not layer.HasField("layer"):
            raise CaffeconvError(
                f"{_where(source, layer.name, line)}: layers of the forms V0 (`layers {{ layer {{ … }} }}`) and V1 "
                "(`layers { type: … }`) in one net; one form was needed, because Caffe drops the V1 layers. "
                "Write this layer as the others are."
            )
    if net.input_shape:
        raise CaffeconvError(
            f"{source.path or 'net'}: `input_shape` in a net of V0 layers, where Caffe drops it; "
            "write four `input_dim` for each input."
        )


def fold_padding(source: NetSource) -> NetSource:
    """Gives a padding layer's `pad` to the conv or pool layer that reads it (caffe: UpgradeV0PaddingLayers).

    Given::

        layers { bottom: "a" top: "p" layer { type: "padding" pad: 2 } }
        layers { bottom: "p" top: "c" layer { type: "conv" pad: 1 } }

    Result::

        layers { bottom: "a" top: "c" layer { type: "conv" pad: 2 } }
    """
    old = source.net.layers
    maker: dict[str, int | None] = dict.fromkeys(source.net.input)
    layers, lines = [], []
    for i, (layer, line) in enumerate(zip(old, source.lines, strict=True)):
        folded = V1LayerParameter()
        folded.CopyFrom(layer)
        for j, blob in enumerate(layer.bottom):
            if blob not in maker:
                raise CaffeconvError(
                    f"{_where(source, layer.layer.name, line)}: Unknown blob input {blob} to layer {j}. "
                    f"No layer above makes this blob.{_suggestion(blob, list(maker))}"
                )
            index = maker[blob]
            if index is None or old[index].layer.type != "padding":
                continue
            _refuse_padding(source, layer, line, old[index])
            # caffe: the layer's own pad is replaced, not added to
            folded.layer.pad = old[index].layer.pad
            folded.bottom[j] = old[index].bottom[0]
        maker.update(dict.fromkeys(layer.top, i))
        if layer.layer.type != "padding":
            layers.append(folded)
            lines.append(line)
    net = NetParameter()
    net.CopyFrom(source.net)
    del net.layers[:]
    net.layers.extend(layers)
    return replace(source, net=net, lines=tuple(lines))


def _refuse_padding(source: NetSource, layer: V1LayerParameter, line: int, padding: V1LayerParameter) -> None:
    if layer.layer.type not in ("conv", "pool"):
        problem = f"Padding layer input to non-convolutional / non-pooling layer type {layer.layer.type}"
    elif len(layer.bottom) != 1:
        problem = f"Conv Layer takes a single blob as input. ({len(layer.bottom)} are given)"
    elif len(padding.bottom) != 1:
        problem = f"Padding Layer takes a single blob as input. ({len(padding.bottom)} are given)"
    elif len(padding.top) != 1:
        problem = f"Padding Layer produces a single blob as output. ({len(padding.top)} are given)"
    else:
        return
    raise CaffeconvError(
        f"{_where(source, layer.layer.name, line)}: {problem}. It reads the padding layer '{padding.layer.name}', "
        "which can only become the `pad` of the one conv or pool layer after it. Remove the padding layer."
    )


def _upgrade_v0_layer(source: NetSource, old: V1LayerParameter, line: int) -> V1LayerParameter:
    """caffe: UpgradeV0LayerParameter."""
    v0 = old.layer
    layer = V1LayerParameter(
        bottom=old.bottom, top=old.top, blobs=v0.blobs, blobs_lr=v0.blobs_lr, weight_decay=v0.weight_decay
    )
    if v0.HasField("name"):
        layer.name = v0.name
    if v0.HasField("type"):
        if v0.type not in _V0_TYPES:
            raise CaffeconvError(
                f"{_where(source, v0.name, line)}: Unknown layer name: {v0.type}; a layer type of the V0 form was "
                f"needed.{_suggestion(v0.type, list(_V0_TYPES)) or ' They are: ' + ', '.join(_V0_TYPES)}"
            )
        layer.type = _V0_TYPES[v0.type]
    for field, _ in v0.ListFields():
        target = _V0_FIELDS.get(field.name, {}).get(v0.type)
        if target is not None:
            _copy_v0_field(v0, field.name, layer, target)
        elif field.name in _V0_TRANSFORM:
            setattr(layer.transform_param, _V0_TRANSFORM[field.name], getattr(v0, field.name))
    return layer


def _copy_v0_field(v0: V0LayerParameter, name: str, layer: V1LayerParameter, target: str) -> None:
    parent, _, child = target.partition(".")
    message: Message = getattr(layer, parent)
    value = getattr(v0, name)
    if not child:
        message.CopyFrom(value)
    elif isinstance(value, Message):
        getattr(message, child).CopyFrom(value)
    elif isinstance(getattr(message, child), MutableSequence):
        getattr(message, child).append(value)
    else:
        setattr(message, child, value)


# -- data transformation ---------------------------------------------------------------------------------------------

_DATA_PARAMS = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}
_MOVED_TO_TRANSFORM = ("scale", "mean_file", "crop_size", "mirror")


def has_data_transformation(net: NetParameter) -> bool:
    return any(_moved_fields(layer) for layer in net.layers)


def _moved_fields(layer: V1LayerParameter) -> list[str]:
    if layer.type not in _DATA_PARAMS:
        return []
    param = getattr(layer, _DATA_PARAMS[layer.type])
    return [field for field in (*_MOVED_TO_TRANSFORM, "transform_param") if param.HasField(field)]


def upgrade_data_transformation(source: NetSource) -> NetSource:
    """`data_param { scale mean_file crop_size mirror }` → `transform_param` (caffe: UpgradeNetDataTransformation).

    In between, for some weeks of 2014, a `transform_param` stood in `data_param`. Only in V1 layers: Caffe leaves these
    fields where they are, unread, in a `layer` of today's form.
    """
    for layer in source.net.layers:
        for field in _moved_fields(layer):
            param = getattr(layer, _DATA_PARAMS[layer.type])
            if field == "transform_param":
                layer.transform_param.MergeFrom(param.transform_param)
            else:
                setattr(layer.transform_param, field, getattr(param, field))
            param.ClearField(field)
    return source


# -- V1 → V2 -----------------------------------------------------------------------------------------------------------

_V1_TYPES = {
    V1LayerParameter.NONE: "",
    V1LayerParameter.ABSVAL: "AbsVal",
    V1LayerParameter.ACCURACY: "Accuracy",
    V1LayerParameter.ARGMAX: "ArgMax",
    V1LayerParameter.BNLL: "BNLL",
    V1LayerParameter.CONCAT: "Concat",
    V1LayerParameter.CONTRASTIVE_LOSS: "ContrastiveLoss",
    V1LayerParameter.CONVOLUTION: "Convolution",
    V1LayerParameter.DATA: "Data",
    V1LayerParameter.DECONVOLUTION: "Deconvolution",
    V1LayerParameter.DROPOUT: "Dropout",
    V1LayerParameter.DUMMY_DATA: "DummyData",
    V1LayerParameter.ELTWISE: "Eltwise",
    V1LayerParameter.EUCLIDEAN_LOSS: "EuclideanLoss",
    V1LayerParameter.EXP: "Exp",
    V1LayerParameter.FLATTEN: "Flatten",
    V1LayerParameter.HDF5_DATA: "HDF5Data",
    V1LayerParameter.HDF5_OUTPUT: "HDF5Output",
    V1LayerParameter.HINGE_LOSS: "HingeLoss",
    V1LayerParameter.IM2COL: "Im2col",
    V1LayerParameter.IMAGE_DATA: "ImageData",
    V1LayerParameter.INFOGAIN_LOSS: "InfogainLoss",
    V1LayerParameter.INNER_PRODUCT: "InnerProduct",
    V1LayerParameter.LRN: "LRN",
    V1LayerParameter.MEMORY_DATA: "MemoryData",
    V1LayerParameter.MULTINOMIAL_LOGISTIC_LOSS: "MultinomialLogisticLoss",
    V1LayerParameter.MVN: "MVN",
    V1LayerParameter.POOLING: "Pooling",
    V1LayerParameter.POWER: "Power",
    V1LayerParameter.RELU: "ReLU",
    V1LayerParameter.SIGMOID: "Sigmoid",
    V1LayerParameter.SIGMOID_CROSS_ENTROPY_LOSS: "SigmoidCrossEntropyLoss",
    V1LayerParameter.SILENCE: "Silence",
    V1LayerParameter.SLICE: "Slice",
    V1LayerParameter.SOFTMAX: "Softmax",
    V1LayerParameter.SOFTMAX_LOSS: "SoftmaxWithLoss",
    V1LayerParameter.SPLIT: "Split",
    V1LayerParameter.TANH: "TanH",
    V1LayerParameter.THRESHOLD: "Threshold",
    V1LayerParameter.WINDOW_DATA: "WindowData",
    # forks: FCN; DeepLab 1; C3D 1.0; DeconvNet; CRF as RNN
    V1LayerParameter.CROP: "Crop",
    V1LayerParameter.IMAGE_SEG_DATA: "ImageSegData",
    V1LayerParameter.CONVOLUTION3D: "Convolution3D",
    V1LayerParameter.POOLING3D: "Pooling3D",
    V1LayerParameter.DECONVOLUTION3D: "Deconvolution3D",
    V1LayerParameter.VIDEO_DATA: "VideoData",
    V1LayerParameter.VIDEO_SEGMENTATION_DATA: "VideoSegmentationData",
    V1LayerParameter.VIDEO_WITH_VOXEL_TRUTH_DATA: "VideoWithVoxelTruthData",
    V1LayerParameter.VOXEL_SOFTMAX: "Softmax",
    V1LayerParameter.VOXEL_SOFTMAX_LOSS: "VoxelWiseSoftmaxLoss",
    V1LayerParameter.AVG_PROBS: "AvgProbs",
    V1LayerParameter.UNPOOLING: "Unpooling",
    V1LayerParameter.MULTI_STAGE_MEANFIELD: "MultiStageMeanfield",
    V1LayerParameter.BN: "BN",
    V1LayerParameter.INTERP: "Interp",
    V1LayerParameter.SEG_ACCURACY: "SegAccuracy",
    V1LayerParameter.MAT_READ: "MatRead",
    V1LayerParameter.MAT_WRITE: "MatWrite",
    V1LayerParameter.DENSE_CRF: "DenseCRF",
    V1LayerParameter.WINDOW_SEG_DATA: "WindowSegData",
    V1LayerParameter.ELTWISE_ACCURACY: "EltwiseAccuracy",
    V1LayerParameter.LOCAL: "Local",
}

_V1_SAME = ("bottom", "top", "blobs", "include", "exclude", "loss_weight")
_V1_FLAGS = ("strict_dim",)
_V1_PARAM_SPEC = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}
"""Lists of a V1 layer, one value for each parameter → field of the parameter's ParamSpec."""


def has_v1_layers(net: NetParameter) -> bool:
    return bool(net.layers)


def upgrade_v1(source: NetSource) -> NetSource:
    """`layers { type: CONVOLUTION }` → `layer { type: "Convolution" }` (caffe: UpgradeV1Net)."""
    _refuse_layer_and_layers(source)
    net = NetParameter()
    net.CopyFrom(source.net)
    del net.layers[:]
    net.layer.extend(_upgrade_v1_layer(layer) for layer in source.net.layers)
    for layer, line in zip(net.layer, source.lines, strict=True):
        kind = source.extra.get(line, {}).get("type")
        if isinstance(kind, str):
            layer.type = "".join(word.capitalize() for word in kind.split("_"))
    if any(layer.type == "Crop" for layer in net.layer):
        _align_old_crops(net, source)
    return replace(source, net=net)


def _align_old_crops(net: NetParameter, source: NetSource) -> None:
    places = BlobPlaces(net.input)
    for layer, line in zip(net.layer, source.lines, strict=True):
        try:
            if layer.type == "Crop":
                layer.crop_param.offset.extend(places.offset(layer))
        except CannotAlignError as error:
            raise CaffeconvError(
                f"{_where(source, layer.name, line)}: {error}. The old CROP layer finds its offset itself; write the "
                'net in today\'s form, with `layer { type: "Crop" crop_param { axis: 2 offset: … } }`.'
            ) from None
        places.add(layer)


def _refuse_layer_and_layers(source: NetSource) -> None:
    net = source.net
    if not net.layer:
        return
    raise CaffeconvError(
        f"{source.path or 'net'}: Refusing to upgrade inconsistent NetParameter input; the definition includes both "
        f"'layer' ('{net.layer[0].name}') and 'layers' ('{net.layers[0].name or net.layers[0].layer.name}') fields. "
        "The current format defines 'layer' fields with string type like layer { type: 'Layer' ... } and not "
        f"layers {{ type: LAYER ... }}. Manually switch the definition to 'layer' format to continue. {_fewer(net)}"
    )


def _fewer(net: NetParameter) -> str:
    """Which of the two forms has fewer layers, and which these are: the easier ones to rewrite."""
    old, new = [layer.name or layer.layer.name for layer in net.layers], [layer.name for layer in net.layer]
    names, form = (old, "layers") if len(old) <= len(new) else (new, "layer")
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"The smaller part is `{form}`: {', '.join(names[:MOST_NAMES])}{more}."


def _upgrade_v1_layer(old: V1LayerParameter) -> LayerParameter:
    """caffe: UpgradeV1LayerParameter."""
    layer = LayerParameter()
    for name in _V1_SAME:
        getattr(layer, name).extend(getattr(old, name))
    layer.include.extend(old.enable)
    layer.exclude.extend(old.disable)
    if old.HasField("name"):
        layer.name = old.name
    if old.HasField("type"):
        layer.type = _V1_TYPES[old.type]
    for name, spec_field in _V1_PARAM_SPEC.items():
        for i, value in enumerate(getattr(old, name)):
            while len(layer.param) <= i:
                layer.param.add()
            setattr(layer.param[i], spec_field, value)
    for field, value in old.ListFields():
        if isinstance(value, Message) and field.name in LayerParameter.DESCRIPTOR.fields_by_name:
            getattr(layer, field.name).CopyFrom(value)
    for name in _V1_FLAGS:
        if old.HasField(name):
            setattr(layer, name, getattr(old, name))
    _move_to_3d(layer)
    return layer


def _move_to_3d(layer: LayerParameter) -> None:
    """C3D 1.0 has the fields of its layers in the messages of the flat ones, C3D 1.1 in messages of their own."""
    if layer.type in ("Convolution3D", "Deconvolution3D") and layer.HasField("convolution_param"):
        _copy_common_fields(layer.convolution_param, layer.convolution3d_param)
        layer.ClearField("convolution_param")
    if layer.type == "Pooling3D" and layer.HasField("pooling_param"):
        _copy_common_fields(layer.pooling_param, layer.pooling3d_param)
        layer.ClearField("pooling_param")


def _copy_common_fields(source: Message, target: Message) -> None:
    for field, value in source.ListFields():
        if field.name not in target.DESCRIPTOR.fields_by_name:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value[0] if is_repeated(field) else value)


# -- inputs ------------------------------------------------------------------------------------------------------------


def has_input_fields(net: NetParameter) -> bool:
    return bool(net.input)


def upgrade_input_fields(source: NetSource) -> NetSource:
    """`input`, `input_shape`, `input_dim` → an Input layer in front (caffe: UpgradeNetInput).

    Inputs without any size are dropped: a caffemodel names them so, and has no use for them.
    """
    net = source.net
    lines = source.lines
    if net.input_shape or net.input_dim:
        _check_input_sizes(source)
        layer = LayerParameter(name="input", type="Input", top=net.input)
        for i in range(len(net.input)):
            dims = net.input_shape[i].dim if net.input_shape else net.input_dim[4 * i : 4 * i + 4]
            layer.input_param.shape.add().dim.extend(dims)
        layers = list(net.layer)
        del net.layer[:]
        net.layer.extend([layer, *layers])
        lines = (0, *lines)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)
    return replace(source, lines=lines)


def _check_input_sizes(source: NetSource) -> None:
    # caffe reads past the end of these lists
    net, inputs = source.net, len(source.net.input)
    if net.input_shape and len(net.input_shape) < inputs:
        actual, needed = f"{len(net.input_shape)} `input_shape`", f"{inputs}, one for each,"
    elif not net.input_shape and len(net.input_dim) < 4 * inputs:
        actual, needed = f"{len(net.input_dim)} `input_dim`", f"{4 * inputs}, four for each,"
    else:
        return
    names = ", ".join(f"'{name}'" for name in net.input)
    raise CaffeconvError(
        f"{source.path or 'net'}: {actual} for the inputs {names}; {needed} were needed. Add the missing sizes."
    )


# -- BatchNorm ---------------------------------------------------------------------------------------------------------


def has_batch_norm_params(net: NetParameter) -> bool:
    return any(
        layer.type == "BatchNorm"
        and len(layer.param) == 3
        and any(spec.lr_mult or spec.decay_mult for spec in layer.param)
        for layer in net.layer
    )


def upgrade_batch_norm(source: NetSource) -> NetSource:
    """Rates of BatchNorm's three statistics → 0, as older nets had to say themselves (caffe: UpgradeNetBatchNorm)."""
    for layer in source.net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0
    return source


def has_lstm_of_mycaffe(net: NetParameter) -> bool:
    return any(layer.type == "Lstm" and layer.HasField("recurrent_param") for layer in net.layer)


def upgrade_lstm_of_mycaffe(source: NetSource) -> NetSource:
    """MyCaffe ignores the case of types: its Lstm with recurrent_param is Caffe's LSTM, not the older Lstm."""
    for layer in source.net.layer:
        if layer.type == "Lstm" and layer.HasField("recurrent_param"):
            layer.type = "LSTM"
    return source


Upgrade = tuple[Callable[[NetParameter], bool], Callable[[NetSource], NetSource], str]
"""Needed?, the upgrade, and what it does in words."""
UPGRADES: tuple[Upgrade, ...] = (
    (has_v0_layers, upgrade_v0, "`layers { layer { … } }` (V0) became `layers { type: … }` (V1)"),
    (
        has_data_transformation,
        upgrade_data_transformation,
        "scale, mean_file, crop_size and mirror of data layers moved to transform_param",
    ),
    (has_v1_layers, upgrade_v1, '`layers { type: … }` (V1) became `layer { type: "…" }`'),
    (has_input_fields, upgrade_input_fields, "`input` fields became an Input layer"),
    (has_batch_norm_params, upgrade_batch_norm, "BatchNorm's three parameters: lr_mult and decay_mult became 0"),
    (has_lstm_of_mycaffe, upgrade_lstm_of_mycaffe, "`Lstm` with recurrent_param became `LSTM`"),
)
