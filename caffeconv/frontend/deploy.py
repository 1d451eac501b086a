"""Turns a training net into a deploy net: what data layers, labels and losses were for is gone, predictions are left.

Data layers become one Input layer of the crop size, or of the size that the caller names for those of forks; layers that
read labels go, and losses and evaluations of forks; a loss that contains the prediction
(SoftmaxWithLoss, …) leaves it behind.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.errors import CaffeconvError, CaffeconvWarning, Diagnostic, InvalidNetError, LayerError
from caffeconv.frontend.build import build_partial_graph
from caffeconv.frontend.data_sizes import channels_of, item_shape
from caffeconv.frontend.netdef import define_net, draft_net
from caffeconv.frontend.options import NetOptions
from caffeconv.frontend.pinned_sizes import PROBES, Size, candidates, without_rest
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.ir.layer import Layer
from caffeconv.layers.detection_head import detection_head
from caffeconv.layers.training_only import (
    clip_length,
    data_tops,
    is_training_only,
    known_type,
    name_of,
    passed_on,
    prediction_layer,
)
from caffeconv.tensor.shape import Shape


class UnknownSizeError(InvalidNetError):
    """The net does not say how large an input is."""

    def __init__(self, layer: LayerDef, top: str, why: str, size: Size = (224, 224)) -> None:
        self.layer, self.top, self.why = layer, top, why
        hint = f"Name it: `shapes={ {top: (1, channels_of(layer), *size)} }`"
        super().__init__([Diagnostic("error", layer.where, why, hint, layer.name)])


def to_deploy(source: NetSource, options: NetOptions) -> NetSource:
    """The deploy form of the net that the options keep, in today's form; their `shapes` give inputs that the net does not.

    Of pictures whose size the data layers do not say, the size is taken, and told, over which alone the layers fit. Raises
    UnknownSizeError where an input's shape cannot be known.
    """
    source = upgrade_net(source)
    try:
        return _to_deploy(source, options)
    except UnknownSizeError as error:
        fitting = _fitting_shapes(source, options)
        if not fitting:
            raise
        shapes = fitting[0]
        if len(fitting) > 1:
            raise UnknownSizeError(
                error.layer, error.top, error.why, (shapes[error.top][2], shapes[error.top][3])
            ) from None
        warnings.warn(
            f"{error.layer.where}: {error.why}. This size fits the layers behind it, and is taken: `shapes={shapes}`",
            CaffeconvWarning,
            stacklevel=2,
        )
        return _to_deploy(source, replace(options, shapes={**options.shapes, **shapes}))


def _fitting_shapes(source: NetSource, options: NetOptions) -> list[Mapping[str, Shape]]:
    """Shapes of the unknown inputs, all of one size, over which the deploy net is whole; several where it takes several."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            net, channels = _net_of_any_size(source, options)
        except CaffeconvError:
            return []
        for sizes in candidates(net.layers):
            fitting = [size for size in sizes if _is_whole(net, _shapes(channels, size))]
            if fitting:
                return [_shapes(channels, size) for size in without_rest(fitting)]
    return []


def _shapes(channels: Mapping[str, int], size: Size) -> Mapping[str, Shape]:
    return {top: (1, number, *size) for top, number in channels.items()}


def _is_whole(net: NetDef, shapes: Mapping[str, Shape]) -> bool:
    partial_graph = build_partial_graph(net, shapes)
    return not (partial_graph.problems or partial_graph.unbuilt)


def _net_of_any_size(source: NetSource, options: NetOptions) -> tuple[NetDef, dict[str, int]]:
    """The deploy net over pictures of some size, and the inputs that nothing says the size of, with their channels.

    Raises UnknownSizeError for an input that is no picture, and CaffeconvError where there is no deploy net.
    """
    channels: dict[str, int] = {}
    while True:
        shapes = _shapes(channels, (PROBES[0], PROBES[0]))
        own = replace(options, shapes={**options.shapes, **shapes})
        try:
            return define_net(_to_deploy(source, own), own), channels
        except UnknownSizeError as error:
            kind = known_type(error.layer)
            if error.top in channels or (kind is not None and not kind.crop_setting):
                raise
            channels[error.top] = channels_of(error.layer)


def _to_deploy(source: NetSource, options: NetOptions) -> NetSource:
    net, problems = draft_net(source, options)
    if _made_and_missing(net.layers)[1]:
        options = _in_whole_state(source, options)
        source = _with_layers_of_other_phase(source, options)
        net, problems = draft_net(source, options)
    labels = _labels(net.layers) - options.shapes.keys()
    deploy = _DeployNet(net.layers, labels, options.shapes)
    for layer in net.layers:
        deploy.add(layer)
    names = {proto.name for proto, _ in deploy.layers}
    problems = [problem for problem in problems if problem.layer in names]
    if problems:
        raise InvalidNetError(problems)
    layers = _without_cut_branches(deploy.layers)
    deployed = NetParameter(name=net.name or None)
    deployed.layer.extend(proto for proto, _ in layers)
    return replace(source, net=deployed, lines=tuple(line for _, line in layers))


def _in_whole_state(source: NetSource, options: NetOptions) -> NetOptions:
    """The options with the stages in which the net is whole, where it is not without any and just one set makes it so."""
    _, missing = _made_and_missing(draft_net(source, options)[0].layers)
    rules = [rule for proto in source.net.layer if missing.intersection(proto.top) for rule in proto.include]
    whole = [
        state
        for stages in dict.fromkeys(tuple(rule.stage) for rule in rules if rule.stage)
        for state in [replace(options, stages=(*options.stages, *stages))]
        if not _made_and_missing(draft_net(source, state)[0].layers)[1]
    ]
    if len(whole) != 1:
        return options
    warnings.warn(
        f"the net lacks layers unless its stage is {', '.join(whole[0].stages)}, which is taken: "
        f"`stages={whole[0].stages}`",
        CaffeconvWarning,
        stacklevel=2,
    )
    return whole[0]


def _made_and_missing(layers: Sequence[LayerDef]) -> tuple[set[str], set[str]]:
    """The blobs that layers make, and those that are read before any makes them."""
    made: set[str] = set()
    missing: set[str] = set()
    for layer in layers:
        missing.update(bottom for bottom in layer.bottoms if bottom not in made)
        made.update(layer.tops)
    return made, missing


def _with_layers_of_other_phase(source: NetSource, options: NetOptions) -> NetSource:
    """The net with layers of the other phase for what none makes in this one.

    In two files, each has one phase's data layers, which come first. Target layers of detectors, and what passes their
    regions on, stay at their places.
    """
    net, _ = draft_net(source, options)
    made, missing = _made_and_missing(net.layers)
    if not missing:
        return source
    other: Phase = "TRAIN" if options.phase == "TEST" else "TEST"
    lacking = [
        layer
        for layer in draft_net(source, replace(options, phase=other))[0].layers
        if missing.intersection(layer.tops) and not (made - missing).intersection(layer.tops)
    ]
    data_layers = [layer for layer in lacking if not layer.bottoms]
    if data_layers:
        names = ", ".join(f"'{layer.name}'" for layer in data_layers)
        warnings.warn(
            f"no data layer of phase {options.phase} makes {', '.join(sorted(missing & _tops(data_layers)))}; {names}, of "
            f"phase {other}, is taken in its place",
            CaffeconvWarning,
            stacklevel=2,
        )
    targets = {(layer.name, layer.line or 0) for layer in lacking if layer.bottoms and is_training_only(layer)}
    whole = NetParameter()
    whole.CopyFrom(source.net)
    del whole.layer[:]
    whole.layer.extend([*(layer.proto for layer in data_layers), *source.net.layer])
    lines = (*(layer.line or 0 for layer in data_layers), *source.lines)
    for i, (proto, line) in enumerate(zip(whole.layer, lines, strict=True)):
        if i < len(data_layers) or (proto.name, line) in targets:
            proto.ClearField("include")
            proto.ClearField("exclude")
    return replace(source, net=whole, lines=lines)


def _tops(layers: Sequence[LayerDef]) -> set[str]:
    return {top for layer in layers for top in layer.tops}


def _labels(layers: Sequence[LayerDef]) -> set[str]:
    """Blobs that hold labels: what data layers make after the data, what losses read besides predictions, and what is
    made of these alone."""
    labels: set[str] = set()
    for layer in layers:
        kind = known_type(layer)
        if kind is None:
            labels.update(_label_tops(layer))
            continue
        if kind.is_input:
            labels.update(kind.label_tops(layer))
        labels.update(layer.bottoms[i] for i in kind.label_bottoms if i < len(layer.bottoms))
    made = {top for layer in layers for top in layer.tops}
    missing = {bottom for layer in layers for bottom in layer.bottoms} - made
    labels.update(blob for blob in missing if all(_only_trains(layer) for layer in layers if blob in layer.bottoms))
    passing = [(layer, passed_on(layer).values()) for layer in layers if known_type(layer) is None]
    labels.update(bottom for layer, passed in passing if passed for bottom in layer.bottoms if bottom not in passed)
    # backwards: what is made only to become a label is one; forwards: what is made of labels is one
    for layer in reversed(layers):
        kind = known_type(layer)
        if kind is not None and not kind.is_input and layer.tops and set(layer.tops) <= labels:
            readers = [other for other in layers if set(other.bottoms) & set(layer.bottoms) and other is not layer]
            if all(_reads_as_label(other, set(layer.bottoms), labels) for other in readers):
                labels.update(layer.bottoms)
    for layer in layers:
        if layer.bottoms and set(layer.bottoms) <= labels:
            labels.update(layer.tops)
    return labels


def _label_tops(layer: LayerDef) -> Iterable[str]:
    """What a layer of a type that is not known makes of labels: all but data, and what it only passes on."""
    if not layer.bottoms:
        data = data_tops(layer) if layer.tops else ()
        return [top for top in layer.tops if top not in data]
    passed = passed_on(layer)
    return [top for top in layer.tops if top not in passed] if is_training_only(layer) else ()


def _only_trains(layer: LayerDef) -> bool:
    """Whether a layer is a loss or an evaluation, which no deploy net has."""
    kind = known_type(layer)
    return is_training_only(layer) if kind is None else kind.is_loss or bool(kind.label_bottoms)


def _reads_as_label(layer: LayerDef, blobs: set[str], labels: set[str]) -> bool:
    kind = known_type(layer)
    positions = [i for i, bottom in enumerate(layer.bottoms) if bottom in blobs]
    return (kind is not None and set(positions) <= set(kind.label_bottoms)) or set(layer.tops) <= labels


