"""Proposal: regions of interest from the scores and offsets of a region proposal network, in the rules of four forks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_pb2 import LayerParameter, ProposalParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT
from caffeconv.ir.layer import Arity, Gradients, Node, Settings, exactly
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.layers.place_distance import ReadsPlaces
from caffeconv.layers.pooling import LOWEST
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, format_shape

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

USUAL_SCALES = ((8,), (8, 16), (8, 16, 32), (4, 8, 16, 32), (2, 4, 8, 16, 32))
"""Scales of anchors that people choose, by how many."""
MOST_ANCHORS = 1 << 16
SYNOPSYS_FIELDS = ("anchor_base_size", "anchor_scale", "anchor_ratio", "max_rois", "rpn_min_size", "rpn_nms_thresh")
PVANET_FIELDS = ("base_size", "min_size", "post_nms_topn", "nms_thresh")
XILINX_FIELDS = ("nms_input_num", "nms_output_num", "stride_h", "stride_w", "nms_iou_th", "min_width", "min_height")
PIXELS = 32.0
"""happynear's scales count pixels, PVANET's multiples of the base size: from here on a scale may be either."""
Anchors = tuple[tuple[float, float, float, float], ...]
"""x1, y1, x2, y2 of each box of the first place."""


@dataclass(frozen=True)
class Suppression:
    """How many of the best boxes are thinned (None: all), how many of what is left go on, and what overlap is too much."""

    before: int | None
    after: int
    threshold: float


@dataclass(frozen=True)
class Proposal(ReadsPlaces):
    """The best boxes of all places and anchors, thinned by non-maximum suppression.

    Bottoms: scores N×2A×H×W, of which the second A channels are the foreground's; offsets N×4A×H×W (dx, dy, log dw,
    log dh of each anchor); im_info (height, width, scale) or (height, width, scale_h, scale_w) of the picture, or of
    each. Tops: rois R×5, rows (picture, x1, y1, x2, y2), the best first, and their scores. Boxes are clipped to the
    picture; those below `min_size` times scale are dropped, or stay with score 0. Of the best ones a box goes that
    overlaps a better one by more than the threshold, sizes being x2 - x1 + 1 (py-faster-rcnn: proposal_layer.py;
    PVANET, happynear, synopsys-caffe: proposal_layer.cpp).
    """

    bottoms: ClassVar[Arity] = exactly(3)
    tops: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False
    data_axis: ClassVar[int | None] = 0
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True
    settings: ClassVar[str] = "proposal_param"
    distance_field: ClassVar[str] = "feat_stride"

    anchors: Anchors
    stride: int
    min_size: float
    suppression: Suppression
    number_of_tops: int
    drops_small: bool = False
    anchor_slowest: bool = False
    """Whether the candidates run anchor by anchor, and the last of them is never too small (synopsys-caffe)."""
    takes_batches: bool = False
    score_columns: tuple[int, ...] = ()
    """The axes of the scores after the rows."""
    roi_columns: tuple[int, ...] = (5,)
    """The axes of the regions after the rows."""
    doubt: str = ""
    """Why nobody can tell whose rule is meant; empty: it is known."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.proposal_param
        if any(p.HasField(name) for name in XILINX_FIELDS):
            raise LayerError(
                f"fields of Xilinx's Proposal ({', '.join(name for name in XILINX_FIELDS if p.HasField(name))}), whose "
                "rule is not published; those of PVANET (ratio, scale) or synopsys-caffe (anchor_scale) were needed"
            )
        synopsys = [name for name in SYNOPSYS_FIELDS if p.HasField(name)]
        pvanet = [name for name in PVANET_FIELDS if p.HasField(name)]
        pvanet += [name for name, values in (("ratio", p.ratio), ("scale", p.scale)) if values]
        if synopsys and pvanet:
            raise LayerError(f"{synopsys[0]} is synopsys-caffe's field, {pvanet[0]} PVANET's; those of one were needed")
        return cls._of_pvanet(p, layer) if pvanet else cls._of_synopsys(p, len(layer.tops))

    @classmethod
    def _of_synopsys(cls, p: ProposalParameter, tops: int) -> Self:
        scales = (8.0, 16.0, 32.0) if p.anchor_scale == 3 else (32.0,)
        ratios = (0.5, 1.0, 2.0) if p.anchor_ratio == 3 else (1.0,)
        # pre_nms_topn only says how many are put in order before all of them are thinned
        return cls(
            _checked(rounded_anchors(p.anchor_base_size, ratios, scales)), p.feat_stride, p.rpn_min_size,
            Suppression(None, p.max_rois, p.rpn_nms_thresh), tops, drops_small=True, anchor_slowest=True, score_columns=(1,),
        )  # fmt: skip

    @classmethod
    def _of_pvanet(cls, p: ProposalParameter, layer: LayerDef) -> Self:
        if not p.ratio or not p.scale:
            raise LayerError(f"{len(p.ratio)} ratio and {len(p.scale)} scale; at least one of each was needed")
        if min(p.ratio) <= 0 or min(p.scale) <= 0 or p.base_size < 1:
            raise LayerError(f"ratio {list(p.ratio)}, scale {list(p.scale)}, base_size {p.base_size}; each must be > 0")
        doubt = ""
        if min(p.scale) >= PIXELS and layer.dialect not in ("happynear", "pvanet", "mini-caffe"):
            doubt = (
                f"scale {min(p.scale):g} counts pixels in happynear's Proposal and multiples of base_size in PVANET's; "
                "one of `dialect='happynear'`, `dialect='pvanet'`, `dialect='mini-caffe'` says which is meant"
            )
        happynear = layer.dialect == "happynear"
        make = pixel_anchors if happynear else rounded_anchors
        return cls(
            _checked(make(p.base_size, p.ratio, p.scale)), p.feat_stride, p.min_size,
            Suppression(p.pre_nms_topn, p.post_nms_topn, p.nms_thresh), len(layer.tops), takes_batches=happynear, doubt=doubt,
        )  # fmt: skip

    def undecided(self, bottoms: Shapes) -> str:
        return self.doubt

    @property
    def boxes_at_each_place(self) -> int:
        return len(self.anchors)

    @classmethod
    def place_distance(cls, layer: LayerDef) -> float | None:
        return layer.proto.proposal_param.feat_stride or 16

    @classmethod
    def with_place_distance(cls, layer: LayerDef, pixels: int) -> LayerParameter:
        proto = LayerParameter()
        proto.CopyFrom(layer.proto)
        proto.proposal_param.feat_stride = pixels
        return proto

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        p, wanted = layer.proto.proposal_param, _anchors_of(bottoms)
        if not cls.settings or not wanted:
            return ()
        if not p.ratio:
            shapes = [(scales, ratios) for scales in (3, 1) for ratios in (3, 1) if scales * ratios == wanted]
            return [{"anchor_scale": scales, "anchor_ratio": ratios} for scales, ratios in shapes]
        return [{"scale": scales} for scales in USUAL_SCALES if len(scales) * len(p.ratio) == wanted]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        wanted = _anchors_of(bottoms)
        if not wanted or wanted == len(self.anchors):
            return ()
        anchors = "1 anchor" if wanted == 1 else f"{wanted} anchors"
        return [
            f"The scores' {bottoms[0][1]} channels and the offsets' {bottoms[1][1]} are for {anchors}; this layer has "
            f"{len(self.anchors)}, one for each ratio and scale."
        ]

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        scores, offsets, info = bottoms
        number = len(self.anchors)
        if len(scores) != 4 or len(offsets) != 4 or scores[1] != 2 * number:
            raise LayerError(
                f"the scores are {format_shape(scores)}; N×{2 * number}×H×W was needed, two for each of {number} anchors"
            )
        if offsets != (scores[0], 4 * number, *scores[2:]):
            raise LayerError(
                f"the offsets are {format_shape(offsets)}; {format_shape((scores[0], 4 * number, *scores[2:]))} was needed"
            )
        if scores[0] != 1 and not self.takes_batches:
            raise LayerError(f"a batch of {scores[0]}; Only single item batches are supported")
        if _numbers_of(info) < 3:
            raise LayerError(
                f"im_info is {format_shape(info)}; (height, width, scale) or (height, width, scale_h, scale_w) was needed"
            )
        rows = scores[0] * self.suppression.after
        return [(rows, *self.roi_columns), (rows, *self.score_columns)][: self.number_of_tops]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        count = len(self.anchors) * int(np.prod(node.bottom_shapes[0][2:]))
        info = self._info(node, onnx)
        scores, boxes = self._scores(node, onnx, count), self._boxes(node, onnx, info, count)
        scores = self._without_small(onnx, scores, boxes, info, count)
        before = self.suppression.before
        if before is not None and before < count:
            scores, order = onnx.ops("TopK", [scores, onnx.ints("pre_nms", [before])], 2, what="best", axis=1)
            order = onnx.op("Unsqueeze", [order, onnx.ints("last", [2])], what="order")
            boxes = onnx.op("GatherND", [boxes, order], what="best_boxes", batch_dims=1)
        places = self._survivors(onnx, scores, boxes)
        number = onnx.op("Gather", [places, onnx.ints("first", [0])], axis=1, what="picture")
        number = onnx.op("Cast", [number], to=FLOAT, what="picture_number")
        regions = [number, onnx.op("GatherND", [boxes, places], what="box")]
        if len(self.roi_columns) == 1:
            onnx.emit("Concat", regions, node.tops[:1], axis=1)
        else:
            axes = range(2, 1 + len(self.roi_columns))
            rows = onnx.op("Concat", regions, axis=1, what="regions")
            onnx.emit("Unsqueeze", [rows, onnx.ints("region_axes", axes)], node.tops[:1])
        if len(node.tops) > 1:
            score = onnx.op("GatherND", [scores, places], what="score")
            if self.score_columns:
                axes = range(1, 1 + len(self.score_columns))
                onnx.emit("Unsqueeze", [score, onnx.ints("column_axes", axes)], node.tops[1:])
            else:
                onnx.emit("Identity", [score], node.tops[1:])

    def _info(self, node: Node, onnx: OnnxBuilder) -> str:
        """height, width, scale_h and scale_w of the picture, or of each: 1×4 or N×4."""
        shape = node.bottom_shapes[2]
        numbers = _numbers_of(shape)
        info = onnx.reshape(node.bottoms[2], (None, numbers), what="info")
        return onnx.op("Gather", [info, onnx.ints("parts", [0, 1, 2, 3 if numbers > 3 else 2])], axis=1, what="info")

    def _of_info(self, onnx: OnnxBuilder, info: str, parts: Sequence[int], what: str) -> str:
        """Two numbers of each picture, x before y: 1×1×2 or N×1×2."""
        values = onnx.op("Gather", [info, onnx.ints(f"{what}_parts", parts)], axis=1, what=what)
        return onnx.op("Unsqueeze", [values, onnx.ints("box_axis", [1])], what=what)

    def _scores(self, node: Node, onnx: OnnxBuilder, count: int) -> str:
        """The foreground's: N × candidates."""
        anchors = len(self.anchors)
        start, end, axis = onnx.ints("foreground", [anchors]), onnx.ints("end", [2 * anchors]), onnx.ints("one", [1])
        scores = onnx.op("Slice", [node.bottoms[0], start, end, axis], what="foreground_scores")
        if not self.anchor_slowest:
            scores = onnx.op("Transpose", [scores], perm=[0, 2, 3, 1], what="scores_by_place")
        return onnx.reshape(scores, (onnx.dims(node.bottoms[0])[0], count), what="scores")

    def _boxes(self, node: Node, onnx: OnnxBuilder, info: str, count: int) -> str:
        """x1, y1, x2, y2, clipped: N × candidates × 4."""
        height, width = node.bottom_shapes[0][2:]
        num, halves = onnx.dims(node.bottoms[1])[0], onnx.ints("halves", [2, 2])
        offsets = onnx.reshape(node.bottoms[1], (num, len(self.anchors), 4, height, width), what="offsets")
        order = [0, 1, 3, 4, 2] if self.anchor_slowest else [0, 3, 4, 1, 2]
        offsets = onnx.op("Transpose", [offsets], perm=order, what="offsets_by_candidate")
        offsets = onnx.reshape(offsets, (num, count, 4), what="offsets")
        shift, growth = onnx.ops("Split", [offsets, halves], 2, what="parts", axis=2)

        anchors = self._placed(height, width)
        sizes = anchors[:, 2:] - anchors[:, :2] + 1
        size, middle = onnx.floats("sizes", sizes), onnx.floats("middles", anchors[:, :2] + sizes / 2)
        centre = onnx.op("Add", [onnx.op("Mul", [shift, size], what="moved"), middle], what="centre")
        grown = onnx.op("Mul", [onnx.op("Exp", [growth]), size], what="grown")
        half = onnx.op("Mul", [grown, onnx.floats("half", 0.5)], what="half_size")
        limit = onnx.op("Sub", [self._of_info(onnx, info, [1, 0], "picture"), onnx.floats("one_pixel", 1)], what="last")
        edges = [onnx.op(sign, [centre, half], what="edge") for sign in ("Sub", "Add")]
        edges = [
            onnx.op("Max", [onnx.op("Min", [edge, limit]), onnx.floats("zero", 0)], what="clipped") for edge in edges
        ]
        return onnx.op("Concat", edges, axis=2, what="boxes")

    def _placed(self, height: int, width: int) -> NDArray[np.float32]:
        """The anchors of all places, in the candidates' order: candidates × 4."""
        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4) * self.stride
        placed: NDArray[np.float32] = (shifts + np.array(self.anchors)).astype(np.float32)
        if self.anchor_slowest:
            placed = placed.transpose(1, 0, 2)
        return placed.reshape(-1, 4)

    def _without_small(self, onnx: OnnxBuilder, scores: str, boxes: str, info: str, count: int) -> str:
        """The scores, of which those of boxes below the least size say that they do not count."""
        least = self._of_info(onnx, info, [3, 2], "scales")
        least = onnx.op("Mul", [least, onnx.floats("min_size", self.min_size)], what="least")
        low, high = onnx.ops("Split", [boxes, onnx.ints("halves", [2, 2])], 2, what="corners", axis=2)
        size = onnx.op("Add", [onnx.op("Sub", [high, low], what="extent"), onnx.floats("one_pixel", 1)], what="size")
        excess = onnx.reduce("ReduceMin", onnx.op("Sub", [size, least], what="excess"), [2], keepdims=False)
        large = onnx.op("GreaterOrEqual", [excess, onnx.floats("zero", 0)], what="large")
        if self.anchor_slowest:
            large = onnx.op("Or", [large, onnx.bools("last_candidate", np.arange(count) == count - 1)], what="counts")
        return onnx.op(
            "Where", [large, scores, onnx.floats("small", -np.inf if self.drops_small else 0)], what="scores"
        )

    def _survivors(self, onnx: OnnxBuilder, scores: str, boxes: str) -> str:
        """(picture, candidate) of each box that stays, the best of each picture first: R × 2, int64."""
        # ONNX takes sizes without the pixel that these rules add
        boxes = onnx.op("Add", [boxes, onnx.floats("one_pixel_more", [0, 0, 1, 1])], what="nms_boxes")
        selected = onnx.op(
            "NonMaxSuppression",
            [
                boxes, onnx.op("Unsqueeze", [scores, onnx.ints("class_axis", [1])], what="nms_scores"),
                onnx.ints("post_nms", [self.suppression.after]), onnx.floats("nms_threshold", [self.suppression.threshold]),
                onnx.floats("any_score", [LOWEST]),
            ],
            what="selected",
        )  # fmt: skip
        return onnx.op("Gather", [selected, onnx.ints("picture_and_candidate", [0, 2])], axis=1, what="places")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((None, None, None))  # py-faster-rcnn: This layer does not propagate gradients.

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        if bottom != 2:
            return None
        height, width = shapes[0][2:]
        numbers = [height * self.stride, width * self.stride, *([1] * (_numbers_of(shapes[2]) - 2))]
        values: FloatArray = np.resize(np.array(numbers, np.float32), shapes[2])
        return values


