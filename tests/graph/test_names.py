"""Layer names from the names that real exporters write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcut.errors import UsageError
from graphcut.graph.names import layer_names, resolve
from graphcut.records import Graph, Node, Tensor


def chain(
    *outputs: str, ops: dict[str, str] | None = None, reads: dict[str, tuple[str, ...]] | None = None
) -> list[Node]:
    """Nodes one after the other that make these tensors; Relu and no weights unless said."""
    before, nodes = "input", []
    for name in outputs:
        nodes.append(
            Node(
                name=f"node of {name}",
                op_type=(ops or {}).get(name, "Relu"),
                inputs=(before, *(reads or {}).get(name, ())),
                outputs=(name,),
                attributes={},
            )
        )
        before = name
    return nodes


def names(nodes: list[Node], outputs: tuple[str, ...] = ()) -> list[str]:
    layers = layer_names(nodes, ("input",), outputs)
    return [layers[output] for node in nodes for output in node.outputs]


def test_keras_3_names_lose_the_model_and_the_number() -> None:
    nodes = chain(
        "resnet101_1/conv1_bn_1/batchnorm/mul_1:0",
        "resnet101_1/conv1_relu_1/Relu:0",
        "resnet101_1/pool1_pool_1/MaxPool2d:0",
        "resnet101_1/conv4_block4_out_1/Relu:0",
        "resnet101_1/predictions_1/MatMul:0",
        "predictions",
    )
    assert names(nodes, ("predictions",)) == [
        "conv1_bn",
        "conv1_relu",
        "pool1_pool",
        "conv4_block4_out",
        "predictions/Relu",
        "predictions",
    ]


def test_keras_3_numbers_of_layers_that_are_numbered_themselves() -> None:
    nodes = chain(*[f"net_1/{scope}/Relu:0" for scope in ("activation_1", "activation_1_2", "activation_2_1")])
    assert names(nodes) == ["activation", "activation_1", "activation_2"]


def test_keras_2_numbers_belong_to_the_layers() -> None:
    nodes = chain("model/activation/Relu:0", "model/activation_1/Relu:0", "model/conv2d_2/BiasAdd:0", "model/add/add:0")
    assert names(nodes) == ["activation", "activation_1", "conv2d_2", "add"]
    numbered = chain(*[f"model_1/activation_{number}/Relu:0" for number in range(1, 30)])
    assert names(numbered)[:2] == ["activation_1", "activation_2"]


def test_several_tensors_of_one_layer() -> None:
    ops = {"m_1/act_1/Sigmoid:0": "Sigmoid", "m_1/act_1/mul_1:0": "Mul"}
    nodes = chain(*ops, "m_1/next_1/Relu:0", ops=ops)
    assert names(nodes) == ["act/Sigmoid", "act", "next"]


def test_nested_keras_models_keep_their_path() -> None:
    nodes = chain("app_1/backbone_1/conv_1/Relu:0", "app_1/backbone_1/pool_1/MaxPool2d:0", "app_1/head_1/MatMul:0")
    assert names(nodes) == ["backbone/conv", "backbone/pool", "head"]


def test_a_nameless_conv_is_called_after_its_bias_or_weights() -> None:
    reads = {
        "Conv__115:0": ("net_1/conv1_conv_1/convolution/merged_input:0", "net_1/conv1_bn_1/batchnorm/sub:0"),
        "Conv__116:0": ("net_1/conv2_conv_1/convolution/ReadVariableOp:0",),
    }
    ops = dict.fromkeys(reads, "Conv")
    nodes = chain("Conv__115:0", "net_1/relu1_1/Relu:0", "Conv__116:0", ops=ops, reads=reads)
    assert names(nodes) == ["conv1_bn", "relu1", "conv2_conv"]


def test_tflite_names_and_their_nameless_activations() -> None:
    long = "MobileNetV2/expanded_conv_1/depthwise/relu6/Relu6;StatefulPartitionedCall/MobileNetV2/x/y_prequant"
    project = "MobileNetV2/expanded_conv_1/project/batch_norm/FusedBatchNormV3;StatefulPartitionedCall/z1_prequant"
    first = "MobileNetV2/Conv2d_0_0/relu6/Relu6;StatefulPartitionedCall/q_prequant"
    ops = {first: "Conv", long: "Conv", "Relu6__7:0": "Clip", project: "Conv"}
    assert names(chain(*ops, ops=ops)) == [
        "Conv2d_0_0",
        "expanded_conv_1/depthwise/Conv",
        "expanded_conv_1/depthwise",
        "expanded_conv_1/project",
    ]


def test_torch_modules() -> None:
    ops = {
        "/layer1/layer1.0/Add_output_0": "Add",
        "/layer1/layer1.0/relu_1/Relu_output_0": "Relu",
        "/Flatten_output_0": "Flatten",
    }
    nodes = chain(
        "/conv1/Conv_output_0",
        "/layer1/layer1.0/conv1/Conv_output_0",
        "/m/encoder/stages.0/layers/layers.1/layer/layer.0/convolution/Conv_output_0",
        *ops,
        ops=ops,
    )
    assert names(nodes) == [
        "conv1",
        "layer1.0.conv1",
        "m.encoder.stages.0.layers.1.layer.0.convolution",
        "layer1.0",
        "layer1.0.relu_1",
        "Flatten",
    ]


def test_torch_outputs_take_the_module_of_their_node() -> None:
    node = Node(
        name="/classifier/classifier.1/Gemm", op_type="Gemm", inputs=("input",), outputs=("926",), attributes={}
    )
    assert names([node], ("926",)) == ["classifier.1"]


def test_numbers_keep_their_operator_or_take_their_weights_module() -> None:
    reads = {"246": ("base_net.0.0.weight_2", "base_net.0.0.weight_bias"), "249": ("onnx::Conv_7", "onnx::Conv_8")}
    nodes = chain("246", "247", "249", ops={"246": "Conv", "249": "Conv"}, reads=reads)
    assert names(nodes) == ["base_net.0.0", "Relu_247", "Conv_249"]


def test_plain_names_stay() -> None:
    assert names(chain("resnetv17_stage1_conv0_fwd", "flatten_473", "out"), ("out",)) == [
        "resnetv17_stage1_conv0_fwd",
        "flatten_473",
        "out",
    ]


def test_modules_that_the_file_names_win() -> None:
    nodes = chain("conv2d_1", "relu_1")
    layers = layer_names(nodes, ("input",), (), {"conv2d_1": "layer1.0.conv1"})
    assert layers["conv2d_1"] == "layer1.0.conv1"
    assert layers["relu_1"] == "relu_1"


PIECES = st.sampled_from(
    ["a", "b_1", "Conv2D", "Relu", "mul_1", "12", "x1", "layer1.0", "Conv_output_0", "", ":0", "/"]
)


@given(st.lists(st.lists(PIECES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12, unique=True))
def test_names_are_always_unique_and_never_empty(outputs: list[str]) -> None:
    outputs = [name for name in outputs if name not in ("", "input")]
    layers = layer_names(chain(*outputs), ("input",))
    assert set(layers) == {"input", *outputs}
    assert len(set(layers.values())) == len(layers)
    assert all(layers.values())
    assert layers["input"] == "input"


def graph_of(**layers: str) -> Graph:
    tensors = {name: Tensor(name=name, shape=(1, 4), dtype="float32") for name in layers}
    return Graph(nodes=(), inputs=(), outputs=(), tensors=tensors, weights={}, layers=layers)


def test_both_kinds_of_names_resolve() -> None:
    graph = graph_of(**{"net_1/conv4_block4_out_1/Relu:0": "conv4_block4_out", "245": "Conv_245"})
    for name in ("conv4_block4_out", "net_1/conv4_block4_out_1/Relu:0", "net_1/conv4_block4_out_1/Relu"):
        assert resolve(graph, name) == "net_1/conv4_block4_out_1/Relu:0"
    assert resolve(graph, "245") == resolve(graph, "Conv_245") == "245"


def test_a_misspelt_name_is_answered_with_close_ones() -> None:
    graph = graph_of(**{"net_1/conv4_block4_out_1/Relu:0": "conv4_block4_out", "other": "other"})
    with pytest.raises(UsageError, match="conv4_block4_out"):
        resolve(graph, "conv4_block_4_out")
    with pytest.raises(UsageError, match="graphcut inspect"):
        resolve(graph, "zzz")


def test_outputs_keep_short_names_that_their_author_gave() -> None:
    """Of a pyramid: P3, p4; what a tracer numbers is called after its operator."""
    nodes = [
        Node(name=f"n{each}", op_type="Conv", inputs=("input",), outputs=(each,), attributes={})
        for each in ("P3", "p4", "o2", "245", "Conv__7:0")
    ]
    layers = layer_names(nodes, ("input",), ("P3", "p4", "o2", "245", "Conv__7:0"))
    assert list(layers.values()) == ["input", "P3", "p4", "o2", "Conv_245", "Conv_7"]
