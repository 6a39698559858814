//! Tests of shape inference: every operator's rule, empty and one-sized dimensions, and hostile attributes.

use super::*;
use crate::graph::op::{ArgOp, GeluKind, ScatterOp};

fn f(shape: &[u64]) -> TensorType {
    TensorType::new(DType::F32, shape).unwrap()
}

fn t(dtype: DType, shape: &[u64]) -> TensorType {
    TensorType::new(dtype, shape).unwrap()
}

fn infer(op: &Op, operands: &[TensorType]) -> Result<TensorType, InferError> {
    op.infer(&operands.iter().collect::<Vec<_>>())
}

#[track_caller]
fn gives(op: &Op, operands: &[TensorType], expected: TensorType) {
    assert_eq!(infer(op, operands), Ok(expected));
}

#[track_caller]
fn refused(op: &Op, operands: &[TensorType]) {
    infer(op, operands).expect_err("must be refused");
}

fn conv_attrs(stride: u64, dilation: u64, pad: (u64, u64), groups: u64) -> Op {
    Op::Conv(ConvAttrs { strides: vec![stride], dilations: vec![dilation], pads: vec![pad], groups })
}

fn pool_attrs(kind: PoolKind, kernel: u64, stride: u64, dilation: u64, pad: (u64, u64)) -> Op {
    Op::Pool(PoolAttrs {
        kind,
        kernel: vec![kernel],
        strides: vec![stride],
        dilations: vec![dilation],
        pads: vec![pad],
    })
}

#[test]
fn broadcasting_follows_numpy() {
    broadcasts(&[], &[], Some(&[]));
    broadcasts(&[2, 3], &[], Some(&[2, 3]));
    broadcasts(&[3], &[2, 1], Some(&[2, 3]));
    broadcasts(&[5, 1, 3], &[4, 1], Some(&[5, 4, 3]));
    broadcasts(&[0], &[1], Some(&[0]));
    broadcasts(&[0], &[0], Some(&[0]));
    broadcasts(&[0], &[2], None);
    broadcasts(&[2, 3], &[2], None);
}

#[track_caller]
fn broadcasts(a: &[u64], b: &[u64], expected: Option<&[u64]>) {
    assert_eq!(broadcast(a, b).ok().as_deref(), expected, "{a:?} with {b:?}");
    assert_eq!(broadcast(b, a).ok().as_deref(), expected, "{b:?} with {a:?}");
}

#[test]
fn elementwise_types() {
    gives(&Op::Unary(UnaryOp::Exp), &[f(&[0, 3])], f(&[0, 3]));
    refused(&Op::Unary(UnaryOp::Exp), &[t(DType::I32, &[1])]);
    refused(&Op::Unary(UnaryOp::Neg), &[t(DType::Bool, &[1])]);
    refused(&Op::Unary(UnaryOp::Not), &[f(&[1])]);
    refused(&Op::Unary(UnaryOp::Abs), &[]);
    gives(&Op::Binary(BinaryOp::Lt), &[f(&[2, 1]), f(&[3])], t(DType::Bool, &[2, 3]));
    gives(&Op::Binary(BinaryOp::Div), &[t(DType::I64, &[]), t(DType::I64, &[4])], t(DType::I64, &[4]));
    refused(&Op::Binary(BinaryOp::Add), &[f(&[1]), t(DType::F64, &[1])]);
    gives(&Op::Binary(BinaryOp::Pow), &[t(DType::I64, &[1]), t(DType::I64, &[1])], t(DType::I64, &[1]));
    refused(&Op::Binary(BinaryOp::Pow), &[t(DType::Bool, &[1]), t(DType::Bool, &[1])]);
    refused(&Op::Binary(BinaryOp::And), &[f(&[1]), f(&[1])]);
    gives(&Op::Select, &[t(DType::Bool, &[3, 1]), f(&[]), f(&[2])], f(&[3, 2]));
    refused(&Op::Select, &[f(&[1]), f(&[1]), f(&[1])]);
    gives(&Op::Cast { to: DType::Bool }, &[f(&[2])], t(DType::Bool, &[2]));
    gives(&Op::Gelu(GeluKind::Erf), &[f(&[2])], f(&[2]));
}

#[test]
fn broadcast_results_are_limited() {
    refused(&Op::Binary(BinaryOp::Add), &[f(&[1 << 30, 1]), f(&[1 << 30])]);
    // A zero elsewhere does not let the other dimensions grow without limit.
    refused(&Op::Binary(BinaryOp::Add), &[f(&[0, 1 << 30, 1]), f(&[1 << 30])]);
    assert!(TensorType::new(DType::F32, [u64::MAX, u64::MAX, 0]).is_err());
}

