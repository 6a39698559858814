#!/usr/bin/env python3
"""Writes models that try every supported ONNX operator with every element type, and what onnxruntime computes for them.

    write_operator_cases.py OUT

Reads operators.json, the table of supported operators, and fails for an operator without a recipe (operator_recipes.py).
For every operator and element type, `OUT/onnx-ops/OPERATOR.TYPE.SET/` holds `model.onnx` with one node for each variant, and
`data.npz` as write_node_cases.py has it; SET is the operator set. The judge is named as the model's producer:

    onnxruntime             onnxruntime's kernel for that element type
    onnxruntime, wider      where it has none: its kernel for 32 bits, the results converted to the type
    onnx.reference          the onnx package's reference, where onnxruntime has neither
    numpy                   what stands in PLAIN below, where the reference fails
"""

import json
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
TOLERANCE = {"f16": (4e-3, 4e-3), "bf16": (3e-2, 3e-2), "f32": (2e-5, 2e-6), "f64": (1e-12, 1e-13)}
WIDER = {
    TensorProto.FLOAT16: TensorProto.FLOAT,
    TensorProto.BFLOAT16: TensorProto.FLOAT,
    TensorProto.INT16: TensorProto.INT32,
    TensorProto.UINT16: TensorProto.UINT32,
}
# The reference's Mean does not broadcast.
PLAIN = {"Mean": lambda *operands: [np.mean(np.broadcast_arrays(*operands), axis=0)]}


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


def inferred(model):
    """The model with the types of its outputs."""
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert all(o.type.tensor_type.elem_type for o in model.graph.output), "an output has no type"
    return model


def onnxruntime_results(model, arrays):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays)})


def kind_of(array):
    return helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)


def widened(variant):
    """The variant with 16-bit numbers as numbers of 32 bits."""

    def wide(array):
        kind = None if array is None else WIDER.get(kind_of(array))
        return array if kind is None else np.asarray(array).astype(helper.tensor_dtype_to_np_dtype(kind))

    def wide_attribute(value):
        if isinstance(value, TensorProto):
            return numpy_helper.from_array(wide(numpy_helper.to_array(value)), value.name)
        if isinstance(value, onnx.GraphProto):
            value = onnx.GraphProto.FromString(value.SerializeToString())
            for info in list(value.input) + list(value.output):
                kind = info.type.tensor_type.elem_type
                info.type.tensor_type.elem_type = WIDER.get(kind, kind)
            for node in value.node:
                for attribute in node.attribute:
                    if attribute.HasField("t"):
                        attribute.t.CopyFrom(wide_attribute(attribute.t))
        return value

    attributes = {k: wide_attribute(v) for k, v in variant.attributes.items()}
    operands = [wide(o) for o in variant.operands]
    return Variant(*operands, const=variant.const, results=variant.results, opset=variant.opset, **attributes)


def judged(op, variant):
    """Who computed the results of a variant, and the results."""
    model, arrays, _ = build(op, [variant])
    kinds = [o.type.tensor_type.elem_type for o in inferred(model).graph.output]
    dtypes = [helper.tensor_dtype_to_np_dtype(k) for k in kinds]
    operands = [o for o in variant.operands if o is not None]
    narrow = any(k in WIDER for k in [*kinds, *map(kind_of, operands)])
    reasons = []
    if not any(a.dtype == ml_dtypes.bfloat16 for a in arrays) and TensorProto.BFLOAT16 not in kinds:
        try:
            return "onnxruntime", onnxruntime_results(model, arrays)
        except Exception as e:
            reasons.append(e)
    if narrow:
        try:
            model, arrays, _ = build(op, [widened(variant)])
            results = onnxruntime_results(model, arrays)
            return "onnxruntime, wider", [np.asarray(r).astype(d) for r, d in zip(results, dtypes)]
        except Exception as e:
            reasons.append(e)
    try:
        model, arrays, _ = build(op, [variant])
        reference = ReferenceEvaluator(model)
        results = reference.run(None, {i.name: a for i, a in zip(model.graph.input, arrays)})
        return "onnx.reference", [np.asarray(r).astype(d) for r, d in zip(results, dtypes)]
    except Exception as e:
        reasons.append(e)
    if op in PLAIN:
        return "numpy", [np.asarray(r).astype(d) for r, d in zip(PLAIN[op](*operands), dtypes)]
    text = "; ".join(str(r).splitlines()[0][:300] for r in reasons if str(r))
    shapes = [None if o is None else (np.asarray(o).dtype.name, np.asarray(o).shape) for o in variant.operands]
    attributes = str(variant.attributes)[:300]
    raise Unjudged(f"{op} of {shapes} with {attributes}: nobody computes it: {text}")


def stored(array):
    return array.view("V2") if array.dtype == ml_dtypes.bfloat16 else array


def write(folder, op, dtype, judge, variants):
    variants, results = zip(*variants)
    model, arrays, names = build(op, variants, producer=judge)
    expected = [r for rs in results for r in rs]
    for info, result in zip(model.graph.output, expected):
        kind = helper.np_dtype_to_tensor_dtype(np.asarray(result).dtype)
        info.CopyFrom(helper.make_tensor_value_info(info.name, kind, np.asarray(result).shape))
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    data = {"tolerance": np.array(TOLERANCE.get(dtype, TOLERANCE["f32"]))}
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
                    judge, results = judged(op, variant)
                except Unjudged as e:
                    unjudged.append(str(e))
                    continue
                groups.setdefault((variant.opset, judge), []).append((variant, results))
                counts[judge] = counts.get(judge, 0) + 1
            for (opset, judge), variants in groups.items():
                word = judge.replace(", ", "-")
                write(out / f"{op}.{dtype}.{opset}.{word}", op, dtype, judge, variants)
    if unjudged:
        raise SystemExit("\n".join(unjudged))
    print("  onnx-ops/: " + ", ".join(f"{n} by {judge}" for judge, n in sorted(counts.items())), flush=True)


if __name__ == "__main__":
    main()
