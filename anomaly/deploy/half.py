"""Part of an ONNX graph in float16: chosen nodes compute in half precision, casts stand where they meet the others."""

from typing import Any

import numpy as np

_NO_ARITHMETIC = ("Cast", "Constant", "ConstantOfShape", "Range")
_FLOAT_KEPT = {"Resize": (1, 2)}
"""Inputs that an operator takes in float32 whatever the others are: regions and scales."""


def to_half(model: Any, nodes: set[str]) -> Any:
    """Returns a copy of a model in which some nodes compute in float16; its inputs and outputs stay as they are.

    Args:
        model: onnx.ModelProto in float32 whose values have types.
        nodes: names of the nodes. Those that make floats of nothing (casts, constants) are left alone.
    """
    from onnxscript import ir, optimizer

    copy = ir.serde.deserialize_model(model)
    graph = copy.graph
    chosen = [node for node in graph if node.name in nodes and node.op_type not in _NO_ARITHMETIC]
    inside = set(chosen)
    halves: dict[Any, Any] = {}
    for node in chosen:
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != ir.DataType.FLOAT or index in _FLOAT_KEPT.get(node.op_type, ()):
                continue
            if value.producer() in inside:
                continue  # becomes float16 itself, below
            if value not in halves:
                halves[value] = _half_constant(graph, value) or _cast(graph, value, ir.DataType.FLOAT16, node)
            node.replace_input_with(index, halves[value])
    for node in chosen:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                _float_for_others(graph, node, value, inside)
    optimizer.remove_unused_nodes(copy)  # and the float32 form of constants
    return ir.serde.serialize_model(copy)


def _float_for_others(graph: Any, node: Any, value: Any, inside: set[Any]) -> None:
    """Makes a value float16 and gives those outside of the chosen nodes its float32 form."""
    from onnxscript import ir

    others = [use for use in value.uses() if use.node not in inside]
    outputs = [index for index, output in enumerate(graph.outputs) if output is value]
    value.dtype = ir.DataType.FLOAT16
    if not others and not outputs:
        return
    back = _cast(graph, value, ir.DataType.FLOAT, node, after=True)
    for user, index in others:
        user.replace_input_with(index, back)
    for index in outputs:
        value.name, back.name = f"{value.name}.half", value.name
        graph.outputs[index] = back


def _half_constant(graph: Any, value: Any) -> Any | None:
    from onnxscript import ir

    if not value.is_initializer() or value.const_value is None:
        return None
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and the parity gate finds it
        array = value.const_value.numpy().astype(np.float16)
    name = f"{value.name}.half"
    tensor = ir.tensor(array, name=name)
    constant = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(constant)
    return constant


def _cast(graph: Any, value: Any, to: Any, beside: Any, after: bool = False) -> Any:
    from onnxscript import ir

    name = f"{value.name}.as_{to.name.lower()}"
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(to))], name=name)
    node.outputs[0].name = f"{name}.output"
    node.outputs[0].dtype = to
    node.outputs[0].shape = value.shape
    if after:
        graph.insert_after(beside, node)
    else:
        graph.insert_before(beside, node)
    return node.outputs[0]
