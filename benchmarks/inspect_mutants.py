"""How often `inspect` finds its way back: good nets with one field changed, and the edits that it offers.

Each mutant is a net of fixtures/goldens/nets, or of the zoo where that is there, of which one field (pad,
kernel_size, num_output, stride or group) of one layer was changed so that its weights no longer fit. Printed, with the
net inside the weights file and without: how many mutants some offered edit mends, how often the field's old value is
offered first, and how long that takes.

Then mistakes that span layers, or are the file's: another number of classes, another size of the pictures, sizes of
Upsample layers, offsets of Crop layers, one-hot labels, labels of another size, labels beside each other, a `feat_stride` or
`spatial_scale` that is missing or wrong, pictures of another size than their mean image, files under other names, BatchNorm as
NVIDIA or BVLC has it. Nets for these are those of
$CAFFECONV_PROTOTXTS too, with weights of the right shapes.

Of every kind the first cure is converted and run too, beside the net that was meant, on the same inputs, where neither has
more than three million parameters and the cure uses all of the file. Shapes do not tell everything (a stride of the pooling
before may do what one of the convolution did), so not every cure has the same numbers; the edit that was meant must.

    python benchmarks/inspect_mutants.py [NUMBER]
"""

from __future__ import annotations

import itertools
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnxruntime

from caffeconv.caffe_format.caffemodel import StoredLayer, WeightsFile
from caffeconv.caffe_pb2 import BlobProto, LayerParameter
from caffeconv.conversion.load import Loaded
from caffeconv.conversion.to_onnx import to_onnx
from caffeconv.errors import CaffeconvError
from caffeconv.frontend.bind import bind
from caffeconv.frontend.build import build_partial_graph, finish, known_python
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.open_files import read_net, read_weights
from caffeconv.frontend.options import NetOptions
from caffeconv.inspection.diagnose import Diagnosis, diagnose
from caffeconv.inspection.diagnose.edit import (
    Edit,
    edit_between,
    edited,
    image_size,
    input_shapes,
    resized,
    settings_of,
    with_name,
    with_settings,
    with_shapes,
)
from caffeconv.inspection.diagnose.insertions import Rewriting, with_labels_made_over
from caffeconv.inspection.diagnose.label_slices import with_labels_sliced
from caffeconv.inspection.diagnose.trial_net import Budget, SearchContext, TrialNet, stored_layers
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.ir.layer import Layer, Setting
from caffeconv.layers import LAYERS
from caffeconv.layers.place_distance import ReadsPlaces
from caffeconv.passes.shared_memory import follow_shared_memory
from caffeconv.tensor.shape import FloatArray, Shape
from caffeconv.verify.probe import probe

ROOT = Path(__file__).resolve().parent.parent
FIELDS = ("pad", "kernel_size", "num_output", "stride", "group")
CHOICES = {"pad": (0, 1, 2, 3), "kernel_size": (1, 2, 3, 4, 5, 7), "stride": (1, 2, 3, 4)}


@dataclass(frozen=True)
class Good:
    """A net whose weights fit."""

    name: str
    net: NetDef
    file: WeightsFile


@dataclass(frozen=True)
class Mutant:
    """A net of which one field was changed, and the edit that undoes it."""

    good: Good
    net: NetDef
    undo: Edit


@dataclass
class Numbers:
    """How often the net with the first cure computes what the net that was meant does."""

    compared: int = 0
    equal: int = 0
    wrong: list[str] = field(default_factory=list)
    """Cures that are the edit that was meant, and compute something else."""

    def add(
        self, name: str, diagnosis: Diagnosis, meant: NetDef, files: Sequence[WeightsFile], *, is_meant: bool
    ) -> None:
        """files: those of the cured net and of the one that was meant."""
        cure = diagnosis.cures[0] if diagnosis.cures else None
        if cure is None or cure.unused or cure.unfilled or any(map(is_large, files)):
            return
        inputs = probe(graph_of(meant, files[1]).graph).net
        outputs = [results(net, file, inputs) for net, file in zip((cure.net, meant), files, strict=True)]
        is_equal = None not in outputs and are_equal(outputs[0] or {}, outputs[1] or {})
        self.compared += 1
        self.equal += is_equal
        if is_meant and not is_equal:
            self.wrong.append(f"{name}: {cure}")

    def __str__(self) -> str:
        wrong = "".join(f"\n    WRONG NUMBERS: {text}" for text in self.wrong)
        return f"numbers of {self.compared} compared, equal in {self.equal}{wrong}"


