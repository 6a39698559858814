"""Distils the embedded default model, `digits.onnx`, from a larger teacher.

Writes two files beside this script: `digits.onnx` (the student, float32, opset 17) and `digits_heldout.npz` (the
images and labels that no training or selection step has seen). README.md in this folder has the recipe in words, the
accuracies and the command to run this.

Data: scikit-learn's bundled digits, 1,797 grey images of 8x8 pixels in 17 levels, 0..16; networks see them / 16.
Split: 1,100 train, 200 validation (chooses which student seed is kept), 497 held out; stratified, fixed seed.
Loss of the student, after Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2:
    SOFT * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - SOFT) * cross_entropy(student, label)
The baseline is the same student on the same batches with SOFT = 0.
"""

import os

# One thread, so that sums are always taken in the same order: a re-run on the same machine then gives the same bytes.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import argparse
import hashlib
import pathlib
import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = pathlib.Path(__file__).resolve().parent
CLASSES = 10
SPLIT_SEED = 0
TEACHER_SEEDS = (100, 101, 102)  # the teacher is the mean of these networks' logits
STUDENT_SEEDS = (0, 1, 2, 3, 4)
BATCH = 50
TEACHER_EPOCHS = 80
STUDENT_EPOCHS = 300
LEARNING_RATE = 4e-3
TEMPERATURE = 4.0
SOFT = 0.9
BN_EPSILON = 1e-5
BN_KEEP = 0.9  # share of the running mean and variance that one step keeps
ADAM_B1, ADAM_B2, ADAM_EPSILON = 0.9, 0.999, 1e-8


class Layer(NamedTuple):
    """One step of a network. `conv`, `depthwise` and `pointwise` include batch norm and ReLU."""

    kind: str  # conv (3x3, pad 1) | depthwise (3x3, pad 1) | pointwise (1x1) | pool (2x2) | mean | flatten | dense
    name: str = ""
    cin: int = 0
    cout: int = 0


TEACHER = (
    Layer("conv", "c1", 1, 32),
    Layer("conv", "c2", 32, 64),
    Layer("pool"),
    Layer("conv", "c3", 64, 64),
    Layer("conv", "c4", 64, 128),
    Layer("pool"),
    Layer("flatten"),
    Layer("dense", "fc", 4 * 128, CLASSES),
)

STUDENT = (
    Layer("conv", "stem", 1, 16),
    Layer("depthwise", "block1.dw", 16, 16),
    Layer("pointwise", "block1.pw", 16, 32),
    Layer("pool"),
    Layer("depthwise", "block2.dw", 32, 32),
    Layer("pointwise", "block2.pw", 32, 48),
    Layer("mean"),
    Layer("dense", "classifier", 48, CLASSES),
)

CONVOLUTIONS = ("conv", "depthwise", "pointwise")


def init(layers, key):
    """He-normal weights. Returns (trained parameters, running batch norm statistics), both by layer name."""
    params, stats = {}, {}
    for layer in layers:
        if layer.kind in CONVOLUTIONS:
            key, sub = jax.random.split(key)
            side = 1 if layer.kind == "pointwise" else 3
            group_cin = 1 if layer.kind == "depthwise" else layer.cin
            shape = (layer.cout, group_cin, side, side)  # OIHW, as ONNX keeps it
            scale = np.sqrt(2.0 / (group_cin * side * side))
            params[layer.name] = {
                "w": scale * jax.random.normal(sub, shape),
                "gamma": jnp.ones(layer.cout),
                "beta": jnp.zeros(layer.cout),
            }
            stats[layer.name] = {"mean": jnp.zeros(layer.cout), "var": jnp.ones(layer.cout)}
        elif layer.kind == "dense":
            key, sub = jax.random.split(key)
            scale = np.sqrt(1.0 / layer.cin)
            params[layer.name] = {
                "w": scale * jax.random.normal(sub, (layer.cout, layer.cin)),
                "b": jnp.zeros(layer.cout),
            }
    return params, stats


