"""Layer names as the author of the model knows them.

1. Every activation gets a unique one. Where several tensors belong to one layer, the last one has the plain name and
   the others ``layer/OpType``.
2. Keras through tf2onnx, TFLite: the path without the model's own scope, without the operators inside the layer and
   without the number that Keras 3 appends to every scope (only where all scopes have one and dropping it leaves them
   distinct): ``resnet101_1/conv4_block4_out_1/Relu:0`` is ``conv4_block4_out``.
3. PyTorch: the module's path, ``/layer1/layer1.0/conv1/Conv_output_0`` is ``layer1.0.conv1``.
4. A tensor with a generated name (``245``, ``Conv__115:0``) takes its layer from the node's name or from the names of
   its weights, or is named after its operator: ``Conv_245``.
5. A tensor that a rewrite added belongs to the layer of the tensor that it derives from (``net.DERIVED``).
6. Any other name is its own layer name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from graphcut.errors import UsageError
from graphcut.graph.net import DERIVED
from graphcut.records import Graph, Node

Path = tuple[str, ...]

# fmt: off
OPERATORS = frozenset({
    "add", "addv2", "avgpool", "avgpool2d", "batch", "batchnorm", "biasadd", "by", "cast", "clip", "concat",
    "concatv2", "conv", "conv2d", "conv2dtranspose", "convolution", "depthwise", "depthwiseconv2dnative", "dims",
    "div", "dropout", "einsum", "elu", "exp", "expand", "expanddims", "fusedbatchnorm", "fusedbatchnormv2",
    "fusedbatchnormv3", "gather", "gelu", "gemm", "globalaveragepool", "hard", "identity", "input", "leaky",
    "leakyrelu", "matmul", "max", "maximum", "maxpool", "maxpool2d", "mean", "merged", "min", "minimum",
    "mirrorpad", "moments", "mul", "neg", "norm", "pack", "pad", "padv2", "pow", "prelu", "readvariableop",
    "realdiv", "reciprocal", "relu", "relu6", "reshape", "resize", "resizebilinear", "resizenearestneighbor",
    "rsqrt", "selu", "separable", "shape", "sigmoid", "slice", "softmax", "split", "sqrt", "square", "squeeze",
    "stack", "strided", "stridedslice", "sub", "sum", "swish", "tanh", "tensordot", "tile", "transpose", "truediv",
    "value",
})
# fmt: on
"""Words that occur in the names of TensorFlow's operators and of the scopes inside its layers."""

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"})
ACTIVATIONS = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "HardSigmoid", "Elu", "PRelu"})
CALLS = ("StatefulPartitionedCall", "PartitionedCall")
NUMBERED_SHARE = 0.9
SCOPE_SHARE = 0.8

TORCH = re.compile(r"^/(?:(?P<modules>.+)/)?(?P<op>[A-Z][A-Za-z0-9]*(?:_\d+)?)(?:_output_\d+)?$")
OPAQUE = re.compile(r"^(?:[A-Za-z]{0,2}\d+|(?P<op>[A-Z][A-Za-z0-9]*)__\d+)$")
NAMELESS_OUTPUT = re.compile(r"^(?:\d+|[A-Z][A-Za-z0-9]*__\d+)(?::\d+)?$")
"""Names that exporters generate; ``p3`` and ``o2`` are names that authors give outputs."""

PARAMETER = re.compile(
    r"(?:[._/](?:weights?|bias|kernel|gamma|beta|running_mean|running_var|moving_mean|moving_variance|[wWbB])(?:_\d+)*)+$"
)
NUMBER = re.compile(r"_\d+$")


def layer_names(
    nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str] = (), modules: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Tensor -> layer name for every activation (module, statements 1 to 6); linear in the graph's size.

    Args:
        nodes: in topological order.
        inputs: the model's inputs, which keep their names.
        outputs: the model's outputs; one with a name of its own keeps it.
        modules: tensor -> path of the module that produces it ("layer1.0.conv1"), where the file gives one.
    """
    stems = {output: output.split(DERIVED, maxsplit=1)[0] for node in nodes for output in node.outputs}
    modules = modules or {}
    paths = {
        output: path for node in nodes for output in node.outputs if (path := _tf_path(node, stems[output])) is not None
    }
    tf_names = _tf_layers(paths)
    layers: dict[str, str] = {name: name for name in inputs}
    for node in nodes:
        for output in node.outputs:
            if not output:
                continue
            stem = stems[output]
            if stem in outputs and NAMELESS_OUTPUT.match(stem) is None and "/" not in stem:
                layers[output] = stem
            elif stem in modules:
                layers[output] = modules[stem]
            elif output in tf_names:
                layers[output] = tf_names[output]
            else:
                layers[output] = _other_layer(node, stem, layers)
    return _unique(nodes, inputs, layers)


def resolve(graph: Graph, name: str) -> str:
    """The tensor that a user means by a layer name or a tensor name (with or without ``:0``).

    Raises:
        UsageError: no activation has that name; the error names the closest.
    """
    if name in graph.tensors:
        return name
    by_layer = {layer: tensor for tensor, layer in graph.layers.items()}
    for known in (name, name.removesuffix(":0")):
        if known in by_layer:
            return by_layer[known]
    if f"{name}:0" in graph.tensors:
        return f"{name}:0"
    close = get_close_matches(name, [*by_layer, *graph.tensors], n=3, cutoff=0.6)
    shown = list(dict.fromkeys(graph.layers.get(match, match) for match in close))
    raise UsageError(
        f"the model has no layer or tensor {name!r}",
        f"did you mean {' or '.join(shown)}?" if shown else "`graphcut inspect MODEL` lists them",
    )


def _clean(name: str) -> str:
    """A TensorFlow tensor's name without what exporters add."""
    first = name.split(";", maxsplit=1)[0]
    first = re.sub(r":\d+(?:_\d+)?$", "", first)
    first = re.sub(r"__\d+$", "", first)
    return first.removesuffix("_prequant")


