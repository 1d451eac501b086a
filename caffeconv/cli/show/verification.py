"""What a verification has found: a table, a message, and a report to keep."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.cli.options.net import note
from caffeconv.cli.show.console import echo, visible
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import format_shape
from caffeconv.version import __version__

if TYPE_CHECKING:
    from caffeconv.inspection.report_json import Json
    from caffeconv.verify import BlobCheck, Verification


def show_verification(verification: Verification, *, quiet: bool) -> None:
    """A table of all blobs on stdout, and on stderr with whom they were compared."""
    for title, why in verification.unfit:
        note(f"not compared with {title}: {why}", quiet=quiet)
    note(f"compared with {verification.engine.title}: {verification.engine.independence}", quiet=quiet)
    if not quiet:
        _print_blobs(verification.blobs)
        absent = (
            f"; {verification.absent} blobs are not in the model (folded into others, or cut)"
            if verification.absent
            else ""
        )
        differing = sum(blob.verdict == "differs" for blob in verification.blobs)
        verdict = f"{differing} differ" if differing else "all agree"
        steep = any(blob.verdict == "ok: steep" for blob in verification.blobs)
        absent += "; steep: inputs changed by a rounding move it as far" if steep else ""
        echo(f"{len(verification.blobs)} blobs compared, {verdict}; tolerated: {verification.tolerance}{absent}")


def not_right(verification: Verification, out: Path) -> str:
    """The message of a verification that failed."""
    from caffeconv.verify.check import HALF

    first = verification.first_wrong
    if first is None:
        return f"{out}: no output could be compared, so nothing is known of the model, and nothing is written"
    half = verification.tolerance == HALF
    advice = "Half precision is too little for this net; leave --fp16 out" if half else verification.engine.advice
    return (
        f"{first.layer}: blob '{first.blob}', the first that differs, is off by {first.deviation:.3g}, where the greatest "
        f"value is {first.magnitude:.3g}; {verification.tolerance} is tolerated. {out} is not written. {advice}".rstrip()
    )


def report_half(deviations: Callable[[], Iterable[BlobCheck]]) -> None:
    """A line for each output, on stdout: how far half precision takes it from float32, on a probe input."""
    try:
        checks = deviations()
    except CaffeconvError as error:
        note(f"how far half precision is from float32 is not known: {error}")
        return
    for check in checks:
        echo(f"{check.blob}: at most {check.deviation:.3g} from float32, whose greatest value is {check.magnitude:.3g}")
        if math.isinf(check.deviation):
            note(
                f"{check.blob} leaves the range of half precision on a probe input; leave --fp16 out, or cut the net before"
            )


def _print_blobs(checks: Sequence[BlobCheck]) -> None:
    from rich.table import Table

    from caffeconv.cli.show.console import cell, make_console

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("blob", "layer", "shape", "deviation", "of", "relative", ""):
        table.add_column(heading, justify="right" if heading in ("deviation", "of", "relative") else "left")
    for check in checks:
        numbers = (f"{check.deviation:.2e}", f"{check.magnitude:.3g}", f"{check.relative:.1e}")
        table.add_row(cell(check.blob), cell(check.layer), format_shape(check.shape), *numbers, check.verdict)
    make_console().print(table)


# -- a report to keep --------------------------------------------------------------------------------------------------


def verified_metadata(verification: Verification) -> dict[str, str]:
    """What a model says of its verification: ``caffeconv.verified``, with the engine, all versions and the probe's seed."""
    return {
        "caffeconv.verified": json.dumps({"engine": verification.engine.name, **asdict(_circumstances(verification))})
    }


def write_report(verification: Verification, path: Path, sources: Sequence[Path], model: Path) -> None:
    """Writes the report, as JSON or, where the name ends in .html, as a page. Raises CaffeconvError as `whole_file`."""
    from caffeconv.files.atomic import whole_file

    if path.suffix.lower() == ".html":
        text = report_html(verification, sources, model)
    else:
        text = json.dumps(report_json(verification, sources, model), indent=1) + "\n"
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def report_json(verification: Verification, sources: Sequence[Path], model: Path) -> Json:
    """Deviation and verdict of each blob, and the circumstances: engine, versions, seed of the probe, tolerance.

    A deviation without bounds is None: JSON has no infinity.
    """
    engine, tolerance = verification.engine, verification.tolerance
    return {
        "ok": verification.ok,
        "model": str(model),
        "sources": [str(path) for path in sources],
        "engine": {"name": engine.name, "title": engine.title, "independence": engine.independence},
        **asdict(_circumstances(verification)),
        "tolerance": {"absolute": tolerance.absolute, "relative": tolerance.relative},
        "not_compared_with": [{"engine": title, "why": why} for title, why in verification.unfit],
        "absent": verification.absent,
        "blobs": [_blob_json(check) for check in verification.blobs],
    }


@dataclass(frozen=True)
class _Circumstances:
    versions: dict[str, str]
    probe_seed: int


def _circumstances(verification: Verification) -> _Circumstances:
    from caffeconv.verify.probe import SEED

    return _Circumstances({"caffeconv": __version__, "numpy": np.__version__, **verification.versions}, SEED)


def _blob_json(check: BlobCheck) -> Json:
    numbers = {"deviation": check.deviation, "magnitude": check.magnitude, "relative": check.relative}
    return {
        "blob": check.blob,
        "layer": check.layer,
        "shape": list(check.shape),
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "is_output": check.is_output,
        "verdict": check.verdict,
    }


def report_html(verification: Verification, sources: Sequence[Path], model: Path) -> str:
    """The report as one page that needs nothing else."""
    facts = {"model": str(model), "made from": ", ".join(map(str, sources)), **_facts(verification)}
    columns = ("blob", "layer", "shape", "deviation", "magnitude", "relative", "verdict")
    rows = [
        (check.blob, check.layer, format_shape(check.shape), f"{check.deviation:.3g}", f"{check.magnitude:.3g}",
         f"{check.relative:.3g}", check.verdict)
        for check in verification.blobs
    ]  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Verification</title><style>{_STYLE}</style>'
        f"</head><body>\n<h1>{'All blobs agree' if verification.ok else 'Not the same'}</h1>\n"
        f"{_html_table(facts.items())}<h2>Blobs</h2>\n{_html_table([columns, *rows])}</body></html>\n"
    )


_STYLE = (
    "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}"
    "td{text-align:left;padding:.2em .8em;border-bottom:1px solid #ccc}.differs{background:#fcc}"
)


def _facts(verification: Verification) -> dict[str, str]:
    circumstances, engine = _circumstances(verification), verification.engine
    versions = ", ".join(f"{name} {version}" for name, version in circumstances.versions.items())
    return {
        "compared with": f"{engine.title}: {engine.independence}",
        "versions": versions,
        "seed of the probe": str(circumstances.probe_seed),
        "tolerated": str(verification.tolerance),
        "blobs that the model no longer has": str(verification.absent),
        **{f"not compared with {title}": why for title, why in verification.unfit},
    }


def _html_table(rows: Iterable[Sequence[str]]) -> str:
    lines = (
        f'<tr class="{"differs" if row[-1] == "differs" else "agrees"}">'
        + "".join(f"<td>{html.escape(visible(text))}</td>" for text in row)
        + "</tr>\n"
        for row in rows
    )
    return f"<table>\n{''.join(lines)}</table>\n"