@dataclass(frozen=True)
class FrcnnProposal(Proposal):
    """Proposal of the Faster R-CNN in C++ (D-X-Y/caffe-faster-rcnn, makefile/frcnn: frcnn_proposal_layer.cpp).

    The rule is py-faster-rcnn's. Anchors and limits stand in a file beside the net there; here they are those of
    default_config.json, whose anchors reach a pixel further. Tops R×5×1×1 and R×1×1×1.
    """

    settings: ClassVar[str] = ""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        stride = layer.proto.proposal_param.feat_stride or 16
        rounded = rounded_anchors(16, (0.5, 1.0, 2.0), (8.0, 16.0, 32.0))
        anchors = [(x1, y1, x2 + 1, y2 + 1) for x1, y1, x2, y2 in rounded]
        rule = Suppression(12000, 2000, 0.7) if layer.phase == "TRAIN" else Suppression(6000, 300, 0.7)
        return cls(
            _checked(anchors), stride, 16.0, rule, len(layer.tops), drops_small=True, score_columns=(1, 1, 1),
            roi_columns=(5, 1, 1),
        )  # fmt: skip


@dataclass(frozen=True)
class StrideInParamStr(ReadsPlaces):
    """A layer in Python whose `param_str` says feat_stride."""

    @classmethod
    def place_distance(cls, layer: LayerDef) -> float | None:
        match = re.search(_STRIDE, layer.proto.python_param.param_str)
        return int(float(match[1])) if match else None

    @classmethod
    def with_place_distance(cls, layer: LayerDef, pixels: int) -> LayerParameter:
        proto = LayerParameter()
        proto.CopyFrom(layer.proto)
        text = layer.proto.python_param.param_str
        proto.python_param.param_str = _saying(text, _STRIDE, f"'feat_stride': {pixels}")
        return proto


