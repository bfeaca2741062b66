"""Passes over ONNX graphs: equal results by ONNX's own reference, fewer steps, casts only where they are needed."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from anomaly.deploy.half import to_half
from anomaly.deploy.onnx import covers, parts, quantised, runs
from anomaly.deploy.simplify import simplify
from anomaly.errors import ExportError

SCOPES = "pkg.torch.onnx.name_scopes"
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
MEAN = np.array([0.4, 0.5, 0.6], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.2, 0.3, 0.1], np.float32).reshape(1, 3, 1, 1)
MATRIX = RANDOM.normal(size=(4, 2)).astype(np.float32)


def preprocessing_model(steps=None, extra_user=False):
    """uint8 grey frame -> /255 -> RGB -> normalised -> convolution (network) -> product with a learned matrix."""
    steps = steps or [("Div", "scale"), ("Expand", "rgb"), ("Sub", "mean"), ("Div", "std")]
    constants = {
        "scale": np.float32(255.0),
        "rgb": np.array([1, 3, 8, 8]),
        "mean": MEAN,
        "std": STD,
        "weight": WEIGHT,
        "scorer.matrix": MATRIX,
    }
    nodes = [helper.make_node("Cast", ["frame"], ["x0"], "cast", to=TensorProto.FLOAT)]
    for i, (kind, constant) in enumerate(steps):
        nodes.append(helper.make_node(kind, [f"x{i}", constant], [f"x{i + 1}"], f"step{i}"))
    nodes += [
        helper.make_node("Conv", [f"x{len(steps)}", "weight"], ["features"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["features"], ["last"], "transpose", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["last", "scorer.matrix"], ["map"], "product"),
    ]
    outputs = [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 8, 8, 2])]
    if extra_user:
        nodes.append(helper.make_node("ReduceMean", ["x2"], ["score"], "user", keepdims=0))
        outputs.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, []))
    for node in nodes:
        inside = "['', 'scorer', 'scorer.backbone', 'x']" if node.name == "conv" else "['', 'scorer', 'x']"
        node.metadata_props.add(key=SCOPES, value=inside)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 1, 8, 8])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def assert_equal(model, changed, tolerance=1e-5):
    onnx.checker.check_model(changed, full_check=True)
    frame = RANDOM.integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)
    for a, b in zip(*(ReferenceEvaluator(m).run(None, {"frame": frame}) for m in (model, changed)), strict=True):
        assert a.dtype == b.dtype
        assert np.abs(a - b).max() < tolerance * max(1.0, np.abs(a).max())


@pytest.mark.parametrize(
    "steps",
    [
        None,
        [("Expand", "rgb"), ("Mul", "std"), ("Add", "mean"), ("Sub", "scale")],
        [("Div", "scale"), ("Sub", "mean"), ("Div", "std")],
    ],
)
def test_affine_steps_become_one_addition_and_scaled_weights(steps):
    model = preprocessing_model(steps)
    simple = simplify(model)
    assert [node.op_type for node in simple.graph.node] == ["Cast", "Add", "Conv", "Transpose", "MatMul"]
    assert_equal(model, simple)


def test_a_step_that_others_use_stays():
    model = preprocessing_model(extra_user=True)
    assert_equal(model, simplify(model))


def test_a_constant_minus_the_variable_is_understood():
    model = preprocessing_model([("Div", "scale"), ("Expand", "rgb"), ("Sub", "mean")])
    next(node for node in model.graph.node if node.op_type == "Sub").input[:] = ["mean", "x2"]
    simple = simplify(model)
    assert "Expand" not in {node.op_type for node in simple.graph.node}
    assert_equal(model, simple)


def test_networks_and_products_are_told_apart():
    simple = simplify(preprocessing_model())
    assert parts(simple) == ({"conv"}, {"product"})
    assert [nodes for _, nodes in covers(simple, "fp16")] == [{"conv", "product"}, {"conv"}]
    assert [nodes for _, nodes in covers(simple, "int8")] == [{"conv", "product"}, {"conv"}], "nothing would be left"


def test_a_graph_without_network_has_no_lower_precision():
    model = preprocessing_model()
    for node in model.graph.node:
        del node.metadata_props[:]
    with pytest.raises(ExportError, match="no network"):
        covers(simplify(model), "fp16")


def test_half_precision_covers_the_chosen_nodes_and_nothing_else():
    simple = simplify(preprocessing_model())
    half = to_half(simple, {"conv"})
    kinds = [node.op_type for node in half.graph.node]
    assert kinds == ["Cast", "Add", "Cast", "Conv", "Cast", "Transpose", "MatMul"]
    weights = {i.name: i.data_type for i in half.graph.initializer}
    assert [kind for name, kind in weights.items() if "weight" in name and name.endswith("half")] == [
        TensorProto.FLOAT16
    ]
    assert_equal(simple, half, tolerance=2e-2)


def test_outputs_of_a_half_model_stay_float32():
    simple = simplify(preprocessing_model())
    half = to_half(simple, {"conv", "product"})
    assert [output.type.tensor_type.elem_type for output in half.graph.output] == [TensorProto.FLOAT]
    assert [output.name for output in half.graph.output] == ["map"]
    assert_equal(simple, half, tolerance=2e-2)


@pytest.mark.parametrize(("fixed", "lengths"), [(1, [1] * 5), (0, [1] * 5), (3, [3, 3]), (8, [8])])
def test_int8_is_calibrated_in_batches_that_the_model_takes(fixed, lengths):
    model = simplify(preprocessing_model())
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = fixed
    frames = np.arange(5 * 64, dtype=np.uint8).reshape(5, 1, 8, 8)
    batches = runs(model, frames)
    assert [len(batch) for batch in batches] == lengths
    assert np.array_equal(np.concatenate(batches)[:5], frames)
    assert np.array_equal(batches[-1][-1], frames[-1])
    if fixed == 1:
        assert "QuantizeLinear" in {node.op_type for node in quantised(model, {"conv"}, frames).graph.node}