#[test]
fn matmul_shapes() {
    gives(&Op::MatMul, &[f(&[2, 3]), f(&[3, 4])], f(&[2, 4]));
    gives(&Op::MatMul, &[f(&[5, 1, 2, 3]), f(&[7, 3, 4])], f(&[5, 7, 2, 4]));
    gives(&Op::MatMul, &[f(&[2, 0]), f(&[0, 4])], f(&[2, 4]));
    refused(&Op::MatMul, &[f(&[3]), f(&[3, 4])]);
    refused(&Op::MatMul, &[f(&[2, 3]), f(&[4, 3])]);
    gives(&Op::MatMul, &[t(DType::I32, &[2, 2]), t(DType::I32, &[2, 2])], t(DType::I32, &[2, 2]));
    refused(&Op::MatMul, &[t(DType::Bool, &[2, 2]), t(DType::Bool, &[2, 2])]);
}

#[test]
fn conv_shapes() {
    gives(&conv_attrs(2, 1, (1, 1), 1), &[f(&[1, 3, 7]), f(&[5, 3, 3])], f(&[1, 5, 4]));
    gives(&conv_attrs(1, 3, (0, 0), 3), &[f(&[2, 3, 7]), f(&[6, 1, 3]), f(&[6])], f(&[2, 6, 1]));
    refused(&conv_attrs(1, 1, (0, 0), 2), &[f(&[1, 3, 7]), f(&[4, 1, 3])]);
    refused(&conv_attrs(1, 1, (0, 0), 0), &[f(&[1, 3, 7]), f(&[4, 3, 3])]);
    refused(&conv_attrs(1, 4, (0, 0), 1), &[f(&[1, 3, 7]), f(&[4, 3, 3])]);
    refused(&conv_attrs(1, 1, (0, 0), 1), &[f(&[1, 3, 7]), f(&[4, 3, 3]), f(&[3])]);
    refused(&conv_attrs(1, 1, (0, 0), 1), &[f(&[1, 3]), f(&[4, 3])]);
    refused(&conv_attrs(1, 1, (0, 0), 1), &[f(&[1, 3, 7, 7]), f(&[4, 3, 3, 3])]);
    refused(&conv_attrs(1, 1, (0, 0), 1), &[f(&[1, 3, 7]), f(&[4, 3, 0])]);
    for hostile in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 40) + 1] {
        for op in [
            conv_attrs(hostile, 1, (0, 0), 1),
            conv_attrs(1, hostile, (0, 0), 1),
            conv_attrs(1, 1, (hostile, 0), 1),
            conv_attrs(1, 1, (hostile, hostile), 1),
            conv_attrs(1, 1, (0, 0), hostile),
        ] {
            refused(&op, &[f(&[1, 3, 7]), f(&[4, 3, 3])]);
        }
    }
}

#[test]
fn pool_shapes() {
    use PoolKind::{AverageExcludePad, AverageIncludePad, Max};
    gives(&pool_attrs(Max, 2, 2, 1, (0, 1)), &[f(&[1, 3, 7])], f(&[1, 3, 4]));
    gives(&pool_attrs(Max, 2, 2, 1, (0, 0)), &[t(DType::I8, &[1, 0, 7])], t(DType::I8, &[1, 0, 3]));
    refused(&pool_attrs(AverageExcludePad, 2, 2, 1, (0, 0)), &[t(DType::I8, &[1, 1, 7])]);
    refused(&pool_attrs(Max, 0, 1, 1, (0, 0)), &[f(&[1, 3, 7])]);
    // The first or last window lies wholly in the padding.
    refused(&pool_attrs(Max, 2, 1, 1, (2, 0)), &[f(&[1, 3, 7])]);
    refused(&pool_attrs(AverageExcludePad, 2, 1, 1, (0, 2)), &[f(&[1, 3, 7])]);
    gives(&pool_attrs(AverageIncludePad, 2, 1, 1, (0, 2)), &[f(&[1, 3, 7])], f(&[1, 3, 8]));
    // Elements at -2 and 1 of an input of one element.
    refused(&pool_attrs(Max, 2, 1, 3, (2, 1)), &[f(&[1, 1, 1])]);
    refused(&pool_attrs(Max, 1, 1, 1, (0, 1)), &[f(&[1, 1, 0])]);
    refused(&pool_attrs(Max, u64::MAX, 1, u64::MAX, (u64::MAX, 0)), &[f(&[1, 1, 1])]);
}

