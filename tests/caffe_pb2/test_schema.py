"""The wire schema: Caffe's names, numbers, types and defaults, in a descriptor pool that is nobody else's."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, text_format

from caffeconv import caffe_pb2

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT.parent / "shared" / "prototxts" / "files"
TYPES = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
LABELS = {
    number: name.removeprefix("LABEL_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Label.items()
}


def declaration(field: descriptor_pb2.FieldDescriptorProto) -> str:
    """Return `field` as it would stand in the schema."""
    options = [f"default = {field.default_value}"] if field.HasField("default_value") else []
    options += ["packed = true"] if field.options.packed else []
    kind = field.type_name.removeprefix(".caffe.") or TYPES[field.type]
    tail = f" [{', '.join(options)}]" if options else ""
    return f"{LABELS[field.label]} {kind} {field.name} = {field.number}{tail}"


def schema() -> descriptor_pb2.FileDescriptorProto:
    """Return the schema from the caffe.desc that the package reads."""
    (only,) = descriptor_pb2.FileDescriptorSet.FromString(descriptors().read_bytes()).file
    return only


def descriptors() -> Path:
    """Return the caffe.desc that the package reads."""
    return next(path for folder in caffe_pb2.__path__ if (path := Path(folder, "caffe.desc")).is_file())


def declarations() -> dict[str, set[str]]:
    """Return every top-level message of the schema with its fields as declarations."""
    return {message.name: {declaration(field) for field in message.field} for message in schema().message_type}


BVLC = {
    "BlobShape": ["repeated int64 dim = 1 [packed = true]"],
    "BlobProto": [
        "optional int32 num = 1 [default = 0]",
        "optional int32 width = 4 [default = 0]",
        "repeated float data = 5 [packed = true]",
        "repeated float diff = 6 [packed = true]",
        "optional BlobShape shape = 7",
        "repeated double double_data = 8 [packed = true]",
        "repeated double double_diff = 9 [packed = true]",
    ],
    "Datum": [
        "optional bytes data = 4",
        "optional int32 label = 5",
        "repeated float float_data = 6",
        "optional bool encoded = 7 [default = false]",
    ],
    "NetParameter": [
        "optional string name = 1",
        "repeated V1LayerParameter layers = 2",
        "repeated string input = 3",
        "repeated int32 input_dim = 4",
        "repeated BlobShape input_shape = 8",
        "repeated LayerParameter layer = 100",
    ],
    "NetState": ["optional Phase phase = 1 [default = TEST]", "optional int32 level = 2 [default = 0]"],
    "ParamSpec": ["optional float lr_mult = 3 [default = 1]", "optional float decay_mult = 4 [default = 1]"],
    "FillerParameter": [
        "optional string type = 1 [default = constant]",
        "optional int32 sparse = 7 [default = -1]",
        "optional FillerParameter.VarianceNorm variance_norm = 8 [default = FAN_IN]",
    ],
    "LayerParameter": [
        "repeated float loss_weight = 5",
        "repeated BlobProto blobs = 7",
        "optional Phase phase = 10",
        "repeated bool propagate_down = 11",
        "optional ConvolutionParameter convolution_param = 106",
        "optional InfogainLossParameter infogain_loss_param = 116",
        "optional PoolingParameter pooling_param = 121",
        "optional PReLUParameter prelu_param = 131",
        "optional BatchNormParameter batch_norm_param = 139",
        "optional ScaleParameter scale_param = 142",
        "optional InputParameter input_param = 143",
        "optional CropParameter crop_param = 144",
        "optional RecurrentParameter recurrent_param = 146",
        "optional SwishParameter swish_param = 147",
        "optional ClipParameter clip_param = 148",
    ],
    "ConvolutionParameter": [
        "repeated uint32 pad = 3",
        "repeated uint32 kernel_size = 4",
        "optional uint32 group = 5 [default = 1]",
        "optional uint32 stride_h = 13",
        "repeated uint32 dilation = 18",
    ],
    "PoolingParameter": [
        "repeated uint32 stride = 3",
        "optional uint32 stride_w = 8",
        "optional bool global_pooling = 12 [default = false]",
        "optional PoolingParameter.RoundMode round_mode = 13 [default = CEIL]",
    ],
    "BatchNormParameter": [
        "optional bool use_global_stats = 1",
        "optional float moving_average_fraction = 2 [default = 0.999]",
        "optional float eps = 3 [default = 1e-05]",
    ],
    "LRNParameter": ["optional uint32 local_size = 1 [default = 5]", "optional float beta = 3 [default = 0.75]"],
    "LossParameter": ["optional LossParameter.NormalizationMode normalization = 3 [default = VALID]"],
    "InfogainLossParameter": ["optional string source = 1", "optional int32 axis = 2 [default = 1]"],
    "ClipParameter": ["required float min = 1", "required float max = 2"],
    "ReshapeParameter": ["optional int32 num_axes = 3 [default = -1]"],
    "SliceParameter": ["optional uint32 slice_dim = 1 [default = 1]", "optional int32 axis = 3 [default = 1]"],
    "ReductionParameter": ["optional ReductionParameter.ReductionOp operation = 1 [default = SUM]"],
    "V1LayerParameter": [
        "optional V0LayerParameter layer = 1",
        "repeated float blobs_lr = 7",
        "repeated string param = 1001",
    ],
    "V0LayerParameter": ["optional uint32 kernelsize = 8", "repeated BlobProto blobs = 50"],
}
FORKS = {
    # NVIDIA
    "BlobProto": ["optional Type raw_data_type = 10", "optional bytes raw_data = 12"],
    "LayerParameter": [
        # SSD
        "optional AnnotatedDataParameter annotated_data_param = 200",
        "optional MultiBoxLossParameter multibox_loss_param = 201",
        "optional PermuteParameter permute_param = 202",
        "optional PriorBoxParameter prior_box_param = 203",
        "optional DetectionOutputParameter detection_output_param = 204",
        "optional NormalizeParameter norm_param = 206",
        # Faster R-CNN, R-FCN, CaffeOnSpark
        "optional ROIPoolingParameter roi_pooling_param = 8266711",
        "optional SmoothL1LossParameter smooth_l1_loss_param = 8266712",
        "optional BoxAnnotatorOHEMParameter box_annotator_ohem_param = 10000",
        "optional bytes source_class = 10001",
        # PSPNet, MobileNet-YOLO, ShuffleNet, C3D
        "optional BNParameter bn_param = 152",
        "optional ReorgParameter reorg_param = 149",
        "optional UpsampleParameter upsample_param = 150",
        "optional YoloDetectionOutputParameter yolo_detection_output_param = 601",
        "optional Yolov3DetectionOutputParameter yolov3_detection_output_param = 602",
        "optional ShuffleChannelParameter shuffle_channel_param = 164",
        "optional Convolution3DParameter convolution3d_param = 6661",
    ],
    "PriorBoxParameter": [
        "repeated float min_size = 1",
        "optional bool clip = 5 [default = false]",
        "repeated float variance = 6",
        "optional float offset = 13 [default = 0.5]",
    ],
    "DetectionOutputParameter": [
        "optional PriorBoxParameter.CodeType code_type = 6 [default = CORNER]",
        "optional int32 keep_top_k = 7 [default = -1]",
        "optional float confidence_threshold = 9",
    ],
    "NormalizeParameter": [
        "optional bool across_spatial = 1 [default = true]",
        "optional bool channel_shared = 3 [default = true]",
        "optional float eps = 4 [default = 1e-10]",
    ],
    "InterpParameter": ["optional int32 zoom_factor = 3 [default = 1]", "optional int32 pad_beg = 5 [default = 0]"],
    "DropoutParameter": ["optional bool scale_train = 2 [default = true]"],
}


@pytest.mark.parametrize(
    ("message", "field"),
    [(message, field) for table in (BVLC, FORKS) for message, fields in table.items() for field in fields],
)
def test_field_is_as_published(message: str, field: str) -> None:
    assert field in declarations()[message]


def test_enum_values_are_module_and_class_attributes() -> None:
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Name(caffe_pb2.TEST) == "TEST"
    assert caffe_pb2.FLOAT16 == caffe_pb2.Type.Value("FLOAT16") == 2
    assert caffe_pb2.PoolingParameter.PoolMethod.items() == [
        ("MAX", 0), ("AVE", 1), ("STOCHASTIC", 2), ("AVE_EXC_PAD", 3), ("AVE_TF", 3),
    ]  # fmt: skip
    assert caffe_pb2.V1LayerParameter.DECONVOLUTION == 39
    assert caffe_pb2.PriorBoxParameter.CORNER_SIZE == 3


def test_every_message_of_the_schema_is_an_attribute() -> None:
    assert len(declarations()) > 100
    for name in declarations():
        assert name in dir(caffe_pb2)
        assert getattr(caffe_pb2, name)().DESCRIPTOR.full_name == f"caffe.{name}"
    with pytest.raises(AttributeError, match="has no attribute 'NetParameters'"):
        caffe_pb2.NetParameters  # type: ignore[attr-defined]  # noqa: B018


def test_only_fields_of_forks_have_numbers_of_our_own() -> None:
    """50000 to 59999 hold what collides; a field that BVLC's Caffe writes never stands there."""
    ours = {
        (message.name, f.name) for message in schema().message_type for f in message.field if f.number // 10000 == 5
    }
    assert ("PoolingParameter", "ceil_mode") in ours
    assert ("LayerParameter", "interp_param") in ours
    assert not ours & {(message, field.split()[2]) for message, fields in BVLC.items() for field in fields}


