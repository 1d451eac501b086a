"""Turns a training net into a deploy net: what data layers, labels and losses were for is gone, predictions are left.

Data layers become one Input layer of the crop size, or of the size that the caller names for those of forks; layers that
read labels go, and losses and evaluations of forks; a loss that contains the prediction
(SoftmaxWithLoss, …) leaves it behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, LayerError
from caffeconv.frontend.netdef import define_net, draft_net
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Layer
from caffeconv.layers import LAYERS
from caffeconv.layers.training_only import is_training_only
from caffeconv.tensor.shape import Shape


class UnknownSizeError(InvalidNetError):
    """The net does not say how large an input is."""


def to_deploy(source: NetSource, options: NetOptions) -> NetSource:
    """The deploy form of the net that the options keep, in today's form; their `shapes` give inputs that the net does not.

    Raises UnknownSizeError where an input's shape cannot be known.
    """
    source = _with_data_of_other_phase(source, options)
    net = define_net(source, options)
    labels = _labels(net.layers) - options.shapes.keys()
    layers: list[tuple[LayerParameter, int]] = []
    tops: set[str] = set()
    predictions: dict[tuple[str, str], str] = {}
    for layer in net.layers:
        kind = LAYERS.get(layer.type)
        for proto in _deployed(layer, kind, labels, tops, predictions, options.shapes):
            layers.append((proto, layer.line or 0))
            tops.update(proto.top)
    layers = _without_cut_branches(layers)
    deployed = NetParameter(name=net.name or None)
    deployed.layer.extend(proto for proto, _ in layers)
    return replace(source, net=deployed, lines=tuple(line for _, line in layers))


def _with_data_of_other_phase(source: NetSource, options: NetOptions) -> NetSource:
    """The net with data layers of the other phase for what none makes in this one: in two files, each has one phase's."""
    source = upgrade_net(source)
    net, _ = draft_net(source, options)
    made: set[str] = set()
    missing: set[str] = set()
    for layer in net.layers:
        missing.update(bottom for bottom in layer.bottoms if bottom not in made)
        made.update(layer.tops)
    if not missing:
        return source
    other: Phase = "TRAIN" if options.phase == "TEST" else "TEST"
    data_layers = [
        layer
        for layer in draft_net(source, replace(options, phase=other))[0].layers
        if not layer.bottoms and missing.intersection(layer.tops) and not made.intersection(layer.tops)
    ]
    whole = NetParameter()
    whole.CopyFrom(source.net)
    del whole.layer[:]
    for layer in data_layers:
        whole.layer.add().CopyFrom(layer.proto)
        for name in ("include", "exclude"):
            whole.layer[-1].ClearField(name)
    whole.layer.extend(source.net.layer)
    return replace(source, net=whole, lines=(*(layer.line or 0 for layer in data_layers), *source.lines))


def _labels(layers: Sequence[LayerDef]) -> set[str]:
    """Blobs that hold labels: what data layers make after the data, what losses read besides predictions, and what is
    made of these alone."""
    labels: set[str] = set()
    for layer in layers:
        kind = LAYERS.get(layer.type)
        if kind is None:
            labels.update(layer.tops[1:] if _is_unknown_data(layer) else ())
            continue
        if kind.is_input:
            labels.update(kind.label_tops(layer))
        labels.update(layer.bottoms[i] for i in kind.label_bottoms if i < len(layer.bottoms))
    # backwards: what is made only to become a label is one; forwards: what is made of labels is one
    for layer in reversed(layers):
        kind = LAYERS.get(layer.type)
        if kind is not None and not kind.is_input and layer.tops and set(layer.tops) <= labels:
            readers = [other for other in layers if set(other.bottoms) & set(layer.bottoms) and other is not layer]
            if all(_reads_as_label(other, set(layer.bottoms), labels) for other in readers):
                labels.update(layer.bottoms)
    for layer in layers:
        if layer.bottoms and set(layer.bottoms) <= labels:
            labels.update(layer.tops)
    return labels