/// Compares [`windows_touch`] with counting on all small cases.
#[test]
fn padded_windows_are_judged_soundly() {
    for (input, kernel, stride, dilation) in itertools4(0..5, 1..4, 1..4, 1..4) {
        for pads in (0..4).flat_map(|a| (0..4).map(move |b| (a, b))) {
            let Ok(output) = window_output(input, kernel, stride, dilation, pads) else { continue };
            let touches = (0..output)
                .all(|o| (0..kernel).any(|k| (pads.0..pads.0 + input).contains(&(o * stride + k * dilation))));
            let accepted = windows_touch(input, kernel, stride, dilation, pads, output);
            assert!(!accepted || touches, "{input} {kernel} {stride} {dilation} {pads:?}");
            assert!(accepted || !touches || dilation > input, "{input} {kernel} {stride} {dilation} {pads:?}");
        }
    }
}

fn itertools4(
    a: std::ops::Range<u64>,
    b: std::ops::Range<u64>,
    c: std::ops::Range<u64>,
    d: std::ops::Range<u64>,
) -> impl Iterator<Item = (u64, u64, u64, u64)> {
    a.flat_map(move |a| {
        let (c, d) = (c.clone(), d.clone());
        b.clone().flat_map(move |b| {
            let d = d.clone();
            c.clone().flat_map(move |c| d.clone().map(move |d| (a, b, c, d)))
        })
    })
}

#[test]
fn reductions() {
    let reduce = |op, axes: &[usize], keep_dims| Op::Reduce { op, axes: axes.to_vec(), keep_dims };
    gives(&reduce(ReduceOp::Sum, &[0, 2], false), &[f(&[2, 3, 4])], f(&[3]));
    gives(&reduce(ReduceOp::Mean, &[0, 2], true), &[f(&[2, 3, 4])], f(&[1, 3, 1]));
    gives(&reduce(ReduceOp::Sum, &[0], false), &[f(&[0])], f(&[]));
    gives(&reduce(ReduceOp::Max, &[], false), &[f(&[0])], f(&[0]));
    refused(&reduce(ReduceOp::Max, &[0], false), &[f(&[0])]);
    refused(&reduce(ReduceOp::Sum, &[1, 0], false), &[f(&[2, 3])]);
    refused(&reduce(ReduceOp::Sum, &[1, 1], false), &[f(&[2, 3])]);
    refused(&reduce(ReduceOp::Sum, &[2], false), &[f(&[2, 3])]);
    refused(&reduce(ReduceOp::Sum, &[usize::MAX], false), &[f(&[2, 3])]);
    gives(&reduce(ReduceOp::Mean, &[0], false), &[t(DType::I32, &[2])], t(DType::I32, &[]));
    refused(&reduce(ReduceOp::Mean, &[0], false), &[t(DType::I8, &[2])]);
    refused(&reduce(ReduceOp::Mean, &[0], false), &[t(DType::I32, &[1 << 32])]);
}

#[test]
fn normalizations() {
    gives(&Op::Softmax { axis: 1 }, &[f(&[2, 3])], f(&[2, 3]));
    refused(&Op::Softmax { axis: 0 }, &[f(&[])]);
    let norm = |axis, epsilon| Op::LayerNorm { axis, epsilon };
    gives(&norm(1, 1e-5), &[f(&[2, 3, 4]), f(&[3, 4]), f(&[3, 4])], f(&[2, 3, 4]));
    refused(&norm(1, 1e-5), &[f(&[2, 3, 4]), f(&[4]), f(&[3, 4])]);
    refused(&norm(3, 1e-5), &[f(&[2, 3, 4]), f(&[]), f(&[])]);
    refused(&norm(1, f32::NAN), &[f(&[2, 3]), f(&[3]), f(&[3])]);
    refused(&norm(1, -1.0), &[f(&[2, 3]), f(&[3]), f(&[3])]);
    let c = f(&[3]);
    let batch = Op::BatchNorm { epsilon: 1e-5 };
    gives(&batch, &[f(&[2, 3, 5]), c.clone(), c.clone(), c.clone(), c.clone()], f(&[2, 3, 5]));
    refused(&batch, &[f(&[2]), c.clone(), c.clone(), c.clone(), c.clone()]);
    refused(&batch, &[f(&[2, 4]), c.clone(), c.clone(), c.clone(), c]);
}