def shifted_windows(x):
    """x: [N, C, H, W] -> the nine 3x3 neighbours of each pixel, zero padded: [9, N, C, H, W], row-major."""
    _, _, height, width = x.shape
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return jnp.stack([padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)])


def convolve(layer, w, x):
    """Cross-correlation as ONNX Conv defines it, without bias."""
    if layer.kind == "pointwise":
        return jnp.einsum("nchw,oc->nohw", x, w[:, :, 0, 0])
    windows = shifted_windows(x)
    if layer.kind == "depthwise":
        return jnp.einsum("knchw,ck->nchw", windows, w.reshape(layer.cout, 9))
    return jnp.einsum("knchw,ock->nohw", windows, w.reshape(layer.cout, layer.cin, 9))


def forward(layers, params, stats, x, training):
    """x: [N, 1, 8, 8] in 0..1 -> (logits [N, 10], updated running statistics)."""
    new_stats = dict(stats)
    for layer in layers:
        if layer.kind in CONVOLUTIONS:
            p, running = params[layer.name], stats[layer.name]
            x = convolve(layer, p["w"], x)
            if training:
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
                new_stats[layer.name] = {
                    "mean": BN_KEEP * running["mean"] + (1 - BN_KEEP) * mean,
                    "var": BN_KEEP * running["var"] + (1 - BN_KEEP) * var,
                }
            else:
                mean, var = running["mean"], running["var"]
            scale = p["gamma"] / jnp.sqrt(var + BN_EPSILON)
            x = (x - mean[:, None, None]) * scale[:, None, None] + p["beta"][:, None, None]
            x = jax.nn.relu(x)
        elif layer.kind == "pool":
            n, c, h, w = x.shape
            x = x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))
        elif layer.kind == "mean":
            x = x.mean((2, 3))
        elif layer.kind == "flatten":
            x = x.reshape(x.shape[0], -1)
        else:
            x = x @ params[layer.name]["w"].T + params[layer.name]["b"]
    return x, new_stats


def augment(key, x):
    """Random small affine maps, bilinear: rotation to 12 degrees, scale 10 %, shift 0.75 pixel. x: [N, 1, 8, 8]."""
    n = x.shape[0]
    u = jax.random.uniform(key, (n, 4), minval=-1.0, maxval=1.0)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(8.0), jnp.arange(8.0), indexing="ij")) - 3.5

    def one(image, u):
        angle, scale = u[0] * jnp.deg2rad(12.0), 1.0 + 0.1 * u[1]
        cos, sin = jnp.cos(angle) * scale, jnp.sin(angle) * scale
        rows = cos * grid[0] - sin * grid[1] + 3.5 + 0.75 * u[2]
        cols = sin * grid[0] + cos * grid[1] + 3.5 + 0.75 * u[3]
        return jax.scipy.ndimage.map_coordinates(image[0], [rows, cols], order=1)[None]

    return jax.vmap(one)(x, u)


def cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def distillation_loss(logits, labels, teacher_logits, soft):
    """The formula in the module's header. `soft` = 0 trains on labels alone."""
    target = jax.nn.log_softmax(teacher_logits / TEMPERATURE)
    ours = jax.nn.log_softmax(logits / TEMPERATURE)
    kl = (jnp.exp(target) * (target - ours)).sum(1).mean()
    return soft * TEMPERATURE**2 * kl + (1 - soft) * cross_entropy(logits, labels)


def ensemble_logits(members, x):
    return sum(forward(TEACHER, params, stats, x, False)[0] for params, stats in members) / len(members)


