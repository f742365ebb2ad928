"""A network run piece by piece over a data set: each piece goes on from the tensors kept where the last one ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import onnx

from reap_onnx.data.dataset import Dataset
from reap_onnx.data.place import in_file, let_go
from reap_onnx.model.edit import part
from reap_onnx.model.network import Network
from reap_onnx.runtime.memory import Spill, Spilled
from reap_onnx.runtime.session import Session

MEMORY = 4_000_000_000  # bytes that a stream keeps in memory unless told otherwise; what goes beyond lies in a file

Tensors = dict[str, np.ndarray]


class Stream(AbstractContextManager["Stream"]):
    """Samples on their way through a network.

    What is final runs once over the data set, however many pieces the way is cut into. The constants of all other nodes
    may change between pieces.

    Parameters
    ----------
    network
        The network; its tensors keep their names and shapes in all that is run.
    dataset, batch
        Samples, and how many of them are run at a time.
    providers
        Execution providers, as for :class:`~reap_onnx.runtime.session.Session`.
    memory
        Bytes of tensors kept in memory between pieces. The rest goes to a temporary file without a name, which is gone
        however the process ends.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        *,
        batch: int,
        providers: Sequence[str] = ("cpu",),
        memory: int = MEMORY,
    ) -> None:
        self._network, self._providers, self._memory = network, providers, memory
        self._held: list[Mapping[str, np.ndarray | Spilled]] = list(dataset.batches(batch))
        self._done: set[int] = set()
        self._spill: Spill | None = None

    def __exit__(self, *_: object) -> None:
        """Drop what is kept."""
        self._held.clear()
        if self._spill is not None:
            self._spill.close()

    @property
    def spilled(self) -> int:
        """Bytes that lie in a file."""
        return 0 if self._spill is None else self._spill.size

    def run(
        self,
        model: onnx.ModelProto,
        wanted: Sequence[str],
        later: Sequence[str] = (),
        final: Sequence[str] | None = None,
    ) -> Iterator[Tensors]:
        """Compute the tensors ``wanted``, batch after batch, and keep what ``later`` needs.

        Parameters
        ----------
        model
            The network with the constants that it has by now.
        wanted
            Tensors to compute.
        later
            The only tensors that may still be wanted after this piece.
        final
            Tensors that stay as they are now, those wanted by default; what they are computed from never runs again.
        """
        self._done |= self._network.ancestors(wanted if final is None else final)
        cut = self._cut(later)
        held = [name for name in self._held[0] if name in self._network.producer] if self._held else []
        computed = [n for n in dict.fromkeys((*wanted, *cut)) if n in self._network.producer and n not in held]
        types = {name: (self._network.dtypes[name], len(self._network.shapes[name])) for name in held}
        piece, weights = part(model, computed, types) if computed else None, self._network.weights
        del model  # a piece has weights of its own
        session = None if piece is None else Session(piece, self._providers, weights=weights, full_precision=True)
        past, self._spill = self._spill, None
        room = self._memory - sum(map(_in_memory, self._held)) if held else self._memory

        def go_on(number: int) -> Tensors:
            """What is wanted of a batch; no name here outlives it, so that it is gone before the next one is made."""
            nonlocal room
            before = self._held[number]
            known = {name: _read(value, past) for name, value in before.items()}
            tensors = known | (session.run(known, computed) if session else {})
            kept = {name: tensors[name] for name in cut}
            room += _in_memory(before) if held else 0
            if (bytes_kept := _in_memory(kept)) <= room:
                room -= bytes_kept
                self._held[number] = kept
            else:
                self._spill = self._spill or Spill()
                put = self._spill.put
                self._held[number] = {
                    name: a if in_file(a) or a.dtype.hasobject else put(a) for name, a in kept.items()
                }
            let_go(before.values())  # samples that lie in a file
            return {name: tensors[name] for name in wanted}

        try:
            for number in range(len(self._held)):
                yield go_on(number)
        finally:
            if past is not None:
                past.close()

    def _cut(self, later: Sequence[str]) -> list[str]:
        """Tensors that are computed by now, and enough to go on to ``later``."""
        network, cut, seen, pending = self._network, [], set(), list(later)
        while pending:
            name = pending.pop()
            if name in seen or name in network.constants:
                continue
            seen.add(name)
            node = network.producer.get(name)
            if node is None or (node.index in self._done and name in network.shapes):
                cut.append(name)
            else:  # still to come, or no tensor: a sequence is made again
                pending.extend(n for n in (*node.inputs, *node.captured) if n)
        return cut


def _read(value: np.ndarray | Spilled, spill: Spill | None) -> np.ndarray:
    if isinstance(value, Spilled):
        assert spill is not None
        return spill.get(value)
    return value


def _in_memory(tensors: Mapping[str, object]) -> int:
    return sum(array.nbytes for array in tensors.values() if isinstance(array, np.ndarray) and not in_file(array))