#[test]
fn attention_shapes() {
    let op = Op::Attention { scale: 0.5 };
    let (q, k, v) = (f(&[1, 2, 3, 4]), f(&[1, 2, 5, 4]), f(&[1, 2, 5, 7]));
    gives(&op, &[q.clone(), k.clone(), v.clone()], f(&[1, 2, 3, 7]));
    gives(&op, &[q.clone(), k.clone(), v.clone(), f(&[3, 1])], f(&[1, 2, 3, 7]));
    refused(&op, &[q.clone(), k.clone(), v.clone(), f(&[2, 1, 2, 3, 5])]);
    refused(&op, &[q.clone(), f(&[1, 2, 6, 4]), v.clone()]);
    refused(&op, &[q.clone(), k.clone(), v.clone(), f(&[4])]);
    refused(&Op::Attention { scale: f32::INFINITY }, &[q, k, v]);
}

#[test]
fn movement() {
    gives(&Op::Reshape { shape: vec![6] }, &[f(&[2, 3])], f(&[6]));
    gives(&Op::Reshape { shape: vec![7, 0] }, &[f(&[0])], f(&[7, 0]));
    refused(&Op::Reshape { shape: vec![u64::MAX, 2] }, &[f(&[2])]);
    gives(&Op::Transpose { perm: vec![2, 0, 1] }, &[f(&[2, 3, 4])], f(&[4, 2, 3]));
    refused(&Op::Transpose { perm: vec![0, 0] }, &[f(&[2, 3])]);
    refused(&Op::Transpose { perm: vec![0, usize::MAX] }, &[f(&[2, 3])]);
    refused(&Op::Transpose { perm: vec![0] }, &[f(&[2, 3])]);
    gives(&Op::Expand { shape: vec![4, 2, 3] }, &[f(&[2, 1])], f(&[4, 2, 3]));
    gives(&Op::Expand { shape: vec![0] }, &[f(&[1])], f(&[0]));
    refused(&Op::Expand { shape: vec![1] }, &[f(&[2])]);
    refused(&Op::Expand { shape: vec![1; 17] }, &[f(&[1])]);
    gives(&Op::Concat { axis: 1 }, &[f(&[2, 0]), f(&[2, 3]), f(&[2, 1])], f(&[2, 4]));
    refused(&Op::Concat { axis: 1 }, &[f(&[2, 0]), f(&[3, 3])]);
    refused(&Op::Concat { axis: 0 }, &[]);
    refused(&Op::Concat { axis: 0 }, &[f(&[]), f(&[])]);
    gives(&Op::Pad { pads: vec![(1, 0), (0, 2)], value: 0.0 }, &[f(&[2, 0])], f(&[3, 2]));
    refused(&Op::Pad { pads: vec![(u64::MAX, u64::MAX)], value: 0.0 }, &[f(&[2])]);
    refused(&Op::Pad { pads: vec![(0, 0)], value: 0.0 }, &[f(&[])]);
}

#[test]
fn slices_stay_inside() {
    let slice = |start, size, step| Op::Slice { starts: vec![start], sizes: vec![size], steps: vec![step] };
    gives(&slice(1, 2, 2), &[f(&[4])], f(&[2]));
    gives(&slice(3, 4, -1), &[f(&[4])], f(&[4]));
    gives(&slice(4, 0, 1), &[f(&[4])], f(&[0]));
    gives(&slice(0, 0, -1), &[f(&[0])], f(&[0]));
    refused(&slice(5, 0, 1), &[f(&[4])]);
    refused(&slice(4, 1, 1), &[f(&[4])]);
    refused(&slice(2, 2, 2), &[f(&[4])]);
    refused(&slice(1, 3, -1), &[f(&[4])]);
    refused(&slice(0, 1, 0), &[f(&[4])]);
    refused(&slice(0, 1, i64::MIN), &[f(&[4])]);
    refused(&slice(u64::MAX, u64::MAX, i64::MAX), &[f(&[4])]);
    refused(&slice(u64::MAX, u64::MAX, i64::MIN), &[f(&[4])]);
}

