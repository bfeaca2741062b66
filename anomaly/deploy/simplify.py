"""An exported ONNX graph made smaller, offline, with standard operators only, so that every runtime gains.

Constants are folded whatever their size; chains of affine steps (x / 255, - mean, / std; - level, / deviation) become
one multiplication and one addition, and the multiplication is folded into the convolution that follows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

NETWORK, PRODUCT = "anomaly.network", "anomaly.product"
"""Notes on nodes: what a submodule of the scorer computes; the scorer's own products with learned tensors."""
_SCOPES = "pkg.torch.onnx.name_scopes"
_AFFINE = ("Add", "Sub", "Mul", "Div")
_ANY_SIZE = 2**31

Array = npt.NDArray[Any]


def simplify(model: Any) -> Any:
    """Returns an equal model (but for float rounding) with fewer steps; its nodes carry the notes `NETWORK`, `PRODUCT`.

    Args:
        model: onnx.ModelProto from torch's exporter, with the scorer as submodule "scorer".
    """
    from onnxscript import ir, optimizer

    mark(model)
    graph_model = ir.serde.deserialize_model(model)
    optimizer.fold_constants(graph_model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
    for node in list(graph_model.graph):
        _merge_affine(graph_model.graph, node)
    for node in list(graph_model.graph):
        _scale_into_convolution(graph_model.graph, node)
    optimizer.remove_unused_nodes(graph_model)
    return ir.serde.serialize_model(graph_model)


def mark(model: Any) -> None:
    """Notes on each node which part of the scorer it belongs to, before folding takes the names of tensors away."""
    learned = {
        i.name for i in model.graph.initializer if i.name.startswith("scorer.") and "lifted_tensor" not in i.name
    }
    for node in model.graph.node:
        if (
            node.op_type in ("Slice", "Cast", "Transpose", "Identity", "Reshape", "Unsqueeze")
            and node.input[0] in learned
        ):
            learned.update(node.output)  # a slice of a learned tensor is learned too
    for node in model.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
        if "'scorer." in scopes:
            node.metadata_props.add(key=NETWORK, value="")
        elif node.op_type in ("Conv", "Gemm", "MatMul") and learned & set(node.input):
            node.metadata_props.add(key=PRODUCT, value="")


def _merge_affine(graph: Any, last: Any) -> None:
    """Replaces a chain of three or more affine steps that ends at a node by (x + shift) * gain."""
    chain: list[Any] = []
    node, value = last, last.outputs[0]
    while node is not None and _is_step(node) and (not chain or len(value.uses()) == 1):
        chain.insert(0, node)
        value = _variable(node)
        node = value.producer()
    if len(chain) < 3 or any(_is_step(user) for user in last.outputs[0].consumers()):
        return
    gain, shift = np.ones(1), np.zeros(1)  # x -> gain * x + shift, in float64
    for step in chain:
        gain, shift = _after(step, gain, shift)
    if _broadcast(value, gain, shift) != _shape(last.outputs[0]) or not gain.all():
        return
    moved = _insert(graph, last, "Add", value, shift / gain)
    scaled = _insert(graph, last, "Mul", moved, gain)
    _replace(last, scaled)


def _scale_into_convolution(graph: Any, node: Any) -> None:
    """Folds a multiplication of each channel into the weights of the convolution that alone uses it."""
    if node.op_type != "Conv" or (before := node.inputs[0].producer()) is None or before.op_type != "Mul":
        return
    gain, weight = _constant(before), _array(node.inputs[1])
    if gain is None or weight is None or len(node.inputs[0].uses()) != 1 or _group(node) != 1:
        return
    if gain.size != 1 and gain.shape != (1, weight.shape[1], 1, 1):
        return
    folded = weight.astype(np.float64) * np.broadcast_to(gain.reshape(-1), weight.shape[1])[None, :, None, None]
    node.replace_input_with(1, _initializer(graph, f"{node.inputs[1].name}.scaled", folded))
    node.replace_input_with(0, _variable(before))


def _is_step(node: Any) -> bool:
    """Whether a node is an affine step of one variable: with a constant beside it, or a repetition along an axis."""
    if node.op_type == "Expand":
        return True
    if node.op_type not in _AFFINE or _constant(node) is None:
        return False
    return node.op_type != "Div" or _array(node.inputs[1]) is not None


def _variable(node: Any) -> Any:
    """Returns the input that is no constant."""
    return node.inputs[0] if node.op_type == "Expand" or _array(node.inputs[0]) is None else node.inputs[1]


def _constant(node: Any) -> Array | None:
    """Returns the constant beside the variable of a binary node; None if there is none or both are."""
    known = [array for value in node.inputs if (array := _array(value)) is not None]
    return known[0] if len(known) == 1 else None


def _array(value: Any) -> Array | None:
    known = value.const_value
    return None if known is None or not value.is_initializer() else np.asarray(known.numpy())


def _after(step: Any, gain: Array, shift: Array) -> tuple[Array, Array]:
    """Returns gain and shift once a further step has been taken."""
    if step.op_type == "Expand":
        return gain, shift
    constant = np.atleast_1d(np.asarray(_constant(step), dtype=np.float64))
    if step.op_type == "Mul":
        return gain * constant, shift * constant
    if step.op_type == "Div":
        return gain / constant, shift / constant
    if step.op_type == "Add":
        return gain + 0 * constant, shift + constant
    if _variable(step) is step.inputs[0]:
        return gain + 0 * constant, shift - constant
    return -gain + 0 * constant, constant - shift


def _broadcast(value: Any, *arrays: Array) -> tuple[Any, ...] | None:
    """Returns the shape of a value after arrays were added to it; None where it is not known."""
    shape = _shape(value)
    if shape is None:
        return None
    wanted = np.broadcast_shapes(*(a.shape for a in arrays))
    wanted = (1,) * (len(shape) - len(wanted)) + wanted
    return tuple(side if other == 1 else other for side, other in zip(shape, wanted, strict=True))


def _shape(value: Any) -> tuple[Any, ...] | None:
    return None if value.shape is None else tuple(d if isinstance(d, int) else str(d) for d in value.shape)


def _group(node: Any) -> int:
    return int(node.attributes["group"].value) if "group" in node.attributes else 1


def _insert(graph: Any, before: Any, kind: str, value: Any, constant: Array) -> Any:
    """Inserts a binary node with a constant before another node; it carries the notes of that node."""
    from onnxscript import ir

    name = f"{before.name}.{kind.lower()}"
    node = ir.Node("", kind, [value, _initializer(graph, f"{name}.constant", constant)], name=name)
    node.metadata_props.update(before.metadata_props)
    node.outputs[0].name = f"{name}.output"
    node.outputs[0].dtype = value.dtype
    graph.insert_before(before, node)
    return node.outputs[0]


def _initializer(graph: Any, name: str, array: Array) -> Any:
    from onnxscript import ir

    tensor = ir.tensor(np.ascontiguousarray(array, dtype=np.float32), name=name)
    value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


def _replace(node: Any, value: Any) -> None:
    """Lets all users of a node's output use another value, and removes the node."""
    value.shape = node.outputs[0].shape
    node.outputs[0].replace_all_uses_with(value)
    node.graph.remove(node, safe=True)
