"""MultiStageMeanfield: a dense CRF's mean-field inference as a layer (CRF as RNN, torrvision/caffe).

Its Gaussian filters are the permutohedral lattice's (Adams, Baek and Davis 2010): values are spread to the corners of the
simplex that a feature lies in, blurred along the lattice's axes, and gathered again. That is an approximation, some per
cent off a Gaussian, so the lattice itself is built here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT, INT64
from caffeconv.ir.layer import Arity, Layer, Node, exactly
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

SCATTER_ADD_OPSET = 16


@dataclass(frozen=True)
class MultiStageMeanfield(Layer):
    """Estimates a labelling again and again from its neighbourhood (torrvision/caffe: multi_stage_meanfield.cpp).

    Bottoms: scores N×C×H×W, a first estimate like them, the picture N×3×H×W. Parameters 1×1×C×C: weights of the spatial
    and of the bilateral filter, compatibility. Each time, with Q the softmax of the estimate, and S and B what filters
    over (x, y)/theta_gamma and (x, y)/theta_alpha, (r, g, b)/theta_beta make of it: scores - compat·(Ws·S + Wb·B).
    The top is the last estimate, before any softmax.
    """

    bottoms: ClassVar[Arity] = exactly(3)
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    param_axes: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("spatial", "bilateral", "compatibility"), "1 × 1 × labels × labels"
    )

    iterations: int
    alpha: float
    beta: float
    gamma: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.multi_stage_meanfield_param
        for name in ("forced_spatial_filter_weight", "forced_bilateral_filter_weight"):
            if p.HasField(name):
                raise LayerError(f"{name} is set, whose rule is not known; the weights file says the filters' weights")
        if p.num_iterations < 1:
            raise LayerError(f"num_iterations is {p.num_iterations}; at least 1 was needed")
        if min(p.theta_alpha, p.theta_beta, p.theta_gamma) <= 0:
            raise LayerError("theta_alpha, theta_beta and theta_gamma: numbers above 0 were needed")
        return cls(p.num_iterations, p.theta_alpha, p.theta_beta, p.theta_gamma)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        scores, estimate, picture = bottoms
        if len(scores) != 4 or estimate != scores or picture != (scores[0], 3, *scores[2:]):
            raise LayerError(
                f"the bottoms are {', '.join(map(format_shape, bottoms))}; N×C×H×W twice and N×3×H×W were needed"
            )
        return [scores]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        labels = bottoms[0][1]
        return dict.fromkeys(self.param_axes, (1, 1, labels, labels))

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if onnx.opset < SCATTER_ADD_OPSET:
            raise LayerError(
                f"opset {onnx.opset} has no sums over scattered values; `opset={SCATTER_ADD_OPSET}` or more"
            )
        num, labels, *plane = onnx.fixed(
            onnx.dims(node.bottoms[0]), "each picture of the batch has a lattice of its own"
        )
        places = count(plane)
        rows, columns = np.indices(plane).reshape(2, -1)
        grid = np.stack([columns, rows], axis=1).astype(np.float32)
        spatial = Lattice.build(onnx, onnx.floats("spatial_features", grid / np.float32(self.gamma)), places, 2)
        flat = [onnx.reshape(bottom, (num, -1, places), what="flat") for bottom in node.bottoms]
        results = []
        for item in range(num):
            scores, estimate, picture = (
                onnx.op("Gather", [value, onnx.ints(f"item_{item}", item)], axis=0, what="item") for value in flat
            )
            colours = onnx.op("Transpose", [picture], perm=[1, 0], what="colours")
            colours = onnx.op("Div", [colours, onnx.floats("theta_beta", self.beta)], what="colours")
            positions = onnx.floats("positions", grid / np.float32(self.alpha))
            bilateral = Lattice.build(onnx, onnx.op("Concat", [positions, colours], axis=1, what="features"), places, 5)
            results.append(self._estimate(onnx, labels, scores, estimate, {"spatial": spatial, "bilateral": bilateral}))
        batch = [onnx.op("Unsqueeze", [result, onnx.ints("batch_axis", [0])], what="batch") for result in results]
        onnx.reshape(onnx.op("Concat", batch, axis=0, what="all"), onnx.dims(node.tops[0]), to=node.tops[0])

    def _estimate(
        self, onnx: OnnxBuilder, labels: int, scores: str, estimate: str, lattices: Mapping[str, Lattice]
    ) -> str:
        """The last estimate of one picture, C×P, from the first."""
        square = (labels, labels)
        for _ in range(self.iterations):
            shares = onnx.op("Softmax", [estimate], axis=0, what="shares")
            shares = onnx.op("Transpose", [shares], perm=[1, 0], what="shares")
            messages = []
            for name, lattice in lattices.items():
                filtered = onnx.op("Transpose", [lattice.filtered(onnx, shares)], perm=[1, 0], what=name)
                messages.append(onnx.op("MatMul", [onnx.weight(name, square), filtered], what="message"))
            message = onnx.op("Add", messages, what="messages")
            pairwise = onnx.op("MatMul", [onnx.weight("compatibility", square), message], what="pairwise")
            estimate = onnx.op("Sub", [scores, pairwise], what="estimate")
        return estimate

    @property
    def mixes_positions(self) -> bool:
        return True


@dataclass(frozen=True)
class Lattice:
    """The lattice over P features of d numbers, as ONNX values; M of its points are used."""

    corner: str
    """P·(d+1): the point of each corner of each feature's simplex, int64."""
    share: str
    """P×(d+1)×1: the barycentric coordinates of the feature in it."""
    neighbours: Sequence[tuple[str, str]]
    """For each axis, M each: the points before and behind each point; M, a point of zeros, where there is none."""
    points: str
    """M×1, for its shape."""
    corners: int
    scale: str
    """P×1: one over the filter of ones."""

    @classmethod
    def build(cls, onnx: OnnxBuilder, features: str, places: int, d: int) -> Lattice:
        elevated = onnx.op("MatMul", [features, onnx.floats(f"elevation_{d}", _elevation(d))], what="elevated")
        nearest, rank = _simplex(onnx, elevated, d)
        share = _shares(onnx, elevated, nearest, rank, d)
        keys = _keys(onnx, nearest, rank, d)
        code, steps = _codes(onnx, keys, d)
        points, _, corner, _ = onnx.ops("Unique", [code], 4, what="points")
        neighbours = _neighbours(onnx, points, steps)
        share = onnx.reshape(share, (places, d + 1, 1), what="share")
        column = onnx.reshape(points, (-1, 1), what="points")
        lattice = cls(corner, share, neighbours, column, d + 1, "")
        ones = lattice.filtered(onnx, onnx.floats("ones", np.ones((places, 1))))
        norm = onnx.op("Add", [ones, onnx.floats("least_norm", 1e-20)], what="norm")
        return cls(corner, share, neighbours, column, d + 1, onnx.op("Reciprocal", [norm], what="scale"))

    def filtered(self, onnx: OnnxBuilder, values: str) -> str:
        """Values P×C, each place's a mean over its neighbourhood."""
        spread = onnx.op("Unsqueeze", [values, onnx.ints("corner_axis", [1])], what="spread")
        spread = onnx.op("Mul", [spread, self.share], what="spread")  # P×(d+1)×C
        channels = onnx.op("Slice", [onnx.op("Shape", [values]), onnx.ints("second", [1]), onnx.ints("end", [2])])
        rows = onnx.op("Concat", [onnx.ints("all", [-1]), channels], axis=0, what="rows")
        spread = onnx.op("Reshape", [spread, rows], what="rows")
        number = onnx.op("Slice", [onnx.op("Shape", [self.points]), onnx.ints("first", [0]), onnx.ints("second", [1])])
        shape = onnx.op("Concat", [number, channels], axis=0, what="points_shape")
        empty = onnx.op("Expand", [onnx.floats("zero", 0), shape], what="empty")
        index = onnx.op("Expand", [onnx.reshape(self.corner, (-1, 1), what="corner"), onnx.op("Shape", [spread])])
        points = onnx.op("ScatterElements", [empty, index, spread], axis=0, reduction="add", what="splat")
        nowhere = onnx.op("Concat", [onnx.ints("one", [1]), channels], axis=0, what="nowhere_shape")
        nowhere = onnx.op("Expand", [onnx.floats("zero", 0), nowhere], what="nowhere")
        for before, behind in self.neighbours:
            padded = onnx.op("Concat", [points, nowhere], axis=0, what="padded")
            beside = [onnx.op("Gather", [padded, index], axis=0, what="beside") for index in (before, behind)]
            half = onnx.op("Mul", [onnx.op("Add", beside, what="beside"), onnx.floats("half", 0.5)], what="half")
            points = onnx.op("Add", [points, half], what="blurred")
        places = onnx.reshape(self.corner, (-1, self.corners), what="corners")
        gathered = onnx.op("Mul", [onnx.op("Gather", [points, places], axis=0), self.share], what="gathered")
        total = onnx.reduce("ReduceSum", gathered, [1], keepdims=False, what="total")
        alpha = onnx.floats(f"alpha_{self.corners}", 1 / (1 + 2.0 ** -(self.corners - 1)))
        total = onnx.op("Mul", [total, alpha], what="sliced")
        return onnx.op("Mul", [total, self.scale], what="normalized") if self.scale else total


