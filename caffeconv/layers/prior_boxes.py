"""Prior boxes of detectors, constants that follow from sizes: PriorBox (SSD and its forks) and PriorBoxClustered."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_format.prototxt import is_repeated
from caffeconv.caffe_pb2 import PriorBoxParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, exactly
from caffeconv.layers.detection import legacy_shape
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

Boxes = NDArray[np.float64]
"""A row for each box of a place: how far its centre lies from the place's, x and y, and its width and height; pixels."""
_GREATEST = 1 << 31
_MOST_VALUES = 1 << 25
"""Numbers of one layer's boxes that a model holds; SSD's largest has some hundred thousand."""
USUAL_RATIOS: tuple[tuple[int, ...], ...] = ((2,), (2, 3), ())
"""The aspect ratios of SSD's layers."""
FACEBOXES_GRIDS = {32: (4, 8), 64: (2, 16)}
"""FaceBoxes: min_size → how many squares of it stand along each side of a place, and their distance in pixels."""


@dataclass(frozen=True)
class Grid:
    """Where the places of a feature map lie in the picture, and how their boxes are written."""

    clip: bool
    variances: tuple[float, ...]
    """One for all, or one for each edge."""
    image: tuple[int, int] | None
    """height, width; None: the second bottom's."""
    step: tuple[float, float] | None
    """height, width of a place in pixels; None: the picture's by the feature map's."""
    offset: float

    @classmethod
    def parse(cls, p: PriorBoxParameter) -> Self:
        if len(p.variance) not in (0, 1, 4):
            raise LayerError(f"{len(p.variance)} variance; Must and only provide 4 variance, or one for all")
        if any(variance <= 0 for variance in p.variance):
            raise LayerError(f"variance {list(p.variance)}; each must be above 0")
        return cls(p.clip, tuple(p.variance) or (0.1,), _image(p), _step(p), p.offset)

    def steps(self, bottoms: Shapes) -> tuple[float, float]:
        """height and width of a place, pixels."""
        _, _, rows, columns = legacy_shape(bottoms[0])
        height, width = self.picture(bottoms)
        return self.step or (np.float32(height) / np.float32(rows), np.float32(width) / np.float32(columns))

    def picture(self, bottoms: Shapes) -> tuple[int, int]:
        """height and width, pixels."""
        _, _, height, width = legacy_shape(bottoms[1])
        return self.image or (height, width)

    def edges(self, bottoms: Shapes, boxes: Boxes) -> NDArray[np.float32]:
        """The boxes of every place, xmin, ymin, xmax, ymax as fractions: rows × columns × boxes × 4."""
        _, _, rows, columns = legacy_shape(bottoms[0])
        height, width = self.picture(bottoms)
        step_h, step_w = self.steps(bottoms)
        offset = np.float32(self.offset)
        y = (np.arange(rows, dtype=np.float32) + offset) * np.float32(step_h)
        x = (np.arange(columns, dtype=np.float32) + offset) * np.float32(step_w)
        centres = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).astype(np.float64)
        centres = centres[:, :, None, :] + boxes[:, :2]  # rows, columns, boxes, xy
        halves = boxes[:, 2:] / 2
        edges = np.concatenate([centres - halves, centres + halves], axis=-1) / np.array([width, height] * 2)
        fractions: NDArray[np.float32] = edges.astype(np.float32)
        if self.clip:
            fractions = np.clip(fractions, 0, 1)
        return fractions

    def top(self, edges: NDArray[np.float32]) -> FloatArray:
        """Boxes, then their variances: 1 × 2 × size."""
        variances = np.broadcast_to(np.array(self.variances, np.float32), edges.shape)
        top: FloatArray = np.stack([edges.ravel(), variances.ravel()])[None]
        return top


