"""`caffeconv run --profile`: the time that each layer takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from caffeconv.cli.options.net import note
from caffeconv.cli.options.run import Verbosity
from caffeconv.cli.show.console import echo
from caffeconv.inference.request import RunRequest

if TYPE_CHECKING:
    from caffeconv.data.input_items import InputSource
    from caffeconv.tensor.shape import FloatArray


def profile_net(request: RunRequest, verbosity: Verbosity) -> None:
    """Measures, prints and writes the time per layer."""
    from caffeconv.cli.show import profile as tables
    from caffeconv.cli.show.console import make_console
    from caffeconv.cli.show.placement import say_placement
    from caffeconv.files.atomic import refuse_input_as_output, whole_file
    from caffeconv.inference.fixed_batch import batch_size_of
    from caffeconv.inference.open_inputs import open_inputs
    from caffeconv.inference.open_runner import open_model
    from caffeconv.runtime.profiler import profile_passes

    out, batch_size = request.output.path, request.data.batch_size
    if out is not None:
        refuse_input_as_output(out, request.files.all)
    tables.check_profile_output(out)
    with TemporaryDirectory(prefix="caffeconv-") as folder:
        say = partial(note, quiet=verbosity.quiet)
        model = open_model(request, say, batch=batch_size or "keep", profile_to=Path(folder))
        session, facts = model.session, model.layers()
        if verbosity.verbose:
            say_placement(session, lambda: [layer.name for layer in facts])
        sources = open_inputs(session, request.inputs, request.images).sources
        size = batch_size_of(session, batch_size)
        if out is not None:
            refuse_input_as_output(
                out, [file for source in sources.values() for file in (Path(source.name), *source.files)]
            )
        free = {name: dims for name, dims in session.inputs.items() if name not in sources}
        feeds = {name: _repeated(source, size) for name, source in sources.items()} | tables.noise_for(free, size)
        passes = request.data.passes or 10
        profile = profile_passes(session, feeds, [layer.name for layer in facts], passes=passes)
    if out is not None:
        with whole_file(out) as file:
            file.write(tables.profile_bytes(out, profile, facts))
    if verbosity.quiet:
        return
    make_console().print(tables.profile_table(profile, facts))
    for line in tables.profile_lines(profile, facts):
        echo(line)


def _repeated(source: InputSource, size: int) -> FloatArray:
    """`size` items from the start of a source, over and over where it holds fewer."""
    import numpy as np

    from caffeconv.data.prefetch import Prefetcher

    source.batch_size = size
    with Prefetcher(source, None, 0) as prefetcher:
        (values,) = prefetcher.next_batch().blobs
    return values if len(values) == size else np.resize(values, (size, *values.shape[1:]))
