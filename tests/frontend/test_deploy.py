"""Training nets become deploy nets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffeconv
from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.frontend.deploy import to_deploy
from caffeconv.frontend.options import NetOptions

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 9 mirror: true mean_value: 104 mean_value: 117 mean_value: 123 }
  data_param { source: "train_lmdb" batch_size: 256 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 9 mean_value: 104 mean_value: 117 mean_value: 123 }
  data_param { source: "val_lmdb" batch_size: 50 backend: LMDB } }
"""
BODY = """
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 4 } }
"""


def deployed(tmp_path: Path, text: str, **shapes: tuple[int, ...]) -> dict[str, tuple[str, list[str], list[str]]]:
    """name → (type, bottoms, tops) of the deploy form."""
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    net = to_deploy(read_prototxt(path), NetOptions(shapes=shapes or {})).net
    return {layer.name: (layer.type, list(layer.bottom), list(layer.top)) for layer in net.layer}


def test_data_labels_losses_and_accuracy(tmp_path: Path) -> None:
    layers = deployed(
        tmp_path,
        DATA + BODY + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
        'layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" include { phase: TEST } }',
    )  # fmt: skip
    assert layers == {
        "data": ("Input", [], ["data"]),
        "fc": ("InnerProduct", ["data"], ["fc"]),
        "prob": ("Softmax", ["fc"], ["prob"]),
    }


def test_the_input_has_the_crop_size(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(DATA + BODY)
    net = to_deploy(read_prototxt(path), NetOptions()).net
    assert list(net.layer[0].input_param.shape[0].dim) == [1, 3, 9, 9]


@pytest.mark.parametrize(
    ("loss", "prediction"),
    [
        ('type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" softmax_param { axis: -1 }', "Softmax"),
        ('type: "InfogainLoss" bottom: "fc" bottom: "label" infogain_loss_param { source: "H" }', "Softmax"),
        ('type: "InfogainLoss" bottom: "fc" bottom: "label" bottom: "label"', "Softmax"),
        ('type: "SigmoidCrossEntropyLoss" bottom: "fc" bottom: "label"', "Sigmoid"),
        ('type: "EuclideanLoss" bottom: "fc" bottom: "label"', None),
        ('type: "HingeLoss" bottom: "fc" bottom: "label"', None),
    ],
)
def test_what_a_loss_leaves(tmp_path: Path, loss: str, prediction: str | None) -> None:
    layers = deployed(tmp_path, DATA + BODY + f'layer {{ name: "loss" top: "loss" {loss} }}')
    expected = {"data": "Input", "fc": "InnerProduct"} | ({"prob": prediction} if prediction else {})
    assert {name: kind for name, (kind, _, _) in layers.items()} == expected


@pytest.mark.parametrize(
    ("loss", "axis"),
    [
        ('type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" softmax_param { axis: 0 }', 0),
        ('type: "InfogainLoss" bottom: "fc" bottom: "label" bottom: "label" infogain_loss_param { axis: 0 }', 0),
        ('type: "InfogainLoss" bottom: "fc" bottom: "label" bottom: "label" softmax_param { axis: 0 }', 1),
    ],
)
def test_a_prediction_is_along_the_axis_of_its_loss(tmp_path: Path, loss: str, axis: int) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(DATA + BODY + f'layer {{ name: "loss" top: "loss" {loss} }}')
    prediction = to_deploy(read_prototxt(path), NetOptions()).net.layer[-1]
    assert (prediction.name, list(prediction.bottom), list(prediction.top)) == ("prob", ["fc"], ["prob"])
    assert prediction.softmax_param.axis == axis
    assert prediction.HasField("softmax_param") == (axis != 1)


def test_a_loss_without_bottoms_leaves_nothing(tmp_path: Path) -> None:
    layers = deployed(tmp_path, DATA + BODY + 'layer { name: "loss" type: "SoftmaxWithLoss" top: "loss" }')
    assert layers.keys() == {"data", "fc"}


def test_label_branches_go(tmp_path: Path) -> None:
    layers = deployed(
        tmp_path,
        DATA + BODY
        + """
        layer { name: "split" type: "Slice" bottom: "label" top: "label_a" top: "label_b" }
        layer { name: "smooth" type: "Power" bottom: "label_b" top: "smooth" power_param { scale: 0.9 } }
        layer { name: "loss_a" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label_a" top: "loss_a" }
        layer { name: "fc2" type: "InnerProduct" bottom: "fc" top: "fc2" inner_product_param { num_output: 2 } }
        layer { name: "loss_b" type: "SigmoidCrossEntropyLoss" bottom: "fc2" bottom: "smooth" top: "loss_b" }
        layer { name: "quiet" type: "Silence" bottom: "label_a" }
        """,
    )  # fmt: skip
    assert {name: kind for name, (kind, _, _) in layers.items()} == {
        "data": "Input", "fc": "InnerProduct", "prob": "Softmax", "fc2": "InnerProduct", "loss_b/prob": "Sigmoid",
    }  # fmt: skip


def test_labels_from_an_input_layer(tmp_path: Path) -> None:
    text = """
    layer { name: "in" type: "Input" top: "data" top: "label"
      input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
    """
    layers = deployed(
        tmp_path, text + BODY + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "l" }'
    )
    assert layers["in"] == ("Input", [], ["data"])
    assert layers["prob"][0] == "Softmax"