class PriorLayer(Layer):
    """A layer that makes a constant of its bottoms' sizes: the features N×C×H×W and the picture."""

    bottoms: ClassVar[Arity] = exactly(2)
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True

    @property
    @abstractmethod
    def priors(self) -> int:
        """How many boxes each place has."""

    @property
    def boxes_at_each_place(self) -> int:
        return self.priors

    @abstractmethod
    def boxes(self, bottoms: Shapes) -> FloatArray:
        """The top: 1 × 2 × size."""

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        _, _, height, width = legacy_shape(bottoms[0])
        legacy_shape(bottoms[1])
        size = height * width * self.priors * 4
        if size < 1:
            raise LayerError(f"the features are {format_shape(bottoms[0])}; at least one place was needed")
        return [(1, 2, size)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        values = count(node.top_shapes[0])
        if values > _MOST_VALUES:
            raise LayerError(
                f"the boxes of these sizes are {values} numbers; {_MOST_VALUES} at most are written into a model"
            )
        onnx.emit("Identity", [onnx.floats("boxes", self.boxes(node.bottom_shapes))], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((None, None))  # ssd: Backward_cpu returns at once


@dataclass(frozen=True)
class PriorBox(PriorLayer):
    """The prior boxes of every place of a feature map, as fractions of the picture: a constant.

    Bottoms: the features N×C×H×W and the picture, of which only the sizes count. Top 1×2×(H·W·priors·4): first the
    boxes (xmin, ymin, xmax, ymax; row by row, place by place, prior by prior), then their variances. The priors of a
    place: for each min_size a square of it, one of √(min_size·max_size) where there are max sizes, and one for each
    further aspect ratio (width min_size·√ratio, height min_size/√ratio). Sizes are cut to whole pixels (ssd:
    prior_box_layer.cpp).

    synopsys-caffe: with `tf` the square of √(min_size·max_size) comes last, and a square of min_size 60 is smaller by a
    twentieth of the picture on each side; with `keras`, which has no regard to `tf`, that square comes first, and the
    flipped ratios follow all others; with `yx_order` y comes before x; a pair of box_width and box_height is a prior of
    its own. FaceBoxes, and
    `faceboxes` there: 4×4 squares of min_size 32, 2×2 of 64, one of any other, each a pixel smaller. TextBoxes++: with
    `denser_prior_boxes` each box stands a second time, half a place lower where `offset` is 0.5.
    """

    settings: ClassVar[str] = "prior_box_param"

    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    """The ratios other than 1, flipped ones included."""
    box_sizes: tuple[tuple[float, float], ...]
    """width, height of the boxes that are written out in place of min_size."""
    grid: Grid
    faceboxes: bool
    order: Literal["ssd", "tf", "keras"]
    """Where the square of √(min_size·max_size) stands: second, last or first."""
    y_first: bool
    denser: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.prior_box_param
        _check_finite(p)
        min_sizes, max_sizes = tuple(p.min_size), tuple(p.max_size)
        box_sizes = _pairs("box_width", p.box_width, "box_height", p.box_height)
        if not min_sizes and not box_sizes:
            raise LayerError("must provide min_size.")
        if min(min_sizes, default=1) <= 0:
            raise LayerError(f"min_size is {min(min_sizes):g}; min_size must be positive.")
        if max_sizes and len(max_sizes) != len(min_sizes):
            raise LayerError(
                f"{len(max_sizes)} max_size for {len(min_sizes)} min_size; none, or one for each, was needed"
            )
        for low, high in zip(min_sizes, max_sizes, strict=False):
            if high <= low:
                raise LayerError(f"max_size {high:g} for min_size {low:g}; max_size must be greater than min_size.")
        if any(ratio <= 0 for ratio in p.aspect_ratio):
            raise LayerError(f"aspect_ratio {list(p.aspect_ratio)}; each must be above 0")
        faceboxes = p.faceboxes or layer.dialect == "faceboxes"
        if faceboxes and (max_sizes or box_sizes):
            raise LayerError("max_size or box_width with FaceBoxes' rule, which has squares of min_size alone")
        if min_sizes and box_sizes:
            raise LayerError("min_size and box_width together; either min_size or pairs of box_width, box_height")
        if not p.faceboxes and layer.dialect is None and _might_be_faceboxes(p):
            raise LayerError(
                "min_size 32, 64 and 128 alone, as in FaceBoxes, which makes 21 boxes a place of them; SSD makes 3. "
                "`dialect='faceboxes'` or `dialect='ssd'` says whose rule is meant"
            )
        ratios = _aspect_ratios(p.aspect_ratio, flip=p.flip, flipped_last=p.keras)
        order: Literal["ssd", "tf", "keras"] = "keras" if p.keras else "tf" if p.tf else "ssd"
        return cls(
            min_sizes, max_sizes, ratios, box_sizes, Grid.parse(p), faceboxes, order, p.yx_order, p.denser_prior_boxes
        )

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        p = layer.proto.prior_box_param
        if not all(map(math.isfinite, (*p.min_size, *p.max_size))):
            return ()
        fewer = tuple(map(round, p.min_size[:-1]))
        return (
            *({"aspect_ratio": ratios} for ratios in USUAL_RATIOS), {"flip": not p.flip}, {"max_size": ()},
            {"min_size": fewer, **({"max_size": tuple(map(round, p.max_size[:-1]))} if p.max_size else {})},
        )  # fmt: skip

    @classmethod
    def dialect_of_net(cls, layer: LayerDef, layers: Sequence[LayerDef]) -> str | None:
        """FaceBoxes' or SSD's, by the convolution that makes four numbers a box of the same features."""
        if not _might_be_faceboxes(layer.proto.prior_box_param):
            return None
        numbers = {
            other.proto.convolution_param.num_output for other in layers if other.bottoms[:1] == layer.bottoms[:1]
        }
        found = [
            dialect
            for dialect, priors in (("faceboxes", FACEBOXES_PRIORS), ("ssd", SSD_PRIORS))
            if 4 * priors in numbers
        ]
        return found[0] if len(found) == 1 else None

    @property
    def priors(self) -> int:
        if self.faceboxes:
            return sum(FACEBOXES_GRIDS.get(int(size), (1, 0))[0] ** 2 for size in self.min_sizes)
        number = len(self.min_sizes) * (1 + len(self.aspect_ratios)) + len(self.max_sizes) + len(self.box_sizes)
        return 2 * number if self.denser else number

    def sizes(self) -> NDArray[np.float32]:
        """Width and height of each prior of a place, pixels: priors × 2; the denser ones are left out."""
        sizes: list[tuple[float, float]] = list(self.box_sizes)
        for i, low in enumerate(self.min_sizes):
            side = int(low)  # ssd: the sizes go through an int
            middle = np.sqrt(float(side) * int(self.max_sizes[i])) if self.max_sizes else None
            middles = [] if middle is None else [(middle, middle)]
            roots = [np.sqrt(np.float32(ratio)) for ratio in self.aspect_ratios]
            shaped = [(side * root, side / root) for root in roots]
            square = [(side, side)]
            orders = {
                "ssd": square + middles + shaped,
                "tf": square + shaped + middles,
                "keras": middles + square + shaped,
            }
            sizes += orders[self.order]
        return np.array(sizes, np.float32)

    def _boxes_of_place(self) -> Boxes:
        if not self.faceboxes:
            sizes = self.sizes().astype(np.float64)
            return np.concatenate([np.zeros_like(sizes), sizes], axis=1)
        boxes: list[tuple[float, float, float, float]] = []
        for low in map(int, self.min_sizes):
            side, distance = FACEBOXES_GRIDS.get(low, (1, 0))
            moves = [distance * (i - side // 2) for i in range(side)]
            boxes += [(x, y, low - 1, low - 1) for y in moves for x in moves]
        return np.array(boxes, np.float64)

    def boxes(self, bottoms: Shapes) -> FloatArray:
        boxes = self._boxes_of_place()
        if self.denser:
            step_h, _ = self.grid.steps(bottoms)
            lower = boxes + np.array([0, (1 - self.grid.offset) * step_h, 0, 0])
            boxes = np.stack([boxes, lower], axis=1).reshape(-1, 4)
        if self.order == "tf" and not self.faceboxes:
            boxes = self._with_smaller_squares(bottoms, boxes)
        edges = self.grid.edges(bottoms, boxes)
        return self.grid.top(edges[..., [1, 0, 3, 2]] if self.y_first else edges)

    def _with_smaller_squares(self, bottoms: Shapes, boxes: Boxes) -> Boxes:
        """`boxes`, of which the squares of min_size 60 are a tenth of the picture lower and narrower."""
        height, width = self.grid.picture(bottoms)
        of_one_size = 1 + len(self.aspect_ratios) + bool(self.max_sizes)
        smaller: Boxes = boxes.copy()
        for i, low in enumerate(self.min_sizes):
            if int(low) == TF_SMALLER_SIZE:
                smaller[i * of_one_size, 2:] -= np.array([width, height]) * TF_MARGIN * 2
        return smaller


@dataclass(frozen=True)
class DensePriorBox(PriorLayer):
    """PriorBox of a port of FaceBoxes to SSD (zihaozhang9/FaceBoxes: prior_box_layer.cpp): boxes of `fixed_size`.

    Of each size and shape, density × density boxes fill a square of the size about the place, row by row. The shapes are a
    square and further aspect ratios, or in their place one `fixed_ratio`. No edge lies outside of the picture on its own
    side.
    """

    settings: ClassVar[str] = "prior_box_param"

    sizes: tuple[tuple[int, int], ...]
    """size in pixels, density"""
    ratios: tuple[float, ...]
    """width by height of each shape"""
    grid: Grid

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.prior_box_param
        if p.min_size or p.max_size:
            raise LayerError(
                "min_size or max_size beside fixed_size is not supported; fixed_size and density were needed"
            )
        if len(p.density) != len(p.fixed_size) or min((*p.fixed_size, *p.density)) < 1:
            raise LayerError(
                f"fixed_size {list(p.fixed_size)}, density {list(p.density)}; a density for each size, and all at least 1, "
                "were needed"
            )
        if len(p.fixed_ratio) > 1 or (p.fixed_ratio and p.aspect_ratio):
            # the fork makes more boxes of several than it has room for
            raise LayerError(
                f"{len(p.fixed_ratio)} fixed_ratio, {len(p.aspect_ratio)} aspect_ratio; one fixed_ratio alone, or none, "
                "was needed"
            )
        further = _aspect_ratios(p.aspect_ratio, flip=p.flip, flipped_last=False)
        ratios = tuple(p.fixed_ratio) or (1.0, *further)
        if min(ratios) <= 0:
            raise LayerError(f"ratios {list(ratios)}; each must be above 0")
        sizes = zip(map(int, p.fixed_size), map(int, p.density), strict=True)
        return cls(tuple(sizes), ratios, Grid.parse(p))

    @property
    def priors(self) -> int:
        return len(self.ratios) * sum(density**2 for _, density in self.sizes)

    def boxes(self, bottoms: Shapes) -> FloatArray:
        boxes: list[tuple[float, float, float, float]] = []
        for size, density in self.sizes:
            distance = size // density
            moves = [distance / 2 + i * distance - size // 2 for i in range(density)]
            roots = [float(np.sqrt(np.float32(ratio))) for ratio in self.ratios]
            boxes += [(x, y, size * root, size / root) for root in roots for y in moves for x in moves]
        edges = self.grid.edges(bottoms, np.array(boxes, np.float64))
        edges[..., :2] = np.maximum(edges[..., :2], 0)
        edges[..., 2:] = np.minimum(edges[..., 2:], 1)
        return self.grid.top(edges)


@dataclass(frozen=True)
class PriorBoxClustered(PriorLayer):
    """The prior boxes of every place as pairs of `width` and `height` in pixels, as fractions of the picture.

    Bottoms and top as PriorBox (openvinotoolkit/training_toolbox_caffe: prior_box_clustered_layer.cpp).
    """

    box_sizes: tuple[tuple[float, float], ...]
    """width, height"""
    grid: Grid

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.prior_box_param
        _check_finite(p)
        sizes = _pairs("width", p.width, "height", p.height)
        if not sizes:
            raise LayerError("no width and height; a pair for each prior was needed")
        return cls(sizes, Grid.parse(p))

    @property
    def priors(self) -> int:
        return len(self.box_sizes)

    def boxes(self, bottoms: Shapes) -> FloatArray:
        sizes = np.array(self.box_sizes, np.float32).astype(np.float64)
        return self.grid.top(self.grid.edges(bottoms, np.concatenate([np.zeros_like(sizes), sizes], axis=1)))


TF_SMALLER_SIZE = 60
TF_MARGIN = 0.05
"""Of `tf`: how far the edges of the square of that min_size are moved inward, as a share of the picture."""
FACEBOXES_PRIORS, SSD_PRIORS = 21, 3
"""How many boxes a place has of min_size 32, 64 and 128."""


def _might_be_faceboxes(p: PriorBoxParameter) -> bool:
    return list(p.min_size) == [32, 64, 128] and not p.max_size and not p.aspect_ratio


def _check_finite(p: PriorBoxParameter) -> None:
    """Raises LayerError for a number that Caffe's int, in which the sizes go, cannot hold."""
    for field, value in p.ListFields():
        for number in value if is_repeated(field) else (value,):
            if isinstance(number, float) and not abs(number) < _GREATEST:
                raise LayerError(f"{field.name} is {number:g}; a number below {_GREATEST} was needed")


def _pairs(
    first: str, firsts: Sequence[float], second: str, seconds: Sequence[float]
) -> tuple[tuple[float, float], ...]:
    """The pairs of two fields, called `first` and `second`; LayerError where they differ in length or are not above 0."""
    if len(firsts) != len(seconds):
        raise LayerError(f"{len(firsts)} {first} and {len(seconds)} {second}; as many of each were needed")
    if min((*firsts, *seconds), default=1) <= 0:
        raise LayerError(f"{first} {list(firsts)}, {second} {list(seconds)}; each must be above 0")
    return tuple(zip(firsts, seconds, strict=True))


def _aspect_ratios(ratios_of_layer: Sequence[float], *, flip: bool, flipped_last: bool) -> tuple[float, ...]:
    """The ratios without 1 and without repetitions; with `flip` their inverses, each after its own or all at the end."""
    ratios = [1.0]
    flipped: list[float] = []
    for ratio in ratios_of_layer:
        if any(abs(ratio - known) < 1e-6 for known in (*ratios, *flipped)):
            continue
        ratios.append(ratio)
        if flip:
            (flipped if flipped_last else ratios).append(float(np.float32(1 / ratio)))
    return (*ratios[1:], *flipped)


def _image(p: PriorBoxParameter) -> tuple[int, int] | None:
    if p.HasField("img_h") or p.HasField("img_w"):
        if p.HasField("img_size"):
            raise LayerError("Either img_size or img_h/img_w should be specified; not both.")
        image = (p.img_h, p.img_w)
    elif p.HasField("img_size"):
        image = (p.img_size, p.img_size)
    else:
        return None
    if min(image) < 1:
        raise LayerError(
            f"the picture's size is given as {format_shape(image)} (img_h × img_w); both should be larger than 0."
        )
    return image


def _step(p: PriorBoxParameter) -> tuple[float, float] | None:
    if p.HasField("step_h") or p.HasField("step_w"):
        if p.HasField("step"):
            raise LayerError("Either step or step_h/step_w should be specified; not both.")
        step = (p.step_h, p.step_w)
    elif p.HasField("step"):
        step = (p.step, p.step)
    else:
        return None
    if min(step) <= 0:
        raise LayerError(f"step_h is {step[0]:g}, step_w {step[1]:g}; both should be larger than 0.")
    return step
