"""What a layer type is: `Layer`, the contract that each class in `caffeconv/layers` fulfils.

`Essentials` is what every type says, and all that a new one needs. Each class after it is a facet with defaults, named
after who asks; `Layer`, at the end, is all of them, and `Node` is a layer in its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import Diagnostic, LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.tensor.axis_order import AxisOrder, as_caffe, same_places, usual
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, format_shape
from caffeconv.tensor.weight_array import WeightArrays

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.caffe_pb2 import LayerParameter
    from caffeconv.data.hdf5_sink import DataSink
    from caffeconv.data.source import DataSource
    from caffeconv.data.transform import Preparation
    from caffeconv.ir.filler import Filler
    from caffeconv.ir.onnx_builder import OnnxBuilder
    from caffeconv.tensor.window import Padding, Window


@dataclass(frozen=True)
class Arity:
    """How many bottoms or tops a layer takes; ``most`` None: any number from ``least`` on."""

    least: int
    most: int | None

    def fits(self, number: int) -> bool:
        return self.least <= number and (self.most is None or number <= self.most)

    def __str__(self) -> str:
        if self.least == self.most:
            return str(self.least)
        return f"at least {self.least}" if self.most is None else f"{self.least} to {self.most}"


def exactly(number: int) -> Arity:
    return Arity(number, number)


def at_least(number: int) -> Arity:
    return Arity(number, None)


class Essentials(ABC):
    """What every layer type says: what it reads and makes, and how it becomes ONNX. Shapes are in Caffe's axis order.

    The three abstract methods are enough for a layer without parameters.
    """

    bottoms: ClassVar[Arity] = exactly(1)
    tops: ClassVar[Arity] = exactly(1)
    makes_missing_tops: ClassVar[bool] = False
    """Whether a top that the prototxt leaves out is made all the same (caffe: AutoTopBlobs, for losses)."""
    in_place: ClassVar[bool] = True
    """Whether Caffe lets the layer write into its own bottom, and does right there; `in_place_fault` may say more."""
    stands_in_net: ClassVar[bool] = True
    """Whether a prototxt may have such a layer; False for one that a pass of ours puts in."""
    is_unknown: ClassVar[bool] = False
    """Whether it stands for a type that nobody knows, so that the net can be looked at, and not run."""
    is_input: ClassVar[bool] = False
    """Whether the tops come from outside the net, and so become graph inputs."""
    is_loss: ClassVar[bool] = False
    """Whether the first top has loss weight 1 unless the prototxt says otherwise."""
    clamp: ClassVar[str] = ""
    """To what Caffe holds numbers that would go beyond it, as a sentence; empty: to nothing."""
    takes_any_vector: ClassVar[bool] = False
    """Whether a weights file may hold a parameter of C values as C or as 1×C×1×1 alike; forks differ there."""
    extra_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields of `layer { … }` that the schema lacks and the class reads from `LayerDef.extra`."""

    @classmethod
    @abstractmethod
    def parse(cls, layer: LayerDef) -> Self:
        """Reads the layer's parameters; raises LayerError where Caffe would refuse them."""

    @abstractmethod
    def top_shapes(self, bottoms: Shapes) -> Shapes:
        """The tops' shapes, given the bottoms'; raises LayerError where Caffe would refuse them."""

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        """The parameters' shapes in Caffe's order: name → shape."""
        return {}

    def fillers(self) -> Mapping[str, Filler]:
        """What each parameter starts from where no weights are given; zero for one not named here."""
        return {}

    @abstractmethod
    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        """Writes the layer as ONNX nodes; the last ones make `node.tops`."""

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        """Writes the layer's backward pass (caffe: Backward_cpu): the diffs of bottoms and parameters, given the tops'.

        Every diff is shaped as its blob. propagate_down: which bottoms' diffs are asked for; further ones may be given
        and are left out of the model. Raises LayerError where Caffe refuses what is asked for, and, for a layer type
        without a rule of its own, always.
        """
        raise LayerError(NO_GRADIENT)

    def in_place_fault(self, bottoms: Shapes, tops: Shapes) -> str:
        """What goes wrong in Caffe where the first top is the first bottom's blob, as a sentence; empty: nothing."""
        if tops[0] == bottoms[0]:
            return ""
        return (
            f"its top would be {format_shape(tops[0])} and its bottom is {format_shape(bottoms[0])}, which are one blob "
            "there, so that the one overwrites the other's shape"
        )

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        """What might not be meant; `sources` are the layers that make the bottoms, layers that only pass them on aside."""
        return ()

    def doubtful_values(self, node: Node) -> str:
        """What the values of its parameters make doubtful, as a sentence, where a look at few of them tells; empty: nothing."""
        return ""


