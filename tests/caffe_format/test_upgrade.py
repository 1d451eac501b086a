"""Old net definitions in today's form: every V0 and V1 field and type, and what Caffe refuses."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden_cases import GOLDENS

from caffeconv import CaffeconvError
from caffeconv.caffe_format.prototxt import NetSource, parse_text, read_prototxt
from caffeconv.caffe_format.upgrade import upgrade_and_tell, upgrade_net
from caffeconv.caffe_pb2 import LayerParameter, NetParameter, NetStateRule, V0LayerParameter, V1LayerParameter


def source_of(text: str) -> NetSource:
    """A net as read; the lines of its layers are known where each layer starts one."""
    net = message(text)
    lines = tuple(i for i, line in enumerate(text.splitlines(), 1) if line.startswith("layer"))
    count = len(net.layers) + len(net.layer)
    return NetSource(net, lines if len(lines) == count else (0,) * count, Path("net.prototxt"), Path())


def upgraded(text: str) -> NetParameter:
    return upgrade_net(source_of(text)).net


def message(text: str) -> NetParameter:
    net = NetParameter()
    parse_text(text, net, "expected")
    return net


def refusal(text: str) -> str:
    with pytest.raises(CaffeconvError) as caught:
        upgrade_net(source_of(text))
    return str(caught.value)


def v0(kind: str, fields: str = "", *, bottom: str = "a", top: str = "b") -> str:
    """A net of one V0 layer."""
    return f'input: "a" layers {{ bottom: "{bottom}" top: "{top}" layer {{ name: "n" type: "{kind}" {fields} }} }}'


# -- V0 ----------------------------------------------------------------------------------------------------------------

V0_TYPES = {
    "accuracy": "Accuracy", "bnll": "BNLL", "concat": "Concat", "conv": "Convolution", "data": "Data",
    "dropout": "Dropout", "euclidean_loss": "EuclideanLoss", "flatten": "Flatten", "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output", "im2col": "Im2col", "images": "ImageData", "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct", "lrn": "LRN", "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling", "relu": "ReLU", "sigmoid": "Sigmoid", "softmax": "Softmax", "softmax_loss": "SoftmaxWithLoss",
    "split": "Split", "tanh": "TanH", "window_data": "WindowData",
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), V0_TYPES.items())
def test_v0_type(old: str, new: str) -> None:
    assert upgraded(v0(old)) == message(f'layer {{ name: "n" type: "{new}" bottom: "a" top: "b" }}')


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("conv", "num_output: 8 biasterm: false", "convolution_param { num_output: 8 bias_term: false }"),
        ("conv", "pad: 2 kernelsize: 5", "convolution_param { pad: 2 kernel_size: 5 }"),
        ("conv", "group: 2 stride: 3", "convolution_param { group: 2 stride: 3 }"),
        ("conv", 'weight_filler { type: "xavier" }', 'convolution_param { weight_filler { type: "xavier" } }'),
        ("conv", "bias_filler { value: 1 }", "convolution_param { bias_filler { value: 1 } }"),
        ("innerproduct", "num_output: 8 biasterm: false", "inner_product_param { num_output: 8 bias_term: false }"),
        ("innerproduct", "weight_filler { value: 1 }", "inner_product_param { weight_filler { value: 1 } }"),
        ("innerproduct", "bias_filler { value: 1 }", "inner_product_param { bias_filler { value: 1 } }"),
        ("pool", "pad: 1 kernelsize: 3 stride: 2", "pooling_param { pad: 1 kernel_size: 3 stride: 2 }"),
        ("pool", "pool: MAX", "pooling_param { pool: MAX }"),
        ("pool", "pool: AVE", "pooling_param { pool: AVE }"),
        ("pool", "pool: STOCHASTIC", "pooling_param { pool: STOCHASTIC }"),
        ("dropout", "dropout_ratio: 0.3", "dropout_param { dropout_ratio: 0.3 }"),
        ("lrn", "local_size: 3 alpha: 2 beta: 0.5 k: 4", "lrn_param { local_size: 3 alpha: 2 beta: 0.5 k: 4 }"),
        ("concat", "concat_dim: 0", "concat_param { concat_dim: 0 }"),
        ("infogain_loss", 'source: "H"', 'infogain_loss_param { source: "H" }'),
        ("hdf5_data", 'source: "l" batchsize: 4', 'hdf5_data_param { source: "l" batch_size: 4 }'),
        ("hdf5_output", 'hdf5_output_param { file_name: "f" }', 'hdf5_output_param { file_name: "f" }'),
        ("data", 'source: "d" batchsize: 4 rand_skip: 7', 'data_param { source: "d" batch_size: 4 rand_skip: 7 }'),
        ("images", 'source: "l" batchsize: 4', 'image_data_param { source: "l" batch_size: 4 }'),
        ("images", "rand_skip: 7 shuffle_images: true", "image_data_param { rand_skip: 7 shuffle: true }"),
        ("images", "new_height: 8 new_width: 9", "image_data_param { new_height: 8 new_width: 9 }"),
        ("window_data", 'source: "w" batchsize: 4', 'window_data_param { source: "w" batch_size: 4 }'),
        (
            "window_data",
            "det_fg_threshold: 0.6 det_bg_threshold: 0.1 det_fg_fraction: 0.3",
            "window_data_param { fg_threshold: 0.6 bg_threshold: 0.1 fg_fraction: 0.3 }",
        ),
        (
            "window_data",
            'det_context_pad: 16 det_crop_mode: "square"',
            'window_data_param { context_pad: 16 crop_mode: "square" }',
        ),
        (
            "data",
            'scale: 0.5 meanfile: "m" cropsize: 227 mirror: true',
            'transform_param { scale: 0.5 mean_file: "m" crop_size: 227 mirror: true }',
        ),
        # caffe: these four go to transform_param whatever the type is
        ("relu", "scale: 0.5", "transform_param { scale: 0.5 }"),
        ("conv", "blobs_lr: 1 blobs_lr: 2", "param { lr_mult: 1 } param { lr_mult: 2 }"),
        ("conv", "weight_decay: 1 weight_decay: 0", "param { decay_mult: 1 } param { decay_mult: 0 }"),
        ("conv", "blobs { data: 3 }", "blobs { data: 3 }"),
        # caffe warns of these and goes on without them
        ("relu", "kernelsize: 3 num_output: 4", ""),
        ("images", "det_context_pad: 3 new_num: 4", ""),
    ],
)  # fmt: skip
def test_v0_field(kind: str, old: str, new: str) -> None:
    expected = message(f'layer {{ name: "n" type: "{V0_TYPES[kind]}" bottom: "a" top: "b" {new} }}')
    assert upgraded(v0(kind, old)) == expected


def test_every_v0_field_is_known() -> None:
    """A field that the upgrade forgets would vanish without a word."""
    from caffeconv.caffe_format import upgrade

    known = {*upgrade._V0_FIELDS, *upgrade._V0_TRANSFORM, "name", "type", "blobs", "blobs_lr", "weight_decay"}
    # caffe: UpgradeV0LayerParameter does not read these
    unread = {"new_num", "new_channels"}
    assert {field.name for field in V0LayerParameter.DESCRIPTOR.fields} == known | unread


def test_v0_keeps_what_caffe_keeps() -> None:
    net = upgraded('name: "x" force_backward: true debug_info: true state { stage: "s" }' + v0("relu"))
    assert (net.name, net.force_backward, net.debug_info, list(net.state.stage)) == ("x", True, False, [])


def test_ignored_v0_fields_are_told() -> None:
    _, told = upgrade_and_tell(source_of(v0("relu", "kernelsize: 3")))
    where = "net.prototxt: layer 'n'"
    assert f"{where}: Unknown parameter kernelsize for layer type relu; left out, as Caffe does" in told


PADDED = """input: "data" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5
layers { bottom: "data" top: "r" layer { name: "r" type: "relu" } }
layers { bottom: "r" top: "p" layer { name: "p" type: "padding" pad: 2 } }
layers { bottom: "p" top: "c" layer { name: "c" type: "conv" pad: 1 num_output: 3 kernelsize: 3 } }
"""


def test_padding_layer_replaces_the_pad_of_the_next() -> None:
    source = upgrade_net(source_of(PADDED))
    assert [layer.name for layer in source.net.layer] == ["input", "r", "c"]
    assert source.lines == (0, 2, 4)
    conv = source.net.layer[2]
    assert (list(conv.bottom), list(conv.convolution_param.pad)) == (["r"], [2])


def test_padding_layer_read_twice() -> None:
    more = 'layers { bottom: "p" top: "q" layer { name: "q" type: "pool" kernelsize: 3 } }\n'
    net = upgrade_net(source_of(PADDED + more)).net
    assert [list(layer.bottom) for layer in net.layer] == [[], ["data"], ["r"], ["r"]]
    assert list(net.layer[3].pooling_param.pad) == [2]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            PADDED.replace('"conv" pad: 1', '"innerproduct"'),
            ("'c', line 4", "Padding layer input to non-convolutional / non-pooling layer type innerproduct"),
        ),
        (
            PADDED.replace('bottom: "p" top: "c"', 'bottom: "p" bottom: "r" top: "c"'),
            ("'c', line 4", "Conv Layer takes a single blob as input. (2 are given)"),
        ),
        (
            PADDED.replace('bottom: "r" top: "p"', 'bottom: "r" bottom: "data" top: "p"'),
            ("'c', line 4", "Padding Layer takes a single blob as input. (2 are given)"),
        ),
        (
            PADDED.replace('top: "p" layer', 'top: "p" top: "p2" layer'),
            ("'c', line 4", "Padding Layer produces a single blob as output. (2 are given)"),
        ),
        (
            PADDED.replace('bottom: "p" top: "c"', 'bottom: "dat" top: "c"'),
            ("'c', line 4", "Unknown blob input dat to layer 0", "Did you mean data?"),
        ),
        (PADDED.replace('"relu"', '"rellu"'), ("'r', line 2", "Unknown layer name: rellu", "Did you mean relu?")),
        (PADDED.replace('"relu"', '"Python"'), ("Unknown layer name: Python", "They are: accuracy, bnll")),
        (PADDED + 'layers { name: "v1" type: RELU bottom: "c" top: "c" }\n', ("'v1', line 5", "one form was needed")),
        (PADDED + 'layer { name: "v2" }\n', ("Refusing to upgrade", "'layer' ('v2') and 'layers' ('r')")),
        ("input_shape { dim: 1 }" + v0("relu"), ("`input_shape` in a net of V0 layers, where Caffe drops it",)),
    ],
)  # fmt: skip
def test_v0_is_refused(text: str, parts: tuple[str, ...]) -> None:
    error = refusal(text)
    for part in ("net.prototxt: ", *parts):
        assert part in error


# -- V1 ----------------------------------------------------------------------------------------------------------------

V1_TYPES = {
    "NONE": "", "ABSVAL": "AbsVal", "ACCURACY": "Accuracy", "ARGMAX": "ArgMax", "BNLL": "BNLL", "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss", "CONVOLUTION": "Convolution", "DATA": "Data",
    "DECONVOLUTION": "Deconvolution", "DROPOUT": "Dropout", "DUMMY_DATA": "DummyData", "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss", "EXP": "Exp", "FLATTEN": "Flatten", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "HINGE_LOSS": "HingeLoss", "IM2COL": "Im2col", "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss", "INNER_PRODUCT": "InnerProduct", "LRN": "LRN", "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss", "MVN": "MVN", "POOLING": "Pooling", "POWER": "Power",
    "RELU": "ReLU", "SIGMOID": "Sigmoid", "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence", "SLICE": "Slice", "SOFTMAX": "Softmax", "SOFTMAX_LOSS": "SoftmaxWithLoss", "SPLIT": "Split",
    "TANH": "TanH", "THRESHOLD": "Threshold", "WINDOW_DATA": "WindowData", "CROP": "Crop",
    "IMAGE_SEG_DATA": "ImageSegData", "CONVOLUTION3D": "Convolution3D", "POOLING3D": "Pooling3D",
    "VIDEO_DATA": "VideoData", "UNPOOLING": "Unpooling", "BN": "BN",
    "MULTI_STAGE_MEANFIELD": "MultiStageMeanfield", "VIDEO_SEGMENTATION_DATA": "VideoSegmentationData",
    "VIDEO_WITH_VOXEL_TRUTH_DATA": "VideoWithVoxelTruthData", "VOXEL_SOFTMAX": "Softmax",
    "VOXEL_SOFTMAX_LOSS": "VoxelWiseSoftmaxLoss", "DECONVOLUTION3D": "Deconvolution3D", "AVG_PROBS": "AvgProbs",
    "INTERP": "Interp", "SEG_ACCURACY": "SegAccuracy", "MAT_READ": "MatRead", "MAT_WRITE": "MatWrite",
    "DENSE_CRF": "DenseCRF", "WINDOW_SEG_DATA": "WindowSegData", "ELTWISE_ACCURACY": "EltwiseAccuracy", "LOCAL": "Local",
}  # fmt: skip


@pytest.mark.parametrize("old", sorted(V1_TYPES.keys() - {"CROP"}))
def test_v1_type(old: str) -> None:
    assert upgraded(f"layers {{ type: {old} }}") == message(f'layer {{ type: "{V1_TYPES[old]}" }}')


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name: "n" bottom: "a" bottom: "b" top: "c"', 'name: "n" bottom: "a" bottom: "b" top: "c"'),
        ("include { phase: TRAIN } include { stage: 'x' }", "include { phase: TRAIN } include { stage: 'x' }"),
        ("exclude { min_level: 2 }", "exclude { min_level: 2 }"),
        ("loss_weight: 0.5 loss_weight: 1", "loss_weight: 0.5 loss_weight: 1"),
        ("blobs { data: 3 num: 1 }", "blobs { data: 3 num: 1 }"),
        ("blobs_lr: 1 blobs_lr: 2", "param { lr_mult: 1 } param { lr_mult: 2 }"),
        ("weight_decay: 1 weight_decay: 0", "param { decay_mult: 1 } param { decay_mult: 0 }"),
        ('param: "w" param: "b"', 'param { name: "w" } param { name: "b" }'),
        ("blob_share_mode: PERMISSIVE", "param { share_mode: PERMISSIVE }"),
        ('param: "w" blobs_lr: 1 blobs_lr: 2', 'param { name: "w" lr_mult: 1 } param { lr_mult: 2 }'),
        (
            "type: CONVOLUTION3D convolution_param { kernel_size: 3 kernel_depth: 2 bias_filler { value: 1 } }",
            'type: "Convolution3D" convolution3d_param { kernel_size: 3 kernel_depth: 2 bias_filler { value: 1 } }',
        ),
        (
            "type: POOLING3D pooling_param { pool: AVE kernel_size: 2 kernel_depth: 1 temporal_stride: 3 }",
            'type: "Pooling3D" pooling3d_param { pool: AVE kernel_size: 2 kernel_depth: 1 temporal_stride: 3 }',
        ),
    ],
)  # fmt: skip
def test_v1_field(old: str, new: str) -> None:
    assert upgraded(f"layers {{ {old} }}") == message(f"layer {{ {new} }}")


PARAMS = [field.name for field in V1LayerParameter.DESCRIPTOR.fields if field.name.endswith("_param")]


REQUIRED = {
    "multi_stage_meanfield_param": "theta_alpha: 1 theta_beta: 2 theta_gamma: 3 num_iterations: 4",
    "mat_write_param": 'prefix: "p"',
    "mat_read_param": 'prefix: "p"',
}


@pytest.mark.parametrize("param", PARAMS)
def test_v1_param_is_copied(param: str) -> None:
    fields = REQUIRED.get(param, "")
    assert upgraded(f"layers {{ {param} {{ {fields} }} }}") == message(f"layer {{ {param} {{ {fields} }} }}")


def test_states_and_types_of_other_times(tmp_path: Path) -> None:
    """`enable` and `disable` became include and exclude; a type of a fork is one that nobody knows."""
    text = "layers {{ name: 'n' type: {} enable {{ phase: TRAIN }} disable {{ }} }}"
    layer = upgraded(text.format("RELU")).layer[0]
    assert (list(layer.include), len(layer.exclude)) == ([NetStateRule(phase="TRAIN")], 1)
    path = tmp_path / "net.prototxt"
    path.write_text(text.format("SOFTMAX_LOSS_TREE"))
    assert upgrade_net(read_prototxt(path)).net.layer[0].type == "SoftmaxLossTree"


def test_every_v1_field_is_known() -> None:
    from caffeconv.caffe_format import upgrade

    known = {
        *PARAMS,
        *upgrade._V1_SAME,
        *upgrade._V1_FLAGS,
        *upgrade._V1_PARAM_SPEC,
        "name",
        "type",
        "layer",
        "enable",
        "disable",
    }
    assert {field.name for field in V1LayerParameter.DESCRIPTOR.fields} == known
    assert set(V1LayerParameter.LayerType.keys()) == V1_TYPES.keys()
    assert set(PARAMS) <= {field.name for field in LayerParameter.DESCRIPTOR.fields}


@pytest.mark.parametrize("kind", ["DATA data", "IMAGE_DATA image_data", "WINDOW_DATA window_data"])
def test_data_transformation(kind: str) -> None:
    old, param = kind.split()
    moved = 'scale: 0.5 mean_file: "m" crop_size: 3 mirror: true'
    net = upgraded(f'layers {{ type: {old} {param}_param {{ source: "s" {moved} }} transform_param {{ scale: 2 }} }}')
    new = V1_TYPES[old]
    assert net == message(f'layer {{ type: "{new}" {param}_param {{ source: "s" }} transform_param {{ {moved} }} }}')


@pytest.mark.parametrize("kind", ["DATA data", "IMAGE_DATA image_data", "WINDOW_DATA window_data"])
def test_data_transformation_within_the_data_message(kind: str) -> None:
    """Nets of spring 2014."""
    old, param = kind.split()
    inner = 'transform_param { crop_size: 3 mean_file: "m" }'
    net = upgraded(f'layers {{ type: {old} {param}_param {{ source: "s" {inner} }} transform_param {{ scale: 2 }} }}')
    whole = 'transform_param { scale: 2 crop_size: 3 mean_file: "m" }'
    assert net == message(f'layer {{ type: "{V1_TYPES[old]}" {param}_param {{ source: "s" }} {whole} }}')


def test_data_transformation_is_for_old_layers_only() -> None:
    """Caffe leaves the fields of a `layer` of today's form unread."""
    text = 'layer { type: "Data" data_param { scale: 0.5 } }'
    assert upgraded(text) == message(text)


