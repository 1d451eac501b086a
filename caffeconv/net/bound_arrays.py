"""Arrays that a session reads and writes where they lie, run after run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from caffeconv.runtime.install import import_onnxruntime
from caffeconv.tensor.shape import FloatArray, Shape

if TYPE_CHECKING:
    import onnxruntime

    from caffeconv.runtime.session import Session

Key = TypeVar("Key", bound=Hashable)


class SwappedArrays(Generic[Key]):
    """Arrays by key, each with a spare one of its shape: a run reads one and writes the other, then they change places.

    shapes: of the arrays, which are made when they are first needed, zero.
    """

    def __init__(self, shapes: Mapping[Key, Shape]) -> None:
        self._shapes = dict(shapes)
        self._arrays: dict[Key, FloatArray] = {}
        self._spares: dict[Key, FloatArray] = {}

    def __getitem__(self, key: Key) -> FloatArray:
        if key not in self._arrays:
            self._arrays[key] = np.zeros(self._shapes[key], np.float32)
        return self._arrays[key]

    def values(self) -> list[FloatArray]:
        """All arrays, in the order of their keys."""
        return [self[key] for key in self._shapes]

    def items(self) -> Iterator[tuple[Key, FloatArray]]:
        """Those that were needed so far."""
        return iter(self._arrays.items())

    def set(self, arrays: Mapping[Key, FloatArray]) -> None:
        """Makes these the arrays of their keys."""
        self._arrays |= arrays

    def lay_out(self, key: Key, array: FloatArray) -> None:
        """Makes `array` that of its key; the spare stays as it is."""
        self._arrays[key] = array

    def fill(self, number: float) -> None:
        for array in self._arrays.values():
            array[...] = number

    def spare(self, key: Key) -> FloatArray:
        """The other array, made when first asked for."""
        spare = self._spares.get(key)
        if spare is None or spare.shape != self[key].shape:
            spare = self._spares[key] = np.empty(self[key].shape, np.float32)
        return spare

    def swap(self, keys: Iterable[Key]) -> None:
        """Makes the spare arrays of these keys their arrays, and the other way round."""
        for key in keys:
            self._arrays[key], self._spares[key] = self.spare(key), self[key]


class BoundRun:
    """A session's inputs and outputs, float32 in C order, where they lie.

    Two bindings take turns: arrays that change places after each run are then where the last but one had them, and need not
    be bound again.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn, self._next = _Binding(session), _Binding(session)

    def bind_input(self, name: str, array: FloatArray, *, lasting: bool = True) -> None:
        """Makes an array the input of that name. lasting: whether it will be there in later runs too."""
        self._turn.bind(
            name, array, self._session.inputs[name], self._turn.of_session.bind_ortvalue_input, lasting=lasting
        )

    def bind_output(self, name: str, array: FloatArray, *, lasting: bool = True) -> None:
        """Makes an array the place that the output of that name is written to."""
        self._turn.bind(
            name, array, self._session.outputs[name], self._turn.of_session.bind_ortvalue_output, lasting=lasting
        )

    def run(self) -> None:
        """Runs the session once; Python layers that have run in this pass give again what they gave."""
        self._session.run_bound(self._turn.of_session, same_pass=True)
        self._turn, self._next = self._next, self._turn


class _Binding:
    """What is bound to the names of a session's inputs and outputs, which no two of these share."""

    def __init__(self, session: Session) -> None:
        self.of_session = session.binding()
        self._as_ort_value = import_onnxruntime().OrtValue.ortvalue_from_numpy
        self._arrays: dict[str, FloatArray] = {}
        """What lasts, and what else has to live until it is replaced."""

    def bind(
        self, name: str, array: FloatArray, shape: Iterable[int | str],
        bind: Callable[[str, onnxruntime.OrtValue], None], *, lasting: bool,
    ) -> None:  # fmt: skip
        if self._arrays.get(name) is array:
            return
        view = array.reshape([int(size) for size in shape]) if lasting else np.asarray(array, np.float32, order="C")
        bind(name, self._as_ort_value(view))
        self._arrays[name] = array if lasting else view