MEANS = Path(tempfile.mkdtemp(prefix="means-"))
LARGE_FILE = 3_000_000
"""Parameters of nets that are not run here."""


def is_large(file: WeightsFile) -> bool:
    return sum(blob.count for layer in file.layers for blob in layer.blobs if blob is not None) > LARGE_FILE


def graph_of(net: NetDef, file: WeightsFile) -> Loaded:
    bound = bind(finish(net, build_partial_graph(net)), [file])
    return Loaded(net, replace(bound, graph=follow_shared_memory(bound.graph)), ())


def results(net: NetDef, file: WeightsFile, inputs: Mapping[str, FloatArray]) -> Mapping[str, FloatArray] | None:
    """The outputs of a net as it is converted and run; None where it does not take the inputs."""
    loaded = graph_of(net, file)
    model = to_onnx(loaded, loaded.graph.outputs, batch="keep").materialize()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shapes = {each.name: tuple(each.shape) for each in session.get_inputs()}
    if any(name not in inputs or inputs[name].shape != shape for name, shape in shapes.items()):
        return None
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: inputs[name] for name in shapes}), strict=True))


def are_equal(a: Mapping[str, FloatArray], b: Mapping[str, FloatArray]) -> bool:
    return len(a) == len(b) and all(map(are_near, a.values(), b.values()))


def are_near(a: FloatArray, b: FloatArray) -> bool:
    tolerance = 1e-5 * max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=tolerance, equal_nan=True)


@dataclass
class Score:
    """What came out for a number of mutants."""

    mutants: int = 0
    mended: int = 0
    first: int = 0
    among: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    numbers: Numbers = field(default_factory=Numbers)

    def add(self, mutant: Mutant, diagnosis: Diagnosis, seconds: float) -> None:
        self.mutants += 1
        self.mended += bool(diagnosis.cures)
        offered = [str(cure) for cure in diagnosis.cures]
        self.first += offered[:1] == [str(mutant.undo)]
        self.among += str(mutant.undo) in offered
        self.seconds += seconds
        self.slowest = max(self.slowest, seconds)

    def __str__(self) -> str:
        number = max(self.mutants, 1)
        share = [f"{100 * part / number:.1f} %" for part in (self.mended, self.first, self.among)]
        return (
            f"{self.mutants} mutants: mended {share[0]}, the original edit first {share[1]}, "
            f"among the three {share[2]}; {self.seconds / number:.3f} CPU s each, {self.slowest:.2f} s at most; {self.numbers}"
        )


def good_nets() -> Iterator[Good]:
    """The nets at hand whose weights fit."""
    zoo = Path(os.environ.get("CAFFECONV_ZOO", ROOT.parent / "shared" / "zoo"))
    for folder in sorted((ROOT / "fixtures" / "goldens" / "nets").iterdir()) + sorted(zoo.glob("*/")):
        nets, weights = sorted(folder.glob("*.prototxt")), sorted(folder.glob("*.caffemodel"))
        if nets and weights:
            good = Good(folder.name, define_net(read_net(nets[0]), NetOptions()), read_weights(weights[0]))
            if is_whole(good.net, good.file):
                yield good


def is_whole(net: NetDef, file: WeightsFile) -> bool:
    """Whether a net builds and takes the weights."""
    return not TrialNet.of(net, SearchContext({}, stored_layers([file]), Budget(1 << 30))).misfits


