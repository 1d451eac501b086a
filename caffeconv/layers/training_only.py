"""Layer types of forks that only training has: they are not built, and go where a net becomes a deploy net."""

from __future__ import annotations

LOSSES = frozenset(
    (
        "BoxAnnotatorOHEM", "CenterLoss", "CtcLoss", "DSALoss", "DetectionGroupLoss", "DetectionLoss", "DiceCoefLoss",
        "FocalLoss", "GeneralContrastiveLoss", "GeneralTripletLoss", "HardMining", "L1Loss", "LSROLoss",
        "LiftedStructSimilaritySoftmaxLoss", "MMDLoss", "MultiBoxFocalLoss", "MultiBoxLoss", "NLLLoss", "QuantileLoss",
        "RegionLoss", "SmoothL1LossOHEM", "SoftmaxKLDLoss", "SoftmaxWithLossOHEM", "TripletLoss", "WarpCTCLoss",
        "YoloSeg", "YoloV2Loss", "YoloV3Loss", "Yolov3",
    )
)  # fmt: skip
"""Losses, and what picks examples for them."""
EVALUATIONS = frozenset(
    (
        "AccuracyDecode", "AccuracyEncoding", "AvgProbs", "BboxAccuracy", "DetectionAccuracy", "DetectionEvaluate",
        "DetectionGroupAccuracy", "EltwiseAccuracy", "EvalDetection", "LabelsequenceAccuracy", "ProposalTarget",
        "SegAccuracy", "SegmentationEvaluate",
    )
)  # fmt: skip
"""Accuracies and statistics, and what makes the targets of losses."""


def is_training_only(kind: str) -> bool:
    """Whether a layer of this type, which is not known otherwise, leaves nothing behind in a deploy net."""
    return kind in LOSSES or kind in EVALUATIONS
