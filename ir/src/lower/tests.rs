//! Hand-checked accesses of naive programs.

mod evaluate;

use super::*;
use crate::graph::{BinaryOp, ConvAttrs, PoolAttrs, PoolKind, ReduceOp};
use crate::tile::{Access, Item, KernelData, StmtOp, Var};
use crate::types::TensorType;

fn f32s(shape: &[u64]) -> TensorType {
    TensorType::new(DType::F32, shape).unwrap()
}

fn zeros(graph: &mut Graph, name: &str, shape: &[u64]) -> Value {
    let elems: u64 = shape.iter().product();
    graph.add_const(name, Tensor::from_f32(shape, &vec![0.0; elems as usize]).unwrap())
}

/// `name[coordinates]`, with ` fill` where outside reads are defined.
fn access(program: &Program, stmt: &crate::tile::StmtData, a: &Access) -> String {
    let name = |v: Var| match v {
        Var::Dim(i) => stmt.dims[i as usize].name.clone(),
        Var::Loop(l) => l.to_string(),
    };
    let index: Vec<String> = a.index.iter().map(|e| e.display(&name).to_string()).collect();
    let fill = if a.fill.is_some() { " fill" } else { "" };
    format!("{}[{}]{fill}", program.buffers[a.buffer].name, index.join(", "))
}

/// One line for each statement: `name dims: written <- read...`.
fn lines(program: &Program) -> Vec<String> {
    let mut out = Vec::new();
    for step in &program.steps {
        let kernel: &KernelData = match step {
            Step::Check { buffer, bound } => {
                out.push(format!("check {} {bound}", program.buffers[*buffer].name));
                continue;
            }
            Step::Repeat { trips } => {
                out.push(format!("repeat {trips}"));
                continue;
            }
            Step::End => {
                out.push("end".to_owned());
                continue;
            }
            Step::Run(k) => &program.kernels[*k],
        };
        for item in kernel.repeated().1 {
            let Item::Stmt(s) = item else { panic!("naive kernels have no loops of their own") };
            let stmt = &kernel.stmts[*s];
            let show = |a: &Access| access(program, stmt, a);
            let what = match &stmt.op {
                StmtOp::Copy { dst, src } => format!("{} <- {}", show(dst), show(src)),
                StmtOp::Map { dst, value } => {
                    let loads: Vec<String> = value.loads().map(show).collect();
                    format!("{} <- {}", show(dst), loads.join(" "))
                }
                StmtOp::Mma { acc, a, b, fused: _ } => format!("{} += {} * {}", show(acc), show(a), show(b)),
                StmtOp::Reduce { dst, op, src } => format!("{} {op:?}= {}", show(dst), show(src)),
                StmtOp::Gather { dst, src, index, axis } => {
                    format!("{} <- {} at {axis} {}", show(dst), show(src), show(index))
                }
                StmtOp::Scatter { dst, op, src, index, axis } => {
                    format!("{} at {axis} {} {op:?}<- {}", show(dst), show(index), show(src))
                }
            };
            let dims: Vec<String> = stmt.dims.iter().map(|d| format!("{}:{}", d.name, d.extent)).collect();
            out.push(format!("{}.{} {}: {}", kernel.name, stmt.name, dims.join(" "), what.trim_end()));
        }
    }
    out
}

fn lowered(graph: &Graph) -> Vec<String> {
    lines(&lower(graph).unwrap())
}