def mutants(goods: Sequence[Good], chance: random.Random) -> Iterator[Mutant]:
    """Nets that one changed field broke."""
    while True:
        good = chance.choice(goods)
        index = chance.randrange(len(good.net.layers))
        layer = good.net.layers[index]
        settings = settings_of(layer)
        fields = [name for name in FIELDS if settings.get(name, ()) != ()]
        if not fields or settings.get("global_pooling"):
            continue
        name = chance.choice(fields)
        changed = with_settings(layer, {name: other_value(name, settings[name], chance)})
        net = edited(good.net, {index: changed})
        undo = edit_between(index, changed, layer)
        if undo.after and not is_whole(net, good.file):
            yield Mutant(good, net, undo)


def other_value(name: str, value: Setting, chance: random.Random) -> Setting:
    """A value of the kind that people write there."""
    if isinstance(value, tuple):
        return (chance.choice(CHOICES[name]),)
    if name == "group":
        return chance.choice((1, 2, 4, value * 2))
    return chance.choice((value * 2, max(1, value // 2), value + 1, value + 16, max(1, value - 1)))


# -- mistakes that span layers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """A net and a file that do not go together, and the net that would."""

    net: NetDef
    file: WeightsFile
    meant: NetDef


@dataclass(frozen=True)
class ShapeBlob:
    """A blob of small random numbers."""

    shape: Shape
    legacy: bool = False
    offset: int | None = None

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def array(self) -> FloatArray:
        scale = math.sqrt(2 / max(self.count // max(self.shape[0], 1), 1)) if self.shape else 1.0
        values = np.random.default_rng(self.count).standard_normal(self.count) * scale
        return (np.abs(values) if len(self.shape) == 1 else values).astype(np.float32)  # variances are not negative

    def blocks(self) -> Iterator[FloatArray]:
        yield self.array()


def published_nets() -> Iterator[Good]:
    """Nets without weights that build, with a file of random numbers in the shapes that they need."""
    folder = Path(os.environ.get("CAFFECONV_PROTOTXTS", ROOT.parent / "shared" / "prototxts" / "files"))
    for path in sorted(folder.glob("*.prototxt")):
        try:
            net = define_net(read_net(path, is_built=True), NetOptions())
        except CaffeconvError:
            continue
        trial = TrialNet.of(net, SearchContext({}, {}, Budget(1 << 30)))
        if trial.misfits or not all(trial.layers):
            continue
        file = WeightsFile(Path("weights.caffemodel"), tuple(random_layers(trial)))
        if is_whole(net, file):
            yield Good(path.name, net, file)


def random_layers(trial: TrialNet) -> Iterator[StoredLayer]:
    for i, (layer, definition) in enumerate(zip(trial.layers, trial.net.layers, strict=True)):
        shapes = layer.weight_shapes(trial.bottoms(i) or ()).values() if layer is not None else ()
        if shapes:
            yield StoredLayer(definition.name, definition.type, tuple(map(ShapeBlob, shapes)))


def changed(good: Good, settings: Mapping[int, Mapping[str, Setting]]) -> NetDef:
    return edited(good.net, {i: with_settings(good.net.layers[i], each) for i, each in settings.items() if each})


def other_classes(good: Good, chance: random.Random) -> NetDef | None:
    """Another number of classes in the scores of an SSD or Faster R-CNN, and in what counts them."""
    layers = good.net.layers
    declared = {settings_of(layer).get("num_classes") for layer in layers if layer.type == "DetectionOutput"}
    scores = {"cls_score": 1, "bbox_pred": 4}
    is_ssd = bool(declared)
    if not is_ssd and not any(layer.name == "cls_score" for layer in layers):
        return None
    outputs = {layer.name: settings_of(layer).get("num_output") for layer in layers}
    old = declared.pop() if declared else outputs.get("cls_score")
    if not isinstance(old, int) or old < 2:
        return None
    new = old + chance.choice((1, 3, 20, -1))
    settings: dict[int, dict[str, Setting]] = {}
    for i, layer in enumerate(layers):
        own = settings_of(layer)
        number, dims = own.get("num_output"), own.get("dim")
        is_score = is_ssd and "conf" in layer.name
        if isinstance(number, int) and number % old == 0 and (is_score or scores.get(layer.name) == number // old):
            settings[i] = {"num_output": number // old * new}
        elif isinstance(dims, tuple) and old in dims:
            settings[i] = {"dim": tuple(new if dim == old else dim for dim in dims)}
        elif own.get("num_classes") == old:
            settings[i] = {"num_classes": new}
    return changed(good, settings)


def other_pictures(good: Good, chance: random.Random) -> NetDef | None:
    """Pictures of another of the usual sizes."""
    inputs = [(i, size) for i, layer in enumerate(good.net.layers) if (size := image_size(layer))]
    if not inputs:
        return None
    new = chance.choice([size for size in (224, 227, 256, 299, 32, 28) if size != inputs[0][1][0]])
    resized_layer = resized(good.net.layers[inputs[0][0]], new, new)
    return edited(good.net, {inputs[0][0]: resized_layer}) if resized_layer else None


def other_upsampling(good: Good, chance: random.Random) -> NetDef | None:
    """An Upsample layer of another size."""
    places = [i for i, layer in enumerate(good.net.layers) if settings_of(layer).get("upsample_h")]
    if not places:
        return None
    i = chance.choice(places)
    height = settings_of(good.net.layers[i])["upsample_h"]
    return changed(good, {i: {"upsample_h": int(str(height)) + chance.choice((-1, 1))}})


def other_crop(good: Good, chance: random.Random) -> NetDef | None:
    """A Crop layer that would reach beyond its bottom."""
    places = [i for i, layer in enumerate(good.net.layers) if settings_of(layer).get("offset")]
    if not places:
        return None
    i = chance.choice(places)
    offsets = settings_of(good.net.layers[i])["offset"]
    far = tuple(offset + chance.choice((20, 100)) for offset in offsets) if isinstance(offsets, tuple) else ()
    return changed(good, {i: {"offset": far}})


def one_hot_labels(good: Good, chance: random.Random) -> tuple[NetDef, NetDef] | None:
    """The net with a loss whose labels have a number for each class, and the same with ArgMax before the loss."""
    net, shape = with_loss(good)
    if net is None or shape[1] < 2:
        return None
    wrong = edited(net, {len(net.layers) - 2: with_shapes(net.layers[-2], [shape])})
    trial = TrialNet.of(wrong, SearchContext({}, {}, Budget(1 << 30)))
    meant = with_labels_made_over(Rewriting(trial))
    return (wrong, meant.trial.net) if meant is not None else None


def label_sizes(good: Good, chance: random.Random) -> tuple[NetDef, NetDef] | None:
    """The net with a loss whose label maps are larger than its scores, and the same with maps of their size."""
    net, shape = with_loss(good)
    if net is None or len(shape) != 4:
        return None
    more = chance.choice((1, 2, 8))
    larger = (shape[0], 1, shape[2] + more, shape[3] + more)
    return edited(net, {len(net.layers) - 2: with_shapes(net.layers[-2], [larger])}), net


def labels_beside_each_other(good: Good, chance: random.Random) -> tuple[NetDef, NetDef] | None:
    """The net with losses over two of its blobs that both read one blob of labels, and the same with a Slice before them."""
    net, shape = with_loss(good)
    if net is None or len(shape) != 2:
        return None
    first, label = net.layers[-1], net.layers[-2]
    more = LayerParameter(name="the_scores", type="Power", bottom=[first.bottoms[0]], top=["the_scores"])
    scores = replace(first.with_proto(more), name=more.name, bottoms=tuple(more.bottom), tops=tuple(more.top),
                     bottom_values=first.bottom_values[:1], top_values=tuple(more.top))  # fmt: skip
    loss = LayerParameter(
        name="other_loss", type="SoftmaxWithLoss", bottom=["the_scores", "the_label"], top=["other_loss"]
    )
    second = replace(first.with_proto(loss), name=loss.name, bottoms=tuple(loss.bottom), tops=tuple(loss.top),
                     bottom_values=("the_scores", "the_label"), top_values=tuple(loss.top))  # fmt: skip
    wide = with_shapes(label, [(shape[0], 2)])
    wrong = replace(net, layers=(*net.layers[:-2], wide, scores, first, second))
    meant = with_labels_sliced(Rewriting(TrialNet.of(wrong, SearchContext({}, {}, Budget(1 << 30)))))
    return (wrong, meant.trial.net) if meant is not None else None


def other_distance(good: Good, chance: random.Random) -> NetDef | None:
    """A proposal layer or a pooling of regions with half or twice the distance of the places that it reads, or none.

    Of nets that begin with features nobody can tell it.
    """
    layers = good.net.layers
    inputs = {top for layer in layers if not layer.bottoms for top in layer.tops}
    places = [
        i for i, layer in enumerate(layers)
        if issubclass(kind_of(layer), ReadsPlaces) and not inputs & set(layer.bottoms[:1])
    ]  # fmt: skip
    if not places:
        return None
    i = chance.choice(places)
    kind = kind_of(layers[i])
    distance = kind.place_distance(layers[i]) if issubclass(kind, ReadsPlaces) else None
    if distance is None or not issubclass(kind, ReadsPlaces):
        return None
    proto = kind.with_place_distance(layers[i], int(distance * chance.choice((0.5, 2))))
    if layers[i].type == "Python" and chance.random() < 0.5:
        proto.python_param.param_str = ""
    return edited(good.net, {i: layers[i].with_proto(proto)})


def other_mean(good: Good, chance: random.Random) -> tuple[NetDef, NetDef] | None:
    """The net over a list of pictures that are not as large as their mean image, and over the same with a crop."""
    layer, size = good.net.layers[0], image_size(good.net.layers[0])
    shapes = input_shapes(layer)
    if not size or len(set(size)) > 1 or len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (1, 3):
        return None
    larger = size[0] + chance.choice((16, 29, 32))
    mean = MEANS / f"{shapes[0][1]}_{larger}.binaryproto"
    if not mean.exists():
        blob = BlobProto(num=1, channels=shapes[0][1], height=larger, width=larger)
        blob.data.extend([0.0] * (shapes[0][1] * larger * larger))
        mean.write_bytes(blob.SerializeToString())
    proto = LayerParameter(name=layer.name, type="ImageData", top=[*layer.tops, "the_label"])
    proto.transform_param.mean_file = str(mean)
    proto.image_data_param.source, proto.image_data_param.batch_size = "list.txt", shapes[0][0]
    proto.image_data_param.is_color = shapes[0][1] == 3
    proto.image_data_param.new_height = proto.image_data_param.new_width = size[0]
    values = (*layer.top_values, "the_label")
    wrong = replace(layer.with_proto(proto), type="ImageData", tops=tuple(proto.top), top_values=values)
    fields = {"new_height": larger, "new_width": larger, "crop_size": size[0]}
    return edited(good.net, {0: wrong}), edited(good.net, {0: with_settings(wrong, fields)})


def kind_of(layer: LayerDef) -> type[Layer]:
    return known_python(layer, {}) or LAYERS.get(layer.type) or Layer


def with_loss(good: Good) -> tuple[NetDef | None, Shape]:
    """The net with labels and a SoftmaxWithLoss in place of its last layer, a Softmax; and the shape of the scores."""
    last = good.net.layers[-1]
    trial = TrialNet.of(good.net, SearchContext({}, {}, Budget(1 << 30)))
    shapes = trial.bottoms(len(good.net.layers) - 1) or ((),)
    if last.type != "Softmax" or len(last.bottoms) != 1 or len(shapes[0]) < 2:
        return None, ()
    label = LayerParameter(name="the_label", type="Input", top=["the_label"])
    label.input_param.shape.add(dim=(shapes[0][0], 1, *shapes[0][2:]) if len(shapes[0]) == 4 else shapes[0][:1])
    loss = LayerParameter(
        name="the_loss", type="SoftmaxWithLoss", bottom=[*last.bottoms, "the_label"], top=["the_loss"]
    )
    parts = (
        replace(last.with_proto(label), name="the_label", bottoms=(), bottom_values=(), tops=("the_label",),
                top_values=("the_label",)),
        replace(last.with_proto(loss), name="the_loss", bottoms=tuple(loss.bottom), tops=("the_loss",),
                bottom_values=(*last.bottom_values, "the_label"), top_values=("the_loss",)),
    )  # fmt: skip
    net = replace(good.net, layers=(*good.net.layers[:-1], *parts))
    return (net, shapes[0]) if is_whole(net, good.file) else (None, ())


def other_names(good: Good, chance: random.Random) -> WeightsFile:
    """The file under other names, all changed in one way."""
    rename = chance.choice((
        lambda name, _: f"my_{name}", lambda name, _: f"{name}_v2", lambda name, _: name.upper(),
        lambda name, _: name.replace("_", "-").replace("/", "."), lambda _, i: f"layer{i}",
    ))  # fmt: skip
    layers = (replace(each, name=rename(each.name, i)) for i, each in enumerate(good.file.layers) if each.blobs)
    return replace(good.file, layers=tuple(layers), net_bytes=b"")


def nvidia_net(good: Good) -> NetDef | None:
    """The net with NVIDIA's BatchNorm in place of BatchNorm and Scale, where each Scale works in place."""
    layers = list(good.net.layers)
    pairs = [
        (a, b) for a, b in itertools.pairwise(range(len(layers)))
        if layers[a].type == "BatchNorm" and layers[b].type == "Scale" and layers[b].bottoms == layers[b].tops
        and len(settings_of(layers[b])) and settings_of(layers[b]).get("bias_term") and layers[b].bottoms == layers[a].tops
    ]  # fmt: skip
    if not pairs:
        return None
    for a, b in pairs:
        proto = LayerParameter()
        proto.CopyFrom(layers[a].proto)
        proto.batch_norm_param.scale_bias = True
        layers[a] = replace(layers[a].with_proto(proto), top_values=layers[b].top_values)
    gone = {b for _, b in pairs}
    return replace(good.net, layers=tuple(layer for i, layer in enumerate(layers) if i not in gone))


def mistakes(goods: Sequence[Good], chance: random.Random) -> Mapping[str, list[Mistake]]:
    """Mistakes by kind."""
    kinds: dict[str, list[Mistake]] = {}
    net_changes = {
        "classes": other_classes, "pictures": other_pictures, "upsampling": other_upsampling, "crops": other_crop,
    }  # fmt: skip
    pair_changes = {
        "one-hot labels": one_hot_labels, "sizes of labels": label_sizes, "labels beside each other": labels_beside_each_other,
        "sizes of means": other_mean,
    }  # fmt: skip
    for good in goods:
        for kind, change_labels in pair_changes.items():
            pair = change_labels(good, chance)
            if pair is not None:
                bare = replace(good.file, net_bytes=b"")
                kinds.setdefault(kind, []).append(Mistake(pair[0], bare, pair[1]))
        for kind, change in net_changes.items():
            net = change(good, chance)
            if net is not None and not is_whole(net, good.file):
                bare = replace(good.file, net_bytes=b"")
                kinds.setdefault(kind, []).append(Mistake(net, bare, good.net))
        net = other_distance(good, chance)
        if net is not None:
            kinds.setdefault("distances of places", []).append(
                Mistake(net, replace(good.file, net_bytes=b""), good.net)
            )
        renamed = other_names(good, chance)
        learning = [layer.name for layer in good.file.layers if layer.blobs]
        names = dict(zip(learning, (layer.name for layer in renamed.layers), strict=True))
        if any(old != new for old, new in names.items()):
            layers = [with_name(layer, names.get(layer.name, layer.name)) for layer in good.net.layers]
            kinds.setdefault("names", []).append(Mistake(good.net, renamed, replace(good.net, layers=tuple(layers))))
        nvidia = nvidia_net(good)
        if nvidia is not None and is_whole(good.net, good.file):
            bare = replace(good.file, net_bytes=b"")
            kinds.setdefault("NVIDIA's net", []).append(Mistake(nvidia, bare, good.net))
    return kinds


def is_first(mistake: Mistake, diagnosis: Diagnosis) -> bool:
    """Whether the first cure makes the net that was meant."""
    if not diagnosis.cures:
        return False
    nets = (diagnosis.cures[0].net, mistake.meant)
    return len({tuple(text_of(layer) for layer in net.layers) for net in nets}) == 1


def text_of(layer: LayerDef) -> tuple[str, str, tuple[str, ...], str]:
    kind, settings = kind_of(layer), sorted(settings_of(layer).items())
    distance = kind.place_distance(layer) if issubclass(kind, ReadsPlaces) else None
    return layer.name, layer.type, layer.bottoms, f"{settings} {image_size(layer)} {distance}"


def score_mistakes(goods: Sequence[Good], chance: random.Random, most: int) -> None:
    """Prints for each kind how many are mended, and how often by what was meant."""
    for kind, found in mistakes(goods, chance).items():
        cases = chance.sample(found, min(most, len(found)))
        mended = first = 0
        seconds, slowest, numbers = 0.0, 0.0, Numbers()
        for mistake in cases:
            start = time.process_time()
            diagnosis = diagnose(mistake.net, [mistake.file], build_partial_graph(mistake.net).problems)
            elapsed = time.process_time() - start
            seconds, slowest = seconds + elapsed, max(slowest, elapsed)
            mended += bool(diagnosis.cures)
            first += is_first(mistake, diagnosis)
            numbers.add(
                kind, diagnosis, mistake.meant, (mistake.file, mistake.file), is_meant=is_first(mistake, diagnosis)
            )
        number = len(cases)
        print(
            f"  {kind}: {number} nets: mended {100 * mended / number:.1f} %, what was meant first "
            f"{100 * first / number:.1f} %; {seconds / number:.3f} CPU s each, {slowest:.2f} s at most; {numbers}"
        )


def main(number: int) -> None:
    goods = list(good_nets())
    print(f"{len(goods)} nets, {sum(len(good.net.layers) for good in goods)} layers")
    for title, inside in (("with the net inside the weights file", True), ("without it", False)):
        whole = Score()
        by_field = {name: Score() for name in FIELDS}
        chance = random.Random(2016)
        source = mutants(goods, chance)
        while whole.mutants < number:
            mutant = next(source)
            file = mutant.good.file if inside else replace(mutant.good.file, net_bytes=b"")
            start = time.process_time()
            problems = build_partial_graph(mutant.net).problems
            diagnosis = diagnose(mutant.net, [file], problems)
            seconds = time.process_time() - start
            is_meant = str(mutant.undo) in [str(cure) for cure in diagnosis.cures[:1]]
            for score in (whole, by_field[next(iter(mutant.undo.after)).removesuffix("_h")]):
                score.add(mutant, diagnosis, seconds)
            if not inside:
                whole.numbers.add(
                    mutant.good.name, diagnosis, mutant.good.net, (file, mutant.good.file), is_meant=is_meant
                )
        print(f"{title}\n  all: {whole}")
        for name, score in by_field.items():
            print(f"  {name}: {score}")
    published = list(published_nets())
    print(f"mistakes that span layers, without the net inside the file; {len(published)} published nets besides")
    score_mistakes([*goods, *published], random.Random(2016), number // 4)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
