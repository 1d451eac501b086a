"""Why a net cannot be built or does not take its weights, and which edits, each of them tried, would mend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from caffeconv.caffe_format.caffemodel import WeightsFile
from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.errors import CaffeconvError, Diagnostic
from caffeconv.frontend.bind import bind
from caffeconv.frontend.build import build_partial_graph, finish
from caffeconv.frontend.netdef import blob_faults, define_net
from caffeconv.frontend.options import NetOptions
from caffeconv.inspection.diagnose.companion_layers import Companion, completed, halves_missing
from caffeconv.inspection.diagnose.edit import Edit, edited
from caffeconv.inspection.diagnose.explanations import Comparison, another_net, misfit_words, other_types, shape_words
from caffeconv.inspection.diagnose.insertions import missing_bottoms, with_bottoms, with_recipes
from caffeconv.inspection.diagnose.renames import free_name, renamed, without_weights
from caffeconv.inspection.diagnose.search import MOST_CURES, Cure, cure_from, edits_of, find_cures
from caffeconv.inspection.diagnose.trial_net import Budget, SearchContext, TrialNet, stored_layers
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.tensor.shape import Shape, count

__all__ = ["QUICK", "Cure", "Diagnosis", "Edit", "diagnose"]

THOROUGH, QUICK = 150_000, 30_000
"""Layers to evaluate at most: about three seconds, and half a one."""


@dataclass(frozen=True)
class Diagnosis:
    """The problems with their explanations, and what would mend them."""

    diagnostics: tuple[Diagnostic, ...]
    cures: tuple[Cure, ...] = ()
    """Edits after which the net is whole and takes all its weights, best first, at most three; each was checked."""
    renaming: Cure | None = None
    """Layers to rename so that they keep their fillers' values, where only weights are in the way."""
    lost: str = ""
    """What that costs."""
    doubt: str = ""
    """What speaks for the file belonging to another net."""

    @property
    def with_advice(self) -> tuple[Diagnostic, ...]:
        """The diagnostics, and the advice as the last one."""
        return (*self.diagnostics, Diagnostic("note", "", self.advice)) if self.advice else self.diagnostics

    @property
    def advice(self) -> str:
        """The cures as text; empty where there are none."""
        lines = [self.doubt] if self.doubt else []
        if self.cures:
            lines.append("to mend it (checked: everything fits then):")
            for i, cure in enumerate(self.cures, 1):
                lines.append(f"  {i}. {cure}" + (f"   ({cure.source})" if cure.source else ""))
        if self.renaming is not None:
            lines.append(f"{'or learn' if self.cures else 'to learn'} anew what does not fit: {self.renaming}")
            lines.append(f"  {self.lost}")
        return "\n".join(lines)


def diagnose(
    net: NetDef, files: Sequence[WeightsFile], diagnostics: Sequence[Diagnostic],
    asked: Mapping[str, Sequence[int]] | None = None, *, effort: int = THOROUGH,
) -> Diagnosis:  # fmt: skip
    """Explains the problems that `build` and `bind` found in a net, and looks for edits that mend them.

    `asked`: shapes of inputs that the caller gives. `effort`: how many layers may be evaluated in the search.
    """
    shapes = {blob: tuple(shape) for blob, shape in (asked or {}).items()}
    given = SearchContext(shapes, stored_layers(files), Budget(effort))
    world = TrialNet.of(net, given)
    names = renamed(world)
    reference = _reference(net, files, world)
    diagnostics = tuple(_with_names(diagnostics, edits_of(net, names)))
    halves = halves_missing(world, reference)
    diagnostics = (*_with_halves(diagnostics, halves), *other_types(world))
    if not world.troubles and not missing_bottoms(world.net):
        found = [_cure(world, names)] if names else [completed(world, halves).cure()] if halves else []
        whole = tuple(cure for cure in found if _holds(cure, files, shapes))
        return Diagnosis(diagnostics, whole, doubt="" if whole else another_net(world, reference))
    cures = tuple(_checked_cures(world, reference, files, shapes))
    sides = Comparison(world, reference, cures)
    renaming, lost = _renaming(world, files, shapes)
    return Diagnosis(tuple(_explained(sides, diagnostics)), cures, renaming, lost, another_net(world, reference))


def _checked_cures(
    world: TrialNet, reference: TrialNet | None, files: Sequence[WeightsFile], asked: Mapping[str, Shape]
) -> list[Cure]:
    base = with_recipes(with_bottoms(world))
    found = find_cures(base.world) if base.world.troubles else []
    known = cure_from(base.world, reference, "as in the net that the weights file carries") if reference else None
    if known is not None:
        found = [known, *(cure for cure in found if str(cure) != str(known))]
    whole = [base.cure(cure) for cure in found] if base.world.troubles else [base.cure()]
    return [cure for cure in whole if _holds(cure, files, asked)][:MOST_CURES]


