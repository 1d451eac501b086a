"""Why a net cannot be built or does not take its weights, and which edits, each of them tried, would fix it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from caffeconv.caffe_format.caffemodel import WeightsFile
from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.errors import CaffeconvError, Diagnostic
from caffeconv.frontend.bind import bind
from caffeconv.frontend.build import build_partial_graph, finish
from caffeconv.frontend.netdef import blob_faults, define_net
from caffeconv.frontend.options import NetOptions
from caffeconv.inspection.diagnose.channel_order import with_reversed_channels
from caffeconv.inspection.diagnose.companion_layers import (
    Companion,
    completed,
    missing_companions,
    without_superfluous,
)
from caffeconv.inspection.diagnose.edit import Edit, as_large_as_mean, edited
from caffeconv.inspection.diagnose.explanations import Comparison, another_net, misfit_words, other_types, shape_words
from caffeconv.inspection.diagnose.insertions import (
    Rewriting,
    missing_bottoms,
    with_bottoms,
    with_labels_made_over,
    with_recipes,
)
from caffeconv.inspection.diagnose.label_slices import with_labels_sliced
from caffeconv.inspection.diagnose.merged_norms import with_split, without_merged
from caffeconv.inspection.diagnose.place_distances import wrong_distances
from caffeconv.inspection.diagnose.renames import find_renames, free_name, without_weights
from caffeconv.inspection.diagnose.search import MOST_CURES, Cure, cure_from, edits_of, find_cures
from caffeconv.inspection.diagnose.trial_net import Budget, SearchContext, TrialNet, stored_layers
from caffeconv.inspection.diagnose.weights_fix import WeightsFix, find_weights_fix
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.tensor.shape import Shape, count

__all__ = ["QUICK", "Cure", "Diagnosis", "Edit", "diagnose", "reversed_channels"]

MOST_EDITS = 12
"""Edits of one cure that the advice shows."""
MOST_LISTED = 8
"""Layers that a line names."""
THOROUGH, QUICK = 80_000, 30_000
"""Layers to evaluate at most: about two seconds, and half a one."""


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
    weights_fix: WeightsFix | None = None
    """The weights in another form, with which the net is whole as it is; checked as the cures are."""

    @property
    def with_advice(self) -> tuple[Diagnostic, ...]:
        """The diagnostics, and the advice as the last one."""
        return (*self.diagnostics, Diagnostic("note", "", self.advice)) if self.advice else self.diagnostics

    @property
    def advice(self) -> str:
        """The cures as text; empty where there are none."""
        lines = [self.doubt] if self.doubt else []
        if self.cures:
            prices = [_price(cure) for cure in self.cures]
            lines.append(f"to fix it (checked: {'all shapes fit' if any(prices) else 'everything fits'} then):")
            for i, (cure, price) in enumerate(zip(self.cures, prices, strict=True), 1):
                lines.append(f"  {i}. {cure.text(MOST_EDITS)}" + (f"   ({cure.source})" if cure.source else ""))
                if price and len(set(prices)) > 1:
                    lines.append(f"     {price}")
            if len(set(prices)) == 1 and prices[0]:
                lines.append(f"  {prices[0]}")
        if self.weights_fix is not None:
            number = len(self.weights_fix.changes)
            head = "the net stays as it is" if self.weights_fix.keeps_numbers else "another net than the trained one"
            lines.append(
                f"{'or write' if self.cures else 'to fix it, write'} other weights (inspect's `fix_weights=…`; {head}):"
            )
            lines += [f"  {change}" for change in self.weights_fix.changes[:MOST_LISTED]]
            lines += [f"  and {number - MOST_LISTED} more"] if number > MOST_LISTED else []
        if self.renaming is not None:
            lines.append(
                f"{'or learn' if self.cures else 'to learn'} from scratch what does not fit: {self.renaming.text(MOST_EDITS)}"
            )
            lines.append(f"  {self.lost}")
        return "\n".join(lines)


def _price(cure: Cure) -> str:
    """What a cure leaves without weights, and what of the file without use; empty where nothing."""
    prices = (("then still at their fillers", cure.unfilled), ("then still unused in the file", cure.unused))
    return "; ".join(f"{what}: {_listed(names)}" for what, names in prices if names)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def reversed_channels(
    net: NetDef,
    files: Sequence[WeightsFile],
    fix: WeightsFix | None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> WeightsFix:
    """The weights, or `fix` of them, for pictures with their channels in reverse order; CaffeconvError where they cannot be.

    `input_shapes`: those that the caller gives.
    """
    if len(files) != 1:
        raise CaffeconvError(f"{len(files)} weights files; one was needed to reverse the order of the channels in it")
    fix = fix or WeightsFix((), files[0])
    shapes = {blob: tuple(shape) for blob, shape in (input_shapes or {}).items()}
    trial = TrialNet.of(net, SearchContext(shapes, stored_layers([fix.file]), Budget(THOROUGH)))
    if trial.misfits:
        raise CaffeconvError("the weights do not fit; what makes them fit comes before the order of the channels")
    return with_reversed_channels(trial, fix)


TOO_MANY = 1000
"""More problems than one or a few edits make."""


def diagnose(
    net: NetDef, files: Sequence[WeightsFile], diagnostics: Sequence[Diagnostic],
    input_shapes: Mapping[str, Sequence[int]] | None = None, *, effort: int = THOROUGH,
) -> Diagnosis:  # fmt: skip
    """Explains the problems that `build` and `bind` found in a net, and looks for edits that mend them.

    `input_shapes`: those that the caller gives. `effort`: how many layers may be evaluated in the search.
    """
    if len(diagnostics) > TOO_MANY:
        return Diagnosis(tuple(diagnostics))
    shapes = {blob: tuple(shape) for blob, shape in (input_shapes or {}).items()}
    context = SearchContext(shapes, stored_layers(files), Budget(effort))
    trial = TrialNet.of(net, context)
    renames = find_renames(trial)
    reference = _reference(net, files, trial)
    diagnostics = tuple(_with_names(diagnostics, edits_of(net, renames)))
    companions = missing_companions(trial, reference)
    distances = [each for each in wrong_distances(trial) if each.said is not None]
    warnings = (each.warning(net.layers[each.index]) for each in distances)
    diagnostics = (*_with_companions(diagnostics, companions), *other_types(trial), *warnings)
    if not trial.misfits and not missing_bottoms(trial.net):
        candidates = _cures_of_a_whole_net(trial, renames, companions)
        valid = tuple(_checked(candidates, files, shapes))
        fix = _checked_fix(trial, files, shapes, renames) if renames else None
        return Diagnosis(diagnostics, valid, doubt="" if valid else another_net(trial, reference), weights_fix=fix)
    cures = tuple(_checked_cures(trial, reference, files, shapes))
    comparison = Comparison(trial, reference, cures)
    renaming, lost = _renaming(trial, files, shapes)
    return Diagnosis(
        tuple(_with_explanations(comparison, diagnostics)), cures, renaming, lost, another_net(trial, reference),
        _checked_fix(trial, files, shapes, renames),
    )  # fmt: skip


def _cures_of_a_whole_net(
    trial: TrialNet, renames: Mapping[int, LayerDef], companions: Sequence[Companion]
) -> list[Cure]:
    """Edits with which a net that has no problem uses more of the file."""
    if renames:
        return [_cure(trial, renames)]
    rewriting = _with_the_files_norms(trial, companions)
    if rewriting.edits:
        return [rewriting.cure()]
    definitions = _silent_mistakes(trial)
    return [_cure(trial, definitions)] if definitions else []


def _with_the_files_norms(trial: TrialNet, companions: Sequence[Companion]) -> Rewriting:
    """The net with as many BatchNorms and Scales as the file has: completed, or without what is elsewhere there."""
    if companions:
        return completed(trial, companions)
    ways = (without_superfluous(trial), without_merged(trial), with_split(trial))
    return next((way for way in ways if way.edits), ways[0])


def _checked_fix(
    trial: TrialNet, files: Sequence[WeightsFile], input_shapes: Mapping[str, Shape], renames: Mapping[int, LayerDef]
) -> WeightsFix | None:
    """The file in the net's form, where there is one file and the net takes all of that."""
    fix = find_weights_fix(trial, files[0], renames) if len(files) == 1 else None
    if fix is None:
        return None
    as_it_is = Cure((), trial.net, 0.0)
    # what drops trained layers is another net than the trained one
    return fix if any(not each.unused for each in _checked([as_it_is], [fix.file], input_shapes)) else None