def test_an_autoencoder_keeps_its_input(tmp_path: Path) -> None:
    text = """
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 } } }
    layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }
    layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 4 } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "flat" top: "loss" }
    """
    layers = deployed(tmp_path, text)
    assert layers["in"] == ("Input", [], ["data"])
    assert layers["fc"] == ("InnerProduct", ["data"], ["fc"])


def test_a_training_net_converts_directly(tmp_path: Path) -> None:
    path = tmp_path / "train_val.prototxt"
    path.write_text(
        DATA + BODY + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
    )
    model = caffeconv.convert(path, deploy=True)
    assert [i.name for i in model.graph.input] == ["data"]
    assert [o.name for o in model.graph.output] == ["prob"]
    result = caffeconv.Net(path, deploy=True).forward(data=np.ones((1, 3, 9, 9), np.float32))["prob"]
    np.testing.assert_allclose(result.sum(), 1, rtol=1e-6)


def test_an_unknown_size_is_asked_for(tmp_path: Path) -> None:
    text = 'layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "absent" batch_size: 2 } }'
    with pytest.raises(caffeconv.CaffeconvError, match=r"`shapes=\{'data': "):
        deployed(tmp_path, text + BODY)
    assert deployed(tmp_path, text + BODY, data=(1, 3, 8, 8))["d"][0] == "Input"


SSD = """
layer { name: "data" type: "AnnotatedData" top: "data" top: "label" annotated_data_param { batch_sampler { } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 4 } }
layer { name: "mbox" type: "MultiBoxLoss" bottom: "fc" bottom: "label" top: "mbox" multibox_loss_param { iou: 0.5 } }
layer { name: "ohem" type: "SmoothL1LossOHEM" bottom: "fc" bottom: "fc" top: "ohem" }
layer { name: "eval" type: "DetectionEvaluate" bottom: "fc" bottom: "label" top: "eval" }
"""


