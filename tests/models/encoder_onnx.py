"""Writes BERT and DistilBERT encoders as ONNX graphs, the way `torch.onnx.export` spells them.

The tests compare compiled programs with onnxruntime on these graphs, so each is written from the definition of the
architecture and shares no code with the compiler. One encoder has many spellings, depending on the exporter's and the
opset's age; `Style` lists those that are written here. Node names follow the module paths, linear layers are MatMul
on a transposed weight followed by Add with the bias on the left, and small constants are Constant nodes.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT_MIN = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Style:
    """How one encoder is spelled. A dimension is a number when it is fixed and a name when it is symbolic."""

    opset: int = 14
    batch: int | str = 1
    seq: int | str = 128
    layer_norm: str = "decomposed"  # or "operator": LayerNormalization, opset 17
    gelu: str = "erf"  # or "operator": Gelu, opset 20
    token_types: str = "input"  # or "buffer": zeros kept in the model, sliced and expanded
    positions: str = "slice"  # of a constant [1, max]; or "range"
    mask: str = "mul"  # (1 - mask) * min; or "where": expanded to [batch, 1, seq, seq], then filled
    scale: str = "div"  # scores / sqrt(d); or "both": query and key each by d^-1/4, as scaled_dot_product_attention does
    pooled: bool = False  # also write the mean over the mask, normalized: sentence_embedding
    data_file: str | None = None  # weights of 1 KiB and more go to this file beside the model


@dataclass(frozen=True)
class Encoder:
    """Sizes of an encoder and its weights under the names that Hugging Face gives them, without a model prefix."""

    layers: int
    hidden: int
    heads: int
    epsilon: float
    activation: str  # "gelu" or "gelu_new"
    weights: dict[str, np.ndarray]
    bert_pooler: bool = False


class GraphWriter:
    """Nodes and initializers in order. `scope` is the module path that prefixes the names of new nodes."""

    def __init__(self, style):
        self.style, self.scope = style, ""
        self.nodes, self.initializers, self.used = [], {}, {}

    def op(self, op_type, *inputs, **attributes):
        """Adds a node and returns the name of its only output."""
        path = f"{self.scope}/{op_type}"
        count = self.used[path] = self.used.get(path, -1) + 1
        name = f"{path}_{count}" if count else path
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}_output_0"], name=name, **attributes))
        return f"{name}_output_0"

    def constant(self, value, dtype):
        return self.op("Constant", value=numpy_helper.from_array(np.array(value, dtype)))

    def f32(self, value):
        return self.constant(value, np.float32)

    def i64(self, value):
        return self.constant(value, np.int64)

    def weight(self, name, array):
        self.initializers.setdefault(name, np.ascontiguousarray(array))
        return name

    def unsqueeze(self, x, axis):
        return self.op("Unsqueeze", x, self.i64([axis]))

    def size(self, x, axis, known):
        """The size of one axis of `x`: the number where it is known, else a scalar tensor read from its shape."""
        return known if isinstance(known, int) else self.op("Gather", self.op("Shape", x), self.i64(axis), axis=0)

    def shape(self, sizes):
        """A shape tensor from numbers and scalar tensors."""
        if all(isinstance(s, int) for s in sizes):
            return self.i64(sizes)
        parts = [self.i64([s]) if isinstance(s, int) else self.unsqueeze(s, 0) for s in sizes]
        return self.op("Concat", *parts, axis=0)

    def expand(self, x, sizes):
        """`Tensor.expand`: the exporter replaces sizes of -1 by 1 in the graph, whether or not there are any."""
        shape = self.shape(sizes)
        if all(isinstance(s, int) for s in sizes):
            return self.op("Expand", x, shape)
        ones = self.op("ConstantOfShape", self.op("Shape", shape), value=numpy_helper.from_array(np.array([1])))
        keep = self.op("Equal", shape, self.op("Mul", ones, self.i64(-1)))
        return self.op("Expand", x, self.op("Where", keep, ones, shape))

    def reduce(self, op_type, x, axis):
        """ReduceMean and ReduceL2 take their axes as an input from opset 18 on, ReduceSum from 13 on."""
        if self.style.opset >= 18 or op_type == "ReduceSum":
            return self.op(op_type, x, self.i64([axis]), keepdims=1)
        return self.op(op_type, x, axes=[axis], keepdims=1)

    def linear(self, encoder, module, x):
        weight = self.weight(f"onnx::MatMul_{module}.weight", encoder.weights[f"{module}.weight"].T)
        return self.op("Add", self.weight(f"{module}.bias", encoder.weights[f"{module}.bias"]), self.op("MatMul", x, weight))

    def layer_norm(self, encoder, module, x):
        gamma, beta = (self.weight(f"{module}.{p}", encoder.weights[f"{module}.{p}"]) for p in ("weight", "bias"))
        if self.style.layer_norm == "operator":
            return self.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=encoder.epsilon)
        centred = self.op("Sub", x, self.reduce("ReduceMean", x, -1))
        variance = self.reduce("ReduceMean", self.op("Pow", centred, self.f32(2.0)), -1)
        deviation = self.op("Sqrt", self.op("Add", variance, self.f32(encoder.epsilon)))
        return self.op("Add", self.op("Mul", self.op("Div", centred, deviation), gamma), beta)

    def activation(self, encoder, x):
        if encoder.activation == "gelu_new":  # the tanh form, as transformers' NewGELUActivation computes it
            cubic = self.op("Mul", self.op("Pow", x, self.f32(3.0)), self.f32(0.044715))
            inner = self.op("Mul", self.op("Add", x, cubic), self.f32(math.sqrt(2.0 / math.pi)))
            bracket = self.op("Add", self.op("Tanh", inner), self.f32(1.0))
            return self.op("Mul", self.op("Mul", x, self.f32(0.5)), bracket)
        if self.style.gelu == "operator":
            return self.op("Gelu", x, approximate="none")
        bracket = self.op("Add", self.op("Erf", self.op("Div", x, self.f32(math.sqrt(2.0)))), self.f32(1.0))
        return self.op("Mul", self.op("Mul", x, bracket), self.f32(0.5))

    def embed(self, encoder, table, ids):
        return self.op("Gather", self.weight(f"{table}.weight", encoder.weights[f"{table}.weight"]), ids)

    def finish(self, name, inputs, outputs):
        """The checked model. `outputs` maps a public name to (value, shape)."""
        self.scope = ""
        for public, (value, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [public], name=f"/Identity_{public}"))
        style = self.style
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(i, TensorProto.INT64, [style.batch, style.seq]) for i in inputs],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, shape) for o, (_, shape) in outputs.items()],
            initializer=[numpy_helper.from_array(a, n) for n, a in self.initializers.items()],
        )
        opsets = [helper.make_opsetid("", style.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="encoder_onnx.py")


def position_ids(g, encoder, table, ids):
    """The numbers from 0 up to seq as [1, seq], by slicing a constant or by Range."""
    seq = g.size(ids, 1, g.style.seq)
    if g.style.positions == "range":
        end = g.i64(seq) if isinstance(seq, int) else seq
        return g.unsqueeze(g.op("Range", g.i64(0), end, g.i64(1)), 0)
    longest = encoder.weights[f"{table}.weight"].shape[0]
    every = g.weight("embeddings.position_ids", np.arange(longest, dtype=np.int64)[None])
    return g.op("Slice", every, g.i64([0]), g.shape([seq]), g.i64([1]), g.i64([1]))


def heads_first(g, encoder, x, batch, seq, perm):
    """[batch, seq, hidden] -> [batch, heads, seq, hidden / heads], or as `perm` says."""
    split = g.shape([batch, seq, encoder.heads, encoder.hidden // encoder.heads])
    return g.op("Transpose", g.op("Reshape", x, split), perm=perm)


def bert(encoder, style):
    """BertModel: post-norm transformer encoder of Devlin et al. 2018. Outputs last_hidden_state [batch, seq, hidden]."""
    g = GraphWriter(style)
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if style.token_types == "input" else [])
    ids = "input_ids"

    g.scope = "/embeddings"
    token_types = "token_type_ids"
    if style.token_types == "buffer":
        buffer = g.weight("embeddings.token_type_ids", np.zeros((1, 512), np.int64))
        batch, seq = g.size(ids, 0, style.batch), g.size(ids, 1, style.seq)
        row = g.op("Slice", buffer, g.i64([0]), g.shape([seq]), g.i64([1]), g.i64([1]))
        token_types = g.expand(row, [batch, seq])
    words = g.embed(encoder, "embeddings.word_embeddings", ids)
    types = g.embed(encoder, "embeddings.token_type_embeddings", token_types)
    table = "embeddings.position_embeddings"
    places = g.embed(encoder, table, position_ids(g, encoder, table, ids))
    x = g.op("Add", g.op("Add", words, types), places)
    g.scope = "/embeddings/LayerNorm"
    x = g.layer_norm(encoder, "embeddings.LayerNorm", x)

    g.scope = ""
    bias = g.unsqueeze(g.unsqueeze("attention_mask", 1), 2)
    if style.mask == "where":
        batch, seq = g.size(ids, 0, style.batch), g.size(ids, 1, style.seq)
        bias = g.expand(bias, [batch, 1, seq, seq])
    bias = g.op("Sub", g.f32(1.0), g.op("Cast", bias, to=TensorProto.FLOAT))
    if style.mask == "where":
        bias = g.op("Where", g.op("Cast", bias, to=TensorProto.BOOL), g.f32(FLOAT_MIN), bias)
    else:
        bias = g.op("Mul", bias, g.f32(FLOAT_MIN))

    width = encoder.hidden // encoder.heads
    for layer in range(encoder.layers):
        module = f"encoder.layer.{layer}"
        scope = f"/encoder/layer.{layer}"
        projected = {}
        for name, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            g.scope = f"{scope}/attention/self/{name}"
            flat = g.linear(encoder, f"{module}.attention.self.{name}", x)
            g.scope = f"{scope}/attention/self"
            batch, seq = g.size(flat, 0, style.batch), g.size(flat, 1, style.seq)
            projected[name] = heads_first(g, encoder, flat, batch, seq, perm)
        query, key, value = projected["query"], projected["key"], projected["value"]
        if style.scale == "both":
            query, key = (g.op("Mul", p, g.f32(width**-0.25)) for p in (query, key))
        scores = g.op("MatMul", query, key)
        if style.scale == "div":
            scores = g.op("Div", scores, g.f32(math.sqrt(width)))
        weights = g.op("Softmax", g.op("Add", scores, bias), axis=-1)
        context = g.op("Transpose", g.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        batch, seq = g.size(context, 0, style.batch), g.size(context, 1, style.seq)
        context = g.op("Reshape", context, g.shape([batch, seq, encoder.hidden]))
        x = feed_through(g, encoder, f"{module}.attention.output", f"{scope}/attention/output", context, x)
        g.scope = f"{scope}/intermediate/dense"
        inner = g.linear(encoder, f"{module}.intermediate.dense", x)
        g.scope = f"{scope}/intermediate/intermediate_act_fn"
        inner = g.activation(encoder, inner)
        x = feed_through(g, encoder, f"{module}.output", f"{scope}/output", inner, x)

    outputs = {"last_hidden_state": (x, [style.batch, style.seq, encoder.hidden])}
    if encoder.bert_pooler:
        g.scope = "/pooler"
        first = g.op("Gather", x, g.i64(0), axis=1)
        weight, offset = (g.weight(f"pooler.dense.{p}", encoder.weights[f"pooler.dense.{p}"]) for p in ("weight", "bias"))
        pooled = g.op("Tanh", g.op("Gemm", first, weight, offset, alpha=1.0, beta=1.0, transB=1))
        outputs["pooler_output"] = (pooled, [style.batch, encoder.hidden])
    if style.pooled:
        outputs["sentence_embedding"] = (mean_pool(g, x), [style.batch, encoder.hidden])
    return g.finish("main_graph", inputs, outputs)


def feed_through(g, encoder, module, scope, x, residual):
    """BertSelfOutput and BertOutput: a linear layer, the residual, and a layer norm."""
    g.scope = f"{scope}/dense"
    x = g.linear(encoder, f"{module}.dense", x)
    g.scope = scope
    x = g.op("Add", x, residual)
    g.scope = f"{scope}/LayerNorm"
    return g.layer_norm(encoder, f"{module}.LayerNorm", x)


def mean_pool(g, x):
    """sentence-transformers' Pooling (mean over the tokens that the mask keeps) and Normalize (to length 1)."""
    g.scope = "/pooling"
    shape = g.op("Shape", x)
    mask = g.op("Cast", g.op("Expand", g.unsqueeze("attention_mask", -1), shape), to=TensorProto.FLOAT)
    total = g.op("ReduceSum", g.op("Mul", x, mask), g.i64([1]), keepdims=0)
    count = g.op("Clip", g.op("ReduceSum", mask, g.i64([1]), keepdims=0), g.f32(1e-9))
    mean = g.op("Div", total, count)
    g.scope = "/normalize"
    length = g.op("Clip", g.reduce("ReduceL2", mean, 1), g.f32(1e-12))
    return g.op("Div", mean, g.op("Expand", length, g.op("Shape", mean)))


