"""Names of nodes and values, one scope a layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import unique_name


class Scopes:
    """Gives out names that are free, beginning with that of the layer that is being written.

    taken: names of values that are not to be given out.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._names: set[str] = set(taken)
        self._node_names: set[str] = set()
        self._layer: str | None = None
        self._params: dict[str, Param] = {}
        self._scope_key: tuple[str, ...] = ()
        self._scopes: dict[tuple[str, ...], str] = {}
        self._kept: dict[tuple[str, str], str] = {}
        self._scope = ""
        self._scope_used = False

    def enter(self, layer: str, tops: Sequence[str], params: Sequence[Param]) -> None:
        """Starts a layer, of that name and those tops and parameters: names from here on lie in its scope."""
        self._take_layer(layer, tops, params)
        self._scope = self._scopes[self._scope_key] = unique_name(layer, self._node_names)
        self._scope_used = False

    def resume(self, layer: str, tops: Sequence[str], params: Sequence[Param]) -> None:
        """Goes back into the scope of a layer that was entered before, for its gradient."""
        self._take_layer(layer, tops, params)
        self._scope = self._scopes[self._scope_key]

    def _take_layer(self, layer: str, tops: Sequence[str], params: Sequence[Param]) -> None:
        self._layer, self._scope_key = layer, (layer, *tops)
        self._params = {param.name: param for param in params}

    def keep(self, what: str, value: str) -> None:
        """Notes a value of the layer's forward pass for its gradient, which finds it by `kept`."""
        self._kept[self._scope, what] = value

    def kept(self, what: str) -> str:
        return self._kept[self._scope, what]

    def new_name(self, name: str) -> str:
        """A free name, `name` where that is one, for an input or output of the model that is no blob of the net."""
        return self._free(name)

    def _fresh(self, what: str) -> str:
        return self._free(f"{self._scope}/{what}")

    def _free(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def _fresh_node_name(self, what: str) -> str:
        if not what and not self._scope_used:
            self._scope_used = True
            return self._scope
        return unique_name(f"{self._scope}/{what}" if what else self._scope, self._node_names)