def test_layer_and_layers_are_refused_in_caffes_words() -> None:
    source = read_prototxt(GOLDENS / "errors" / "layer_and_layers" / "net.prototxt")
    with pytest.raises(CaffeconvError) as caught:
        upgrade_net(source)
    error = str(caught.value).replace(" ('data')", "").replace(" ('r')", "")
    assert (GOLDENS / "errors" / "layer_and_layers" / "error.txt").read_text().strip() in error


# -- inputs, BatchNorm -------------------------------------------------------------------------------------------------

TWO_INPUTS = 'layer { name: "input" type: "Input" top: "a" top: "b" input_param '


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5 input_dim: 6 input_dim: 7 input_dim: 8",
            TWO_INPUTS + "{ shape { dim: [1, 2, 3, 4] } shape { dim: [5, 6, 7, 8] } } }",
        ),
        (
            "input_shape { dim: 3 } input_shape { dim: 5 dim: 6 }",
            TWO_INPUTS + "{ shape { dim: 3 } shape { dim: 5 dim: 6 } } }",
        ),
        # caffe: a caffemodel names its inputs only
        ("", ""),
    ],
)
def test_input_fields(old: str, new: str) -> None:
    source = upgrade_net(source_of(f'input: "a" input: "b" {old}\nlayer {{ name: "x" }}'))
    assert source.net == message(new + 'layer { name: "x" }')
    assert source.lines == ((0, 2) if new else (2,))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('input: "a" input: "b" input_shape { dim: 1 }', "1 `input_shape` for the inputs 'a', 'b'; 2, one for each,"),
        ('input: "a" input_dim: 1 input_dim: 2', "2 `input_dim` for the inputs 'a'; 4, four for each, were needed"),
    ],
)
def test_too_few_input_sizes(text: str, part: str) -> None:
    assert part in refusal(text)