def _checked_cures(
    trial: TrialNet, reference: TrialNet | None, files: Sequence[WeightsFile], input_shapes: Mapping[str, Shape]
) -> list[Cure]:
    base = with_recipes(with_bottoms(trial))
    cures = [_with_scales(base, cure, reference) for cure in find_cures(base.trial)] if base.trial.misfits else []
    reference_cure = (
        cure_from(base.trial, reference, "as in the net that the weights file carries") if reference else None
    )
    if reference_cure is not None:
        cures = [reference_cure, *(cure for cure in cures if str(cure) != str(reference_cure))]
    cures = [_with_silent_mistakes(cure, base.trial) for cure in cures]
    net_cures = [base.cure(cure) for cure in cures] if base.trial.misfits else [base.cure()]
    labels = with_labels_made_over(base) or with_labels_sliced(base)
    net_cures = [*([labels.cure()] if labels else []), *net_cures]
    return list(_checked(net_cures, files, input_shapes))[:MOST_CURES]


def _with_silent_mistakes(cure: Cure, trial: TrialNet) -> Cure:
    """The cure, with edits of what else is wrong and no shape tells."""
    if cure.layer_counts:
        return cure
    definitions = _silent_mistakes(TrialNet.of(cure.net, trial.context))
    net = edited(cure.net, definitions)
    return replace(cure, edits=(*cure.edits, *edits_of(cure.net, definitions)), net=net) if definitions else cure