def test_data_losses_and_evaluations_of_forks(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(SSD)
    model = caffeconv.convert(path, deploy=True, shapes={"data": (1, 3, 4, 4)})
    assert [value.name for value in model.graph.input] == ["data"]
    assert [value.name for value in model.graph.output] == ["fc"]


def test_the_size_of_a_forks_data_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(SSD)
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        caffeconv.convert(path, deploy=True)
    assert str(caught.value) == (
        "data (AnnotatedData), line 2: AnnotatedData is a data layer of a fork, which does not say how large 'data' is\n"
        "  Name it: `shapes={'data': (1, 3, 224, 224)}`"
    )


def test_what_the_caller_gives_a_shape_is_no_label(tmp_path: Path) -> None:
    shapes = {"data": (1, 3, 4, 4), "info": (1, 3)}
    text = 'layer { name: "d" type: "RoiData" top: "data" top: "info" top: "label" }\n' + BODY
    text += 'layer { name: "i" type: "InnerProduct" bottom: "info" top: "i" inner_product_param { num_output: 4 } }'
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    model = caffeconv.convert(path, deploy=True, shapes=shapes)
    assert [value.name for value in model.graph.input] == ["data", "info"]


def test_data_of_the_other_phase_alone(tmp_path: Path) -> None:
    """SSD's nets for training and for testing are two files."""
    path = tmp_path / "train.prototxt"
    path.write_text(SSD.replace('top: "label" annotated', 'top: "label" include { phase: TRAIN } annotated'))
    with pytest.warns(
        caffeconv.CaffeconvWarning, match="no data layer of phase TEST makes data, label; 'data', of phase"
    ):
        model = caffeconv.convert(path, deploy=True, shapes={"data": (1, 3, 4, 4)})
    assert [value.name for value in model.graph.input] == ["data"]
    assert [value.name for value in model.graph.output] == ["fc"]


def test_data_of_the_other_phase_behind_a_layer_in_place(tmp_path: Path) -> None:
    data = DATA.split("layer {")[1]
    power = 'layer { name: "shift" type: "Power" bottom: "data" top: "data" power_param { shift: 1 } }'
    with pytest.warns(caffeconv.CaffeconvWarning, match="of phase TRAIN, is taken"):
        layers = deployed(tmp_path, f"layer {{ {data} {power} {BODY}")
    assert list(layers) == ["data", "shift", "fc"]


def test_target_layers_of_training_pass_regions_on(tmp_path: Path) -> None:
    """Cascade R-CNN's nets make the regions in TRAIN alone, where the data layer has both phases."""
    target = """
layer { name: "proposals" type: "Power" bottom: "data" top: "proposals" power_param { scale: 2 } }
layer { name: "target" type: "ProposalTarget" bottom: "proposals" bottom: "label" top: "rois" top: "labels"
  include { phase: TRAIN } }
"""
    layers = deployed(tmp_path, DATA + target + BODY.replace('bottom: "data"', 'bottom: "rois"'))
    assert layers["fc"] == ("InnerProduct", ["proposals"], ["fc"])
    assert "target" not in layers


FRCNN = """
layer { name: "input" type: "Python" top: "data" top: "im_info" top: "gt_boxes"
  python_param { module: "roi_data_layer.layer" layer: "RoIDataLayer" param_str: "'num_classes': 2" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "score" type: "Convolution" bottom: "conv" top: "score" convolution_param { num_output: 18 kernel_size: 1 } }
layer { name: "delta" type: "Convolution" bottom: "conv" top: "delta" convolution_param { num_output: 36 kernel_size: 1 } }
layer { name: "target" type: "Python" bottom: "score" bottom: "gt_boxes" bottom: "im_info" bottom: "data"
  top: "rpn_labels" top: "rpn_targets" python_param { module: "rpn.anchor_target_layer" layer: "AnchorTargetLayer" } }
layer { name: "loc_loss" type: "SmoothL1Loss" bottom: "delta" bottom: "rpn_targets" top: "loc_loss" }
layer { name: "proposal" type: "Python" bottom: "score" bottom: "delta" bottom: "im_info" top: "rpn_rois"
  python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" } }
layer { name: "data_rois" type: "Python" bottom: "rpn_rois" bottom: "gt_boxes" top: "rois" top: "labels"
  python_param { module: "rpn.proposal_target_layer" layer: "ProposalTargetLayer" param_str: "'num_classes': 2" } }
layer { name: "pool" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "pool"
  roi_pooling_param { pooled_w: 2 pooled_h: 2 spatial_scale: 0.0625 } }
layer { name: "cls" type: "InnerProduct" bottom: "pool" top: "cls" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "cls" bottom: "labels" top: "loss" }
"""


def test_faster_rcnns_python_layers_need_no_code(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(FRCNN)
    model = caffeconv.convert(path, deploy=True, shapes={"data": (1, 3, 5, 6)})
    assert [value.name for value in model.graph.input] == ["data", "im_info"]
    assert [value.name for value in model.graph.output] == ["prob"]


def test_the_size_of_python_data_is_asked_for(tmp_path: Path) -> None:
    text = (
        'layer { name: "d" type: "Python" top: "data" top: "label" python_param { module: "m" layer: "Layer" } }' + BODY
    )
    with pytest.raises(caffeconv.CaffeconvError, match=r"m\.Layer is a data layer of a fork.*'data'"):
        deployed(tmp_path, text)
    assert deployed(tmp_path, text, data=(1, 3, 2, 2))["d"] == ("Input", [], ["data"])


def test_an_evaluation_whose_label_nobody_makes(tmp_path: Path) -> None:
    text = 'input: "data" input_shape { dim: 1 dim: 3 }' + BODY
    text += 'layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" }'
    assert deployed(tmp_path, text).keys() == {"input", "fc"}
    with pytest.raises(caffeconv.CaffeconvError, match="Unknown bottom blob 'other'"):
        deployed(tmp_path, text + BODY.replace('"fc"', '"fc2"').replace('bottom: "data"', 'bottom: "other"'))


def test_ssds_loss_leaves_its_detection_head(tmp_path: Path) -> None:
    text = (
        DATA
        + """
    layer { name: "loc" type: "InnerProduct" bottom: "data" top: "loc" inner_product_param { num_output: 324 } }
    layer { name: "conf" type: "InnerProduct" bottom: "data" top: "conf" inner_product_param { num_output: 243 } }
    layer { name: "prior" type: "PriorBox" bottom: "data" bottom: "data" top: "prior"
      prior_box_param { min_size: 3 variance: 0.1 } }
    layer { name: "mbox" type: "MultiBoxLoss" bottom: "loc" bottom: "conf" bottom: "prior" bottom: "label" top: "mbox"
      multibox_loss_param { num_classes: 3 } }
    """
    )
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    found = caffeconv.Net(path, deploy=True).forward(data=np.ones((1, 3, 9, 9), np.float32))
    assert found["detection_out"].shape[-1] == 7


def test_a_third_top_of_deeplabs_data_goes_with_the_labels(tmp_path: Path) -> None:
    data = 'type: "ImageData" top: "data" top: "label" top: "dim" image_data_param { new_height: 9 new_width: 9 }'
    layers = deployed(tmp_path, f'layer {{ name: "data" {data} }}\n{BODY}')
    assert layers["data"] == ("Input", [], ["data"])


ONE_STAGE = """
layer { name: "d" type: "Input" top: "x" input_param { shape { dim: [1, 3] } } }
layer { name: "a" type: "ReLU" bottom: "x" top: "y" include { phase: TEST stage: "small" } }
layer { name: "b" type: "Power" bottom: "y" top: "z" }
"""


def test_the_one_stage_in_which_the_net_is_whole(tmp_path: Path) -> None:
    (path := tmp_path / "net.prototxt").write_text(ONE_STAGE)
    with pytest.raises(caffeconv.CaffeconvError, match=r"Layer 'a' \(ReLU\) makes it with `stages=\('small',\)`"):
        caffeconv.convert(path)
    with pytest.warns(caffeconv.CaffeconvWarning, match="unless its stage is small"):
        assert next(node.op_type for node in caffeconv.convert(path, deploy=True).graph.node) == "Relu"


def test_two_stages_that_make_different_nets(tmp_path: Path) -> None:
    first, small, last = ONE_STAGE.strip().splitlines()
    large = small.replace("small", "large").replace("ReLU", "TanH")
    (path := tmp_path / "net.prototxt").write_text("\n".join((first, small, large, last)))
    with pytest.raises(caffeconv.CaffeconvError, match="Unknown bottom blob 'y'"):
        caffeconv.convert(path, deploy=True)