NO_GRADIENT = (
    "no rule for the gradient of this layer type is known; one was needed, as a loss lies above the layer and something "
    "that learns below. `propagate_down: false` in the layer above, or backward(start=…) with a layer below, keeps the "
    "backward pass away from it."
)


@dataclass(frozen=True)
class Gradients:
    """What a layer's backward pass makes, as ONNX values.

    bottoms: the diff of each bottom, shaped as it; None where there is none. params: parameter → its diff.
    overwritten: those of them that Caffe puts in the place of what earlier passes and layers added up.
    """

    bottoms: Sequence[str | None]
    params: Mapping[str, str] = field(default_factory=dict)
    overwritten: frozenset[str] = frozenset()


class Dialects(Essentials):
    """Asked where forks give one name several rules."""

    @classmethod
    def dialect_of_net(cls, layer: LayerDef, layers: Sequence[LayerDef]) -> str | None:
        """The dialect whose rule the net's other layers show this one to follow; None where they show none."""
        return None

    def undecided(self, bottoms: Shapes) -> str:
        """What only the caller can say, where several rules make tops of these shapes; empty: nothing."""
        return ""


class Backward(Essentials):
    """Asked by the backward pass, besides `lower_gradient`."""

    never_forced: ClassVar[tuple[int, ...]] = ()
    """Bottoms that `force_backward` leaves without a diff (caffe: AllowForceBackward)."""
    without_diff: ClassVar[tuple[int, ...]] = ()
    """Bottoms that no diff goes to, whatever learns below them."""
    propagates_always: ClassVar[bool] = False
    """Whether Caffe's Backward writes every diff it can, asked for or not."""
    running_statistics: ClassVar[frozenset[str]] = frozenset()
    """Parameters that forward passes change, and no solver (lr_mult 0)."""
    keeps_bottoms: ClassVar[bool] = False
    """Whether Caffe's layer keeps what its bottoms held; others find in place what later layers wrote there."""

    @property
    def first_loss_weight(self) -> float:
        """The first top's loss weight where the prototxt gives none (caffe: LossLayer::LayerSetUp)."""
        return 1.0 if self.is_loss else 0.0


class OpenShapes(Essentials):
    """Asked where shapes are the caller's, or follow from the batch or from values (frontend, conversion)."""

    data_axis: ClassVar[int | None] = None
    """The axis of every top whose size follows from values, if any; Caffe's Reshape, and `top_shapes`, only guess it."""
    has_dynamic_shapes: ClassVar[bool] = False
    """Whether code that is not ours decides the tops' shapes, and may decide otherwise when it runs."""

    @property
    def open_axis(self) -> int | None:
        """As `data_axis`, for this one layer."""
        return self.data_axis

    @classmethod
    def with_requested_shapes(cls, layer: LayerDef, shapes: Mapping[str, Shape]) -> LayerDef:
        """The definition with the tops' shapes that the caller asks for (blob → shape), where its fields can say them."""
        return layer

    def with_tops(self, tops: Sequence[str], shapes: Mapping[str, Shape]) -> Self:
        """The layer with tops of the shapes that the caller asks for (blob → shape), where it can make such."""
        return self

    def input_shapes(self, tops: Sequence[str], shapes: Mapping[str, Shape]) -> Shapes:
        """The tops' shapes of an input layer, of which the caller asks for some: blob → shape."""
        if all(top in shapes for top in tops):
            return [shapes[top] for top in tops]
        return [shapes.get(top, shape) for top, shape in zip(tops, self.top_shapes(()), strict=True)]

    def for_any_batch(self, bottoms: Shapes) -> Self:
        """The same layer over `bottoms`, but one that means the batch where it names the batch size as a number."""
        return self


