"""Remove channels: one generic slicer for everything that carries a label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from reap_onnx.graph.channels import Labels, varying
from reap_onnx.graph.sizes import Element
from reap_onnx.model.edit import with_constants
from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import find_rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Dims, Trace


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
        self._weights = weights
        self._constants: dict[Slot, np.ndarray] = {}
        self._attributes: list[tuple[int, str, Any]] = []

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
        """Give an attribute a new value."""
        self._attributes.append((node.index, name, value))

    def drop_attribute(self, node: Node, name: str) -> None:
        """Remove an attribute, if it is there."""
        self._attributes.append((node.index, name, None))

    # -- the operation -------------------------------------------------------------------------

    def operate(self) -> onnx.ModelProto:
        """The smaller model; a copy of the original where nothing goes and no weight is new."""
        network = self.trace.network
        for slot, axes in self.trace.cuts.items():
            value = self._value(slot)
            if value is not None:
                self._cut(slot, value, axes)
        for slot, value in self._weights.items():
            if slot not in self.trace.cuts:
                self.replace(slot, value)
        if len(self._removed):
            for node in network.nodes:
                rule = find_rule(node.op)
                if (
                    rule is not None
                    and rule.rewrite is not None
                    and any(name in self.trace.labels for name in node.inputs)
                ):
                    rule.rewrite(node, self)
            for dims in self.trace.dims:
                self._rewrite_sizes(dims)
        model = with_constants(network, self._constants)
        for index, name, value in self._attributes:
            _set_attribute(model.graph.node[index], name, value)
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
        cut = value
        for axis, labels in axes.items():
            stays = self._stays(labels)
            if not stays.all():
                cut = cut.compress(stays, axis)
        if cut is not value or slot in self._weights:
            self.replace(slot, cut)

    def _rewrite_sizes(self, dims: Dims) -> None:
        """Write the new sizes of a tensor's axes where they stand: in the slot or where its numbers come from."""
        network, labels = self.trace.network, self.trace.labelled(dims.tensor)
        name = network.nodes[dims.slot.node].inputs[dims.slot.input]
        for axis in () if labels is None else varying(labels):
            old, new = self.trace.shape(dims.tensor)[axis], int(self.mask(dims.tensor, axis).sum())
            if old == new:
                continue
            if name in network.constants:
                self._write(dims.slot, axis, old, new)
            else:
                origin = self.trace.sizes.origin(name, axis)
                if isinstance(origin, Element):
                    self._write(origin.slot, origin.index, old, new)

    def _write(self, slot: Slot, index: int, old: int, new: int) -> None:
        network = self.trace.network
        value = self._constants.get(slot, network.constants[network.nodes[slot.node].inputs[slot.input]])
        if value.flat[index] == old:  # 0 and -1 follow by themselves
            value = value.copy()
            value.flat[index] = new
            self.replace(slot, value)

    def _mend_value_info(self, model: onnx.ModelProto) -> None:
        for info in model.graph.value_info:
            if info.name not in self.trace.labels:
                continue
            for axis, dim in enumerate(info.type.tensor_type.shape.dim):
                if dim.HasField("dim_value"):
                    mask = self.mask(info.name, axis)
                    if not mask.all():
                        dim.dim_value = int(mask.sum())


def _set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    for attribute in list(node.attribute):
        if attribute.name == name:
            node.attribute.remove(attribute)
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))