@dataclass(frozen=True)
class PythonProposal(StrideInParamStr, Proposal):
    """py-faster-rcnn's `rpn.proposal_layer`, a layer in Python, by the rule of its code and of its configuration.

    PVANET's has `ratios` besides.
    """

    settings: ClassVar[str] = ""
    training: ClassVar[Suppression] = Suppression(12000, 2000, 0.7)  # py-faster-rcnn: config.py
    testing: ClassVar[Suppression] = Suppression(6000, 300, 0.7)
    least: ClassVar[Mapping[Phase, float]] = {"TRAIN": 16.0, "TEST": 16.0}

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = _python_parameters(layer.proto.python_param.param_str)
        rule = cls.training if layer.phase == "TRAIN" else cls.testing
        return cls(
            _checked(rounded_anchors(p.base_size, p.ratios, p.scales)), p.stride, cls.least[layer.phase], rule,
            len(layer.tops), drops_small=True, score_columns=(1,),
        )  # fmt: skip

    @classmethod
    def other_rules(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        """The layer with other scales in its param_str, as many as the scores and offsets have anchors for."""
        text, wanted = layer.proto.python_param.param_str, _anchors_of(bottoms)
        ratios = len(_python_parameters(text).ratios)
        protos = []
        for scales in (scales for scales in USUAL_SCALES if len(scales) * ratios == wanted):
            proto = LayerParameter()
            proto.CopyFrom(layer.proto)
            proto.python_param.param_str = _with_scales(text, scales)
            protos.append(proto)
        return protos


@dataclass(frozen=True)
class MNCProposal(PythonProposal):
    """MNC's `pylayer.proposal_layer`: py-faster-rcnn's without the scores, and with a gradient that is not followed here.

    Its second top, of training alone, says which anchors stayed.
    """

    tops: ClassVar[Arity] = exactly(1)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)