def _silent_mistakes(trial: TrialNet) -> dict[int, LayerDef]:
    """Layers as they ought to be by what no shape tells: how far apart places lie, and how large a mean image is."""
    pairs = ((i, as_large_as_mean(layer)) for i, layer in enumerate(trial.net.layers))
    means = {i: layer for i, layer in pairs if layer is not None}
    return means | {each.index: each.after for each in wrong_distances(trial)}


def _with_scales(base: Rewriting, cure: Cure, reference: TrialNet | None) -> Cure:
    """The cure, with the layers that the edited net lacks then to use all of the file, a BatchNorm's Scale, or without
    those that it has to spare."""
    if base.layer_counts:
        return cure
    trial = TrialNet.of(cure.net, base.trial.context)
    companions = missing_companions(trial, reference)
    after = _with_the_files_norms(trial, companions)
    if not after.edits:
        return cure
    return replace(cure, edits=(*cure.edits, *after.edits), net=after.trial.net, layer_counts=after.layer_counts)


def _checked(cures: Iterable[Cure], files: Sequence[WeightsFile], input_shapes: Mapping[str, Shape]) -> Iterator[Cure]:
    """The cures with which the net builds and takes all its weights, by the rules that everything else goes by; each with
    what it leaves unfilled and unused."""
    for cure in cures:
        partial_graph = build_partial_graph(cure.net, input_shapes)
        if partial_graph.problems or partial_graph.unbuilt or blob_faults(cure.net.layers):
            continue
        bound = bind(finish(cure.net, partial_graph), files)
        if any(d.severity == "error" for d in bound.diagnostics):
            continue
        names = {node.name for node in bound.graph.nodes}
        unused = {
            layer.name: None for file in files for layer in file.layers if layer.blobs and layer.name not in names
        }
        unfilled = tuple(n.name for n in bound.graph.nodes if any(p.is_filled and not p.owner for p in n.params))
        yield replace(cure, unfilled=unfilled if files else (), unused=tuple(unused))