#[test]
fn heads_are_split_on_reading_and_merged_on_writing() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[1, 128, 384]));
    let split = |g: &mut Graph, name: &str| {
        let x = g.add_node(name, Op::Unary(crate::graph::UnaryOp::Neg), &[x]).unwrap();
        let heads = g.add_node("", Op::Reshape { shape: vec![1, 128, 12, 32] }, &[x]).unwrap();
        g.add_node("", Op::Transpose { perm: vec![0, 2, 1, 3] }, &[heads]).unwrap()
    };
    let (q, k, v) = (split(&mut g, "q"), split(&mut g, "k"), split(&mut g, "v"));
    let y = g.add_node("att", Op::Attention { scale: 0.5 }, &[q, k, v]).unwrap();
    let y = g.add_node("", Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y]).unwrap();
    let y = g.add_node("merged", Op::Reshape { shape: vec![1, 128, 384] }, &[y]).unwrap();
    let y = g.add_node("y", Op::Unary(crate::graph::UnaryOp::Abs), &[y]).unwrap();
    g.add_output("y", y);
    let s = "d0:1 d1:12 d2:128 d3:128";
    let r = "d0:1 d1:12 d2:128";
    let e = "d0:1 d1:12 d2:128 d3:32";
    assert_eq!(
        lowered(&g)[3..],
        [
            format!("attention_3.init {s}: attention_3.products[d0, d1, d2, d3] <-"),
            format!(
                "attention_3.mma {s} k0:32: attention_3.products[d0, d1, d2, d3] += q[d0, d2, 32*d1 + k0] * k[d0, d3, 32*d1 + k0]"
            ),
            format!(
                "attention_3.scale {s}: attention_3.scores[d0, d1, d2, d3] <- attention_3.products[d0, d1, d2, d3]"
            ),
            format!("attention_3.max_init {r}: attention_3.max[d0, d1, d2] <-"),
            format!("attention_3.max {r} k0:128: attention_3.max[d0, d1, d2] Max= attention_3.scores[d0, d1, d2, k0]"),
            format!(
                "attention_3.exp {s}: attention_3.exp[d0, d1, d2, d3] <- attention_3.scores[d0, d1, d2, d3] attention_3.max[d0, d1, d2]"
            ),
            format!("attention_3.sum_init {r}: attention_3.sum[d0, d1, d2] <-"),
            format!("attention_3.sum {r} k0:128: attention_3.sum[d0, d1, d2] Add= attention_3.exp[d0, d1, d2, k0]"),
            format!("attention_3.product_init {e}: attention_3.product[d0, d1, d2, d3] <-"),
            format!(
                "attention_3.mma_v {e} k0:128: attention_3.product[d0, d1, d2, d3] += attention_3.exp[d0, d1, d2, k0] * v[d0, k0, 32*d1 + d3]"
            ),
            format!(
                "attention_3.norm {e}: merged[d0, d2, 32*d1 + d3] <- attention_3.product[d0, d1, d2, d3] attention_3.sum[d0, d1, d2]"
            ),
            "abs_4.map d0:1 d1:128 d2:384: y[d0, d1, d2] <- merged[d0, d1, d2]".to_owned(),
        ]
    );
}

#[test]
fn matmul_broadcasts_its_batch() {
    let mut g = Graph::new("m");
    let a = g.add_input("a", f32s(&[2, 3, 4, 5]));
    let b = g.add_input("b", f32s(&[1, 5, 6]));
    let y = g.add_node("y", Op::MatMul, &[a, b]).unwrap();
    let bias = zeros(&mut g, "bias", &[6]);
    let z = g.add_node("z", Op::Binary(BinaryOp::Add), &[y, bias]).unwrap();
    g.add_output("z", z);
    assert_eq!(
        lowered(&g),
        [
            "matmul_0.init d0:2 d1:3 d2:4 d3:6: y[d0, d1, d2, d3] <-",
            "matmul_0.mma d0:2 d1:3 d2:4 d3:6 k0:5: y[d0, d1, d2, d3] += a[d0, d1, d2, k0] * b[0, k0, d3]",
            "add_1.map d0:2 d1:3 d2:4 d3:6: z[d0, d1, d2, d3] <- y[d0, d1, d2, d3] bias[d3]",
        ]
    );
}

#[test]
fn depthwise_convolution_has_no_division() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[1, 8, 10, 10]));
    let w = zeros(&mut g, "w", &[8, 1, 3, 3]);
    let bias = zeros(&mut g, "bias", &[8]);
    let attrs = ConvAttrs { strides: vec![2, 1], dilations: vec![1, 2], pads: vec![(1, 1), (0, 0)], groups: 8 };
    let y = g.add_node("y", Op::Conv(attrs), &[x, w, bias]).unwrap();
    g.add_output("out", y);
    assert_eq!(
        lowered(&g),
        [
            "conv_0.init d0:1 d1:8 d2:5 d3:6: out[d0, d1, d2, d3] <-",
            "conv_0.mma d0:1 d1:8 d2:5 d3:6 k0:3 k1:3 k2:1: \
             out[d0, d1, d2, d3] += x[d0, d1, 2*d2 + k0 - 1, d3 + 2*k1] fill * w[d1, 0, k0, k1]",
            "conv_0.bias d0:1 d1:8 d2:5 d3:6: out[d0, d1, d2, d3] <- out[d0, d1, d2, d3] bias[d1]",
        ]
    );
}

#[test]
fn grouped_convolution_finds_its_channels() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[1, 6, 10]));
    let w = zeros(&mut g, "w", &[4, 3, 1]);
    let attrs = ConvAttrs { strides: vec![1], dilations: vec![1], pads: vec![(0, 0)], groups: 2 };
    let y = g.add_node("y", Op::Conv(attrs), &[x, w]).unwrap();
    g.add_output("y", y);
    assert_eq!(
        lowered(&g)[1],
        "conv_0.mma d0:1 d1:4 d2:10 k0:1 k1:3: y[d0, d1, d2] += x[d0, k1 + 3*((d1) / 2), d2] * w[d1, k1, 0]"
    );
}