@partial(jax.jit, static_argnames=("layers", "epochs"))
def train(layers, epochs, seed, x, labels, teacher_members, soft):
    """Adam with a cosine learning rate over `epochs` passes. Without a teacher `teacher_members` is ()."""
    steps_per_epoch = x.shape[0] // BATCH
    total = epochs * steps_per_epoch
    key, init_key = jax.random.split(jax.random.key(seed))
    params, stats = init(layers, init_key)
    zeros = jax.tree.map(jnp.zeros_like, params)

    def epoch(state, epoch_key):
        order_key, augment_key = jax.random.split(epoch_key)
        order = jax.random.permutation(order_key, x.shape[0])[: steps_per_epoch * BATCH]
        batches = order.reshape(steps_per_epoch, BATCH)
        return jax.lax.scan(step, state, (batches, jax.random.split(augment_key, steps_per_epoch)))

    def step(state, batch):
        params, stats, m, v, t = state
        rows, augment_key = batch
        images, truth = augment(augment_key, x[rows]), labels[rows]
        teacher_logits = ensemble_logits(teacher_members, images) if teacher_members else jnp.zeros((BATCH, CLASSES))

        def loss(params):
            logits, new_stats = forward(layers, params, stats, images, True)
            return distillation_loss(logits, truth, teacher_logits, soft), new_stats

        grads, stats = jax.grad(loss, has_aux=True)(params)
        rate = LEARNING_RATE * 0.5 * (1 + jnp.cos(jnp.pi * t / total))
        t = t + 1
        m = jax.tree.map(lambda m, g: ADAM_B1 * m + (1 - ADAM_B1) * g, m, grads)
        v = jax.tree.map(lambda v, g: ADAM_B2 * v + (1 - ADAM_B2) * g * g, v, grads)
        c1, c2 = 1 - ADAM_B1**t, 1 - ADAM_B2**t
        params = jax.tree.map(
            lambda p, m, v: p - rate * (m / c1) / (jnp.sqrt(v / c2) + ADAM_EPSILON), params, m, v
        )
        return (params, stats, m, v, t), None

    state = (params, stats, zeros, zeros, jnp.float32(0))
    (params, stats, *_), _ = jax.lax.scan(epoch, state, jax.random.split(key, epochs))
    return params, stats


def accuracy(logits, labels):
    return float((np.asarray(logits).argmax(1) == labels).mean())


