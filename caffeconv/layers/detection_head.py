"""The detection head that belongs to SSD's loss, as SSD's own deploy nets have it in the place of the loss."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from caffeconv.caffe_pb2 import BlobShape, LayerParameter, MultiBoxLossParameter
from caffeconv.ir.definition import LayerDef
from caffeconv.tensor.shape import unique_name

_LOSSES = ("MultiBoxLoss", "MultiBoxFocalLoss")
_FIRST_STAGE = 5
"""The bottom of RefineDet's second loss that is the first one's locations."""


def detection_head(layer: LayerDef, layers: Collection[LayerDef]) -> Sequence[LayerParameter]:
    """The layers that stand for a loss over detections among the net's `layers`; none for any other layer.

    Confidences go through a softmax over the classes, or a sigmoid, and with locations and priors into a
    DetectionOutput with the loss's settings, and the thresholds of SSD's scripts (ssd_pascal.py: det_out_param). A net
    that has a DetectionOutput of its own over these locations needs none, nor does RefineDet's first stage.
    """
    if layer.type not in _LOSSES or len(layer.bottoms) < 4:
        return ()
    location, confidence, priors = layer.bottoms[:3]
    for other in layers:
        is_second_stage = other.type in _LOSSES and location in other.bottoms[_FIRST_STAGE:]
        if is_second_stage or (other.type == "DetectionOutput" and location in other.bottoms):
            return ()
    taken = {name for other in layers for name in (other.name, *other.tops)}
    made: list[LayerParameter] = []

    def add(kind: str, what: str, bottoms: Sequence[str]) -> LayerParameter:
        name = unique_name(what, taken)
        made.append(LayerParameter(name=name, type=kind, bottom=bottoms, top=[name]))
        return made[-1]

    p = layer.proto.multibox_loss_param
    if p.conf_loss_type == p.LOGISTIC:
        add("Sigmoid", f"{confidence}_sigmoid", [confidence])
    else:
        reshape = add("Reshape", f"{confidence}_reshape", [confidence])
        reshape.reshape_param.shape.CopyFrom(BlobShape(dim=[0, -1, p.num_classes]))
        add("Softmax", f"{confidence}_softmax", reshape.top).softmax_param.axis = 2
        add("Flatten", f"{confidence}_flatten", made[-1].top).flatten_param.axis = 1
    first_stage = layer.bottoms[4:6]  # RefineDet: confidences and locations
    output = add("DetectionOutput", "detection_out", [location, made[-1].top[0], priors, *first_stage])
    _set_options(output, p)
    return made


def _set_options(output: LayerParameter, p: MultiBoxLossParameter) -> None:
    o = output.detection_output_param
    o.num_classes, o.share_location, o.background_label_id = p.num_classes, p.share_location, p.background_label_id
    o.code_type, o.variance_encoded_in_target = p.code_type, p.encode_variance_in_target
    o.nms_param.nms_threshold, o.nms_param.top_k = 0.45, 400
    o.keep_top_k, o.confidence_threshold = 200, 0.01
    if len(output.bottom) > 4:
        o.objectness_score = p.objectness_score