def _reference(net: NetDef, files: Sequence[WeightsFile], trial: TrialNet) -> TrialNet | None:
    """The net that the last weights file carries, in the same state; None where it carries none."""
    inputs = {
        blob: trial.shapes[value]
        for layer in trial.net.layers
        if not layer.bottoms
        for blob, value in zip(layer.tops, layer.top_values, strict=True)
        if value in trial.shapes
    }
    for file in reversed(files):
        if not file.net_bytes:
            continue
        try:
            net_proto = file.net()
            source = NetSource(net_proto, (0,) * len(net_proto.layer or net_proto.layers), file.path, net.directory)
            reference = define_net(source, NetOptions(net.phase))
        except CaffeconvError:
            continue
        size = len(reference.layers)
        own_shapes = TrialNet.of(
            reference, SearchContext({}, {}, Budget(size))
        ).shapes  # what the file's net says itself, it knows better
        input_shapes = {blob: shape for blob, shape in inputs.items() if blob not in own_shapes}
        if any(layer.bottoms for layer in reference.layers):
            return TrialNet.of(reference, SearchContext(input_shapes, {}, Budget(size)))
    return None


def _with_explanations(comparison: Comparison, diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """The diagnostics, one error of each layer that does not fit, with the explanation of all its parameters."""
    misfits = {comparison.trial.net.layers[i].name: misfit for i, misfit in comparison.trial.misfits.items()}
    result = []
    explained: set[str] = set()
    for diagnostic in diagnostics:
        if diagnostic.severity == "error" and diagnostic.layer in explained:
            continue
        misfit = misfits.pop(diagnostic.layer, None) if diagnostic.severity == "error" else None
        if misfit is not None:
            words = misfit_words(comparison, misfit) if misfit.stored else shape_words(comparison, misfit)
            hints = [diagnostic.hint] if diagnostic.hint and not words else []
            explained |= {diagnostic.layer} if words and misfit.stored else set()
            diagnostic = replace(diagnostic, hint="\n  ".join([*hints, *words]))
        result.append(diagnostic)
    return result


def _cure(trial: TrialNet, definitions: Mapping[int, LayerDef]) -> Cure:
    return Cure(edits_of(trial.net, definitions), edited(trial.net, definitions), 0.0)


def _with_companions(diagnostics: Sequence[Diagnostic], companions: Sequence[Companion]) -> list[Diagnostic]:
    """The diagnostics, those of layers that only the file has with what they complete."""
    by_name = {companion.name: companion for companion in companions}
    return [replace(d, hint=by_name[d.layer].why) if d.layer in by_name else d for d in diagnostics]


def _with_names(diagnostics: Sequence[Diagnostic], edits: Sequence[Edit]) -> list[Diagnostic]:
    """Warnings of layers without weights, with the name under which the file has them."""
    by_layer = {edit.layer: edit for edit in edits}
    result = []
    for diagnostic in diagnostics:
        edit = by_layer.get(diagnostic.layer) if diagnostic.severity == "warning" else None
        if edit is not None:
            hint = f"The file has these shapes under the name '{edit.after['name']}': {edit}"
            diagnostic = replace(diagnostic, hint=hint)
        result.append(diagnostic)
    return result


def _renaming(
    trial: TrialNet, files: Sequence[WeightsFile], input_shapes: Mapping[str, Shape]
) -> tuple[Cure | None, str]:
    """Renaming the layers that do not take their weights, and how many parameters that leaves to learn."""
    misfits = {i: misfit for i, misfit in trial.misfits.items() if misfit.stored}
    if len(misfits) < len(trial.misfits):
        return None, ""
    used_names = [layer.name for layer in trial.net.layers]
    names = {i: free_name(trial.net.layers[i].name, trial.context, used_names) for i in misfits}
    definitions = without_weights(trial, names)
    cure = _cure(trial, definitions)
    if not list(_checked([cure], files, input_shapes)):
        return None, ""
    lost, all_ = (
        sum(_parameter_count(trial, i) for i in indices) for indices in (misfits, range(len(trial.net.layers)))
    )
    if not lost:  # layers without parameters have nothing to learn
        return None, ""
    return cure, f"{lost:,} of the net's {all_:,} parameters would then start from their fillers"


def _parameter_count(trial: TrialNet, index: int) -> int:
    layer, bottoms = trial.layers[index], trial.bottoms(index)
    if layer is None or bottoms is None:
        return 0
    return sum(count(shape) for shape in layer.weight_shapes(bottoms).values())