#[test]
fn gathers() {
    let indices = t(DType::I64, &[5, 6]);
    gives(&Op::Gather { axis: 1 }, &[f(&[2, 3, 4]), indices.clone()], f(&[2, 5, 6, 4]));
    gives(&Op::Gather { axis: 0 }, &[f(&[3]), t(DType::I32, &[])], f(&[]));
    refused(&Op::Gather { axis: 3 }, &[f(&[2, 3, 4]), indices.clone()]);
    refused(&Op::Gather { axis: 0 }, &[f(&[2]), f(&[1])]);
    refused(&Op::Gather { axis: 0 }, &[f(&[0]), indices]);
    gives(&Op::Gather { axis: 0 }, &[f(&[0]), t(DType::I64, &[0])], f(&[0]));
}

#[test]
fn gathers_and_scatters_of_elements() {
    let x = f(&[2, 3, 4]);
    let ids = |shape: &[u64]| t(DType::I64, shape);
    gives(&Op::GatherElements { axis: 1 }, &[x.clone(), ids(&[2, 7, 1])], f(&[2, 7, 1]));
    refused(&Op::GatherElements { axis: 1 }, &[x.clone(), ids(&[3, 7, 1])]);
    refused(&Op::GatherElements { axis: 3 }, &[x.clone(), ids(&[2, 3, 4])]);
    refused(&Op::GatherElements { axis: 1 }, &[x.clone(), ids(&[2, 7])]);
    refused(&Op::GatherElements { axis: 0 }, &[f(&[0]), ids(&[1])]);
    gives(&Op::GatherNd { batch_dims: 0 }, &[x.clone(), ids(&[5, 2])], f(&[5, 4]));
    gives(&Op::GatherNd { batch_dims: 1 }, &[x.clone(), ids(&[2, 5, 1])], f(&[2, 5, 4]));
    gives(&Op::GatherNd { batch_dims: 0 }, &[x.clone(), ids(&[0])], f(&[2, 3, 4]));
    refused(&Op::GatherNd { batch_dims: 1 }, &[x.clone(), ids(&[3, 5, 1])]);
    refused(&Op::GatherNd { batch_dims: 0 }, &[x.clone(), ids(&[4])]);
    refused(&Op::GatherNd { batch_dims: 1 }, &[x.clone(), ids(&[1])]);
    refused(&Op::GatherNd { batch_dims: 0 }, &[x.clone(), ids(&[])]);
    refused(&Op::GatherNd { batch_dims: usize::MAX }, &[x.clone(), ids(&[u64::from(u32::MAX)])]);
    refused(&Op::GatherNd { batch_dims: 0 }, &[f(&[0, 2]), ids(&[1])]);
    let elements = Op::ScatterElements { axis: 0, combine: ScatterOp::Add };
    gives(&elements, &[x.clone(), ids(&[9, 1, 4]), f(&[9, 1, 4])], x.clone());
    refused(&elements, &[x.clone(), ids(&[9, 1, 4]), f(&[9, 1, 3])]);
    refused(&elements, &[t(DType::Bool, &[2]), ids(&[1]), t(DType::Bool, &[1])]);
    let tuples = Op::ScatterNd { combine: ScatterOp::Replace };
    gives(&tuples, &[x.clone(), ids(&[5, 1]), f(&[5, 3, 4])], x.clone());
    gives(&tuples, &[t(DType::Bool, &[2]), ids(&[1]), t(DType::Bool, &[])], t(DType::Bool, &[2]));
    refused(&tuples, &[x.clone(), ids(&[5, 1]), f(&[5, 4])]);
    refused(&tuples, &[x, ids(&[5, 1]), t(DType::I32, &[5, 3, 4])]);
}

#[test]
fn operators_along_a_dimension() {
    let arg = |axis| Op::ArgReduce { op: ArgOp::Max, axis, last: false };
    gives(&arg(1), &[f(&[2, 3])], t(DType::I64, &[2, 1]));
    gives(&arg(1), &[f(&[0, 0])], t(DType::I64, &[0, 1]));
    refused(&arg(0), &[f(&[0])]);
    refused(&arg(0), &[f(&[])]);
    let top = |k| Op::TopK { k, axis: 1, largest: true }.infer_all(&[&f(&[2, 3])]);
    assert_eq!(top(2), Ok(vec![f(&[2, 2]), t(DType::I64, &[2, 2])]));
    assert_eq!(top(0), Ok(vec![f(&[2, 0]), t(DType::I64, &[2, 0])]));
    top(4).expect_err("there are three");
    let sum = Op::CumSum { axis: 0, exclusive: true, reverse: false };
    gives(&sum, &[t(DType::U8, &[0])], t(DType::U8, &[0]));
    refused(&sum, &[t(DType::Bool, &[2])]);
    refused(&sum, &[f(&[])]);
}