def _elevation(d: int) -> FloatArray:
    """The matrix d × (d+1) that brings features into the plane where coordinates sum to 0, and to the blur's width."""
    scale = np.sqrt(2 / 3) * (d + 1) / np.sqrt(np.arange(1, d + 1) * np.arange(2, d + 2))
    matrix = np.tril(np.ones((d, d + 1)))
    matrix[np.arange(d), np.arange(1, d + 1)] = -np.arange(1, d + 1)
    return np.asarray(scale[:, None] * matrix, np.float32)


def _simplex(onnx: OnnxBuilder, elevated: str, d: int) -> tuple[str, str]:
    """The nearest point of remainder 0 and each coordinate's rank in the simplex around it, P×(d+1) float32 each."""
    size, zero = onnx.floats(f"size_{d}", d + 1), onnx.floats("zero", 0)
    cell = onnx.op("Div", [elevated, size], what="cell")
    up, down = (onnx.op("Mul", [onnx.op(way, [cell]), size], what=way.lower()) for way in ("Ceil", "Floor"))
    is_up = onnx.op("Less", [onnx.op("Sub", [up, elevated]), onnx.op("Sub", [elevated, down])], what="is_up")
    nearest = onnx.op("Where", [is_up, up, down], what="nearest")
    excess = onnx.op("Div", [onnx.reduce("ReduceSum", nearest, [1], keepdims=True), size], what="excess")
    rest = onnx.op("Sub", [elevated, nearest], what="rest")
    own, other = (onnx.op("Unsqueeze", [rest, onnx.ints(f"axis_{axis}", [axis])], what="rest") for axis in (2, 1))
    later, earlier = np.triu(np.ones((d + 1, d + 1)), 1), np.tril(np.ones((d + 1, d + 1)), -1)
    ranks = []
    for comparison, mask in (("Less", later), ("LessOrEqual", earlier)):
        below = onnx.op("Cast", [onnx.op(comparison, [own, other])], to=FLOAT, what="below")
        ranks.append(onnx.op("Mul", [below, onnx.floats(f"{comparison.lower()}_{d}", mask)], what="below"))
    rank = onnx.reduce("ReduceSum", onnx.op("Add", ranks, what="below"), [2], keepdims=False, what="rank")
    rank = onnx.op("Add", [rank, excess], what="rank")
    low = onnx.op("Cast", [onnx.op("Less", [rank, zero])], to=FLOAT, what="low")
    high = onnx.op("Cast", [onnx.op("Greater", [rank, onnx.floats(f"most_{d}", d)])], to=FLOAT, what="high")
    step = onnx.op("Mul", [onnx.op("Sub", [low, high], what="turn"), size], what="step")
    return onnx.op("Add", [nearest, step], what="nearest"), onnx.op("Add", [rank, step], what="rank")


