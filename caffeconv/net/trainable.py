"""What of a net a solver needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from caffeconv.errors import CaffeconvError
from caffeconv.net.backward import Backward
from caffeconv.net.data_layers import DataLayers
from caffeconv.net.forward import Forward
from caffeconv.net.params import ParamStore
from caffeconv.net.sessions import SessionPool
from caffeconv.net.stepper import Stepper

if TYPE_CHECKING:
    from caffeconv.emit.training_step import Learning


class Trainable:
    """A net's side towards solvers and other nets."""

    _params: ParamStore
    _sessions: SessionPool
    _data: DataLayers
    _forward: Forward
    _backward: Backward

    def seek_passes(self, number: int) -> None:
        """Brings data layers and random numbers to where `number` passes over the whole net leave them."""
        self._data.seek_passes(number)
        self._forward.noise = replace(self._forward.noise, number=number)

    @property
    def keeps_states(self) -> bool:
        """Whether a layer keeps something from one pass to the next."""
        return any(node.layer.state_shapes(node.bottom_shapes) for node in self._sessions.graph.nodes)

    def stepper(self, learning: Learning) -> Stepper:
        """What a solver needs to train the net; its parameters are inputs of all sessions from then on."""
        return Stepper(self._sessions, self._params, self._forward, self._backward, learning)

    def share_with(self, other: Trainable) -> None:
        """From now on the layers that both nets have hold the other's parameters: what changes in one does in both.

        Raises CaffeconvError where those of a layer differ in number or shape; nothing is shared then.
        """
        if not isinstance(other, Trainable):
            raise CaffeconvError(f"`other={other!r}`: a net was needed")
        self._params.share_with(other._params)
        if other._sessions.opens_params:
            self._sessions.open_params()