def _is_opaque(name: str) -> bool:
    return OPAQUE.match(re.sub(r":\d+$", "", name)) is not None


def _tf_path(node: Node, output: str) -> Path | None:
    """The scopes of a tensor's TensorFlow name, or of the names of its weights where its own is generated."""
    names: list[str] = [output]
    if _is_opaque(output) and node.op_type in WEIGHTED:
        names += [name for name in (*node.inputs[2:3], *node.inputs[1:2]) if name]
    for name in names:
        cleaned = _clean(name)
        if "/" in cleaned and not cleaned.startswith("/"):
            parts = tuple(part for part in cleaned.split("/") if part and part not in CALLS)
            if name != output:
                parts = tuple(PARAMETER.sub("", "/".join(("", *parts))).strip("/").split("/"))
            if any(parts):
                return parts
    return None


def _tf_layers(paths: Mapping[str, Path]) -> dict[str, str]:
    """Tensor -> layer name for all tensors with TensorFlow paths (statement 2)."""
    bare = _without_model_scope(paths)
    containers = {
        path[:depth] for path in bare.values() for depth in range(len(path)) if not _is_operator(path[depth])
    } | {()}
    layers: dict[str, Path] = {}
    for tensor, path in bare.items():
        depth = len(path)
        while depth > 1 and _is_operator(path[depth - 1]) and path[: depth - 1] not in containers:
            depth -= 1
        layers[tensor] = path[:depth]
    shorter = _without_numbers(set(layers.values()))
    return {tensor: "/".join(shorter[layer]) for tensor, layer in layers.items()}


def _is_operator(part: str) -> bool:
    words = [word for word in part.lower().split("_") if word and not word.isdigit()]
    return bool(words) and all(word in OPERATORS for word in words)


def _without_model_scope(paths: Mapping[str, Path]) -> dict[str, Path]:
    """The paths without the scopes that (nearly) all of them share."""
    bare = dict(paths)
    while bare:
        first, count = Counter(path[0] for path in bare.values()).most_common(1)[0]
        inner = [path[1:] for path in bare.values() if path[0] == first]
        if count < SCOPE_SHARE * len(bare) or any(not path for path in inner):
            break
        if all(_is_operator(path[0]) for path in inner):
            break
        bare = {tensor: path[1:] if path[0] == first else path for tensor, path in bare.items()}
    return bare


def _without_numbers(layers: set[Path]) -> dict[Path, Path]:
    """The layers without Keras 3's numbers, where that leaves them distinct (statement 2)."""
    numbered = [layer for layer in layers if all(NUMBER.search(part) for part in layer)]
    shorter = {layer: tuple(NUMBER.sub("", part) for part in layer) for layer in numbered}
    whole = {layer: shorter.get(layer, layer) for layer in layers}
    if len(numbered) < NUMBERED_SHARE * len(layers) or len(set(whole.values())) < len(layers):
        return {layer: layer for layer in layers}
    return whole


def _other_layer(node: Node, output: str, layers: Mapping[str, str]) -> str:
    for name in (output, node.name) if _is_opaque(output) else (output,):
        match = TORCH.match(name)
        if match is not None:
            return _module_path(match["modules"] or "", match["op"])
    if not _is_opaque(output):
        return output.removesuffix(":0") or output
    if node.op_type in WEIGHTED:
        for name in (*node.inputs[2:3], *node.inputs[1:2]):
            shorter = PARAMETER.sub("", re.sub(r"(?<=[a-z])_\d+$", "", name))
            if shorter and shorter != name and "::" not in name:
                return shorter
    bare = output.removesuffix(":0")
    made_by_tf2onnx = "__" in bare
    if made_by_tf2onnx and node.op_type in ACTIVATIONS and node.inputs[0] in layers:
        return layers[node.inputs[0]]
    return bare.replace("__", "_") if made_by_tf2onnx else f"{node.op_type}_{bare}"


def _module_path(modules: str, operator: str) -> str:
    """``layer1/layer1.0/conv1`` -> ``layer1.0.conv1``; the operator itself where it is in no module."""
    path: list[str] = []
    for part in modules.split("/") if modules else ():
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path) or operator


def _unique(nodes: Sequence[Node], inputs: Sequence[str], layers: Mapping[str, str]) -> dict[str, str]:
    """Layer names made unique: the last tensor of a layer has the plain name (statement 1)."""
    last: dict[str, str] = {}
    for tensor, _ in _activations(nodes, inputs):
        last[layers[tensor]] = tensor
    for name in inputs:
        last[name] = name
    taken = set(last)
    unique: dict[str, str] = {}
    for tensor, op_type in _activations(nodes, inputs):
        layer = layers[tensor]
        if last[layer] == tensor:
            unique[tensor] = layer
            continue
        name, number = f"{layer}/{op_type}", 1
        while name in taken:
            number += 1
            name = f"{layer}/{op_type}_{number}"
        taken.add(name)
        unique[tensor] = name
    return unique


def _activations(nodes: Iterable[Node], inputs: Iterable[str]) -> Iterator[tuple[str, str]]:
    yield from ((name, "Input") for name in inputs)
    yield from ((output, node.op_type) for node in nodes for output in node.outputs if output)