def _shares(onnx: OnnxBuilder, elevated: str, nearest: str, rank: str, d: int) -> str:
    """The barycentric coordinates, P×(d+1)."""
    rest = onnx.op("Div", [onnx.op("Sub", [elevated, nearest]), onnx.floats(f"size_{d}", d + 1)], what="rest")
    rank, rest = (onnx.op("Unsqueeze", [value, onnx.ints("axis_2", [2])], what="by_rank") for value in (rank, rest))
    has_rank = onnx.op("Equal", [rank, onnx.floats(f"ranks_{d}", np.arange(d + 1))], what="has_rank")
    by_rank = onnx.op("Mul", [onnx.op("Cast", [has_rank], to=FLOAT), rest], what="by_rank")
    by_rank = onnx.reduce("ReduceSum", by_rank, [1], keepdims=False, what="by_rank")
    differences = np.zeros((d + 1, d + 1))
    for corner in range(1, d + 1):
        differences[d - corner, corner] += 1
        differences[d - corner + 1, corner] -= 1
    differences[d, 0] += 1
    differences[0, 0] -= 1
    share = onnx.op("MatMul", [by_rank, onnx.floats(f"differences_{d}", differences)], what="share")
    return onnx.op("Add", [share, onnx.floats(f"whole_{d}", np.eye(1, d + 1))], what="share")