def export(params, stats):
    """The student as exporters write it: batch norm kept as its own node, weights OIHW, one symbolic dimension."""
    nodes, weights = [], []
    value = "image"

    def constant(name, array):
        weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def node(op, name, inputs, **attributes):
        nonlocal value
        last = name == "/classifier/Gemm"
        out = "logits" if last else f"{name}_output_0"
        nodes.append(helper.make_node(op, inputs, [out], name=name, **attributes))
        value = out

    pools = 0
    for layer in STUDENT:
        path = "/" + layer.name.replace(".", "/")
        if layer.kind in CONVOLUTIONS:
            p, s, n = params[layer.name], stats[layer.name], layer.name
            side = 1 if layer.kind == "pointwise" else 3
            node(
                "Conv",
                f"{path}/conv/Conv",
                [value, constant(f"{n}.conv.weight", p["w"])],
                dilations=[1, 1],
                group=layer.cin if layer.kind == "depthwise" else 1,
                kernel_shape=[side, side],
                pads=[side // 2] * 4,
                strides=[1, 1],
            )
            norm = [("weight", p["gamma"]), ("bias", p["beta"]), ("running_mean", s["mean"]), ("running_var", s["var"])]
            node(
                "BatchNormalization",
                f"{path}/bn/BatchNormalization",
                [value] + [constant(f"{n}.bn.{field}", array) for field, array in norm],
                epsilon=BN_EPSILON,
                momentum=BN_KEEP,
                training_mode=0,
            )
            node("Relu", f"{path}/act/Relu", [value])
        elif layer.kind == "pool":
            pools += 1
            node("MaxPool", f"/pool{pools}/MaxPool", [value], kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4)
        elif layer.kind == "mean":
            node("GlobalAveragePool", "/mean/GlobalAveragePool", [value])
            node("Flatten", "/flatten/Flatten", [value], axis=1)
        else:
            p = params[layer.name]
            inputs = [constant("classifier.weight", p["w"]), constant("classifier.bias", p["b"])]
            node("Gemm", f"{path}/Gemm", [value] + inputs, alpha=1.0, beta=1.0, transB=1)

    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        initializer=weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="distil_digits.py"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out-dir", type=pathlib.Path, default=HERE, help="where to write (default: %(default)s)")
    out = parser.parse_args().out_dir
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(text):
        print(f"[{time.monotonic() - started:6.1f} s] {text}", flush=True)

    digits = load_digits()
    images = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    known, held = train_test_split(np.arange(len(labels)), test_size=497, random_state=SPLIT_SEED, stratify=labels)
    fit, pick = train_test_split(known, test_size=200, random_state=SPLIT_SEED, stratify=labels[known])

    def tensors(rows):
        return jnp.asarray(images[rows, None] / np.float32(16)), labels[rows]

    x_fit, y_fit = tensors(fit)
    x_pick, y_pick = tensors(pick)
    x_held, y_held = tensors(held)
    say(f"{len(fit)} train, {len(pick)} validation, {len(held)} held out")

    infer = jax.jit(forward, static_argnames=("layers", "training"))
    truth = jnp.asarray(y_fit, jnp.int32)
    members = []
    for seed in TEACHER_SEEDS:
        members.append(train(TEACHER, TEACHER_EPOCHS, seed, x_fit, truth, (), 0.0))
        logits = infer(TEACHER, *members[-1], x_held, False)[0]
        say(f"teacher network, seed {seed}: held-out accuracy {accuracy(logits, y_held):.4f}")
    members = tuple(members)
    teacher_held = accuracy(ensemble_logits(members, x_held), y_held)
    say(f"teacher (mean of {len(members)}): held-out accuracy {teacher_held:.4f}")

    held_accuracy, students = {}, {}
    for name, teachers, soft in (("distilled", members, SOFT), ("labels only", (), 0.0)):
        held_accuracy[name] = []
        for seed in STUDENT_SEEDS:
            student = train(STUDENT, STUDENT_EPOCHS, seed, x_fit, truth, teachers, soft)
            pick_logits = infer(STUDENT, *student, x_pick, False)[0]
            picked = accuracy(pick_logits, y_pick)
            # Several seeds often tie on 200 images; the cross entropy on the same images then decides.
            rank = (picked, -float(cross_entropy(pick_logits, jnp.asarray(y_pick, jnp.int32))))
            reached = accuracy(infer(STUDENT, *student, x_held, False)[0], y_held)
            held_accuracy[name].append(reached)
            students[name, seed] = (rank, student)
            say(f"student, {name}, seed {seed}: validation {picked:.4f} (loss {-rank[1]:.4f}), held-out {reached:.4f}")
    chosen = max(STUDENT_SEEDS, key=lambda seed: students["distilled", seed][0])
    params, stats = jax.tree.map(np.asarray, students["distilled", chosen][1])

    model = export(params, stats)
    (out / "digits.onnx").write_bytes(model)
    np.savez_compressed(out / "digits_heldout.npz", images=images[held], labels=labels[held])

    def summary(values):
        return f"{100 * np.mean(values):.2f} % mean of {len(values)} seeds (lowest {100 * min(values):.2f}, highest {100 * max(values):.2f})"

    parameters = {
        name: sum(a.size for a in jax.tree.leaves(p)) for name, p in (("teacher", members[0][0]), ("student", params))
    }
    say("held-out accuracy:")
    print(f"  teacher, {len(members)} networks of {parameters['teacher']:,} parameters: {100 * teacher_held:.2f} %")
    print(f"  student distilled, {parameters['student']:,} parameters: {summary(held_accuracy['distilled'])}")
    print(f"  student from labels only: {summary(held_accuracy['labels only'])}")
    kept = held_accuracy["distilled"][STUDENT_SEEDS.index(chosen)]
    print(f"  kept: distilled seed {chosen}, chosen on validation: {100 * kept:.2f} %")
    for name in ("digits.onnx", "digits_heldout.npz"):
        data = (out / name).read_bytes()
        print(f"  {name}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
