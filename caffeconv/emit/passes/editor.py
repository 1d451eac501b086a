"""A model taken apart for rewriting: nodes as copies, initializers as they are, put together again at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from caffeconv.emit.metadata import metadata_of
from caffeconv.tensor.shape import unique_name

Dims = tuple[int | str, ...]
"""A value's shape as the model says it: a number, or the name of a size that is open."""
AnyArray = NDArray[np.generic]


def with_outputs(model: ModelProto, values: Sequence[str]) -> ModelProto:
    """A copy that gives some of its values too; onnxruntime works out their types."""
    copy = ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(ValueInfoProto(name=value) for value in values if value not in present)
    return copy


class ModelEdit:
    """What a rewriting of a whole model works on; the model that it came from stays as it was."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes = [_copy(node) for node in model.graph.node]
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [_copy_info(value) for value in model.graph.input]
        self.outputs = [_copy_info(value) for value in model.graph.output]
        self.metadata = metadata_of(model)
        self.opset = next(entry.version for entry in model.opset_import if not entry.domain)
        self._source = model
        self._values = {*self.initializers, *(value.name for value in self.inputs)}
        self._values |= {name for node in self.nodes for name in node.output}
        self._node_names = {node.name for node in self.nodes}
        self._readers: tuple[int, Mapping[str, list[NodeProto]]] | None = None
        """Value → the nodes that read it, and of how many nodes that tells."""

    def model(self) -> ModelProto:
        """The model as it is now, without initializers that nothing reads."""
        source = self._source
        graph = GraphProto(name=source.graph.name, node=self.nodes, input=self.inputs, output=self.outputs)
        names = {name for node in self.nodes for name in reads(node)}
        graph.initializer.extend(tensor for name, tensor in self.initializers.items() if name in names)
        model = ModelProto(
            ir_version=source.ir_version, opset_import=source.opset_import, producer_name=source.producer_name,
            producer_version=source.producer_version, graph=graph, functions=source.functions,
        )  # fmt: skip
        for key in sorted(self.metadata):
            model.metadata_props.add(key=key, value=self.metadata[key])
        return model

    # -- values -----------------------------------------------------------------------------------------------------

    def fresh(self, base: str) -> str:
        """A name that no value has yet."""
        return unique_name(base, self._values)

    def array(self, name: str) -> AnyArray:
        """An initializer's values."""
        return np.asarray(numpy_helper.to_array(self.initializers[name]))

    def constant(self, base: str, values: AnyArray) -> str:
        """A new initializer, called `base` where that is free."""
        name = self.fresh(base)
        self.initializers[name] = tensor(name, values)
        return name

    def replace_constant(self, name: str, values: AnyArray) -> None:
        self.initializers[name] = tensor(name, values)

    def readers(self, value: str) -> list[NodeProto]:
        """The nodes that read a value, themselves or in a body."""
        if self._readers is None or self._readers[0] != len(self.nodes):
            index = defaultdict[str, list[NodeProto]](list)
            for node in self.nodes:
                for name in reads(node):
                    index[name].append(node)
            self._readers = len(self.nodes), index
        return list(self._readers[1].get(value, ()))

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives values other names, all at once, wherever nodes have them; the model's inputs and outputs keep theirs."""
        for node in self.nodes if names else ():
            rename_in(node, names)
        self._readers = None

    # -- nodes ------------------------------------------------------------------------------------------------------

    def node(
        self, op_type: str, inputs: Sequence[str], output: str, name: str, **attributes: int | Sequence[int]
    ) -> NodeProto:
        """A new node of that name, or one like it; it is the caller's to put somewhere."""
        node = helper.make_node(op_type, inputs, [output], unique_name(name, self._node_names))
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        return node


def tensor(name: str, values: AnyArray) -> TensorProto:
    """An initializer with its values in bytes."""
    proto = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape)
    proto.raw_data = np.ascontiguousarray(values).tobytes()
    return proto


def dims_of(value: ValueInfoProto) -> Dims:
    """The shape of an input or output; an open size without a name counts as one of its own."""
    sizes = value.type.tensor_type.shape.dim
    return tuple(
        size.dim_value if size.HasField("dim_value") else size.dim_param or f"{value.name}_{axis}"
        for axis, size in enumerate(sizes)
    )


def set_dims(value: ValueInfoProto, dims: Sequence[int | str]) -> None:
    """Gives an input or output another shape."""
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info(value.name, kind, list(dims)))


def reads(node: NodeProto) -> set[str]:
    """What a node reads, and what the bodies in it read from outside of them."""
    values = {name for name in node.input if name}
    for body in bodies(node):
        local_values = {value.name for value in body.input}
        for inner in body.node:
            values |= reads(inner) - local_values
            local_values.update(inner.output)
        values |= {value.name for value in body.output} - local_values
    return values


def bodies(node: NodeProto) -> Iterable[GraphProto]:
    """The graphs of a Loop, Scan or If."""
    return (attribute.g for attribute in node.attribute if attribute.HasField("g"))


def every_node(node: NodeProto) -> Iterable[NodeProto]:
    """The node, and those in its bodies."""
    yield node
    for body in bodies(node):
        for inner in body.node:
            yield from every_node(inner)


def rename_in(node: NodeProto, names: Mapping[str, str]) -> None:
    """Renames values in a node and its bodies; names within bodies are never those of the graph around them."""
    for part in every_node(node):
        for values in (part.input, part.output):
            for i, value in enumerate(values):
                values[i] = names.get(value, value)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _copy_info(value: ValueInfoProto) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    return copy