def _reads_as_label(layer: LayerDef, blobs: set[str], labels: set[str]) -> bool:
    kind = LAYERS.get(layer.type)
    positions = [i for i, bottom in enumerate(layer.bottoms) if bottom in blobs]
    return (kind is not None and set(positions) <= set(kind.label_bottoms)) or set(layer.tops) <= labels


def _deployed(
    layer: LayerDef, kind: type[Layer] | None, labels: set[str], tops: set[str],
    predictions: dict[tuple[str, str], str], shapes: Mapping[str, Sequence[int]],
) -> Iterable[LayerParameter]:  # fmt: skip
    """What stands for a layer in the deploy net: itself, something else, or nothing."""
    if kind is not None and kind.is_input:
        yield from _input(layer, kind, labels, shapes)
    elif _is_unknown_data(layer):
        yield from _unknown_input(layer, labels, shapes)
    elif kind is None and is_training_only(layer.type):
        return
    elif kind is not None and (kind.is_loss or kind.label_bottoms):
        proto = kind.prediction_layer(layer) if layer.bottoms and layer.bottoms[0] not in labels else None
        if proto is not None and (proto.type, layer.bottoms[0]) not in predictions:
            proto.name = _free_name("prob", layer, tops)
            proto.top.append(proto.name)
            predictions[proto.type, layer.bottoms[0]] = proto.name
            yield proto
    elif not set(layer.bottoms) & labels and not (layer.tops and set(layer.tops) <= labels):
        proto = LayerParameter()
        proto.CopyFrom(layer.proto)
        for name in ("include", "exclude", "loss_weight", "propagate_down", "phase"):
            proto.ClearField(name)
        # a loss over what is such a prediction already leaves none behind
        predictions.update(((layer.type, top), top) for top in layer.tops)
        yield proto


def _is_unknown_data(layer: LayerDef) -> bool:
    """Whether a layer of a type that is not known fills its tops by itself: first the data, then labels."""
    return layer.type not in LAYERS and not layer.bottoms and bool(layer.tops)


def _unknown_input(layer: LayerDef, labels: set[str], shapes: Mapping[str, Sequence[int]]) -> Iterable[LayerParameter]:
    wanted = [top for top in layer.tops if top not in labels]
    unknown = [top for top in wanted if top not in shapes]
    if unknown:
        message = f"{layer.type} is a data layer of a fork, which does not say how large '{unknown[0]}' is"
        hint = f"Name it: `shapes={ {unknown[0]: (1, 3, 224, 224)} }`"
        raise UnknownSizeError([Diagnostic("error", layer.where, message, hint, layer.name)])
    proto = LayerParameter(name=layer.name, type="Input", top=wanted)
    for top in wanted:
        proto.input_param.shape.add().dim.extend(shapes[top])
    if wanted:
        yield proto


def _free_name(name: str, layer: LayerDef, tops: set[str]) -> str:
    return name if name not in tops else f"{layer.name}/{name}"


def _input(
    layer: LayerDef, kind: type[Layer], labels: set[str], shapes: Mapping[str, Sequence[int]]
) -> Iterable[LayerParameter]:
    wanted = [top for top in layer.tops if top not in labels]
    if not wanted:
        return
    try:
        known: dict[str, Shape] = dict(zip(layer.tops, map(tuple, kind.parse(layer).top_shapes([])), strict=True))
    except (LayerError, CaffeconvError) as error:
        if any(top not in shapes for top in wanted):
            problem = Diagnostic(
                "error", layer.where, str(error), f"Name it: `shapes={ {wanted[0]: (1, 3, 224, 224)} }`", layer.name
            )
            raise UnknownSizeError([problem]) from None
        known = {}
    proto = LayerParameter(name=layer.name, type="Input", top=wanted)
    for top in wanted:
        shape = shapes.get(top) or kind.deploy_shape(known[top])
        proto.input_param.shape.add().dim.extend(shape)
    yield proto


def _without_cut_branches(layers: list[tuple[LayerParameter, int]]) -> list[tuple[LayerParameter, int]]:
    """Drops layers that read what is gone."""
    remaining: list[tuple[LayerParameter, int]] = []
    tops: set[str] = set()
    for proto, line in layers:
        if tops.issuperset(proto.bottom):
            remaining.append((proto, line))
            tops.update(proto.top)
    return remaining
