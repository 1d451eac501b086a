"""Well-known nets on a GPU: float32, half precision, and kernels that keep channels last, beside the CPU.

    python benchmarks/cuda_nets.py [--nets NAME…] [--batches 1 8 64] [--seconds 1] [--provider cuda]

Milliseconds of a pass, medians, copies to and from the GPU included, as `caffeconv run` makes them. A form that does not run
is named with the reason.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from classic_nets import NETS, example_inputs, write_net

import caffeconv


@dataclass(frozen=True)
class Form:
    """How a net is computed."""

    name: str
    provider: str
    half: bool = False
    nhwc: bool = False


def forms(provider: str) -> list[Form]:
    on_gpu = [
        Form("float32", provider), Form("float32, NHWC", provider, nhwc=True), Form("float16", provider, half=True),
        Form("float16, NHWC", provider, half=True, nhwc=True),
    ]  # fmt: skip
    return [Form("CPU", "cpu"), *on_gpu]


def milliseconds(name: str, batch: int, form: Form, folder: Path, seconds: float) -> float:
    """The median of a pass; raises CaffeconvError where the form does not run."""
    net, weights = write_net(name, batch, folder)
    model = caffeconv.Net(net, weights, "TEST", provider=form.provider, half=form.half, nhwc=form.nhwc)
    feeds = example_inputs(name, batch)
    for _ in range(2):
        model.run(feeds, model.outputs)
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < 3 or time.monotonic() < end:
        start = time.perf_counter()
        model.run(feeds, model.outputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--nets", nargs="+", choices=list(NETS), default=["CaffeNet", "VGG-16", "ResNet-50", "MobileNet"]
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--provider", default="cuda")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    asked = forms(options.provider)
    print(f"| net | batch | {' | '.join(form.name for form in asked)} |\n|---|---:|{'---:|' * len(asked)}")
    failures: dict[str, str] = {}
    for name in options.nets:
        for batch in options.batches:
            cells = []
            for form in asked:
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        cells.append(f"{milliseconds(name, batch, form, Path(folder), options.seconds):.2f}")
                    except caffeconv.CaffeconvError as error:
                        cells.append("–")
                        failures.setdefault(form.name, str(error))
            print(f"| {name} | {batch} | {' | '.join(cells)} |", flush=True)
    for form_name, reason in failures.items():
        print(f"{form_name}: not run: {reason}")


if __name__ == "__main__":
    main()