@dataclass(frozen=True)
class SSHProposal(PythonProposal):
    """SSH's `SSH.layers.proposal_layer`: in TEST the 1000 best boxes of each of its three scales, none of them thinned."""

    training: ClassVar[Suppression] = Suppression(1000, 300, 0.3)  # SSH: default_config.yml
    testing: ClassVar[Suppression] = Suppression(1000, 1000, 1.0)  # no box overlaps another by more than all of it
    least: ClassVar[Mapping[Phase, float]] = {"TRAIN": 4.0, "TEST": 0.0}


@dataclass(frozen=True)
class _PythonParameters:
    stride: int
    base_size: int
    ratios: tuple[float, ...]
    scales: tuple[float, ...]


_ONE_NUMBER = r"""['"]?{name}['"]?\s*:\s*([\d.]+)"""
_SEVERAL_NUMBERS = r"""['"]?{name}['"]?\s*:\s*(?:!!python/tuple\s*)?[\[(]([^\])]*)[\])]"""
_OF_BACKWARD_PASS = ("gradient_scale", "use_clip", "clip_base")
"""Parameters of MNC's layer that its forward pass does not read."""


def _python_parameters(text: str) -> _PythonParameters:
    """What a `param_str` in YAML says; LayerError for what says more, or less."""
    rest = text

    def take(pattern: str, name: str, default: str) -> tuple[float, ...]:
        nonlocal rest
        match = re.search(pattern.replace("{name}", name), rest)
        rest = rest.replace(match[0], "") if match else rest
        return tuple(map(float, re.findall(r"\d+\.?\d*|\.\d+", match[1] if match else default)))

    stride = take(_ONE_NUMBER, "feat_stride", "")
    if not stride:
        raise LayerError(f"param_str is {text!r}; 'feat_stride': 16 was needed")
    scales, ratios = take(_SEVERAL_NUMBERS, "scales", "8, 16, 32"), take(_SEVERAL_NUMBERS, "ratios", "0.5, 1, 2")
    base_size = take(_ONE_NUMBER, "base_size", "16")
    for name in _OF_BACKWARD_PASS:
        take(_ONE_NUMBER, name, "")
    if rest.strip(" \t\r\n,{}"):
        raise LayerError(
            f"param_str says {rest.strip()!r}, which the known rule of this layer does not have; feat_stride, "
            "scales: [8, 16, 32] and ratios: [0.5, 1, 2] were needed. With `allow_python=True` the module itself runs, "
            "where it can be found"
        )
    return _PythonParameters(int(stride[0]), int(base_size[0]), ratios, scales)