@dataclass
class _DeployNet:
    """The deploy net as far as it is made: each layer of the training net is added as what stands for it there."""

    training: Sequence[LayerDef]
    labels: set[str]
    shapes: Mapping[str, Sequence[int]]
    layers: list[tuple[LayerParameter, int]] = field(default_factory=list)
    """Layers and their lines."""
    _tops: set[str] = field(default_factory=set)
    _predictions: dict[tuple[str, str], str] = field(default_factory=dict)
    _passed_on: dict[str, str] = field(default_factory=dict)
    """Blobs of the training net → those that stand for them here."""

    def add(self, layer: LayerDef) -> None:
        for proto in self._deployed(layer):
            bottoms = [self._passed_on.get(bottom, bottom) for bottom in proto.bottom]
            del proto.bottom[:]
            proto.bottom.extend(bottoms)
            self.layers.append((proto, layer.line or 0))
            self._tops.update(proto.top)

    def _deployed(self, layer: LayerDef) -> Iterable[LayerParameter]:
        """What stands for a layer in the deploy net: itself, something else, or nothing."""
        kind = known_type(layer)
        if kind is not None and kind.is_input:
            yield from _input(layer, kind, self.labels, self.shapes)
        elif _is_unknown_data(layer):
            yield from _unknown_input(layer, self.labels, self.shapes)
        elif kind is None and is_training_only(layer):
            passed = passed_on(layer)
            self._passed_on.update((top, self._passed_on.get(bottom, bottom)) for top, bottom in passed.items())
            yield from detection_head(layer, self.training)
            yield from self._prediction(layer, prediction_layer(layer))
        elif kind is not None and (kind.is_loss or kind.label_bottoms):
            yield from self._prediction(layer, kind.prediction_layer(layer) if layer.bottoms else None)
        elif not self.labels & set(layer.bottoms) and not (layer.tops and self.labels >= set(layer.tops)):
            proto = LayerParameter()
            proto.CopyFrom(layer.proto)
            for name in ("include", "exclude", "loss_weight", "propagate_down", "phase"):
                proto.ClearField(name)
            # a loss over what is such a prediction already leaves none behind
            self._predictions.update(((layer.type, top), top) for top in layer.tops)
            yield proto

    def _prediction(self, layer: LayerDef, proto: LayerParameter | None) -> Iterable[LayerParameter]:
        if proto is None or layer.bottoms[0] in self.labels or (proto.type, layer.bottoms[0]) in self._predictions:
            return
        proto.name = _free_name("prob", layer, self._tops)
        proto.top.append(proto.name)
        self._predictions[proto.type, layer.bottoms[0]] = proto.name
        yield proto


def _is_unknown_data(layer: LayerDef) -> bool:
    """Whether a layer of a type that is not known fills its tops by itself: first the data, then labels."""
    return known_type(layer) is None and not layer.bottoms and bool(layer.tops)


def _unknown_input(
    layer: LayerDef, labels: Collection[str], shapes: Mapping[str, Sequence[int]]
) -> Iterable[LayerParameter]:
    wanted = [top for top in layer.tops if top not in labels]
    known: dict[str, Sequence[int]] = {top: shape for top, shape in data_tops(layer).items() if shape is not None}
    size = item_shape(layer)
    if size is not None:
        known[layer.tops[0]] = size
        if clip_length(layer) and layer.tops[0] not in shapes:
            warnings.warn(
                f"{layer.where}: the length of a clip stands in its data; C3D's {clip_length(layer)} frames are taken: "
                f"`shapes={ {layer.tops[0]: size} }`",
                CaffeconvWarning,
                stacklevel=2,
            )
    known.update(shapes)
    unknown = [top for top in wanted if top not in known]
    if unknown:
        message = f"{name_of(layer)} is a data layer of a fork, which does not say how large '{unknown[0]}' is"
        raise UnknownSizeError(layer, unknown[0], message)
    proto = LayerParameter(name=layer.name, type="Input", top=wanted)
    for top in wanted:
        proto.input_param.shape.add().dim.extend(known[top])
    if wanted:
        yield proto


def _free_name(name: str, layer: LayerDef, tops: set[str]) -> str:
    return name if name not in tops else f"{layer.name}/{name}"


def _input(
    layer: LayerDef, kind: type[Layer], labels: Collection[str], shapes: Mapping[str, Sequence[int]]
) -> Iterable[LayerParameter]:
    wanted = [top for top in layer.tops if top not in labels]
    if not wanted:
        return
    known: dict[str, Shape] = {}
    why = f"nothing says how large '{wanted[-1]}' is"
    try:
        # DeepLab's have a third top, which goes with the labels
        known = dict(zip(layer.tops, map(tuple, kind.parse(layer).top_shapes([])), strict=False))
    except (LayerError, CaffeconvError) as error:
        why = str(error)
    unknown = [top for top in wanted if top not in shapes and top not in known]
    if unknown:
        raise UnknownSizeError(layer, unknown[0], why)
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
