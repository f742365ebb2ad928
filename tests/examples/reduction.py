"""Reductions."""

from __future__ import annotations

from collections.abc import Callable

from onnx import TensorProto

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()

KINDS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()


def _over_space(kind: str) -> Callable[[Net], str]:
    """Both axes of space go, first with their places kept, then without, then gate the channels."""

    def build(net: Net) -> str:
        h = net.op("Add", net.op("Mul", net.op("Sigmoid", stem(net)), 0.1), 1.0)
        by_input = net.opset >= (13 if kind == "Sum" else 18)
        where = ([3],) if by_input else ()
        kept = net.op(f"Reduce{kind}", h, *where, **({} if by_input else {"axes": [3]}))
        where = ([-1, 2],) if by_input else ()
        gone = net.op(f"Reduce{kind}", kept, *where, keepdims=0, **({} if by_input else {"axes": [-1, 2]}))
        return net.linear(gone, 6, 3)

    return build


for _kind in KINDS:
    EXAMPLES.add(6, opset=[7, 13, 18] if _kind in ("Mean", "Sum") else 18, name=f"Reduce{_kind}")(_over_space(_kind))


@EXAMPLES.add(6, opset=[7, 13])
def places(net: Net) -> str:
    h = stem(net)
    most = net.op("ArgMax", h, axis=2)
    least = net.op("ArgMin", h, axis=2, keepdims=0)
    least = net.op("Unsqueeze", least, [2]) if net.opset >= 13 else net.op("Unsqueeze", least, axes=[2])
    return head(net, net.op("Cast", net.op("Sub", most, least), to=TensorProto.FLOAT))


@EXAMPLES.add(6, opset=18)
def nothing_to_reduce(net: Net) -> str:
    return head(net, net.op("ReduceMean", stem(net), noop_with_empty_axes=1))


@EXAMPLES.add(5)
def over_tokens(net: Net) -> str:
    h = net.op("MatMul", net.input("N", 7, 4), net.noise(4, 5))
    return net.linear(net.op("ReduceMean", h, axes=[1], keepdims=0), 5, 3)


@EXAMPLES.add(frozen=["it reduces over channels"])
def over_channels(net: Net) -> str:
    return net.op("ReduceMean", stem(net), axes=[1])


@EXAMPLES.add(frozen=["it reduces over channels"], opset=18)
def over_everything(net: Net) -> str:
    return net.op("ReduceSum", stem(net))


@EXAMPLES.add(frozen=["its index counts channels"])
def place_of_channel(net: Net) -> str:
    return net.op("ArgMax", stem(net), axis=1)


@EXAMPLES.add(frozen=["its axes are computed"], opset=18)
def over_computed_axes(net: Net) -> str:
    axes = net.op("Mul", net.input(1, name="axes", dtype=TensorProto.INT64), [2])
    return net.op("Reshape", net.op("ReduceMean", net.op("GlobalAveragePool", stem(net)), axes), [1, 6])