def test_batch_norm_rates() -> None:
    net = upgraded('layer { type: "BatchNorm" param { lr_mult: 1 name: "m" } param { } param { decay_mult: 2 } }')
    off = "lr_mult: 0 decay_mult: 0"
    assert net == message(
        f'layer {{ type: "BatchNorm" param {{ name: "m" {off} }} param {{ {off} }} param {{ {off} }} }}'
    )
    unlike = 'layer { type: "BatchNorm" param { lr_mult: 1 } } layer { type: "Scale" param { } param { } param { } }'
    assert upgraded(unlike) == message(unlike)


# -- all of it ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDENS.glob("layers/*/net.prototxt")), ids=lambda path: path.parent.name)
def test_upgrading_twice_changes_nothing(path: Path) -> None:
    source = read_prototxt(path)
    before = source.net.SerializeToString(deterministic=True)
    once, told = upgrade_and_tell(source)
    assert source.net.SerializeToString(deterministic=True) == before
    assert len(once.lines) == len(once.net.layer)
    assert not once.net.layers
    assert upgrade_and_tell(once) == (once, ())
    assert bool(told) == (once.net != source.net)


V0_FIELD_TEXTS = st.sampled_from(
    ["pad: 1", "kernelsize: 3", "stride: 2", "num_output: 4", "scale: 2", "pool: AVE", 'source: "s"', "batchsize: 2"]
)


@given(st.lists(st.tuples(st.sampled_from(sorted({*V0_TYPES, "padding"})), st.sets(V0_FIELD_TEXTS)), max_size=6))
def test_chains_of_v0_layers(layers: list[tuple[str, set[str]]]) -> None:
    """Any chain is upgraded with its lines in step, or refused with a message."""
    text = 'input: "b0"\n' + "\n".join(
        f'layers {{ bottom: "b{i}" top: "b{i + 1}" layer {{ name: "l{i}" type: "{kind}" {" ".join(fields)} }} }}'
        for i, (kind, fields) in enumerate(layers)
    )
    kinds = [kind for kind, _ in layers]
    refused = any(one == "padding" and next_one not in ("conv", "pool") for one, next_one in pairwise(kinds))
    if refused:
        assert "Padding layer input to non-convolutional" in refusal(text)
        return
    source = upgrade_net(source_of(text))
    kept = [i for i, kind in enumerate(kinds) if kind != "padding"]
    assert [layer.name for layer in source.net.layer] == [f"l{i}" for i in kept]
    assert source.lines == tuple(i + 2 for i in kept)