def _holds(cure: Cure, files: Sequence[WeightsFile], asked: Mapping[str, Shape]) -> bool:
    """Whether the edited net builds and takes all its weights, by the rules that everything else goes by."""
    draft = build_partial_graph(cure.net, asked)
    if draft.problems or draft.unbuilt or blob_faults(cure.net.layers):
        return False
    return not any(d.severity == "error" for d in bind(finish(cure.net, draft), files).diagnostics)


def _reference(net: NetDef, files: Sequence[WeightsFile], world: TrialNet) -> TrialNet | None:
    """The net that the last weights file carries, in the same state; None where it carries none."""
    inputs = {
        blob: world.shapes[value]
        for layer in world.net.layers
        if not layer.bottoms
        for blob, value in zip(layer.tops, layer.top_values, strict=True)
        if value in world.shapes
    }
    for file in reversed(files):
        if not file.net_bytes:
            continue
        try:
            inside = file.net()
            source = NetSource(inside, (0,) * len(inside.layer or inside.layers), file.path, net.directory)
            theirs = define_net(source, NetOptions(net.phase))
        except CaffeconvError:
            continue
        size = len(theirs.layers)
        own = TrialNet.of(
            theirs, SearchContext({}, {}, Budget(size))
        ).shapes  # what the file's net says itself, it knows better
        asked = {blob: shape for blob, shape in inputs.items() if blob not in own}
        if any(layer.bottoms for layer in theirs.layers):
            return TrialNet.of(theirs, SearchContext(asked, {}, Budget(size)))
    return None


def _explained(sides: Comparison, diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """The diagnostics, the first error of each layer in trouble with its explanation."""
    troubles = {sides.world.net.layers[i].name: trouble for i, trouble in sides.world.troubles.items()}
    told = []
    for diagnostic in diagnostics:
        trouble = troubles.pop(diagnostic.layer, None) if diagnostic.severity == "error" else None
        if trouble is not None:
            words = misfit_words(sides, trouble) if trouble.stored else shape_words(sides, trouble)
            hints = [diagnostic.hint] if diagnostic.hint and not words else []
            diagnostic = replace(diagnostic, hint="\n  ".join([*hints, *words]))
        told.append(diagnostic)
    return told


def _cure(world: TrialNet, definitions: Mapping[int, LayerDef]) -> Cure:
    return Cure(edits_of(world.net, definitions), edited(world.net, definitions), 0.0)


def _with_halves(diagnostics: Sequence[Diagnostic], halves: Sequence[Companion]) -> list[Diagnostic]:
    """The diagnostics, those of layers that only the file has with what they are the other half of."""
    by_name = {half.name: half for half in halves}
    return [replace(d, hint=by_name[d.layer].why) if d.layer in by_name else d for d in diagnostics]


def _with_names(diagnostics: Sequence[Diagnostic], edits: Sequence[Edit]) -> list[Diagnostic]:
    """Warnings of layers without weights, with the name under which the file has them."""
    by_layer = {edit.layer: edit for edit in edits}
    told = []
    for diagnostic in diagnostics:
        edit = by_layer.get(diagnostic.layer) if diagnostic.severity == "warning" else None
        if edit is not None:
            hint = f"The file has these shapes under the name '{edit.after['name']}': {edit}"
            diagnostic = replace(diagnostic, hint=hint)
        told.append(diagnostic)
    return told


def _renaming(world: TrialNet, files: Sequence[WeightsFile], asked: Mapping[str, Shape]) -> tuple[Cure | None, str]:
    """Renaming the layers that do not take their weights, and how many parameters that leaves to learn."""
    misfits = {i: trouble for i, trouble in world.troubles.items() if trouble.stored}
    if len(misfits) < len(world.troubles):
        return None, ""
    taken = [layer.name for layer in world.net.layers]
    names = {i: free_name(world.net.layers[i].name, world.given, taken) for i in misfits}
    definitions = without_weights(world, names)
    cure = _cure(world, definitions)
    if not _holds(cure, files, asked):
        return None, ""
    lost, all_ = (sum(_numbers(world, i) for i in indices) for indices in (misfits, range(len(world.net.layers))))
    return cure, f"{lost:,} of the net's {all_:,} parameters would then start from their fillers"


def _numbers(world: TrialNet, index: int) -> int:
    layer, bottoms = world.layers[index], world.bottoms(index)
    if layer is None or bottoms is None:
        return 0
    return sum(count(shape) for shape in layer.weight_shapes(bottoms).values())