def _with_scales(text: str, scales: Sequence[int]) -> str:
    """A `param_str` with other scales."""
    return _saying(text, _SEVERAL_NUMBERS.replace("{name}", "scales"), f"'scales': {list(scales)}")


def _saying(text: str, pattern: str, said: str) -> str:
    """A `param_str` with `said` in place of what the pattern matches, or after the rest."""
    match = re.search(pattern, text)
    if match:
        return text[: match.start()] + said + text[match.end() :]
    rest = text.strip().removesuffix("}").rstrip(", ")
    if text.rstrip().endswith("}"):
        return f"{rest}{'' if rest.endswith('{') else ', '}{said}}}"
    return f"{rest}\n{said}" if rest else said


_STRIDE = _ONE_NUMBER.replace("{name}", "feat_stride")


def _anchors_of(bottoms: Shapes) -> int:
    """How many anchors scores and offsets are for, where both agree; else 0."""
    if len(bottoms) < 2 or len(bottoms[0]) != 4 or len(bottoms[1]) != 4:
        return 0
    anchors = bottoms[0][1] // 2
    return anchors if (bottoms[0][1], bottoms[1][1]) == (2 * anchors, 4 * anchors) else 0


def rounded_anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> Sequence[Sequence[float]]:
    """Boxes about the middle of a base × base square: for each ratio whole sizes of its area, times each scale."""
    _refuse_too_many(ratios, scales)
    anchors, middle = [], 0.5 * (base - 1)
    for ratio in ratios:
        width = _whole(np.sqrt(base * base / ratio))
        height = _whole(width * ratio)
        for scale in scales:
            x, y = 0.5 * (width * scale - 1), 0.5 * (height * scale - 1)
            anchors.append((middle - x, middle - y, middle + x, middle + y))
    return anchors


