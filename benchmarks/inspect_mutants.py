"""How often `inspect` finds its way back: good nets with one field changed, and the edits that it offers.

Each mutant is a net of fixtures/goldens/nets, or of the zoo where that is there, of which one field (pad,
kernel_size, num_output, stride or group) of one layer was changed so that its weights no longer fit. Printed, with the
net inside the weights file and without: how many mutants some offered edit mends, how often the field's old value is
offered first, and how long that takes.

    python benchmarks/inspect_mutants.py [NUMBER]
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from caffeconv.caffe_format.caffemodel import WeightsFile
from caffeconv.frontend.build import build_partial_graph
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.open_files import read_net, read_weights
from caffeconv.frontend.options import NetOptions
from caffeconv.inspection.diagnose import Diagnosis, diagnose
from caffeconv.inspection.diagnose.edit import Edit, edit_between, edited, settings_of, with_settings
from caffeconv.inspection.diagnose.trial_net import Budget, SearchContext, TrialNet, stored_layers
from caffeconv.ir.definition import NetDef
from caffeconv.ir.layer import Setting

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
class Score:
    """What came out for a number of mutants."""

    mutants: int = 0
    mended: int = 0
    first: int = 0
    among: int = 0
    slowest: float = 0.0
    seconds: float = 0.0

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
            f"among the three {share[2]}; {self.seconds / number:.3f} s each, {self.slowest:.2f} s at most"
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
            start = time.perf_counter()
            problems = build_partial_graph(mutant.net).problems
            diagnosis = diagnose(mutant.net, [file], problems)
            seconds = time.perf_counter() - start
            for score in (whole, by_field[next(iter(mutant.undo.after)).removesuffix("_h")]):
                score.add(mutant, diagnosis, seconds)
        print(f"{title}\n  all: {whole}")
        for name, score in by_field.items():
            print(f"  {name}: {score}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
