"""The contract of a layer type: what a class of three methods gets, and that each facet says things of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Layer, Node, at_least, exactly
from caffeconv.ir.onnx_builder import OnnxBuilder
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import Shapes


@dataclass(frozen=True)
class Least(Layer):
    """A layer type as somebody else might write it: the abstract methods, and fields of its own."""

    factor: float
    axes: tuple[int, ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, layer: LayerDef) -> Least:
        return cls(2.0)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return bottoms

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return


def test_three_methods_make_a_layer_type() -> None:
    layer = Least(2.0)
    assert (layer.bottoms, layer.tops, layer.first_loss_weight, layer.open_axis) == (exactly(1), exactly(1), 0.0, None)
    assert (layer.weight_shapes([(1, 2)]), layer.fillers(), layer.multiply_adds([(1, 2)], [(1, 2)])) == ({}, {}, 0)
    assert layer.with_tops(["y"], {"y": (3,)}) is layer
    assert layer.input_shapes((), {}) == []


def test_a_layer_type_is_a_frozen_dataclass_with_fields_of_its_own() -> None:
    layer = Least(2.0, (1,))
    assert layer == Least(2.0, (2,)) != Least(3.0)
    assert hash(layer) == hash(Least(2.0))
    assert replace(layer, factor=3.0) == Least(3.0)
    with pytest.raises(FrozenInstanceError):
        layer.factor = 1.0  # type: ignore[misc]


def test_the_contract_is_abstract() -> None:
    assert Layer.__abstractmethods__ == {"parse", "top_shapes", "lower"}


def test_each_member_is_said_by_one_facet() -> None:
    members = Counter(
        name for facet in Layer.__mro__[1:] if facet.__module__ == Layer.__module__
        for name in vars(facet) if not name.startswith("_")
    )  # fmt: skip
    assert [name for name, number in members.items() if number > 1] == []


def test_a_type_without_a_gradient_says_what_to_do() -> None:
    with pytest.raises(LayerError, match="propagate_down: false"):
        Least(1.0).lower_gradient(None, None, [], [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arity", "text", "fitting"),
    [
        (exactly(2), "2", [2]),
        (at_least(1), "at least 1", [1, 2, 3]),
        (Arity(0, 2), "0 to 2", [0, 1, 2]),
    ],
)
def test_arity(arity: Arity, text: str, fitting: list[int]) -> None:
    assert str(arity) == text
    assert [number for number in range(4) if arity.fits(number)] == fitting


def test_a_node_finds_its_parameters_by_name() -> None:
    weight = Param("weight", (2, 3))
    node = Node(None, Least(1.0), ("x",), ("y",), ((1, 3),), ((1, 2),), (weight,))  # type: ignore[arg-type]
    assert node.param("weight") is weight
    assert (node.has_param("weight"), node.has_param("bias")) == (True, False)
    with pytest.raises(KeyError):
        node.param("bias")
