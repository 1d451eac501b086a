"""Layers of forks that only training has, by their type or, for those in Python, by the class of their code.

They are not built. Where a net becomes a deploy net they go; what some pass on, or predict, stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Layer
from caffeconv.layers import LAYERS, PYTHON_LAYERS
from caffeconv.tensor.shape import Shape

LOSSES = frozenset(
    (
        "BoxAnnotatorOHEM", "CenterLoss", "CtcLoss", "DSALoss", "DetectionGroupLoss", "DetectionLoss", "DiceCoefLoss",
        "FocalLoss", "GeneralContrastiveLoss", "GeneralTripletLoss", "L1Loss", "LSROLoss", "LabeledMatching",
        "LiftedStructSimilaritySoftmaxLoss", "MMDLoss", "MarginInnerProduct", "MultiBoxFocalLoss", "MultiBoxLoss",
        "NLLLoss", "QuantileLoss", "RegionLoss", "SmoothL1LossOHEM", "SmoothMarginInnerProduct", "SoftmaxKLDLoss",
        "SoftmaxWithFocalLoss", "SoftmaxWithLossOHEM", "TripletLoss", "UnlabeledMatching", "VoxelWiseSoftmaxLoss",
        "WarpCTCLoss", "YoloSeg", "YoloV2Loss", "YoloV3Loss", "Yolov3",
    )
)  # fmt: skip
"""Losses, and what picks examples for them."""
EVALUATIONS = frozenset(
    (
        "AccuracyDecode", "AccuracyEncoding", "AvgProbs", "BboxAccuracy", "DetectionAccuracy", "DetectionEvaluate",
        "DetectionGroupAccuracy", "EltwiseAccuracy", "EvalDetection", "LabelsequenceAccuracy", "MatWrite", "SegAccuracy",
        "SegmentationEvaluate", "caffe.layers.detectnet.clustering.ClusterGroundtruth",
        "caffe.layers.detectnet.mean_ap.ScoreDetections", "caffe.layers.detectnet.mean_ap.mAP",
        "rpn.anchor_target_layer.AnchorTargetLayer", "rpn.debug_layer.RPNDebugLayer",
    )
)  # fmt: skip
"""Accuracies and statistics, and what makes the targets of losses."""
PASSING: Mapping[str, int | None] = {
    "AdaCosAddmScale": 1,
    "CosinAddm": 1,
    "DetectNetTransformation": 1,
    "GuidedDropout": 1,
    "HardMining": None,
    "LabelSpecificAdd": 1,
    "LabelSpecificRescale": 1,
    "ProposalTarget": 1,
    "rpn.proposal_target_layer.ProposalTargetLayer": 1,
    "spatial_dropout.SpatialDropoutLayer": 1,
}
"""Type → how many bottoms are passed on as the first tops (None: all), where what it does to them is for training alone.

The other tops hold labels and targets.
"""
DATA: Mapping[str, Mapping[str, Shape]] = {"roi_data_layer.layer.RoIDataLayer": {"im_info": (1, 3), "rois": (1, 5)}}
"""Type → tops after the first that are data of one picture, with their shapes; those of other names hold labels."""
CLIPS: Mapping[str, int] = {"VideoSegmentationData": 16, "VideoWithVoxelTruthData": 16}
"""Type → how many frames C3D's clips have, where files say how many they are."""
_SAYS_SO = re.compile(r"(Loss|LossLayer|Accuracy)$|^(Loss|Accuracy)(?=[A-Z])")
"""What a type is called that is a loss or an accuracy."""
_SOFTMAX_LOSSES = ("SoftmaxWithLossOHEM", "SoftmaxWithFocalLoss", "VoxelWiseSoftmaxLoss")


def name_of(layer: LayerDef) -> str:
    """The layer's type; for one in Python, the class of its code."""
    param = layer.proto.python_param
    return f"{param.module}.{param.layer}" if layer.type == "Python" else layer.type


def known_type(layer: LayerDef) -> type[Layer] | None:
    """The class that a deploy net's layer has; None where its type is not known, and for Python without a rule there.

    Of Python code that the caller allows, what fills its tops by itself and what only trains has none either.
    """
    if layer.type != "Python":
        return LAYERS.get(layer.type)
    rule = PYTHON_LAYERS.get(name_of(layer)) if name_of(layer) not in PASSING else None
    own = LAYERS["Python"] if layer.python_host is not None and layer.bottoms and not is_training_only(layer) else None
    return rule or own


def is_training_only(layer: LayerDef) -> bool:
    """Whether a layer, of a type that is not known otherwise, is none of a deploy net's.

    That is so too for types which nobody here knows, and whose own name says that they are a loss or an accuracy.
    """
    if layer.type == "Python" and any(layer.loss_weights):
        return True
    return is_training_type(name_of(layer))


def is_training_type(name: str) -> bool:
    """As `is_training_only`, of a type, or of the class of a layer in Python, without the layer."""
    if name in LOSSES or name in EVALUATIONS or name in PASSING:
        return True
    return "." not in name and name not in LAYERS and _SAYS_SO.search(name) is not None


def passed_on(layer: LayerDef) -> Mapping[str, str]:
    """Top → bottom, for those tops of a layer of training that are its bottoms in a deploy net."""
    name = name_of(layer)
    number = PASSING.get(name, 0)
    return dict(list(zip(layer.tops, layer.bottoms, strict=False))[:number])


def data_tops(layer: LayerDef) -> Mapping[str, Shape | None]:
    """The tops of a data layer that hold data, and their shapes where these are the same for every net."""
    others = DATA.get(name_of(layer), {})
    return {layer.tops[0]: None, **{top: others[top] for top in layer.tops[1:] if top in others}}


def clip_length(layer: LayerDef) -> int | None:
    """The usual number of frames of a data layer whose files say it; None for other layers."""
    return CLIPS.get(layer.type)


def prediction_layer(layer: LayerDef) -> LayerParameter | None:
    """What a loss of a fork leaves over its first bottom, still without name and top; None: nothing of one layer."""
    if name_of(layer) not in _SOFTMAX_LOSSES:
        return None
    return LAYERS["SoftmaxWithLoss"].prediction_layer(layer)
