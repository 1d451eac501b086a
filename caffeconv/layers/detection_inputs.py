"""What DetectionOutput reads in SSD and its forks, brought into SSD's form: locations, confidences and prior boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.caffe_pb2 import DetectionOutputParameter
from caffeconv.errors import LayerError
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.layer import Node
    from caffeconv.ir.onnx_builder import OnnxBuilder

POLYGON = 8
"""Numbers of a polygon: x1, y1, … x4, y4."""


@dataclass(frozen=True)
class DetectionInputs:
    """SSD's locations and priors as ONNX values, and what RefineDet and TextBoxes++ add."""

    locations: str
    """N × priors × sets × 4."""
    priors: str
    """Boxes, then variances: 2 × priors × 1 × 4."""
    num: int | None
    """N; None where it varies."""
    count: int
    """How many priors there are."""
    anchor_locations: str | None = None
    """RefineDet's first stage, which moves the priors: N × priors × 1 × 4."""
    polygons: str | None = None
    """TextBoxes++'s offsets of four corners: N × priors × 8."""


@dataclass(frozen=True)
class DetectionForm:
    """How the bottoms hold them.

    SSD: locations, confidences, priors; a fourth bottom is the picture, for `visualize`. RefineDet: the fourth is the
    first stage's confidences N×(priors·2), a fifth its locations N×(priors·4). synopsys-caffe: `maps` confidences, as
    many locations, and the priors, in one bottom or as many. TextBoxes++: 12 locations a prior, 8 of them of a polygon.
    """

    maps: int | None
    """How many feature maps have bottoms of their own (nbottom); None: all lie in one bottom."""
    no_permute: bool
    """Whether these are N×classes×ratios×(H·W) and N×(ratios·4)×H×W."""
    objectness: float
    """Below this a prior counts as background in RefineDet."""
    of_refinedet: bool
    """Whether the definition itself says that the fourth bottom is the first stage's."""
    polygon: bool | None
    """Whether the locations hold polygons; None: their number tells."""

    @classmethod
    def parse(cls, p: DetectionOutputParameter, bottoms: int, dialect: str | None) -> Self:
        """What the message and the number of bottoms say; raises LayerError for a number that no form has."""
        maps = p.nbottom if p.HasField("nbottom") or bottoms > 6 else None
        if maps is not None and bottoms not in (2 * maps + 1, 3 * maps):
            raise LayerError(
                f"{bottoms} bottoms with nbottom {maps}; {maps} confidences, {maps} locations, and the priors in one "
                f"bottom or in {maps} were needed"
            )
        if maps is None and bottoms > 5:
            raise LayerError(f"{bottoms} bottoms; 3 to 5, or those of nbottom feature maps, were needed")
        if p.no_permute and maps is None:
            raise LayerError("no_permute without nbottom; `nbottom` feature maps with bottoms of their own were needed")
        polygon = p.use_polygon if p.HasField("use_polygon") else None
        of_refinedet = p.HasField("objectness_score") or dialect == "refinedet"
        return cls(maps, p.no_permute, p.objectness_score, of_refinedet, polygon)

    def joined(self, bottoms: Shapes) -> Shapes:
        """Locations, confidences and priors as if they lay in one bottom each."""
        if self.maps is None:
            return bottoms[:3]
        maps = self.maps
        sizes = [sum(count(shape, 1) for shape in bottoms[i : i + maps]) for i in (0, maps)]
        priors = bottoms[2 * maps :]
        size = sum(count(shape, 2) for shape in priors)
        return [(bottoms[maps][0], sizes[1]), (bottoms[0][0], sizes[0]), (*priors[0][:2], size)]

    def has_polygons(self, joined: Shapes, *, share_location: bool) -> bool:
        locations, _, priors = joined
        number = count(priors, 2) // 4
        if self.polygon is not None:
            return self.polygon
        return share_location and count(locations, 1) == (4 + POLYGON) * number

    def first_stage(self, bottoms: Shapes) -> tuple[bool, bool]:
        """Whether RefineDet's first stage gives confidences, and locations; LayerError where these do not fit."""
        if self.maps is not None or len(bottoms) < 4:
            return False, False
        number = count(bottoms[2], 2) // 4
        fits = count(bottoms[3]) == bottoms[0][0] * 2 * number
        if len(bottoms) == 4 and not self.of_refinedet and not (fits and len(bottoms[3]) == 2):
            return False, False  # the picture
        if not fits:
            raise LayerError(
                f"the first stage's confidences are {format_shape(bottoms[3])}; two for each of {number} priors were needed"
            )
        if len(bottoms) == 5 and count(bottoms[4]) != bottoms[0][0] * 4 * number:
            raise LayerError(
                f"the first stage's locations are {format_shape(bottoms[4])}; four for each of {number} priors were needed"
            )
        return True, len(bottoms) == 5

    def priors(self, bottoms: Shapes) -> int:
        """How many priors there are."""
        return count(self.joined(bottoms)[2], 2) // 4

    def confidences(self, node: Node, onnx: OnnxBuilder, *, classes: int, background: int) -> str:
        """Writes what brings the confidences into SSD's form, N × priors × classes."""
        num, number = onnx.dims(node.bottoms[0])[0], self.priors(node.bottom_shapes)
        confidences = node.bottoms[1] if self.maps is None else self._joined(node, onnx, 0, [0, 3, 2, 1])
        confidences = onnx.reshape(confidences, (num, number, classes), what="scores")
        has_confidences, _ = self.first_stage(node.bottom_shapes)
        return self._filtered(node, onnx, confidences, number, classes, background) if has_confidences else confidences

    def inputs(self, node: Node, onnx: OnnxBuilder, *, sets: int) -> DetectionInputs:
        """Writes what brings the other bottoms into SSD's form; `sets` of boxes a prior."""
        shapes = node.bottom_shapes
        num, number = onnx.dims(node.bottoms[0])[0], self.priors(shapes)
        locations = node.bottoms[0] if self.maps is None else self._joined(node, onnx, self.maps, [0, 2, 3, 1])
        polygons = None
        if self.has_polygons(self.joined(shapes), share_location=sets == 1):
            locations = onnx.reshape(locations, (num, number, 4 + POLYGON), what="boxes_and_polygons")
            parts = onnx.ints("box_and_polygon", [4, POLYGON])
            locations, polygons = onnx.ops("Split", [locations, parts], 2, what="offsets", axis=2)
        locations = onnx.reshape(locations, (num, number, sets, 4), what="locations")
        _, has_locations = self.first_stage(shapes)
        anchors = onnx.reshape(node.bottoms[4], (num, number, 1, 4), what="anchor_locations") if has_locations else None
        return DetectionInputs(locations, self._all_priors(node, onnx), num, number, anchors, polygons)

    def _joined(self, node: Node, onnx: OnnxBuilder, first: int, perm: Sequence[int]) -> str:
        """The bottoms of all maps from the one numbered `first`, N × values."""
        assert self.maps is not None
        num = onnx.dims(node.bottoms[0])[0]
        flat = [
            self._flat(onnx, node.bottoms[i], node.bottom_shapes[i], num, perm) for i in range(first, first + self.maps)
        ]
        return onnx.op("Concat", flat, axis=1, what="joined")

    def _all_priors(self, node: Node, onnx: OnnxBuilder) -> str:
        """2 × priors × 1 × 4."""
        first = 2 if self.maps is None else 2 * self.maps
        bottoms = list(zip(node.bottoms, node.bottom_shapes, strict=True))[first:]
        if self.maps is None:
            bottoms = bottoms[:1]  # others are RefineDet's, or the picture
        values = [self._priors(onnx, value, onnx.dims(value)[0], shape) for value, shape in bottoms]
        return values[0] if self.maps is None else onnx.op("Concat", values, axis=1, what="joined")

    def _flat(self, onnx: OnnxBuilder, value: str, shape: Shape, num: int | None, perm: Sequence[int]) -> str:
        """N × values, place by place, prior by prior."""
        if self.no_permute:
            if len(shape) != 4:
                raise LayerError(f"a bottom is {format_shape(shape)}; four axes were needed with no_permute")
            value = onnx.op("Transpose", [value], perm=perm, what="by_place")
        return onnx.reshape(value, (num, count(shape, 1)), what="flat")

    def _priors(self, onnx: OnnxBuilder, value: str, first: int | None, shape: Shape) -> str:
        """2 × priors × 1 × 4."""
        if first != 1:  # ssd: the first picture's prior boxes count
            none = onnx.ints("none", [0])
            value = onnx.op("Slice", [value, none, onnx.ints("second", [1]), none], what="first_priors")
        return onnx.reshape(value, (2, count(shape, 2) // 4, 1, 4), what="priors")

    def _filtered(
        self, node: Node, onnx: OnnxBuilder, confidences: str, number: int, classes: int, background: int
    ) -> str:
        """The confidences, those of a prior that the first stage takes for background being the background's alone."""
        first = onnx.reshape(node.bottoms[3], (onnx.dims(node.bottoms[3])[0], number, 2), what="first_stage")
        object_column = onnx.op("Gather", [first, onnx.ints("object", [1])], axis=2, what="objectness")
        small = onnx.op("Less", [object_column, onnx.floats("objectness_score", self.objectness)], what="no_object")
        nothing = onnx.floats("background_alone", np.arange(classes) == background)
        return onnx.op("Where", [small, nothing, confidences], what="filtered")
