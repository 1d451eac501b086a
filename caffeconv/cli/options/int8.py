"""The options of `convert` for a model that computes in eight-bit integers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import click

MOST_ITEMS = 100


@dataclass(frozen=True)
class Int8Options:
    """What the command line asks for."""

    sources: tuple[str, ...]
    items: int
    deviation: float
    reduce_range: bool


def int8_options(command: Callable[..., None]) -> Callable[..., None]:
    """--int8 and what belongs to it, handed to the command as `int8`: None where it is not asked for."""

    @functools.wraps(command)
    def wrapper(
        *args: object, wants_int8: bool, calibrate: tuple[str, ...], calibration_items: int | None,
        int8_deviation: float | None, int8_reduce_range: bool, **rest: object,
    ) -> None:  # fmt: skip
        if not wants_int8 and (calibrate or calibration_items or int8_deviation or int8_reduce_range):
            raise click.UsageError(
                "--calibrate, --calibration-items, --int8-deviation and --int8-reduce-range say how --int8 works; --int8 was "
                "needed too"
            )
        int8 = Int8Options(calibrate, calibration_items or MOST_ITEMS, int8_deviation or 0.05, int8_reduce_range)
        command(*args, int8=int8 if wants_int8 else None, **rest)

    decorators = (
        click.option("--int8", "wants_int8", is_flag=True,
                     help="Weights and computing in eight-bit integers, but for layers that would be too far off; ranges are "
                     "measured on data, and the change in the outputs is reported."),
        click.option("--calibrate", multiple=True, metavar="SOURCE",
                     help="With --int8: pictures, lists, arrays, an LMDB or a LevelDB to measure ranges on; as `run --input`, "
                     "with --mean, --scale, --resize and --rgb. May be repeated.  [default: the net's data layers]"),
        click.option("--calibration-items", type=click.IntRange(1), metavar="N",
                     help=f"With --int8: how many items.  [default: {MOST_ITEMS}]"),
        click.option("--int8-deviation", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE",
                     help="With --int8: how far the results of the last convolutions and products may be off (root mean "
                     "square).  [default: 0.05]"),
        click.option("--int8-reduce-range", is_flag=True,
                     help="With --int8: weights of seven bits, for processors without VNNI, where sums of eight-bit products "
                     "can overflow."),
    )  # fmt: skip
    decorated: Callable[..., None] = wrapper
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated
