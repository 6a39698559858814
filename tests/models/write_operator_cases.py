#!/usr/bin/env python3
"""Writes models that try every supported ONNX operator with every element type, and what onnxruntime computes for them.

    write_operator_cases.py OUT

Reads operators.json, the table of supported operators, and fails for an operator without a recipe (operator_recipes.py).
For every operator and element type, `OUT/onnx-ops/OPERATOR.TYPE.SET/` holds `model.onnx` with one node for each variant, and
`data.npz` as write_node_cases.py has it; SET is the operator set. The judge is named as the model's producer:

    onnxruntime             onnxruntime's kernel for that element type
    onnxruntime, 32 bits    where it has none for 16 bits: its kernel for 32, the results converted to the type
    onnx.reference          the onnx package's reference, where onnxruntime has neither
    numpy                   what stands in PLAIN below, where those are wrong or compute binary64 in binary32
"""

import json
import math
import os
import pathlib
import shutil
import sys
import warnings
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
warnings.simplefilter("ignore")

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from operator_recipes import NUMPY, RECIPES, Source, Variant  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
IR_VERSION = 8
# Relative and absolute, by element type: a few roundings, and sums in another order.
TOLERANCE = {
    "float16": (4e-3, 4e-3),
    "bfloat16": (3e-2, 3e-2),
    "float32": (2e-5, 2e-6),
    "float64": (1e-12, 1e-13),
}
# Element types of 16 bits as those of 32.
WIDER = {
    TensorProto.FLOAT16: TensorProto.FLOAT,
    TensorProto.BFLOAT16: TensorProto.FLOAT,
    TensorProto.INT16: TensorProto.INT32,
    TensorProto.UINT16: TensorProto.UINT32,
}
# Binary64 as binary32, and all integers and truth values as integers of 32 bits: the numbers in the recipes are small.
SINGLE = WIDER | {
    TensorProto.DOUBLE: TensorProto.FLOAT,
    TensorProto.INT8: TensorProto.INT32,
    TensorProto.UINT8: TensorProto.INT32,
    TensorProto.UINT16: TensorProto.INT32,
    TensorProto.UINT32: TensorProto.INT32,
    TensorProto.INT64: TensorProto.INT32,
    TensorProto.UINT64: TensorProto.INT32,
    TensorProto.BOOL: TensorProto.INT32,
}
# Operators whose reference does not compute all that ONNX says: binary64 is judged by the kernel for 32 bits.
PARTIAL_REFERENCE = ("ConvTranspose", "GRU", "GlobalMaxPool", "LRN", "LSTM", "RNN", "Resize")
# Operators of binary64 for which judges compute in part in binary32: the factor of scores, statistics, positions.
ROUNDED_INSIDE = ("Attention", "GroupNormalization", "Resize")


def erf(x):
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def gelu(x, approximate="none"):
    if approximate == "tanh":
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + erf(x / np.sqrt(2)))


def one_hot(indices, depth, values, axis=-1):
    axis = axis % (indices.ndim + 1)
    positions = np.expand_dims(np.where(indices < 0, indices + depth, indices), axis)
    steps = np.arange(int(depth)).reshape([-1 if i == axis else 1 for i in range(indices.ndim + 1)])
    return np.where(positions == steps, values[1], values[0])


# What neither onnxruntime nor the reference computes for some element types.
PLAIN_LAST = {"OneHot": one_hot}
# The reference's Mean does not broadcast; others compute these in binary32.
PLAIN = {
    ("Erf", np.float64): erf,
    ("Gelu", np.float64): gelu,
    ("Mean", np.float64): lambda *operands: np.mean(np.broadcast_arrays(*operands), axis=0),
}


class Unjudged(Exception):
    """No judge computes a variant."""


def build(op, variants, producer=""):
    """One model with a node for each variant, the arrays that go in, and the names of those that come out."""
    nodes, inputs, initializers, arrays, outputs = [], [], [], [], []
    for v, variant in enumerate(variants):
        names = []
        for i, operand in enumerate(variant.operands):
            name = "" if operand is None else f"v{v}_{i}"
            names.append(name)
            if operand is None:
                continue
            operand = np.asarray(operand)
            kind = helper.np_dtype_to_tensor_dtype(operand.dtype)
            if i in variant.const:
                initializers.append(numpy_helper.from_array(operand, name))
            else:
                inputs.append(helper.make_tensor_value_info(name, kind, operand.shape))
                arrays.append(operand)
        results = [f"v{v}_y{i}" for i in range(variant.results)]
        nodes.append(helper.make_node(op, names, results, name=f"v{v}", **variant.attributes))
        outputs += results
    infos = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, op, inputs, infos, initializers)
    opset = helper.make_opsetid("", variants[0].opset)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name=producer)
    return model, arrays, outputs


def result_kinds(model, otherwise):
    """Element types of the results; where onnx does not infer them, that of an operand."""
    try:
        model = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        pass
    return [o.type.tensor_type.elem_type or otherwise for o in model.graph.output]


def onnxruntime_results(model, arrays):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays)})


def kind_of(array):
    return helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)


def in_32_bits(variant, kinds):
    """The variant with some element types changed, for a kernel that there is for no others."""

    def wide(array):
        kind = None if array is None else kinds.get(kind_of(array))
        return array if kind is None else np.asarray(array).astype(helper.tensor_dtype_to_np_dtype(kind))

    def wide_attribute(value):
        if isinstance(value, TensorProto):
            return numpy_helper.from_array(wide(numpy_helper.to_array(value)), value.name)
        if isinstance(value, onnx.GraphProto):
            value = onnx.GraphProto.FromString(value.SerializeToString())
            for info in list(value.input) + list(value.output):
                kind = info.type.tensor_type.elem_type
                info.type.tensor_type.elem_type = kinds.get(kind, kind)
            for node in value.node:
                for attribute in node.attribute:
                    if attribute.HasField("t"):
                        attribute.t.CopyFrom(wide_attribute(attribute.t))
        return value

    attributes = {k: wide_attribute(v) for k, v in variant.attributes.items()}
    # What has to be known when compiling is a size or a position.
    sizes = (np.int32, np.int64)
    operands = [o if i in variant.const and np.asarray(o).dtype in sizes else wide(o) for i, o in enumerate(variant.operands)]
    return Variant(*operands, const=variant.const, results=variant.results, opset=variant.opset, **attributes)


def judged(op, variant):
    """Who computed the results of a variant, the results, and the tolerance."""
    model, arrays, _ = build(op, [variant])
    operands = [np.asarray(o) for o in variant.operands if o is not None]
    kinds = result_kinds(model, kind_of(operands[0]) if operands else TensorProto.FLOAT)
    dtypes = [helper.tensor_dtype_to_np_dtype(k) for k in kinds]
    dtype = operands[0].dtype if operands else dtypes[0]
    tolerance = TOLERANCE.get(dtype.name, TOLERANCE["float32"])
    plain = PLAIN.get((op, dtype.type))
    if plain:
        return "numpy", [np.asarray(plain(*operands, **variant.attributes))], tolerance
    all_kinds = [*kinds, *map(kind_of, operands)]

    if dtype == np.float64 and op in ROUNDED_INSIDE:
        tolerance = TOLERANCE["float32"]

    def by_onnxruntime():
        assert TensorProto.BFLOAT16 not in all_kinds, "numpy's interface has no bfloat16"
        return "onnxruntime", onnxruntime_results(model, arrays), tolerance

    def by_32_bits(changed):
        assert any(k in changed for k in all_kinds), "there is nothing to convert"
        single, arrays, _ = build(op, [in_32_bits(variant, changed)])
        results = onnxruntime_results(single, arrays)
        return "onnxruntime, 32 bits", converted(results), max(tolerance, TOLERANCE["float32"])

    def by_reference():
        reference = ReferenceEvaluator(model)
        results = reference.run(None, {i.name: a for i, a in zip(model.graph.input, arrays)})
        return "onnx.reference", converted(results), tolerance

    def converted(results):
        return [np.asarray(r).astype(d) for r, d in zip(results, dtypes)]

    def by_numpy():
        return "numpy", converted([PLAIN_LAST[op](*operands, **variant.attributes)]), tolerance

    judges = [by_onnxruntime, lambda: by_32_bits(WIDER), by_reference, lambda: by_32_bits(SINGLE), by_numpy]
    if op in PARTIAL_REFERENCE:
        judges.remove(by_reference)
    reasons = []
    for judge in judges:
        try:
            return judge()
        except Exception as e:
            reasons.append(e)
    text = "; ".join(str(r).splitlines()[0][:300] for r in reasons if str(r))
    shapes = [(o.dtype.name, o.shape) for o in operands]
    attributes = str(variant.attributes)[:300]
    raise Unjudged(f"{op} of {shapes} with {attributes}: nobody computes it: {text}")


def stored(array):
    return array.view("V2") if array.dtype == ml_dtypes.bfloat16 else array


def write(folder, op, judge, tolerance, variants):
    variants, results = zip(*variants)
    model, arrays, names = build(op, variants, producer=judge)
    expected = [r for rs in results for r in rs]
    for info, result in zip(model.graph.output, expected):
        kind = helper.np_dtype_to_tensor_dtype(np.asarray(result).dtype)
        info.CopyFrom(helper.make_tensor_value_info(info.name, kind, np.asarray(result).shape))
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    data = {"tolerance": np.array(tolerance)}
    data |= {f"in:{i}": stored(a) for i, a in enumerate(arrays)}
    data |= {f"out:{i}": stored(np.asarray(r)) for i, r in enumerate(expected)}
    np.savez(folder / "data.npz", **data)


def main():
    out = pathlib.Path(sys.argv[1]) / "onnx-ops"
    shutil.rmtree(out, ignore_errors=True)
    table = json.loads((HERE / "operators.json").read_text())
    missing = [rule["op"] for rule in table if rule["op"] not in RECIPES]
    if missing:
        raise SystemExit(f"no recipe in operator_recipes.py for {', '.join(missing)}")
    counts, unjudged = {}, []
    for rule in table:
        op = rule["op"]
        for dtype in NUMPY if rule["operands"][1] == 0 else rule["types"]:
            groups = {}
            for variant in RECIPES[op](Source(dtype, zlib.crc32(f"{op} {dtype}".encode()))):
                variant.opset = min(variant.opset, rule["until"])
                try:
                    judge, results, tolerance = judged(op, variant)
                except Unjudged as e:
                    unjudged.append(str(e))
                    continue
                groups.setdefault((variant.opset, judge, tolerance), []).append((variant, results))
                counts[judge] = counts.get(judge, 0) + 1
            for (opset, judge, tolerance), variants in groups.items():
                word = judge.replace(", ", "-").replace(" ", "-")
                write(out / f"{op}.{dtype}.{opset}.{word}", op, judge, tolerance, variants)
    if unjudged:
        raise SystemExit("\n".join(unjudged))
    print("  onnx-ops/: " + ", ".join(f"{n} by {judge}" for judge, n in sorted(counts.items())), flush=True)


if __name__ == "__main__":
    main()
