"""What a net's own data layer does to pictures, as preprocessing that a model can take over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.caffe_format.terms import Phase
from caffeconv.data.transform import Preparation, read_mean, refuse_foreign
from caffeconv.emit.metadata import Preprocess
from caffeconv.errors import CaffeconvError, Diagnostic
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS


def own_preprocess(
    source: NetSource, options: NetOptions, base: Preprocess | None = None, notes: list[Diagnostic] | None = None
) -> Preprocess:
    """The transform_param of the data layer that the options keep, with how the pictures come from `base`.

    The net may be wanted in its deploy form: it is the data layer of the training form that counts. Raises CaffeconvError
    where there is none, where its mean file is missing, or where it does what only a fork of Caffe knows.
    """
    base = base or Preprocess()
    layer, preparation = _data_layer(source, options, base.input)
    transform = preparation.transform
    try:
        refuse_foreign(transform)
        mean = None if transform.mean_file is None else read_mean(transform.mean_file)
    except CaffeconvError as error:
        raise CaffeconvError(f"{layer.where}: {error}") from None
    if transform.mean_values:
        mean = np.array(transform.mean_values, np.float32)
    if transform.mirror and notes is not None:
        notes.append(Diagnostic("note", layer.where, "mirrors at random, which the model does not", layer=layer.name))
    size = base.size or preparation.size
    return replace(base, mean=mean, scale=transform.scale, size=size, input=layer.tops[0])


def _data_layer(source: NetSource, options: NetOptions, blob: str | None) -> tuple[LayerDef, Preparation]:
    """The first data layer that reads pictures, and what it does to them; the one that makes `blob` where named."""
    data_layer = _find_data_layer(source, options, blob)
    if data_layer is not None:
        return data_layer
    where = Path(source.path).name if source.path else "the net"
    other: Phase = "TRAIN" if options.phase == "TEST" else "TEST"
    elsewhere = _find_data_layer(source, replace(options, phase=other), blob)
    hint = f" (phase {other} has one: `phase={other!r}`)" if elsewhere else ""
    raise CaffeconvError(
        f"{where}: `preprocess=True`: no data layer reads pictures in phase {options.phase}{hint}, so nothing says how they "
        "are prepared; give `mean=…`, `scale=…` or `rgb=True` (`mean=0` for none), or convert the net that was trained, with "
        "`deploy=True`"
    )


def _find_data_layer(source: NetSource, options: NetOptions, blob: str | None) -> tuple[LayerDef, Preparation] | None:
    for layer in define_net(source, replace(options, deploy=False)).layers:
        kind = LAYERS.get(layer.type)
        if kind is None or not kind.is_input or blob not in (None, *layer.tops[:1]):
            continue
        preparation = kind.parse(layer).preparation()
        if preparation is not None:
            return layer, preparation
    return None