#[test]
fn padding_does_not_go_through_views_that_hide_the_border() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[1, 2, 10]));
    let inner = g.add_node("inner", Op::Slice { starts: vec![0, 0, 2], sizes: vec![1, 2, 6], steps: vec![1; 3] }, &[x]);
    let y = g.add_node("y", Op::Pad { pads: vec![(0, 0), (0, 0), (1, 1)], value: 3.0 }, &[inner.unwrap()]).unwrap();
    g.add_output("y", y);
    assert_eq!(
        lowered(&g),
        [
            "copy_0.copy d0:1 d1:2 d2:6: inner.copy[d0, d1, d2] <- x[d0, d1, d2 + 2]",
            "pad_1.copy d0:1 d1:2 d2:8: y[d0, d1, d2] <- inner.copy[d0, d1, d2 - 1] fill",
        ]
    );
}

#[test]
fn row_statistics_keep_the_names_of_dimensions() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[2, 3, 4]));
    let y = g.add_node("y", Op::Softmax { axis: 1 }, &[x]).unwrap();
    g.add_output("y", y);
    assert_eq!(
        lowered(&g),
        [
            "softmax_0.max_init d0:2 d2:4: softmax_0.max[d0, d2] <-",
            "softmax_0.max d0:2 d2:4 k0:3: softmax_0.max[d0, d2] Max= x[d0, k0, d2]",
            "softmax_0.exp d0:2 d1:3 d2:4: softmax_0.exp[d0, d1, d2] <- x[d0, d1, d2] softmax_0.max[d0, d2]",
            "softmax_0.sum_init d0:2 d2:4: softmax_0.sum[d0, d2] <-",
            "softmax_0.sum d0:2 d2:4 k0:3: softmax_0.sum[d0, d2] Add= softmax_0.exp[d0, k0, d2]",
            "softmax_0.norm d0:2 d1:3 d2:4: y[d0, d1, d2] <- softmax_0.exp[d0, d1, d2] softmax_0.sum[d0, d2]",
        ]
    );
}

#[test]
fn layer_norm_has_two_passes() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[2, 8]));
    let (scale, bias) = (zeros(&mut g, "scale", &[8]), zeros(&mut g, "bias", &[8]));
    let y = g.add_node("y", Op::LayerNorm { axis: 1, epsilon: 1e-12 }, &[x, scale, bias]).unwrap();
    g.add_output("y", y);
    let names: Vec<String> = lowered(&g).iter().map(|l| l.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(
        names,
        [
            "layer_norm_0.sum_init d0",
            "layer_norm_0.sum d0",
            "layer_norm_0.mean d0",
            "layer_norm_0.center d0",
            "layer_norm_0.drift_init d0",
            "layer_norm_0.drift d0",
            "layer_norm_0.shift d0",
            "layer_norm_0.square d0",
            "layer_norm_0.squares_init d0",
            "layer_norm_0.squares d0",
            "layer_norm_0.rstd d0",
            "layer_norm_0.norm d0",
        ]
    );
    assert_eq!(
        lowered(&g)[11],
        "layer_norm_0.norm d0:2 d1:8: y[d0, d1] <- layer_norm_0.centered[d0, d1] layer_norm_0.shift[d0] \
         layer_norm_0.rstd[d0] scale[d1] bias[d1]"
    );
}

#[test]
fn mean_pooling_divides_by_the_elements_inside() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[1, 2, 5]));
    let attrs = PoolAttrs {
        kind: PoolKind::AverageExcludePad,
        kernel: vec![3],
        strides: vec![2],
        dilations: vec![1],
        pads: vec![(1, 1)],
    };
    let y = g.add_node("y", Op::Pool(attrs), &[x]).unwrap();
    g.add_output("y", y);
    let program = lower(&g).unwrap();
    assert_eq!(
        lines(&program)[1..],
        [
            "pool_mean_0.reduce d0:1 d1:2 d2:3 k0:3: y[d0, d1, d2] Add= x[d0, d1, 2*d2 + k0 - 1] fill",
            "pool_mean_0.mean d0:1 d1:2 d2:3: y[d0, d1, d2] <- y[d0, d1, d2] pool_mean_0.count0[d2]",
        ]
    );
    let Some(Storage::Const(counts)) =
        program.buffers.values().map(|b| &b.storage).find(|s| matches!(s, Storage::Const(_)))
    else {
        panic!("no table");
    };
    assert_eq!(*counts, Tensor::from_f32([3], &[2.0, 3.0, 2.0]).unwrap());
}