class DeployForm:
    """Asked when a training net becomes a deploy net."""

    @classmethod
    def label_tops(cls, layer: LayerDef) -> tuple[str, ...]:
        """The tops of an input layer that hold labels, and so are gone from a deploy net."""
        return layer.tops[1:]

    @classmethod
    def prediction_layer(cls, layer: LayerDef) -> LayerParameter | None:
        """What a loss leaves behind in a deploy net, over its first bottom, still without name and top; None: nothing."""
        return None

    @classmethod
    def deploy_shape(cls, shape: Shape) -> Shape:
        """The shape that an input of a deploy net has where this layer makes a top of the shape `shape`: one item."""
        return (1, *shape[1:])


class Folding:
    """Asked by the passes that drop layers and fold them into those before them."""

    def is_identity(self, node: Node) -> bool:
        """Whether the only top is always the only bottom."""
        return False

    def repeats_bottom(self, node: Node) -> bool:
        """Whether every top is always the only bottom."""
        return self.is_identity(node)

    def shares_memory(self, node: Node) -> bool:
        """Whether the tops are the first bottom's memory in Caffe, so that a layer in place behind one changes all."""
        return False

    def rewritten_bottoms(self, node: Node) -> Mapping[int, Layer]:
        """Bottoms that Caffe's layer changes where they stand, for whoever reads them later: number → what it does there."""
        return {}

    def channel_affine(self, node: Node) -> tuple[FloatArray, FloatArray] | None:
        """(a, b), a value per channel (axis 1) each, where the layer is y = a·x + b; None where it is something else."""
        return None

    def fold_affine(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        """Parameters with which the layer makes factor·y + shift instead of y, per channel; None where none do."""
        return None


class SpatialForm:
    """Asked by fully convolutional nets, whose layers slide over larger inputs."""

    is_fully_connected: ClassVar[bool] = False
    """Whether the layer has a form that slides over the places that it takes all at once (fully convolutional nets)."""

    def only_flattens(self, node: Node) -> bool:
        """Whether the top is the bottom with each item's values in one row, and nothing else."""
        return False

    def is_spatially_uniform(self, node: Node) -> bool:
        """Whether every place of N×C×spatial… is treated by itself and like every other, and is so for N×C too."""
        return False

    def as_convolution(self, node: Node, bottoms: Shapes) -> Node:
        """The node for `bottoms` N×C×spatial…, of which its own are flattened; the same numbers at this size.

        Its definition, layer and parameters count, its shapes do not. Raises LayerError where there is no such form.
        """
        if self.is_spatially_uniform(node):
            return node
        changed = next(i for i, shape in enumerate(bottoms) if shape != node.bottom_shapes[i])
        raise LayerError(
            f"bottom '{node.definition.bottoms[changed]}' would be {format_shape(bottoms[changed])} in place of "
            f"{format_shape(node.bottom_shapes[changed])}, and {node.type} has no form that works place by place on that. "
            "Cut the net before it (`outputs=…`), or turn a training net into its deploy form (`deploy=True`)"
        )


@dataclass(frozen=True)
class LabelRule:
    """A bottom that holds labels or row numbers: truncated toward zero they must lie in 0…classes-1.

    Caffe's release build reads outside its arrays otherwise, ONNX wraps negative ones: the caller checks them first.
    """

    bottom: int
    classes: int
    ignore_label: int | None = None
    of_batch: bool = False
    """Whether `classes` is the batch size, and so known only where that is."""


class Running:
    """Asked by whoever runs the model: labels, state, what outputs mean."""

    label_bottoms: ClassVar[tuple[int, ...]] = ()
    """Which bottoms hold what is known beforehand (labels, weights of labels) rather than predicted; no gradient."""
    top_kinds: ClassVar[tuple[str, ...]] = ()
    """What the tops mean to whoever runs the model: probabilities, detections, loss, accuracy."""

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        """Which bottoms' values have to be checked before a run."""
        return ()

    def state_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        """What the layer keeps from one pass to the next, zero at first: name → shape."""
        return {}

    @property
    def user_object(self) -> object | None:
        """The object of the user's own code that does the layer's work; None where none does."""
        return None


class Precision(Running):
    """Asked by models of half precision."""

    computes_in_float32: ClassVar[bool] = False
    """Whether it computes in float32 in a model of half precision too: losses, statistics, comparisons, coordinates."""
    float32_tops: ClassVar[tuple[int, ...]] = ()
    """Tops whose values half precision cannot hold, as outputs of such a model either: losses, indices, coordinates."""
    only_moves_data: ClassVar[bool] = False
    """Whether every value of the tops stands in a bottom: such a layer has no precision of its own."""

    def float32_values(self, node: Node) -> frozenset[str]:
        """Bottoms and tops whose values half precision cannot hold: whole numbers above 2048, say."""
        read = {*self.label_bottoms, *(rule.bottom for rule in self.label_rules(node))}
        bottoms = (node.bottoms[i] for i in read if i < len(node.bottoms))
        return frozenset((*bottoms, *(node.tops[i] for i in self.float32_tops if i < len(node.tops))))


class ChannelsLast:
    """Asked by weights for nets that keep channels last (TensorFlow, Keras)."""

    is_pointwise: ClassVar[bool] = False
    """Whether every value of a top stands where the values that it was made of stand in the bottoms."""
    tops_as_caffe: ClassVar[bool] = False
    """Whether tops of three axes and more are no images, so that a net that keeps channels last holds them as Caffe."""

    def channel_axis_of(self, node: Node, bottom: int) -> int | None:
        """The axis of the channels of a bottom, where the layer knows that; 1 is taken where none does."""
        return None

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        """How a net that keeps channels last holds the tops, given how it holds the bottoms.

        None where that net has to bring the bottoms into Caffe's order before this layer; its tops are then held as
        is usual for their number of axes.
        """
        if self.is_pointwise and all(shape == node.bottom_shapes[0] for shape in node.top_shapes):
            return same_places(bottoms, len(node.tops))
        if any(bottom.is_flattening for bottom in bottoms):
            return None
        return [as_caffe(shape) if self.tops_as_caffe else usual(shape) for shape in node.top_shapes]

    def padding(self, node: Node) -> Padding | None:
        """What the layer's window needs beyond the bottom, at this size of it, in TensorFlow's words; None: no window."""
        return None

    def fuses_with(self, node: Node, follower: Node) -> bool:
        """Whether Keras has the two layers as one; the follower alone reads what this one makes."""
        return False

    def factor_and_summand(self, node: Node) -> tuple[Param | None, Param | None] | None:
        """The parameters a and b, a value per channel (axis 1) each, where the layer is y = a·x + b; None if it is not."""
        return None

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays | None:
        """The parameters as a net that keeps channels last wants them, given how it holds the bottoms.

        follower: a layer whose parameters are to be taken in, as `fuses_with` allowed. None: no rule is known.
        """
        return None


class Costs:
    """Asked by inspect: what the layer costs and sees, and how its sizes come about."""

    transposed: ClassVar[bool] = False
    """Whether the window is laid over the top, so that sizes grow by the stride."""
    param_axes: ClassVar[Mapping[str, str]] = {}
    """What the axes of each parameter are: ``num_output × inputs``."""

    def window_over(self, bottom: Shape) -> Window | None:
        """The window that slides over the axes after the channels; None where there is none."""
        return None

    def size_formulas(self, bottom: Shape) -> tuple[str, ...]:
        """How each spatial size of the top comes about, with the numbers filled in; none where there is no rule."""
        return ()

    @property
    def mixes_positions(self) -> bool:
        """Whether a place of the top depends on others of the bottom than the same one, but not through a window."""
        return False

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        """Multiply-adds of one forward pass."""
        return 0


Setting = int | bool | tuple[int, ...]
"""A field's value; for one of a window, a number per spatial axis, or one number for all of them."""
Settings = Mapping[str, Setting]
"""Fields of the message that `Layer.settings` names, with their values."""


class Repairs:
    """Asked by inspect where layers or weights do not fit: which fields may be edited, and how."""

    settings: ClassVar[str] = ""
    """The message that holds the layer's fields: ``convolution_param``."""
    size_settings: ClassVar[tuple[str, ...]] = ()
    """Fields of it that decide the sizes of the spatial axes: ``pad``, ``stride``, …"""
    channel_setting: ClassVar[str] = ""
    """The field of it that decides the channels of the tops."""
    input_axis: ClassVar[int] = 1
    """The axis of bottom 0 that the weights are for, as far as they are for one."""
    crop_setting: ClassVar[str] = ""
    """The field of it that decides height and width of the pictures that the layer makes."""
    source_settings: ClassVar[str] = ""
    """The message that says more of these pictures: ``image_data_param``."""
    picture_settings: ClassVar[tuple[str, ...]] = ()
    """Fields of that one, of three kinds: the channels, or whether there is colour; the height; the width."""
    shapes_message: ClassVar[str] = ""
    """The message of which `shape` says what blobs an input makes: ``input_param``."""
    class_settings: ClassVar[tuple[str, ...]] = ()
    """Fields of it that say how many classes there are, background included."""
    completed_by: ClassVar[str] = ""
    """The layer type that has to follow where this one does half of what its name says: Scale after BatchNorm."""

    @classmethod
    def mean_size(cls, layer: LayerDef) -> tuple[int, int] | None:
        """Height and width of the mean image of a data layer, which its pictures have before they are cropped; None
        where there is none."""
        return None

    @property
    def boxes_at_each_place(self) -> int:
        """How many boxes it makes for each place of its first bottom, for one that makes prior boxes."""
        return 0

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        """Settings with which the parameters would have the shapes `stored`, as far as these tell; likeliest first."""
        return ()

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        """Settings that might make the layer take these bottoms where it refuses them."""
        return ()

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        """Settings with which top number `top` might be of the shape `wanted` over the same bottoms."""
        return ({cls.channel_setting: wanted[1]},) if cls.channel_setting and len(wanted) > 1 else ()

    @classmethod
    def settings_for_channels(cls, layer: LayerDef, bottoms: Shapes, channels: int) -> Sequence[Settings]:
        """Settings with which the top might have so many channels, for a layer that has no `channel_setting`."""
        return ()

    @classmethod
    def other_types(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[LayerParameter]:
        """Layers of another type with the same bottoms and tops, for which parameters of the shapes `stored` are made."""
        return ()

    @classmethod
    def other_rules(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        """Layers of another type that take the bottoms as they are, where this one refuses them: another loss."""
        return ()

    @classmethod
    def with_labels_made_over(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        """Layers for this one's place, of which the first make its labels into what it takes; none where none can."""
        return ()

    @classmethod
    def in_place_of(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        """Layers that, one after the other, do what this one refuses to do for these bottoms; none where none can."""
        return ()

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        """Shapes of some bottoms (index → shape) with which the layer would take the others as they are."""
        return ()

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        """What else to say of bottoms that the layer refuses: sentences, with the numbers."""
        return ()

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        """The size of axis `input_axis` that bottom 0 would need for parameters of the shapes `stored`; None: they do not
        tell."""
        return None


class Feeding:
    """Asked by whoever fills inputs and takes outputs by itself: data layers."""

    fills_itself: ClassVar[bool] = False
    """Whether an input's values come from a source that the layer names, as in nets for training."""

    def data_source(self, tops: Sequence[str], random: Generator) -> DataSource | None:
        """What fills the tops, called `tops`, where the caller does not; None where only the caller can."""
        return None

    def preparation(self) -> Preparation | None:
        """What the layer does to pictures to make its first top; None where it reads none."""
        return None

    def data_sink(self) -> DataSink | None:
        """What takes the bottoms out of the net; None where nothing does."""
        return None


class Verifying:
    """Asked where a model is held against another engine."""

    is_discontinuous: ClassVar[bool] = False
    """Whether the tops jump where the bottoms hardly change: an index, a choice, what lies above a threshold."""

    @property
    def is_random(self) -> bool:
        """Whether the tops are drawn anew in each pass."""
        return False

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        """Values that a bottom might hold, where not any will do, for bottoms of these shapes; None where any will."""
        return None


@dataclass(frozen=True)
class Layer(
    Dialects, Backward, OpenShapes, DeployForm, Folding, SpatialForm, Precision, ChannelsLast, Costs, Repairs, Feeding,
    Verifying,
):  # fmt: skip
    """A Caffe layer type. Shapes are in Caffe's axis order (NCHW for image blobs)."""


@dataclass(frozen=True)
class Node:
    """A layer in its place: which values it reads and writes, and all their shapes."""

    definition: LayerDef
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    bottom_shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]
    params: tuple[Param, ...] = ()

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def type(self) -> str:
        return self.definition.type

    @property
    def is_in_place(self) -> bool:
        """Whether the first top is the first bottom's blob."""
        return self.definition.is_in_place

    def param(self, name: str) -> Param:
        """The parameter of that name; KeyError when the layer has none."""
        for param in self.params:
            if param.name == name:
                return param
        raise KeyError(name)

    def has_param(self, name: str) -> bool:
        return any(param.name == name for param in self.params)
