"""Remove channels: one generic slicer for everything that carries a label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from reap_onnx.graph.channels import Labels, varying
from reap_onnx.graph.sizes import Axis, Element
from reap_onnx.model.edit import with_constants
from reap_onnx.model.network import Node, Slot
from reap_onnx.model.quantized import places, shapes_behind, stored
from reap_onnx.model.size import fill
from reap_onnx.ops.registry import find_rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace


def cut_constant(value: np.ndarray, axes: Mapping[int, Labels], stays: Callable[[Labels], np.ndarray]) -> np.ndarray:
    """A constant without the channels that are gone; itself where none is.

    Parameters
    ----------
    axes
        Axis -> labels along it (see ``Trace.cut``).
    stays
        Labels -> which of them stay, bool of the same shape.
    """
    for axis, labels in axes.items():
        kept = np.atleast_2d(stays(labels))
        if not kept.all():
            blocks = zip(np.split(value, len(kept)), kept, strict=True)
            value = np.concatenate([block.compress(row, axis) for block, row in blocks])
    return value


class Surgeon:
    """Collects what changes when channels go: constants, attributes, sizes.

    Parameters
    ----------
    trace
        Channels of the original network.
    removed
        Labels of the channels that go.
    weights
        New values of constants, in their original shapes; the others keep theirs.
    """

    def __init__(self, trace: Trace, removed: Iterable[int], weights: Mapping[Slot, np.ndarray]) -> None:
        self.trace = trace
        self._removed = np.unique(trace.channels.roots(np.fromiter(removed, np.int64)))
        self._weights = stored(trace.network, weights)
        self._constants: dict[Slot, np.ndarray] = {}
        self._attributes: dict[tuple[int, str], Any] = {}

    # -- what rules ask and say ----------------------------------------------------------------

    def mask(self, tensor: str, axis: int) -> np.ndarray:
        """Which positions of an axis stay, bool (size,)."""
        labels, size = self.trace.labelled(tensor), self.trace.shape(tensor)[axis]
        if labels is None or labels.shape[axis] == 1:
            return np.ones(size, bool)
        return self._stays(np.moveaxis(labels, axis, 0).reshape(size, -1)[:, 0])

    def unchanged(self, tensor: str, axis: int) -> bool:
        """Whether every position of an axis stays."""
        return bool(self.mask(tensor, axis).all())

    def replace(self, slot: Slot, value: np.ndarray) -> None:
        """Give a constant input a new value."""
        self._constants[slot] = value

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Give an attribute a new value; None removes it."""
        self._attributes[node.index, name] = value

    # -- the operation -------------------------------------------------------------------------

    def operate(self) -> onnx.ModelProto:
        """The smaller model; a copy of the original where nothing goes and no weight is new.

        1. Constants are cut along the axes that carry removed channels.
        2. What computes with the number of channels is given the number that it knew.
        3. Rules rewrite what else names a width in their nodes.
        4. Elements of constants that size an axis are written anew.
        5. Declared shapes of intermediate tensors and constants are mended.
        """
        network = self.trace.network
        self._constants |= self._weights
        for slot, axes in self.trace.cuts.items():
            for place, along in places(network, slot, axes):
                value = self._value(place)
                if value is not None:
                    self._cut(place, value, along)
        if len(self._removed):
            for slot, counted in self.trace.sizes.kept().items():
                if not all(self.unchanged(axis.tensor, axis.axis) for axis in counted):
                    self.replace(slot, self.trace.sizes.original(slot))
            for node in network.nodes:
                rule = find_rule(node.op)
                carries = any(name in self.trace.labels for name in node.inputs)
                if rule is not None and rule.rewrite is not None and carries:
                    rule.rewrite(node, self)
            for number in self.trace.sizes.numbers():
                if isinstance(number.origin, Element) and number.sizes:
                    self._rewrite(number.origin, number.sizes[0])
        model = with_constants(network, self._constants, self._attributes)
        fill(model, network.weights)
        if len(self._removed):
            self._mend_value_info(model)
        return model

    def _stays(self, labels: Labels) -> np.ndarray:
        return ~np.isin(self.trace.channels.roots(labels), self._removed)

    def _value(self, slot: Slot) -> np.ndarray | None:
        if slot in self._weights:
            return self._weights[slot]
        node = self.trace.network.nodes[slot.node]
        return self.trace.constant(node.input(slot.input))

    def _cut(self, slot: Slot, value: np.ndarray, axes: dict[int, Labels]) -> None:
        cut = cut_constant(value, axes, self._stays)
        if cut is not value:
            self.replace(slot, cut)

    def _rewrite(self, element: Element, sized: Axis) -> None:
        """Write the new size of an axis where it stands."""
        slot = element.slot
        value = self._constants.get(slot, self.trace.constant(self.trace.network.nodes[slot.node].inputs[slot.input]))
        assert value is not None
        if not self.unchanged(sized.tensor, sized.axis):
            value = value.copy()
            value.flat[element.index] = self.mask(sized.tensor, sized.axis).sum()
            self.replace(slot, value)

    def _mend_value_info(self, model: onnx.ModelProto) -> None:
        """Shapes of what has shrunk; of what is gone, or hangs unread on a node that has shrunk, none."""
        network, labels = self.trace.network, self.trace.labels
        constants = {t.name: t.dims for t in model.graph.initializer}
        computed = {name for node in model.graph.node for name in node.output}
        behind = {
            output: along
            for slot, axes in self.trace.cuts.items()
            for output, along in shapes_behind(network, slot, axes)
        }
        for index in reversed(range(len(model.graph.value_info))):
            info = model.graph.value_info[index]
            dims, producer = info.type.tensor_type.shape.dim, network.producer.get(info.name)
            if info.name in constants:
                for dim, size in zip(dims, constants[info.name], strict=False):
                    dim.dim_value = size
            elif info.name in behind:
                for axis, vector in behind[info.name].items() if dims else ():
                    dims[axis].dim_value = int(np.atleast_2d(self._stays(vector))[0].sum())  # blocks lose equally many
            elif info.name in labels:
                for axis in varying(self.trace.channels.compact(labels[info.name])):
                    if axis < len(dims) and dims[axis].HasField("dim_value"):
                        dims[axis].dim_value = int(self.mask(info.name, axis).sum())
                    elif axis < len(dims) and not self.unchanged(info.name, axis):
                        dims[axis].ClearField("dim_param")  # "4*batch", say: other tensors may be called the same
            elif producer is not None and (
                info.name not in computed
                or (not network.is_read(info.name) and any(name in labels for name in producer.inputs))
            ):
                del model.graph.value_info[index]
