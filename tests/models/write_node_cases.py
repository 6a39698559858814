#!/usr/bin/env python3
"""Writes the official ONNX node tests, by the onnx package's own generators.

    write_node_cases.py OUT

For every case, `OUT/onnx-node/NAME/model.onnx` and `data.npz`: arrays `in:INDEX` and `out:INDEX` in the order of the
graph's inputs and outputs, and `tolerance`, the two numbers (relative, absolute) that the official runner allows. bfloat16 is
numpy's two-byte void. What no array of numbers can hold (sequences, texts, numbers of fewer than 8 bits, missing
values) is left out of `data.npz`; such cases are in the folder all the same, so that they are counted.

Most cases are written for the newest operator set. Where the schemas of all operators of a case say nothing else than in
set 23 but for more element types, the model is declared as one of set 23, the newest that is read.
"""

import os
import pathlib
import shutil
import sys
import warnings

# numpy's and OpenBLAS's results then depend less on the processor; both look when they are imported.
os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL AVX512_SPR")
os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
warnings.simplefilter("ignore")

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx.backend.test.case.node import collect_testcases  # noqa: E402

NEWEST_SET = 23
PLAIN = {"f", "i", "u", "b"}


def array(value):
    """A case's input or output as something that the archive can hold, or None."""
    if isinstance(value, onnx.TensorProto):
        if value.data_type == onnx.TensorProto.STRING:
            return None
        value = onnx.numpy_helper.to_array(value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return None
    value = np.asarray(value)
    if value.dtype == ml_dtypes.bfloat16:
        return value.view("V2")
    return value if value.dtype.kind in PLAIN and value.dtype.isbuiltin == 1 else None


def same_meaning(node, version):
    """Whether the operator is the same in this set and in the newest that is read, but for element types."""
    if node.domain not in ("", "ai.onnx"):
        return False
    try:
        new = onnx.defs.get_schema(node.op_type, version, "")
        old = onnx.defs.get_schema(node.op_type, NEWEST_SET, "")
    except onnx.defs.SchemaError:
        return False

    def form(schema):
        attributes = sorted((a.name, str(a.type), a.default_value.SerializeToString()) for a in schema.attributes.values())
        return attributes, [p.name for p in schema.inputs], [p.name for p in schema.outputs]

    return form(new) == form(old)


def nodes_of(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from nodes_of(body)


def declare_as_read(model):
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > NEWEST_SET:
            if all(same_meaning(node, opset.version) for node in nodes_of(model.graph)):
                opset.version = NEWEST_SET


def main():
    out = pathlib.Path(sys.argv[1]) / "onnx-node"
    shutil.rmtree(out, ignore_errors=True)
    cases = collect_testcases(None)
    for case in cases:
        folder = out / case.name
        folder.mkdir(parents=True)
        declare_as_read(case.model)
        (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
        arrays = {"tolerance": np.array([case.rtol, case.atol])}
        for prefix, values in zip(("in", "out"), case.data_sets[0]):
            for index, value in enumerate(values):
                if (value := array(value)) is not None:
                    arrays[f"{prefix}:{index}"] = value
        np.savez(folder / "data.npz", **arrays)
    print(f"  onnx-node/: {len(cases)} cases", flush=True)


if __name__ == "__main__":
    main()