def _keys(onnx: OnnxBuilder, nearest: str, rank: str, d: int) -> str:
    """The corners' first d coordinates, P·(d+1) × d, int64."""
    corner, place = np.indices((d + 1, d + 1))
    canonical = np.where(place <= d - corner, corner, corner - (d + 1))
    whole_rank, whole = (onnx.op("Cast", [value], to=INT64, what="whole") for value in (rank, nearest))
    moves = onnx.op("Gather", [onnx.ints(f"canonical_{d}", canonical), whole_rank], axis=1, what="moves")
    keys = onnx.op("Add", [moves, whole], what="keys")  # (d+1)×P×(d+1)
    keys = onnx.op("Transpose", [keys], perm=[1, 0, 2], what="keys")
    keys = onnx.reshape(keys, (-1, d + 1), what="keys")
    bounds = [onnx.ints("first", [0]), onnx.ints(f"last_{d}", [d]), onnx.ints("key_axis", [1])]
    return onnx.op("Slice", [keys, *bounds], what="keys")


def _codes(onnx: OnnxBuilder, keys: str, d: int) -> tuple[str, list[str]]:
    """A number for each key, such that each step to a neighbour along an axis is a number added; these numbers."""
    low, high = (onnx.reduce(f"Reduce{way}", keys, [0], keepdims=True, what=way.lower()) for way in ("Min", "Max"))
    margin = onnx.ints(f"margin_{d}", 2 * d + 3)  # so that no neighbour gets the number of another point
    sizes = onnx.op("Add", [onnx.op("Sub", [high, low], what="range"), margin], what="sizes")
    keys = onnx.op("Sub", [keys, low], what="keys")
    column = [onnx.ints(f"column_{i}", [i]) for i in range(d)]
    shifts = np.where(np.eye(d + 1, dtype=bool)[:, :d], d, -1)  # a row for each axis

    def combined(rows: str) -> str:
        code = onnx.op("Gather", [rows, column[0]], axis=1, what="code")
        for i in range(1, d):
            code = onnx.op("Mul", [code, onnx.op("Gather", [sizes, column[i]], axis=1)], what="code")
            code = onnx.op("Add", [code, onnx.op("Gather", [rows, column[i]], axis=1)], what="code")
        return onnx.reshape(code, (-1,), what="code")

    steps = combined(onnx.ints(f"shifts_{d}", shifts))
    axes = [onnx.ints(f"shift_{i}", [i]) for i in range(d + 1)]
    return combined(keys), [onnx.op("Gather", [steps, axis], axis=0, what="step") for axis in axes]


def _neighbours(onnx: OnnxBuilder, points: str, steps: Sequence[str]) -> list[tuple[str, str]]:
    """For each axis, the indices of the points before and behind each point; their number where there is none."""
    beside = [onnx.op(way, [points, step], what="beside") for step in steps for way in ("Add", "Sub")]
    together = onnx.op("Concat", [points, *beside], axis=0, what="together")
    unique, _, place, _ = onnx.ops("Unique", [together], 4, what="unique")
    number = onnx.op("Size", [points], what="number")
    numbers = onnx.op("Range", [onnx.ints("none", 0), number, onnx.ints("single", 1)], what="numbers")
    table = onnx.op("Expand", [number, onnx.op("Shape", [unique])], what="table")
    places = onnx.reshape(place, (2 * len(steps) + 1, -1), what="places")
    own = onnx.op("Gather", [places, onnx.ints("own", 0)], axis=0, what="own")
    table = onnx.op("ScatterElements", [table, own, numbers], axis=0, what="table")
    index = [
        onnx.op("Gather", [table, onnx.op("Gather", [places, onnx.ints(f"row_{i}", i)], axis=0)], axis=0, what="beside")
        for i in range(1, 2 * len(steps) + 1)
    ]
    return list(zip(index[::2], index[1::2], strict=True))