#[test]
fn indices_are_checked_once_and_first() {
    let mut g = Graph::new("m");
    let ids = g.add_input("ids", TensorType::new(DType::I64, [2, 4]).unwrap());
    let table = zeros(&mut g, "table", &[10, 3]);
    let flat = g.add_node("flat", Op::Reshape { shape: vec![8] }, &[ids]).unwrap();
    let a = g.add_node("a", Op::Gather { axis: 0 }, &[table, flat]).unwrap();
    let a = g.add_node("a2", Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep_dims: false }, &[a]).unwrap();
    let b = g.add_node("b", Op::Gather { axis: 0 }, &[table, ids]).unwrap();
    let c = g.add_node("c", Op::Binary(BinaryOp::Add), &[a, b]).unwrap();
    g.add_output("c", c);
    assert_eq!(
        lowered(&g)[..4],
        [
            "check ids 10",
            "gather_0.gather d0:8 d1:3: a[d0, d1] <- table[0, d1] at 0 ids[((d0) / 4), ((d0) % 4)]",
            "reduce_sum_1.init d0:3: a2[d0] <-",
            "reduce_sum_1.reduce d0:3 k0:8: a2[d0] Add= a[k0, d0]",
        ]
    );
}

#[test]
fn constant_indices_are_checked_by_lowering() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[10, 3]));
    let good = g.add_const("good", Tensor::from_i64([2], &[-10, 9]).unwrap());
    let y = g.add_node("y", Op::Gather { axis: 0 }, &[x, good]).unwrap();
    g.add_output("y", y);
    assert_eq!(lowered(&g), ["gather_0.gather d0:2 d1:3: y[d0, d1] <- x[0, d1] at 0 good[d0]"]);
    let bad = g.add_const("bad", Tensor::from_i64([1], &[10]).unwrap());
    let z = g.add_node("z", Op::Gather { axis: 0 }, &[x, bad]).unwrap();
    g.add_output("z", z);
    assert_eq!(lower(&g), Err(LowerError::IndexOutOfRange { node: "z".into(), index: 10, bound: 10 }));
}

#[test]
fn outputs_that_no_kernel_writes_are_copied() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[2, 3]));
    let y = g.add_node("y", Op::Unary(crate::graph::UnaryOp::Neg), &[x]).unwrap();
    let t = g.add_node("t", Op::Transpose { perm: vec![1, 0] }, &[y]).unwrap();
    for (name, value) in [("x_out", x), ("y_out", y), ("y_again", y), ("t_out", t)] {
        g.add_output(name, value);
    }
    let program = lower(&g).unwrap();
    assert_eq!(
        lines(&program),
        [
            "neg_0.map d0:2 d1:3: y_out[d0, d1] <- x[d0, d1]",
            "copy_1.copy d0:2 d1:3: x_out[d0, d1] <- x[d0, d1]",
            "copy_2.copy d0:2 d1:3: y_again[d0, d1] <- y_out[d0, d1]",
            "copy_3.copy d0:3 d1:2: t_out[d0, d1] <- y_out[d1, d0]",
        ]
    );
    let outputs: Vec<&Storage> = program.outputs.iter().map(|&b| &program.buffers[b].storage).collect();
    assert_eq!(outputs, [&Storage::Output(0), &Storage::Output(1), &Storage::Output(2), &Storage::Output(3)]);
}

#[test]
fn concat_copies_side_by_side_and_skips_the_empty() {
    let mut g = Graph::new("m");
    let a = g.add_input("a", f32s(&[2, 3]));
    let b = g.add_input("b", f32s(&[0, 3]));
    let y = g.add_node("y", Op::Concat { axis: 0 }, &[a, b, a]).unwrap();
    g.add_output("y", y);
    assert_eq!(
        lowered(&g),
        ["concat_0.copy0 d0:2 d1:3: y[d0, d1] <- a[d0, d1]", "concat_0.copy2 d0:2 d1:3: y[d0 + 2, d1] <- a[d0, d1]"]
    );
}

#[test]
fn sums_of_nothing_are_initialized_only() {
    let mut g = Graph::new("m");
    let x = g.add_input("x", f32s(&[2, 0]));
    let y = g.add_node("y", Op::Reduce { op: ReduceOp::Sum, axes: vec![1], keep_dims: true }, &[x]).unwrap();
    g.add_output("y", y);
    assert_eq!(lowered(&g), ["reduce_sum_0.init d0:2 d1:1: y[d0, d1] <-"]);
}
