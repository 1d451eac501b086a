"""Which form of a net is wanted: one set of options for every command and function that reads a net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from caffeconv.caffe_format.terms import Phase
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike
from caffeconv.frontend.dialects import checked_dialect
from caffeconv.ir.definition import Infogain
from caffeconv.python_layers.host import AllowPython

PHASES = {0: "TRAIN", 1: "TEST"}
"""Caffe's numbers."""
LEAST_LEVEL, MOST_LEVEL = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True)
class NetOptions:
    """Caffe's NetState as the caller gives it (phase, level, and stages that are added to the net's own), and more."""

    phase: Phase = "TEST"
    level: int = 0
    stages: Sequence[str] = ()
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Blob → shape of an input, instead of the prototxt's (axis order as in Caffe, NCHW)."""
    deploy: bool = False
    """Whether the net is wanted in its deploy form, without data layers, labels and losses."""
    extended: bool = False
    """Whether layers may do what Caffe refuses, where that has one clear meaning (5-D pooling)."""
    infogain: Infogain | None = None
    """What InfogainLoss layers are given; None: scores, as in Caffe 1.0, with a warning where that is doubtful."""
    allow_python: AllowPython = False
    ignore_unknown_fields: bool = False
    """Whether to go on without prototxt fields that the schema lacks."""
    seed: int = 0
    """For fillers that draw at random."""
    fully_convolutional: bool = False
    """Whether InnerProduct layers become convolutions over the net's own size; only then do `shapes` count."""
    dialect: str | None = None
    """The fork whose rules count where forks have several of one name (`frontend.dialects`); None: by evidence."""
    outputs: tuple[str, ...] = ()
    """The blobs that are wanted: layers that they do not need may be such as cannot be built; none: all layers count."""

    root: PathLike | None = None
    """The folder that every file the net names has to lie in or below; None: files may lie anywhere."""
    output_dir: PathLike | None = None
    """The folder that the net itself may write in or below (HDF5Output); None: it may not write, unless its own code may run:
    then here."""

    def __post_init__(self) -> None:
        """Takes what means the same (a phase in lower case, one stage alone); CaffeconvError for what means nothing."""
        phase = PHASES.get(self.phase, self.phase) if isinstance(self.phase, int) else self.phase
        checked: dict[str, object] = {
            "phase": arguments.one_of("phase", phase, ("TRAIN", "TEST")),
            "level": arguments.whole_number("level", self.level, LEAST_LEVEL, MOST_LEVEL),
            "stages": arguments.names("stages", self.stages),
            "shapes": arguments.shapes("shapes", self.shapes),
            "seed": arguments.whole_number("seed", self.seed),
        }
        for name in ("deploy", "extended", "ignore_unknown_fields", "fully_convolutional"):
            checked[name] = arguments.truth(name, getattr(self, name))
        if not (isinstance(self.allow_python, str) and self.allow_python == "path"):
            checked["allow_python"] = arguments.truth("allow_python", self.allow_python)
        checked["dialect"] = checked_dialect(self.dialect)
        for name, folder in (("root", self.root), ("output_dir", self.output_dir)):
            checked[name] = None if folder is None else arguments.path(name, folder)
        if self.infogain is not None:
            checked["infogain"] = arguments.one_of("infogain", self.infogain, ("logits", "probabilities"))
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def keeps_net(self) -> bool:
        """Whether the layers are those that Caffe itself keeps for a test, in the form that the file has."""
        elsewhere = replace(
            self,
            shapes={},
            ignore_unknown_fields=False,
            seed=0,
            fully_convolutional=False,
            outputs=(),
            root=None,
            output_dir=None,
        )
        return elsewhere == NetOptions()
