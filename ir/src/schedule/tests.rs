//! Schedules of whole small graphs: what a schedule makes computes what the naive program computes, and the text of a
//! schedule makes it again.

use super::*;
use crate::graph::{BinaryOp, ConvAttrs, GeluKind, Graph, Op, PoolAttrs, PoolKind, ReduceOp, UnaryOp, Value};
use crate::machine::{BUILTIN_NAMES, Machine, Target, builtin};
use crate::tile::{KernelData, Program, Space, Storage, interp};
use crate::types::{DType, Tensor, TensorType};

struct Cpu(Machine);

impl Target for Cpu {
    fn machine(&self) -> &Machine {
        &self.0
    }
    fn legal(&self, _: &Program, _: &KernelData) -> Result<(), String> {
        Ok(())
    }
}

fn target() -> Cpu {
    Cpu(builtin("x86-64-v3").unwrap())
}

/// Values between -1 and 1 that look random and are the same every time.
fn noise(shape: &[u64], seed: u64) -> Tensor {
    let n: u64 = shape.iter().product();
    let value =
        |i: u64| ((i + 1).wrapping_mul(seed * 2 + 0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    Tensor::from_f32(shape, &(0..n).map(value).collect::<Vec<_>>()).unwrap()
}

/// A graph under construction, with short names for what models are made of.
struct Build {
    graph: Graph,
    count: u64,
}

impl Build {
    fn new() -> Self {
        Self { graph: Graph::new("test"), count: 0 }
    }
    fn input(&mut self, shape: &[u64]) -> Value {
        self.count += 1;
        self.graph.add_input(format!("in{}", self.count), TensorType::new(DType::F32, shape).unwrap())
    }
    fn constant(&mut self, shape: &[u64]) -> Value {
        self.count += 1;
        self.graph.add_const(format!("c{}", self.count), noise(shape, self.count))
    }
    fn op(&mut self, op: Op, inputs: &[Value]) -> Value {
        self.count += 1;
        self.graph.add_node(format!("n{}", self.count), op, inputs).unwrap()
    }
    fn dense(&mut self, x: Value, outputs: u64, inputs: u64) -> Value {
        let w = self.constant(&[outputs, inputs]);
        let w = self.op(Op::Transpose { perm: vec![1, 0] }, &[w]);
        let b = self.constant(&[outputs]);
        let y = self.op(Op::MatMul, &[x, w]);
        self.op(Op::Binary(BinaryOp::Add), &[y, b])
    }
    fn output(&mut self, value: Value) {
        self.graph.add_output(format!("out{}", self.graph.outputs.len()), value);
    }
    /// Schedules at every level and compares with the naive program.
    fn check(self) -> Scheduled {
        self.check_on(&target())
    }
    /// The same for a machine.
    fn check_on(self, target: &Cpu) -> Scheduled {
        let noise = |(i, &v): (usize, &Value)| noise(self.graph.ty(v).shape(), 1000 + i as u64);
        let inputs: Vec<Tensor> = self.graph.inputs.iter().enumerate().map(noise).collect();
        check_graph(&self.graph, &inputs, 0, target)
    }
}

fn check_graph(graph: &Graph, inputs: &[Tensor], seed: u64, target: &Cpu) -> Scheduled {
    let naive = crate::lower::lower(graph).unwrap();
    let expected = interp::run(&naive, inputs).unwrap();
    let mut full = None;
    for level in [Level::Naive, Level::Tiled, Level::Small, Level::Full] {
        let scheduled = schedule(&naive, target, &Options { level }).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        crate::tile::verify::verify_for(&scheduled.program, &target.0)
            .unwrap_or_else(|e| panic!("seed {seed} {level:?}: {e}"));
        let actual = interp::run(&scheduled.program, inputs).unwrap();
        for (a, e) in actual.iter().zip(&expected) {
            for i in 0..e.ty().elems() {
                let (a, e) = (a.get_f64(i).unwrap(), e.get_f64(i).unwrap());
                let close = a == e || (a - e).abs() <= 1e-4 * (1.0 + e.abs()) || (a.is_nan() && e.is_nan());
                assert!(close, "seed {seed} {level:?}: {a} for {e}\n{}", scheduled.schedule);
            }
        }
        let text = scheduled.schedule.to_string();
        let again = apply(&naive, &Schedule::parse(&text).unwrap(), target).unwrap();
        assert_eq!(again, scheduled.program);
        full = Some(scheduled);
    }
    full.unwrap()
}

fn encoder_layer(sequence: u64, heads: u64, width: u64, intermediate: u64) -> Scheduled {
    let hidden = heads * width;
    let mut b = Build::new();
    let x = b.input(&[1, sequence, hidden]);
    let mask = b.input(&[1, 1, 1, sequence]);
    let mut split = [x; 3];
    for part in &mut split {
        let y = b.dense(x, hidden, hidden);
        let y = b.op(Op::Reshape { shape: vec![1, sequence, heads, width] }, &[y]);
        *part = b.op(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y]);
    }
    let a = b.op(Op::Attention { scale: 0.3 }, &[split[0], split[1], split[2], mask]);
    let a = b.op(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[a]);
    let a = b.op(Op::Reshape { shape: vec![1, sequence, hidden] }, &[a]);
    let o = b.dense(a, hidden, hidden);
    let r = b.op(Op::Binary(BinaryOp::Add), &[o, x]);
    let (scale, bias) = (b.constant(&[hidden]), b.constant(&[hidden]));
    let ln = b.op(Op::LayerNorm { axis: 2, epsilon: 1e-5 }, &[r, scale, bias]);
    let f = b.dense(ln, intermediate, hidden);
    let f = b.op(Op::Gelu(GeluKind::Erf), &[f]);
    b.output(f);
    b.check()
}

#[test]
fn encoder_layers_of_awkward_sizes() {
    for (sequence, heads, width, intermediate) in [(1, 2, 8, 20), (5, 3, 5, 13), (14, 1, 16, 33)] {
        encoder_layer(sequence, heads, width, intermediate);
    }
}

#[test]
fn epilogues_join_and_accumulators_live_in_registers() {
    let s = encoder_layer(8, 2, 8, 32);
    // Three projections, attention, the output projection with its residual, layer norm, the feed-forward half.
    assert_eq!(s.program.steps.len(), 7);
    for data in s.program.buffers.values().filter(|d| d.name.starts_with('n')) {
        let product = data.name.ends_with(".products") || data.shape == [1, 4, 8];
        assert!(!product || matches!(data.storage, Storage::Local(Space::Reg) | Storage::Temp), "{data:?}");
    }
    assert!(s.schedule.to_string().lines().any(|l| l.starts_with("vectorize") && l.ends_with("mma.d2")));
    assert!(s.costs.iter().all(|c| c.seconds > 0.0));
}

#[test]
fn long_epilogues_fit_the_registers_of_every_machine() {
    // A convolution of 1 x 1 and a hard swish: three tiles of the result are alive at once.
    for machine in BUILTIN_NAMES {
        let mut b = Build::new();
        let x = b.input(&[1, 16, 12, 24]);
        let w = b.constant(&[32, 16, 1, 1]);
        let attrs = ConvAttrs { strides: vec![1; 2], dilations: vec![1; 2], pads: vec![(0, 0); 2], groups: 1 };
        let x = b.op(Op::Conv(attrs), &[x, w]);
        let mut gate = x;
        for (op, by) in [(BinaryOp::Add, 3.0), (BinaryOp::Max, 0.0), (BinaryOp::Min, 6.0), (BinaryOp::Div, 6.0)] {
            let by = b.graph.add_const(format!("{by}"), Tensor::scalar_f32(by));
            gate = b.op(Op::Binary(op), &[gate, by]);
        }
        let y = b.op(Op::Binary(BinaryOp::Mul), &[x, gate]);
        b.output(y);
        b.check_on(&Cpu(builtin(machine).unwrap()));
    }
}

#[test]
fn convolutions_of_every_shape() {
    for (groups, stride, dilation, pad, bias) in
        [(1, 1, 1, 1, true), (6, 1, 1, 1, false), (2, 2, 1, 0, true), (1, 1, 2, 2, false)]
    {
        let mut b = Build::new();
        let x = b.input(&[2, 6, 9, 11]);
        let w = b.constant(&[12, 6 / groups, 3, 3]);
        let attrs = ConvAttrs {
            strides: vec![stride; 2],
            dilations: vec![dilation; 2],
            pads: vec![(pad, pad), (pad, 0)],
            groups,
        };
        let c = b.constant(&[12]);
        let operands = [x, w, c];
        let y = b.op(Op::Conv(attrs), if bias { &operands } else { &operands[..2] });
        let zero = b.graph.add_const("zero", Tensor::scalar_f32(0.0));
        let y = b.op(Op::Binary(BinaryOp::Max), &[y, zero]);
        b.output(y);
        b.check();
    }
}

#[test]
fn contractions_that_write_flattened_results() {
    for (batch, groups, outputs, kernel) in [(1, 1, 12, 1), (2, 1, 12, 3), (1, 6, 6, 3), (1, 2, 8, 3)] {
        let mut b = Build::new();
        let x = b.input(&[batch, 6, 7, 9]);
        let w = b.constant(&[outputs, 6 / groups, kernel, kernel]);
        let c = b.constant(&[outputs]);
        let attrs = ConvAttrs { strides: vec![1; 2], dilations: vec![1; 2], pads: vec![(0, 0); 2], groups };
        let y = b.op(Op::Conv(attrs), &[x, w, c]);
        let size = outputs * (8 - kernel) * (10 - kernel);
        let y = b.op(Op::Reshape { shape: vec![batch, size] }, &[y]);
        let z = b.dense(y, 5, size);
        b.output(z);
        b.check();
    }
    let mut b = Build::new();
    let x = b.input(&[2, 9, 33]);
    let y = b.dense(x, 20, 33);
    let y = b.op(Op::Transpose { perm: vec![0, 2, 1] }, &[y]);
    let y = b.op(Op::Reshape { shape: vec![2, 180] }, &[y]);
    let z = b.dense(y, 7, 180);
    b.output(z);
    b.check();
}

#[test]
fn contractions_that_write_outputs_are_staged() {
    let mut b = Build::new();
    let x = b.input(&[7, 10]);
    let w = b.constant(&[10, 18]);
    let y = b.op(Op::MatMul, &[x, w]);
    b.output(y);
    let z = b.op(Op::Unary(UnaryOp::Tanh), &[y]);
    b.output(z);
    let s = b.check();
    assert!(s.schedule.to_string().contains("\nstage "));
}

#[test]
fn reductions_pools_and_rows() {
    for axes in [vec![0], vec![1], vec![2], vec![0, 2], vec![0, 1, 2]] {
        for op in [ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Max] {
            let mut b = Build::new();
            let x = b.input(&[3, 7, 21]);
            let y = b.op(Op::Reduce { op, axes: axes.clone(), keep_dims: false }, &[x]);
            b.output(y);
            b.check();
        }
    }
    for kind in [PoolKind::Max, PoolKind::AverageExcludePad, PoolKind::AverageIncludePad] {
        let mut b = Build::new();
        let x = b.input(&[1, 3, 9, 12]);
        let attrs = PoolAttrs {
            kind,
            kernel: vec![3, 2],
            strides: vec![2, 1],
            dilations: vec![1, 1],
            pads: vec![(1, 1), (0, 1)],
        };
        let y = b.op(Op::Pool(attrs), &[x]);
        b.output(y);
        let z = b.op(Op::Softmax { axis: 1 }, &[y]);
        b.output(z);
        b.check();
    }
}

#[test]
fn concatenations_of_equal_parts() {
    for axis in 0..3 {
        let mut b = Build::new();
        let (x, y) = (b.input(&[2, 3, 9]), b.input(&[2, 3, 9]));
        let z = b.op(Op::Concat { axis }, &[x, y, x]);
        b.output(z);
        b.check();
    }
}

/// A graph over one tensor, with noise for it.
fn of_one_tensor(dtype: DType, shape: &[u64], op: Op) -> (Graph, Vec<Tensor>) {
    let ty = TensorType::new(dtype, shape).unwrap();
    let mut graph = Graph::new("one");
    let x = graph.add_input("x", ty.clone());
    for (i, y) in graph.add_node_of_many("y", op, &[x]).unwrap().into_iter().enumerate() {
        graph.add_output(format!("y{i}"), y);
    }
    (graph, vec![crate::testing::Rng::new(7).tensor(&ty, 2.0)])
}

#[test]
fn points_that_depend_on_each_other_keep_their_order() {
    for dtype in [DType::F32, DType::F64, DType::I64, DType::U8] {
        for shape in [&[37][..], &[3, 18], &[1, 5, 4], &[6, 1, 20], &[2, 0, 3]] {
            for axis in 0..shape.len() {
                let n: u64 = shape[axis];
                for k in [n, n.div_ceil(3), 1.min(n)] {
                    let (graph, inputs) = of_one_tensor(dtype, shape, Op::TopK { k, axis, largest: k % 2 == 1 });
                    check_graph(&graph, &inputs, k, &target());
                }
                for reverse in [false, true] {
                    let sum = Op::CumSum { axis, exclusive: reverse == (axis == 0), reverse };
                    let (graph, inputs) = of_one_tensor(dtype, shape, sum);
                    check_graph(&graph, &inputs, axis as u64, &target());
                }
            }
        }
    }
    let (graph, _) = of_one_tensor(DType::I64, &[37], Op::TopK { k: 20, axis: 0, largest: true });
    let naive = crate::lower::lower(&graph).unwrap();
    let hash = crate::tile::hash::program_hash(&naive);
    let text = format!("schedule for #{hash:x}\nsplit top_k_0 insert.k1 by 1 -> i\n");
    let error = apply(&naive, &Schedule::parse(&text).unwrap(), &target()).unwrap_err().to_string();
    assert!(error.contains("points of `insert` depend on each other along `k0`, which `k1` would pass"), "{error}");
}

#[test]
fn random_graphs_at_every_level() {
    for seed in 0..60 {
        let (graph, inputs) = crate::testing::random_graph(seed, 8);
        check_graph(&graph, &inputs, seed, &target());
    }
}

#[test]
fn stale_and_illegal_schedules_are_refused() {
    let mut b = Build::new();
    let x = b.input(&[4, 10]);
    let y = b.op(Op::Softmax { axis: 1 }, &[x]);
    b.output(y);
    let naive = crate::lower::lower(&b.graph).unwrap();
    let hash = crate::tile::hash::program_hash(&naive);
    let refusal = |text: &str| {
        let schedule = Schedule::parse(&format!("schedule for #{hash:x}\n{text}\n")).unwrap();
        apply(&naive, &schedule, &target()).map(|_| ()).map_err(|e| e.to_string())
    };
    let kernel = naive.kernels.values().next().unwrap().name.clone();
    assert!(
        apply(&naive, &Schedule::default(), &target())
            .is_err_and(|e| e.to_string().contains("another program") || matches!(e, ScheduleError::Stale { .. }))
    );
    for (directive, reason) in [
        (format!("split {kernel} max.k0 by 4 -> i"), "fixed tree"),
        (format!("split {kernel} exp.d1, sum.k0 by 5 -> i"), "side by side"),
        (format!("split {kernel} exp.d0 by 9 -> i"), "does not lie between"),
        (format!("split {kernel} max_init.d0, max.d0, exp.d1 by 1 -> i"), "extent"),
        (format!("vectorize {kernel} exp.d1"), "multiple"),
        (format!("rfactor {kernel} exp by 2"), "not a reduction"),
        (format!("place {kernel} in1 reg"), "not a temporary"),
        (format!("unroll {kernel} i"), "no loop"),
        ("fuse a b".to_owned(), "no kernel"),
    ] {
        let error = refusal(&directive);
        assert!(error.as_ref().is_err_and(|e| e.contains(reason)), "{directive}: {error:?}");
    }
}