def test_blob_is_written_as_caffe_writes_it() -> None:
    blob = caffe_pb2.BlobProto(data=[1, 0, 0, 0, 1, 0, 0, 0, 1], shape=caffe_pb2.BlobShape(dim=[1, 1, 3, 3]))
    wire = blob.SerializeToString()
    assert wire[:2].hex() == "2a24"
    assert wire[38:].hex() == "3a060a0401010303"
    assert caffe_pb2.BlobProto.FromString(wire) == blob


def test_prototxt_of_two_forks_reads_in_one_message() -> None:
    layer = caffe_pb2.LayerParameter()
    text_format.Parse("bn_param { slope_filler { value: 1 } frozen: true bn_mode: INFERENCE shift_filler { } }", layer)
    assert layer.bn_param.frozen
    assert layer.bn_param.bn_mode == caffe_pb2.BNParameter.INFERENCE
    assert not layer.bn_param.HasField("scale_filler")


def test_number_that_two_forks_use_does_not_break_a_caffemodel() -> None:
    """CaffeOnSpark (open_nsfw) has a class name where R-FCN has psroi_pooling_param."""
    psroi_pooling = bytes.fromhex("8af104090d0000803d10021803")
    spark = bytes.fromhex("8af10420") + b"com.yahoo.ml.caffe.DataFrameData"
    for wire in (psroi_pooling, spark):
        layer = caffe_pb2.LayerParameter.FromString(wire + caffe_pb2.LayerParameter(name="n").SerializeToString())
        assert layer.name == "n"