def distilbert(encoder, style):
    """DistilBertModel (Sanh et al. 2019): no token types and no pooler; the query is scaled and the mask filled in."""
    g = GraphWriter(style)
    ids = "input_ids"
    g.scope = "/embeddings"
    words = g.embed(encoder, "embeddings.word_embeddings", ids)
    table = "embeddings.position_embeddings"
    x = g.op("Add", words, g.embed(encoder, table, position_ids(g, encoder, table, ids)))
    g.scope = "/embeddings/LayerNorm"
    x = g.layer_norm(encoder, "embeddings.LayerNorm", x)

    width = encoder.hidden // encoder.heads
    for layer in range(encoder.layers):
        module, scope = f"transformer.layer.{layer}", f"/transformer/layer.{layer}"
        g.scope = f"{scope}/attention"
        batch, seq = g.size(x, 0, style.batch), g.size(x, 1, style.seq)
        projected = []
        for name, perm in (("q_lin", [0, 2, 1, 3]), ("k_lin", [0, 2, 3, 1]), ("v_lin", [0, 2, 1, 3])):
            g.scope = f"{scope}/attention/{name}"
            flat = g.linear(encoder, f"{module}.attention.{name}", x)
            g.scope = f"{scope}/attention"
            projected.append(heads_first(g, encoder, flat, batch, -1, perm))
        query, key, value = projected
        scores = g.op("MatMul", g.op("Div", query, g.f32(math.sqrt(width))), key)
        hidden = g.op("Reshape", g.op("Equal", "attention_mask", g.i64(0)), g.shape([batch, 1, 1, seq]))
        hidden = g.op("Expand", hidden, g.op("Shape", scores))
        weights = g.op("Softmax", g.op("Where", hidden, g.f32(FLOAT_MIN), scores), axis=-1)
        context = g.op("Transpose", g.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        context = g.op("Reshape", context, g.shape([batch, -1, encoder.hidden]))
        g.scope = f"{scope}/attention/out_lin"
        attended = g.linear(encoder, f"{module}.attention.out_lin", context)
        g.scope = scope
        attended = g.op("Add", attended, x)
        g.scope = f"{scope}/sa_layer_norm"
        x = g.layer_norm(encoder, f"{module}.sa_layer_norm", attended)
        g.scope = f"{scope}/ffn/lin1"
        inner = g.linear(encoder, f"{module}.ffn.lin1", x)
        g.scope = f"{scope}/ffn/activation"
        inner = g.activation(encoder, inner)
        g.scope = f"{scope}/ffn/lin2"
        inner = g.linear(encoder, f"{module}.ffn.lin2", inner)
        g.scope = scope
        inner = g.op("Add", inner, x)
        g.scope = f"{scope}/output_layer_norm"
        x = g.layer_norm(encoder, f"{module}.output_layer_norm", inner)
    shape = [style.batch, style.seq, encoder.hidden]
    return g.finish("main_graph", ["input_ids", "attention_mask"], {"last_hidden_state": (x, shape)})


def save(model, path, style):
    """Writes the model, then checks the file with ONNX's own checker and its shape inference."""
    if style.data_file is None:
        onnx.save(model, path)
    else:
        (path.parent / style.data_file).unlink(missing_ok=True)  # ONNX appends to an existing data file
        onnx.save(
            model,
            path,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=style.data_file,
            size_threshold=1024,
            convert_attribute=False,
        )
    onnx.checker.check_model(str(path), full_check=True)