def pixel_anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> Sequence[Sequence[float]]:
    """happynear: the same with scales in pixels, where only the product is made whole."""
    _refuse_too_many(ratios, scales)
    anchors, middle = [], 0.5 * (base - 1)
    for ratio in ratios:
        width = np.sqrt(base * base / ratio)
        height = width * ratio
        for scale in scales:
            x, y = (0.5 * _whole(size * scale / base - 1) for size in (width, height))
            anchors.append((middle - x, middle - y, middle + x, middle + y))
    return anchors


def _refuse_too_many(ratios: Sequence[float], scales: Sequence[float]) -> None:
    if len(ratios) * len(scales) > MOST_ANCHORS:
        raise LayerError(
            f"{len(ratios)} ratios times {len(scales)} scales; {MOST_ANCHORS} anchors at most are made, and no blob has "
            "channels for more"
        )


def _whole(value: float) -> float:
    """C's round, halves away from 0; numpy's, half to even, gives the same for the sizes of base 16."""
    return float(np.floor(value + 0.5))


def _checked(anchors: Sequence[Sequence[float]]) -> Anchors:
    if not anchors:
        raise LayerError("no anchors; at least one ratio and one scale were needed")
    return tuple((a, b, c, d) for a, b, c, d in anchors)


def _numbers_of(info: Shape) -> int:
    """How many numbers im_info has for a picture: a row, or all of a blob with one axis."""
    return int(np.prod(info[1:])) if len(info) > 1 else (info[0] if info else 0)