SECOND_COPY = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

pycaffe = {{}}

def import_pycaffe():
    # What the protoc output in a real pycaffe does when it is imported.
    (schema,) = descriptor_pb2.FileDescriptorSet.FromString(open({desc!r}, "rb").read()).file
    schema.name = {name!r}
    if {other}:
        del schema.enum_type[:], schema.message_type[:]
        field = schema.message_type.add(name="NetParameter").field.add(name="ours", number=1, label=1, type=5)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(schema.SerializeToString())
    for message in pool.FindFileByName(schema.name).message_types_by_name.values():
        pycaffe[message.name] = message_factory.GetMessageClass(message)
    return pycaffe["NetParameter"]

def import_ours():
    from caffeconv import caffe_pb2
    return caffe_pb2.NetParameter

{order}
assert theirs is not ours
net = ours()
text_format.Parse('name: "n" layer {{ type: "ReLU" relu_param {{ negative_slope: 0.5 }} }}', net)
assert net.layer[0].relu_param.negative_slope == 0.5
assert ours.FromString(net.SerializeToString()) == net
if {other}:
    assert theirs(ours=3).ours == 3 and not hasattr(theirs(), "layer")
else:
    assert theirs.FromString(net.SerializeToString()).layer[0].relu_param.negative_slope == 0.5
"""


@pytest.mark.parametrize(
    "order",
    ["theirs = import_pycaffe(); ours = import_ours()", "ours = import_ours(); theirs = import_pycaffe()"],
    ids=["theirs_first", "ours_first"],
)
@pytest.mark.parametrize("name", ["caffe.proto", "caffe/proto/caffe.proto"])
@pytest.mark.parametrize("other", [False, True], ids=["same_schema", "other_schema"])
def test_a_second_copy_of_the_schema_in_one_process(order: str, name: str, other: bool, tmp_path: Path) -> None:
    script = SECOND_COPY.format(order=order, name=name, other=other, desc=str(descriptors()))
    # The package under test, wherever pytest found it; not what lies in the current folder.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)


def test_package_that_was_not_built_says_so(tmp_path: Path) -> None:
    package = tmp_path / "unbuilt"
    package.mkdir()
    shutil.copy(ROOT / "caffeconv" / "caffe_pb2" / "__init__.py", package)
    run = subprocess.run(
        [sys.executable, "-c", "import unbuilt"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert f"ImportError: caffeconv is not built: {package / 'caffe.desc'} is missing." in run.stderr


def annotated_names(stub: str) -> set[str]:
    """Return the annotated names of a stub, each with its class and type; protoc's versions differ in the rest."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], scope: str) -> None:
        for node in body:
            if isinstance(node, ast.AnnAssign):
                found.add(f"{scope}{ast.unparse(node)}")
            elif isinstance(node, ast.ClassDef):
                visit(node.body, f"{scope}{node.name}.")

    visit(ast.parse(stub).body, "")
    return found


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="needs grpcio-tools")
def test_stub_and_descriptors_are_fresh(tmp_path: Path) -> None:
    generate = [sys.executable, str(ROOT / "proto" / "generate.py"), "out.desc", "--pyi", "out.pyi"]
    subprocess.run(generate, check=True, cwd=tmp_path)
    kept = (ROOT / "caffeconv" / "caffe_pb2" / "__init__.pyi").read_text(encoding="utf-8")
    made = (tmp_path / "out.pyi").read_text(encoding="utf-8")
    assert len(annotated_names(kept)) > 1000
    assert annotated_names(kept) == annotated_names(made), "run proto/generate.py with --pyi"
    compiled = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "out.desc").read_bytes())
    assert [schema()] == list(compiled.file), "caffe.desc is older than proto/caffe.proto: build the package again"


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the published nets in ../shared")
def test_published_nets_have_no_unknown_field() -> None:
    unreadable: dict[str, str] = {}
    for path in sorted(PUBLISHED.glob("*.prototxt")):
        try:
            text_format.Parse(path.read_text(encoding="utf-8", errors="replace"), caffe_pb2.NetParameter())
        except text_format.ParseError as error:
            unreadable[path.name] = str(error)
    assert unreadable == {}
