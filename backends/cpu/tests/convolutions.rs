//! Convolutions by channels, bit for bit against the tile interpreter: windows, strides, groups and borders of all kinds, with
//! and without micro-kernels.

mod common;

use aic_ir::graph::{BinaryOp, ConvAttrs, Graph, Op, PoolAttrs, PoolKind, ReduceOp, Value};
use aic_ir::lower::lower;
use aic_ir::machine::Target;
use aic_ir::schedule::{Level, Options, schedule};
use aic_ir::testing::Rng;
use aic_ir::tile::{Layout, Program, math};
use aic_ir::types::{DType, TensorType};

/// Machines that this processor can run, and whether they have micro-kernels.
fn machines() -> Vec<(&'static str, bool)> {
    let mut found = vec![("x86-64-v2", false), ("x86-64-v3", true)];
    if std::arch::is_x86_feature_detected!("avx512f") {
        found.push(("x86-64-v4", true));
    }
    found
}

/// The convolution in the middle.
#[derive(Clone, Copy, Debug)]
struct Case {
    channels: (u64, u64),
    kernel: [u64; 2],
    stride: [u64; 2],
    dilation: u64,
    groups: u64,
}

const PLAIN: Case = Case { channels: (16, 32), kernel: [3, 3], stride: [1, 1], dilation: 1, groups: 1 };

fn ty(shape: &[u64]) -> TensorType {
    TensorType::new(DType::F32, shape).unwrap()
}

struct Net {
    graph: Graph,
    rng: Rng,
    nodes: u32,
}

impl Net {
    fn op(&mut self, op: Op, inputs: &[Value]) -> Value {
        self.nodes += 1;
        self.graph.add_node(format!("n{}", self.nodes), op, inputs).unwrap()
    }

    fn conv(&mut self, x: Value, case: Case) -> Value {
        let Case { channels: (from, to), kernel, stride, dilation, groups } = case;
        self.nodes += 1;
        let w = self.rng.tensor(&ty(&[to, from / groups, kernel[0], kernel[1]]), 1.0);
        let w = self.graph.add_const(format!("w{}", self.nodes), w);
        let b = self.rng.tensor(&ty(&[to]), 1.0);
        let b = self.graph.add_const(format!("b{}", self.nodes), b);
        let pad = |k: u64| (dilation * (k - 1) / 2, dilation * (k - 1) - dilation * (k - 1) / 2);
        let attrs = ConvAttrs {
            strides: stride.to_vec(),
            dilations: vec![dilation; 2],
            pads: kernel.map(pad).to_vec(),
            groups,
        };
        self.op(Op::Conv(attrs), &[x, w, b])
    }
}

/// A stem from an image as the caller stores it, the case with a residual sum, a pool over windows, a mean over all.
fn net(case: Case, batch: u64, size: [u64; 2]) -> (Graph, TensorType) {
    let input = ty(&[batch, 3, size[0], size[1]]);
    let mut net = Net { graph: Graph::new("net"), rng: Rng::new(5), nodes: 0 };
    let x = net.graph.add_input("x", input.clone());
    let stem = Case { channels: (3, case.channels.0), stride: [2, 1], ..PLAIN };
    let stem = net.conv(x, stem);
    let y = net.conv(stem, case);
    let y = if net.graph.ty(y) == net.graph.ty(stem) { net.op(Op::Binary(BinaryOp::Add), &[stem, y]) } else { y };
    let pool = PoolAttrs {
        kind: PoolKind::Max,
        kernel: vec![3, 2],
        strides: vec![2, 1],
        dilations: vec![1, 1],
        pads: vec![(1, 1), (0, 1)],
    };
    let y = net.op(Op::Pool(pool), &[y]);
    let last = Case { channels: (case.channels.1, 20), kernel: [1, 1], ..PLAIN };
    let y = net.conv(y, last);
    net.graph.add_output("y", y);
    let mean = net.op(Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keep_dims: false }, &[y]);
    net.graph.add_output("mean", mean);
    (net.graph, input)
}

fn check(case: Case, batch: u64, size: [u64; 2]) {
    let (graph, input) = net(case, batch, size);
    let input = Rng::new(9).tensor(&input, 1.0);
    for (machine, kernels) in machines() {
        let target = common::target(machine);
        let mut naive = lower(&graph).unwrap();
        math::expand(&mut naive, target.machine().fma);
        let scheduled = schedule(&naive, &target, &Options { level: Level::Full }).unwrap();
        let what = format!("{case:?}, {batch} of {size:?}");
        assert_eq!(uses_intrinsics(&scheduled.program), kernels, "{what} on {machine}");
        assert!(has_images_by_channels(&scheduled.program), "{what} on {machine}");
        common::check(&what, &scheduled.program, std::slice::from_ref(&input), machine);
    }
}

fn uses_intrinsics(program: &Program) -> bool {
    program.kernels.values().any(|k| k.stmts_in_order().iter().any(|&s| k.stmts[s].intrinsic.is_some()))
}

fn has_images_by_channels(program: &Program) -> bool {
    program.buffers.values().any(|b| b.shape.len() == 4 && b.layout == Layout::permuted(&b.shape, &[0, 2, 3, 1]))
}

#[test]
fn windows_and_strides() {
    for kernel in [[1, 1], [3, 3], [1, 3], [4, 2]] {
        for stride in [[1, 1], [2, 2], [2, 1]] {
            check(Case { kernel, stride, ..PLAIN }, 1, [9, 13]);
        }
    }
}

#[test]
fn dilations_batches_and_sizes() {
    check(Case { dilation: 2, ..PLAIN }, 2, [12, 7]);
    check(Case { kernel: [5, 5], ..PLAIN }, 1, [5, 1]);
    check(PLAIN, 3, [1, 18]);
}

#[test]
fn channels_that_do_not_fill_vectors() {
    for channels in [(7, 9), (12, 24), (20, 88), (24, 5), (16, 16)] {
        check(Case { channels, ..PLAIN }, 1, [6, 11]);
    }
}

#[test]
fn groups_and_depthwise() {
    for (channels, groups) in [((32, 32), 2), ((24, 48), 2), ((16, 16), 16), ((40, 40), 40), ((9, 9), 9), ((8, 16), 8)]
    {
        for stride in [[1, 1], [2, 2]] {
            check(Case { channels, groups, stride, ..PLAIN }, 1, [8, 10]);
        }
    }
}
