//! Tests of the interpreter: every operator against hand-calculated values, its bounds against plain `f32` loops, and
//! the decisions that uncertainty leaves open.

use super::*;
use crate::graph::{ArgOp, BinaryOp, ConvAttrs, GeluKind, PoolAttrs, PoolKind, ReduceOp, ScatterOp, UnaryOp};
use crate::types::DType;

fn f32s(shape: &[u64], values: &[f32]) -> Evaluated {
    Evaluated::from_tensor(&Tensor::from_f32(shape, values).unwrap())
}

fn ints(dtype: DType, values: &[i64]) -> Evaluated {
    let ty = TensorType::new(dtype, [values.len() as u64]).unwrap();
    Evaluated::new(ty, value::Data::Int(values.to_vec()), Vec::new())
}

/// Floats with the same bound on each.
fn uncertain(shape: &[u64], values: &[f32], err: f64) -> Evaluated {
    let mut x = f32s(shape, values);
    x.err = vec![err; values.len()];
    x
}

fn run_op(op: Op, operands: &[&Evaluated]) -> Evaluated {
    evaluate_op(&op, operands).unwrap()
}

/// The result has that shape and those values, and its bounds are a few roundings.
#[track_caller]
fn gives(op: Op, operands: &[&Evaluated], shape: &[u64], expected: &[f64]) {
    let result = run_op(op, operands);
    assert_eq!(result.ty().shape(), shape);
    let values = result.floats().unwrap();
    assert_eq!(values.len(), expected.len());
    for (i, (&v, &x)) in values.iter().zip(expected).enumerate() {
        let same = v == x || (v.is_nan() && x.is_nan()) || (v - x).abs() <= 1e-7 * x.abs().max(1.0);
        assert!(same, "element {i} is {v} instead of {x}");
        assert!(result.err(i) <= 1e-5 * x.abs().max(1.0) || !x.is_finite(), "bound {} of element {i}", result.err(i));
    }
}

#[track_caller]
fn gives_ints(op: Op, operands: &[&Evaluated], expected: &[i64]) {
    let result = run_op(op, operands);
    assert_eq!(result.ints().unwrap(), expected);
    assert!(result.err.is_empty());
}

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

#[test]
fn unary_functions() {
    use UnaryOp::*;
    let f = |op, x: f32, y: f64| gives(Op::Unary(op), &[&f32s(&[], &[x])], &[], &[y]);
    f(Neg, 2.5, -2.5);
    f(Abs, -2.5, 2.5);
    f(Exp, 1.0, std::f64::consts::E);
    f(Exp, 1000.0, INF);
    f(Exp, -1000.0, 0.0);
    f(Log, 1.0, 0.0);
    f(Log, 0.0, -INF);
    f(Log, -1.0, NAN);
    f(Sqrt, 2.25, 1.5);
    f(Sqrt, -1.0, NAN);
    f(Recip, 4.0, 0.25);
    f(Recip, 0.0, INF);
    f(Erf, 1.0, 0.842_700_792_949_715);
    f(Tanh, 0.5, 0.462_117_157_260_009_8);
    f(Sigmoid, 0.0, 0.5);
    f(Sigmoid, -200.0, 0.0);
    f(Sin, 0.5, 0.479_425_538_604_203);
    f(Cos, 0.5, 0.877_582_561_890_372_8);
    f(Atan, -1.0, -std::f64::consts::FRAC_PI_4);
    f(Expm1, 1e-10, 1.000_000_000_05e-10);
    f(Log1p, 1e-10, 9.999_999_999_5e-11);
    f(Log1p, -2.0, NAN);
    f(Round, 2.5, 2.0);
    f(Round, -3.5, -4.0);
    f(Floor, -0.5, -1.0);
    f(Ceil, 0.5, 1.0);
    gives_ints(Op::Unary(Neg), &[&ints(DType::I8, &[-128, 5])], &[-128, -5]);
    gives_ints(Op::Unary(Neg), &[&ints(DType::U8, &[1])], &[255]);
    gives_ints(Op::Unary(Abs), &[&ints(DType::I32, &[i64::from(i32::MIN), -3])], &[i64::from(i32::MIN), 3]);
    gives_ints(Op::Unary(Not), &[&ints(DType::Bool, &[0, 1])], &[1, 0]);
    gives_ints(Op::Unary(Not), &[&ints(DType::U8, &[1])], &[254]);
    gives_ints(Op::Unary(Not), &[&ints(DType::I16, &[1])], &[-2]);
}

#[test]
fn binary_functions() {
    use BinaryOp::*;
    let (a, b) = (f32s(&[2, 1], &[6.0, -3.0]), f32s(&[3], &[2.0, -3.0, 0.5]));
    let f = |op, y: &[f64]| gives(Op::Binary(op), &[&a, &b], &[2, 3], y);
    f(Add, &[8.0, 3.0, 6.5, -1.0, -6.0, -2.5]);
    f(Sub, &[4.0, 9.0, 5.5, -5.0, 0.0, -3.5]);
    f(Mul, &[12.0, -18.0, 3.0, -6.0, 9.0, -1.5]);
    f(Div, &[3.0, -2.0, 12.0, -1.5, 1.0, -6.0]);
    f(Pow, &[36.0, 1.0 / 216.0, 6f64.sqrt(), 9.0, -1.0 / 27.0, NAN]);
    f(Rem, &[0.0, 0.0, 0.0, -1.0, 0.0, 0.0]);
    f(Max, &[6.0, 6.0, 6.0, 2.0, -3.0, 0.5]);
    f(Min, &[2.0, -3.0, 0.5, -3.0, -3.0, -3.0]);
    let g = |op, y: &[i64]| gives_ints(Op::Binary(op), &[&a, &b], y);
    g(Eq, &[0, 0, 0, 0, 1, 0]);
    g(Lt, &[0, 0, 0, 1, 0, 1]);
    g(Le, &[0, 0, 0, 1, 1, 1]);
}

#[test]
fn integers_wrap_and_divide() {
    use BinaryOp::*;
    let f = |op, dtype, a: &[i64], b: &[i64], y: &[i64]| {
        gives_ints(Op::Binary(op), &[&ints(dtype, a), &ints(dtype, b)], y);
    };
    f(Add, DType::I8, &[127, -128], &[1, -1], &[-128, 127]);
    f(Sub, DType::U16, &[0], &[1], &[65535]);
    f(Mul, DType::I64, &[i64::MIN], &[-1], &[i64::MIN]);
    f(Div, DType::I32, &[7, -7, 5, i64::from(i32::MIN)], &[2, 2, 0, -1], &[3, -3, 0, i64::from(i32::MIN)]);
    f(Div, DType::U64, &[-1], &[2], &[i64::MAX]);
    f(Max, DType::U64, &[-1], &[1], &[-1]);
    f(Lt, DType::U64, &[-1], &[1], &[0]);
    f(Lt, DType::I64, &[-1], &[1], &[1]);
    f(And, DType::Bool, &[0, 1, 1], &[1, 0, 1], &[0, 0, 1]);
    f(Or, DType::Bool, &[0, 1], &[0, 0], &[0, 1]);
    f(Xor, DType::Bool, &[1, 1], &[1, 0], &[0, 1]);
    f(Rem, DType::I8, &[7, -7, 5, -128], &[3, 3, 0, -1], &[1, -1, 5, 0]);
    f(Rem, DType::U64, &[-1], &[10], &[5]);
    f(And, DType::U8, &[0b1100], &[0b1010], &[0b1000]);
    f(Or, DType::I64, &[-4], &[1], &[-3]);
    f(Xor, DType::I8, &[-1], &[1], &[-2]);
    f(Shl, DType::U8, &[3, 3, 3], &[7, 8, 255], &[128, 0, 0]);
    f(Shl, DType::I8, &[3, 3], &[6, -1], &[-64, 0]);
    f(Shr, DType::U64, &[-1, -1, -1], &[63, 64, -1], &[1, 0, 0]);
    f(Shr, DType::I32, &[-5, -5, 5], &[1, 32, -7], &[-3, -1, 0]);
}

#[test]
fn selections_and_casts() {
    let condition = ints(DType::Bool, &[1, 0]);
    gives(Op::Select, &[&condition, &f32s(&[], &[1.0]), &f32s(&[2], &[5.0, 6.0])], &[2], &[1.0, 6.0]);
    let cast = |to| Op::Cast { to };
    let x = f32s(&[5], &[1.9, -1.9, 300.0, f32::NAN, 0.0]);
    gives_ints(cast(DType::I8), &[&x], &[1, -1, 127, 0, 0]);
    gives_ints(cast(DType::U8), &[&x], &[1, 0, 255, 0, 0]);
    gives_ints(cast(DType::Bool), &[&x], &[1, 1, 1, 1, 0]);
    gives_ints(cast(DType::U64), &[&f32s(&[1], &[1e30])], &[-1]);
    gives_ints(cast(DType::I8), &[&ints(DType::I64, &[300])], &[44]);
    gives_ints(cast(DType::Bool), &[&ints(DType::I64, &[256])], &[1]);
    gives(cast(DType::F32), &[&ints(DType::U64, &[-1])], &[1], &[1.844_674_407_370_955_2e19]);
    let third = run_op(cast(DType::F16), &[&f32s(&[], &[1.0 / 3.0])]);
    assert_eq!(third.ty().dtype(), DType::F16);
    assert!(third.err(0) >= 2f64.powi(-14) && third.err(0) < 2f64.powi(-12));
    gives(cast(DType::F16), &[&f32s(&[1], &[1e6])], &[1], &[INF]);
}

#[test]
fn matrix_products() {
    let a = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b = f32s(&[3, 2], &[1.0, 0.0, -1.0, 2.0, 0.5, 1.0]);
    gives(Op::MatMul, &[&a, &b], &[2, 2], &[0.5, 7.0, 2.0, 16.0]);
    // One batch dimension broadcast on either side.
    let stacked = f32s(&[2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    gives(Op::MatMul, &[&stacked, &b], &[2, 1, 2], &[0.5, 7.0, 2.0, 16.0]);
    let two = f32s(&[2, 3, 1], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    gives(Op::MatMul, &[&a, &two], &[2, 2, 1], &[1.0, 4.0, 2.0, 5.0]);
    gives(Op::MatMul, &[&f32s(&[2, 0], &[]), &f32s(&[0, 1], &[])], &[2, 1], &[0.0, 0.0]);
}

#[test]
fn convolutions() {
    let x = f32s(&[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let w = f32s(&[1, 1, 2, 2], &[1.0, 10.0, 100.0, 1000.0]);
    let conv = |strides: &[u64], dilations: &[u64], pads: &[(u64, u64)], groups| {
        Op::Conv(ConvAttrs { strides: strides.into(), dilations: dilations.into(), pads: pads.into(), groups })
    };
    gives(conv(&[1, 1], &[1, 1], &[(0, 0); 2], 1), &[&x, &w], &[1, 1, 2, 2], &[5421.0, 6532.0, 8754.0, 9865.0]);
    let bias = f32s(&[1], &[0.5]);
    gives(conv(&[1, 1], &[2, 2], &[(0, 0); 2], 1), &[&x, &w, &bias], &[1, 1, 1, 1], &[9731.5]);
    gives(conv(&[2, 3], &[1, 1], &[(1, 0), (1, 1)], 1), &[&x, &w], &[1, 1, 2, 2], &[1000.0, 300.0, 7040.0, 906.0]);
    // Two groups over one spatial dimension: the second filter sees the second channel alone.
    let x = f32s(&[2, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    let w = f32s(&[2, 1, 2], &[1.0, 1.0, 1.0, -1.0]);
    gives(conv(&[1], &[1], &[(0, 0)], 2), &[&x, &w], &[2, 2, 2], &[3.0, 5.0, -1.0, -1.0, 1.0, 1.0, 0.0, -1.0]);
}

#[test]
fn pooling() {
    let x = f32s(&[1, 1, 2, 3], &[1.0, -2.0, 3.0, -4.0, 5.0, -6.0]);
    let pool = |kind, kernel: &[u64], strides: &[u64], pads: &[(u64, u64)]| {
        let dilations = vec![1; kernel.len()];
        Op::Pool(PoolAttrs { kind, kernel: kernel.into(), strides: strides.into(), dilations, pads: pads.into() })
    };
    use PoolKind::{AverageExcludePad, AverageIncludePad, Max};
    gives(pool(Max, &[2, 2], &[1, 1], &[(0, 0); 2]), &[&x], &[1, 1, 1, 2], &[5.0, 5.0]);
    gives(pool(Max, &[1, 2], &[1, 2], &[(0, 0), (1, 0)]), &[&x], &[1, 1, 2, 2], &[1.0, 3.0, -4.0, 5.0]);
    gives(pool(AverageExcludePad, &[2, 2], &[2, 2], &[(1, 1), (1, 0)]), &[&x], &[1, 1, 2, 2], &[1.0, 0.5, -4.0, -0.5]);
    gives(
        pool(AverageIncludePad, &[2, 2], &[2, 2], &[(1, 1), (1, 0)]),
        &[&x],
        &[1, 1, 2, 2],
        &[0.25, 0.25, -1.0, -0.25],
    );
    let line = f32s(&[1, 2, 3], &[1.0, 2.0, 3.0, 6.0, 5.0, 4.0]);
    gives(pool(AverageIncludePad, &[3], &[1], &[(0, 0)]), &[&line], &[1, 2, 1], &[2.0, 5.0]);
    let dilated =
        Op::Pool(PoolAttrs { kind: Max, kernel: vec![2], strides: vec![1], dilations: vec![2], pads: vec![(1, 1)] });
    gives(dilated, &[&line], &[1, 2, 3], &[2.0, 3.0, 2.0, 5.0, 6.0, 5.0]);
    let bytes = ints(DType::U8, &[1, 200, 3]).with_type(TensorType::new(DType::U8, [1, 1, 3]).unwrap());
    gives_ints(pool(Max, &[2], &[1], &[(0, 0)]), &[&bytes], &[200, 200]);
}

#[test]
fn reductions() {
    let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, -5.0, 6.5]);
    let reduce = |op, axes: &[usize], keep_dims| Op::Reduce { op, axes: axes.into(), keep_dims };
    gives(reduce(ReduceOp::Sum, &[0], false), &[&x], &[3], &[5.0, -3.0, 9.5]);
    gives(reduce(ReduceOp::Mean, &[1], true), &[&x], &[2, 1], &[2.0, 5.5 / 3.0]);
    gives(reduce(ReduceOp::Max, &[0, 1], false), &[&x], &[], &[6.5]);
    gives(reduce(ReduceOp::Min, &[1], false), &[&x], &[2], &[1.0, -5.0]);
    gives(reduce(ReduceOp::Prod, &[1], false), &[&x], &[2], &[6.0, -130.0]);
    gives(reduce(ReduceOp::Sum, &[], false), &[&x], &[2, 3], &[1.0, 2.0, 3.0, 4.0, -5.0, 6.5]);
    let none = f32s(&[0, 2], &[]);
    gives(reduce(ReduceOp::Sum, &[0], false), &[&none], &[2], &[0.0, 0.0]);
    gives(reduce(ReduceOp::Mean, &[0], false), &[&none], &[2], &[NAN, NAN]);
    gives(reduce(ReduceOp::Prod, &[0], false), &[&none], &[2], &[1.0, 1.0]);
    let bytes = ints(DType::I8, &[100, 100, -3]);
    gives_ints(reduce(ReduceOp::Sum, &[0], false), &[&bytes], &[-59]);
    gives_ints(reduce(ReduceOp::Prod, &[0], false), &[&bytes], &[-48]);
    gives_ints(reduce(ReduceOp::Max, &[0], false), &[&bytes], &[100]);
    gives_ints(reduce(ReduceOp::Min, &[0], false), &[&bytes], &[-3]);
}

#[test]
fn normalizations() {
    let x = f32s(&[2, 2], &[0.0, 3f32.ln(), 5.0, 5.0]);
    gives(Op::Softmax { axis: 1 }, &[&x], &[2, 2], &[0.25, 0.75, 0.5, 0.5]);
    let column = f32s(&[2, 1, 2], &[0.0, 7.0, 0.0, f32::NEG_INFINITY]);
    gives(Op::Softmax { axis: 0 }, &[&column], &[2, 1, 2], &[0.5, 1.0, 0.5, 0.0]);
    let (scale, bias) = (f32s(&[2], &[2.0, 1.0]), f32s(&[2], &[0.0, 10.0]));
    // Mean 2, variance 1, and a variance of 4 with an epsilon of 5.
    let norm = |epsilon| Op::LayerNorm { axis: 1, epsilon };
    gives(norm(0.0), &[&f32s(&[1, 2], &[1.0, 3.0]), &scale, &bias], &[1, 2], &[-2.0, 11.0]);
    gives(norm(5.0), &[&f32s(&[1, 2], &[0.0, 4.0]), &scale, &bias], &[1, 2], &[-4.0 / 3.0, 10.0 + 2.0 / 3.0]);
    let x = f32s(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let (mean, variance) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[3.0, 0.0]));
    let batch = Op::BatchNorm { epsilon: 1.0 };
    gives(batch, &[&x, &scale, &bias, &mean, &variance], &[1, 2, 2], &[0.0, 1.0, 11.0, 12.0]);
}

#[test]
fn gelu_and_attention() {
    let x = f32s(&[3], &[1.0, -3.0, 0.0]);
    // From x/2 erfc(-x/√2), and from the tanh form in double precision.
    gives(Op::Gelu(GeluKind::Erf), &[&x], &[3], &[0.841_344_746_068_542_9, -0.004_049_694_095_374_9, 0.0]);
    gives(Op::Gelu(GeluKind::Tanh), &[&x], &[3], &[0.841_191_990_607_477_8, -0.003_637_392_081_773_9, 0.0]);
    let (q, k) = (f32s(&[1, 1, 1, 2], &[2.0, 0.0]), f32s(&[1, 1, 2, 2], &[3f32.ln(), 9.0, 0.0, 9.0]));
    let v = f32s(&[1, 1, 2, 3], &[4.0, 8.0, 0.0, 0.0, 4.0, 4.0]);
    let op = Op::Attention { scale: 0.5 };
    gives(op.clone(), &[&q, &k, &v], &[1, 1, 1, 3], &[3.0, 7.0, 1.0]);
    let mask = f32s(&[2], &[f32::MIN, 0.0]);
    gives(op, &[&q, &k, &v, &mask], &[1, 1, 1, 3], &[0.0, 4.0, 4.0]);
}

#[test]
fn movement_of_elements() {
    let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    gives(Op::Reshape { shape: vec![3, 2] }, &[&x], &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    gives(Op::Transpose { perm: vec![1, 0] }, &[&x], &[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    gives(Op::Expand { shape: vec![2, 1, 2] }, &[&f32s(&[1, 2], &[1.0, 2.0])], &[2, 1, 2], &[1.0, 2.0, 1.0, 2.0]);
    let y = f32s(&[2, 1], &[7.0, 8.0]);
    gives(Op::Concat { axis: 1 }, &[&y, &x], &[2, 4], &[7.0, 1.0, 2.0, 3.0, 8.0, 4.0, 5.0, 6.0]);
    let slice = Op::Slice { starts: vec![1, 2], sizes: vec![1, 2], steps: vec![1 << 40, -2] };
    gives(slice, &[&x], &[1, 2], &[6.0, 4.0]);
    let pad = Op::Pad { pads: vec![(1, 0), (0, 1)], value: 9.0 };
    gives(pad, &[&y], &[3, 2], &[9.0, 9.0, 7.0, 9.0, 8.0, 9.0]);
    let pad = Op::Pad { pads: vec![(0, 1)], value: 300.7 };
    gives_ints(pad, &[&ints(DType::U8, &[1])], &[1, 255]);
    gives_ints(Op::Concat { axis: 0 }, &[&ints(DType::I8, &[1]), &ints(DType::I8, &[2, 3])], &[1, 2, 3]);
    gives(Op::Gather { axis: 1 }, &[&x, &ints(DType::I64, &[2, -3])], &[2, 2], &[3.0, 1.0, 6.0, 4.0]);
    for index in [3, -4, i64::MIN, i64::MAX] {
        let error = evaluate_op(&Op::Gather { axis: 1 }, &[&x, &ints(DType::I64, &[index])]);
        assert_eq!(error, Err(OpError::Index { index, size: 3 }));
    }
    gives(Op::Transpose { perm: vec![1, 0] }, &[&f32s(&[0, 2], &[])], &[2, 0], &[]);
}

#[test]
fn undetermined_decisions_spread() {
    let x = uncertain(&[2], &[1.0, 3.0], 0.125);
    let limit = f32s(&[2], &[1.1, 1.1]);
    let less = run_op(Op::Binary(BinaryOp::Lt), &[&x, &limit]);
    assert_eq!((less.err(0), less.err(1)), (INF, 0.0));
    assert_eq!(less.ints().unwrap()[1], 0);
    // A selection of either is bounded by both; a cast is open, as is the gather that it indexes.
    let either = run_op(Op::Select, &[&less, &f32s(&[], &[2.0]), &f32s(&[], &[5.0])]);
    assert_eq!((either.floats().unwrap(), either.err(0), either.err(1)), ([2.0, 5.0].as_slice(), 3.0, 0.0));
    let index = run_op(Op::Cast { to: DType::I64 }, &[&x]);
    assert_eq!((index.err(0), index.err(1)), (INF, INF));
    let index = run_op(Op::Cast { to: DType::I64 }, &[&uncertain(&[2], &[1.0, 3.5], 0.25)]);
    assert_eq!((index.err(0), index.err(1)), (INF, 0.0));
    let table = f32s(&[4], &[1.0, 2.0, 3.0, 4.0]);
    let rows = run_op(Op::Gather { axis: 0 }, &[&table, &index]);
    assert_eq!((rows.err(0), rows.err(1)), (INF, 0.0));
    let both = run_op(Op::Binary(BinaryOp::And), &[&less, &ints(DType::Bool, &[0, 1])]);
    assert!(both.err.is_empty());
    let floor = run_op(Op::Unary(UnaryOp::Floor), &[&uncertain(&[2], &[1.0, 3.5], 0.25)]);
    assert_eq!((floor.err(0), floor.err(1)), (1.0, 0.0));
    let log = run_op(Op::Unary(UnaryOp::Log), &[&uncertain(&[], &[0.1], 0.25)]);
    assert_eq!(log.err(0), INF);
}

#[test]
fn masks_stay_exact() {
    // (1 - mask) · min + scores, as exported encoders write it, then softmax.
    let mask = run_op(Op::Cast { to: DType::F32 }, &[&ints(DType::I64, &[1, 0, 1])]);
    let one = f32s(&[], &[1.0]);
    let inverted = run_op(Op::Binary(BinaryOp::Sub), &[&one, &mask]);
    let large = run_op(Op::Binary(BinaryOp::Mul), &[&inverted, &f32s(&[], &[f32::MIN])]);
    assert!(large.err.is_empty());
    let scores = run_op(Op::Binary(BinaryOp::Add), &[&large, &uncertain(&[3], &[1.0, 2.0, 1.0], 1e-6)]);
    gives(Op::Softmax { axis: 0 }, &[&scores], &[3], &[0.5, 0.0, 0.5]);
}

#[test]
fn comparisons_count() {
    let expected = uncertain(&[4], &[1.0, 2.0, 4.0, 0.0], 0.25);
    let actual = Tensor::from_f32([4], &[1.25, 2.5, 4.0, 0.0]).unwrap();
    let result = expected.check(&actual).unwrap();
    assert_eq!((result.max_abs, result.max_rel), (0.5, 0.25));
    assert_eq!((result.outside, result.first_outside, result.undetermined), (1, Some(1), 0));
    assert!((result.cosine - (1.25 + 5.0 + 16.0) / (21f64 * (1.5625 + 6.25 + 16.0)).sqrt()).abs() < 1e-12);
    assert!(expected.check(&Tensor::scalar_f32(1.0)).is_err());
    let special = f32s(&[3], &[f32::NAN, f32::INFINITY, 1.0]);
    assert_eq!(special.check(&special.to_tensor()).unwrap().outside, 0);
    let wrong = Tensor::from_f32([3], &[1.0, f32::NEG_INFINITY, f32::NAN]).unwrap();
    assert_eq!(special.check(&wrong).unwrap().outside, 3);
    let whole = ints(DType::I64, &[i64::MAX]);
    assert_eq!(whole.check(&Tensor::from_i64([1], &[i64::MAX - 1]).unwrap()).unwrap().outside, 1);
    assert_eq!(whole.to_tensor().get_i64(0), Some(i64::MAX));
}

#[test]
fn graphs_are_evaluated_and_checked() {
    let text = r#"graph "g" {
        in v0 "x": f32[2]
        in v1 "i": i64[1]
        const v2 "table": f32[3, 2] = [1, 2, 3, 4, 5, 6]
        v3 "row": f32[1, 2] = gather v2, v1 {axis: 0}
        v4 "sum": f32[1, 2] = add v3, v0
        out "y" v4
        out "table" v2
        out "x" v0
    }"#;
    let graph = Graph::parse(text, None).unwrap();
    let x = Tensor::from_f32([2], &[0.5, -0.5]).unwrap();
    let run = |i: i64| evaluate(&graph, &[x.clone(), Tensor::from_i64([1], &[i]).unwrap()]);
    let outputs = run(-1).unwrap();
    assert_eq!(outputs[0].floats().unwrap(), [5.5, 5.5]);
    assert_eq!(outputs[1].floats().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(outputs[2].to_tensor(), x);
    let all = evaluate_all(&graph, &[x.clone(), Tensor::from_i64([1], &[0]).unwrap()], ErrorModel::WorstCase).unwrap();
    assert_eq!(graph.values.keys().map(|v| all[v].is_some()).collect::<Vec<_>>(), [true, true, false, true, true]);
    let error = run(3).unwrap_err();
    assert_eq!(error.to_string(), "node \"row\": index 3 is out of range for a dimension of 3 elements");
    assert!(matches!(evaluate(&graph, &[]), Err(InterpError::InputCount { expected: 2, actual: 0 })));
    assert!(matches!(evaluate(&graph, &[x.clone(), x.clone()]), Err(InterpError::InputType { .. })));
    let mut broken = graph.clone();
    broken.order.reverse();
    assert!(matches!(evaluate(&broken, &[x.clone(), x]), Err(InterpError::Invalid(_))));
}

#[test]
fn huge_results_are_refused() {
    let x = f32s(&[1], &[1.0]);
    let error = evaluate_op(&Op::Expand { shape: vec![1 << 40] }, &[&x]).unwrap_err();
    assert!(matches!(error, OpError::TooLarge(_)));
}

/// Numbers in -2 to 2 from a linear congruential generator (Knuth's constants).
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 22) as f32 - 2.0
        })
        .collect()
}

#[track_caller]
fn holds(reference: &Evaluated, actual: &[f32]) {
    let actual = Tensor::from_f32(reference.ty().shape(), actual).unwrap();
    let result = reference.check(&actual).unwrap();
    assert_eq!((result.outside, result.undetermined), (0, 0), "{result:?}");
    // The bound must not be so wide that it means nothing.
    let widest = (0..actual.ty().elems() as usize).map(|i| reference.err(i)).fold(0.0, f64::max);
    assert!(widest < 1e-3, "{widest}");
}

/// A chain of operators in plain `f32` loops, forwards and backwards, lies within the bounds.
#[test]
fn bounds_hold_plain_evaluations() {
    plain_evaluations_are_inside(ErrorModel::WorstCase);
}

#[test]
fn independent_bounds_hold_plain_evaluations() {
    plain_evaluations_are_inside(ErrorModel::Independent);
}

fn plain_evaluations_are_inside(model: ErrorModel) {
    let run_op = |op: Op, operands: &[&Evaluated]| apply(&op, operands, model).unwrap();
    let (m, k, n) = (5, 37, 11);
    let (x, w) = (random(m * k, 1), random(k * n, 2));
    let a = f32s(&[m as u64, k as u64], &x);
    let b = f32s(&[k as u64, n as u64], &w);
    let product = run_op(Op::MatMul, &[&a, &b]);
    let softmax = run_op(Op::Softmax { axis: 1 }, &[&product]);
    let (scale, bias) = (random(n, 3), random(n, 4));
    let norm = run_op(
        Op::LayerNorm { axis: 1, epsilon: 1e-5 },
        &[&product, &f32s(&[n as u64], &scale), &f32s(&[n as u64], &bias)],
    );
    let gelu = run_op(Op::Gelu(GeluKind::Erf), &[&norm]);
    let gelu_tanh = run_op(Op::Gelu(GeluKind::Tanh), &[&norm]);
    for backwards in [false, true] {
        let order = |count: usize| (0..count).map(move |i| if backwards { count - 1 - i } else { i });
        let mut y = vec![0f32; m * n];
        for (i, j, p) in (0..m).flat_map(|i| (0..n).flat_map(move |j| order(k).map(move |p| (i, j, p)))) {
            y[i * n + j] += x[i * k + p] * w[p * n + j];
        }
        holds(&product, &y);
        let (mut soft, mut normal) = (Vec::new(), Vec::new());
        for row in y.chunks(n) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exps: Vec<f32> = row.iter().map(|v| (v - max).exp()).collect();
            let sum: f32 = order(n).map(|i| exps[i]).sum();
            soft.extend(exps.iter().map(|e| e / sum));
            let mean = order(n).map(|i| row[i]).sum::<f32>() / n as f32;
            let variance = order(n).map(|i| (row[i] - mean).powi(2)).sum::<f32>() * (1.0 / n as f32);
            let inverse = 1.0 / (variance + 1e-5).sqrt();
            normal.extend((0..n).map(|i| (row[i] - mean) * inverse * scale[i] + bias[i]));
        }
        holds(&softmax, &soft);
        holds(&norm, &normal);
        let erf: Vec<f32> =
            normal.iter().map(|v| v / 2.0 * (1.0 + libm::erff(v * std::f32::consts::FRAC_1_SQRT_2))).collect();
        holds(&gelu, &erf);
        let tanh: Vec<f32> =
            normal.iter().map(|v| v * 0.5 * (1.0 + libm::tanhf(0.797_884_6 * (v + 0.044_715 * v * v * v)))).collect();
        holds(&gelu_tanh, &tanh);
    }
}

/// Eight layers of a network: worst-case bounds grow past all use, independent ones do not.
#[test]
fn independent_bounds_stay_narrow() {
    let mut graph = Graph::new("deep");
    let mut x = graph.add_input("x", TensorType::new(DType::F32, [4, 48]).unwrap());
    let scale = graph.add_const("scale", Tensor::from_f32([48], &[1.0; 48]).unwrap());
    for layer in 0..8 {
        let weights: Vec<f32> = random(48 * 48, layer).iter().map(|w| w * 0.125).collect();
        let w = graph.add_const("w", Tensor::from_f32([48, 48], &weights).unwrap());
        x = graph.add_node("product", Op::MatMul, &[x, w]).unwrap();
        x = graph.add_node("norm", Op::LayerNorm { axis: 1, epsilon: 1e-5 }, &[x, scale, scale]).unwrap();
    }
    graph.add_output("y", x);
    let input = Tensor::from_f32([4, 48], &random(4 * 48, 99)).unwrap();
    let widest = |model| {
        let y = evaluate_with(&graph, std::slice::from_ref(&input), model).unwrap();
        (0..4 * 48).map(|i| y[0].err(i)).fold(0.0, f64::max)
    };
    assert!(widest(ErrorModel::WorstCase) > 1.0);
    assert!(widest(ErrorModel::Independent) < 1e-2);
}

#[test]
fn positions_of_extremes() {
    let arg = |op, last| Op::ArgReduce { op, axis: 1, last };
    let x = f32s(&[2, 4], &[1.0, 3.0, 3.0, 1.0, 0.0, f32::NAN, f32::INFINITY, f32::NAN]);
    gives_ints(arg(ArgOp::Max, false), &[&x], &[1, 1]);
    gives_ints(arg(ArgOp::Max, true), &[&x], &[2, 3]);
    gives_ints(arg(ArgOp::Min, false), &[&x], &[0, 1]);
    gives_ints(arg(ArgOp::Min, true), &[&x], &[3, 3]);
    let unsigned = Op::ArgReduce { op: ArgOp::Max, axis: 0, last: false };
    gives_ints(unsigned, &[&ints(DType::U64, &[1, -1, 2])], &[1]);
    // What rounding may decide is undetermined.
    let inexact = run_op(Op::Unary(UnaryOp::Exp), &[&f32s(&[1, 3], &[0.5, 0.5, 0.0])]);
    let result = evaluate_op(&arg(ArgOp::Max, false), &[&inexact]).unwrap();
    assert_eq!(result.err(0), INF);
    let result = evaluate_op(&arg(ArgOp::Min, false), &[&inexact]).unwrap();
    assert_eq!((result.ints(), result.err(0)), (Some([2].as_slice()), 0.0));
}

#[test]
fn best_elements() {
    let top = |k, largest, x: &Evaluated| evaluate_op_all(&Op::TopK { k, axis: 0, largest }, &[x]).unwrap();
    let x = f32s(&[5, 1], &[1.0, 3.0, f32::NAN, 3.0, -1.0]);
    let largest = top(3, true, &x);
    assert!(largest[0].floats().unwrap()[0].is_nan());
    assert_eq!(
        (&largest[0].floats().unwrap()[1..], largest[1].ints()),
        ([3.0, 3.0].as_slice(), Some([2, 1, 3].as_slice()))
    );
    let smallest = top(5, false, &x);
    assert_eq!((smallest[0].floats().unwrap()[1], smallest[1].ints()), (1.0, Some([4, 0, 1, 3, 2].as_slice())));
    assert!(smallest[1].err.is_empty());
    assert_eq!(top(1, true, &ints(DType::U64, &[1, -1]))[0].ints(), Some([-1].as_slice()));
    assert_eq!(top(0, true, &x)[0].ty().shape(), [0, 1]);
    // What rounding may swap is undetermined; the values hardly are.
    let close = uncertain(&[4], &[1.0, 1.05, 3.0, 0.0], 0.1);
    let sorted = top(4, true, &close);
    let open: Vec<bool> = (0..4).map(|i| sorted[1].err(i) == INF).collect();
    assert_eq!((open.as_slice(), sorted[0].err(1)), ([false, true, true, false].as_slice(), 0.1));
}

#[test]
fn running_sums() {
    let sum = |exclusive, reverse| Op::CumSum { axis: 0, exclusive, reverse };
    let x = f32s(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    gives(sum(false, false), &[&x], &[3, 2], &[1.0, 2.0, 4.0, 6.0, 9.0, 12.0]);
    gives(sum(true, false), &[&x], &[3, 2], &[0.0, 0.0, 1.0, 2.0, 4.0, 6.0]);
    gives(sum(false, true), &[&x], &[3, 2], &[9.0, 12.0, 8.0, 10.0, 5.0, 6.0]);
    gives(sum(true, true), &[&x], &[3, 2], &[8.0, 10.0, 5.0, 6.0, 0.0, 0.0]);
    gives_ints(sum(false, false), &[&ints(DType::U8, &[200, 100])], &[200, 44]);
}

#[test]
fn gathers_by_elements_and_tuples() {
    let x = f32s(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let ids = |shape: &[u64], v: &[i64]| Evaluated::from_tensor(&Tensor::from_i64(shape, v).unwrap());
    gives(Op::GatherElements { axis: 0 }, &[&x, &ids(&[1, 3], &[1, 0, -1])], &[1, 3], &[3.0, 1.0, 5.0]);
    gives(Op::GatherElements { axis: 1 }, &[&x, &ids(&[2, 1], &[-3, 2])], &[2, 1], &[0.0, 5.0]);
    gives(Op::GatherNd { batch_dims: 0 }, &[&x, &ids(&[2, 2], &[1, 1, 0, -1])], &[2], &[4.0, 2.0]);
    gives(Op::GatherNd { batch_dims: 0 }, &[&x, &ids(&[1, 1], &[-1])], &[1, 3], &[3.0, 4.0, 5.0]);
    gives(Op::GatherNd { batch_dims: 1 }, &[&x, &ids(&[2, 1], &[2, 0])], &[2], &[2.0, 3.0]);
    let error = evaluate_op(&Op::GatherNd { batch_dims: 0 }, &[&x, &ids(&[1, 2], &[0, 3])]).unwrap_err();
    assert_eq!(error, OpError::Index { index: 3, size: 3 });
}

#[test]
fn scatters_in_order() {
    let x = f32s(&[4], &[1.0, 2.0, 3.0, 4.0]);
    let ids = |shape: &[u64], v: &[i64]| Evaluated::from_tensor(&Tensor::from_i64(shape, v).unwrap());
    let updates = f32s(&[3], &[5.0, -6.0, 7.0]);
    let elements = |combine, y: &[f64]| {
        gives(Op::ScatterElements { axis: 0, combine }, &[&x, &ids(&[3], &[1, -1, 1]), &updates], &[4], y);
        gives(Op::ScatterNd { combine }, &[&x, &ids(&[3, 1], &[1, -1, 1]), &updates], &[4], y);
    };
    elements(ScatterOp::Replace, &[1.0, 7.0, 3.0, -6.0]);
    elements(ScatterOp::Add, &[1.0, 14.0, 3.0, -2.0]);
    elements(ScatterOp::Mul, &[1.0, 70.0, 3.0, -24.0]);
    elements(ScatterOp::Max, &[1.0, 7.0, 3.0, 4.0]);
    elements(ScatterOp::Min, &[1.0, 2.0, 3.0, -6.0]);
    gives(Op::ScatterNd { combine: ScatterOp::Add }, &[&x, &ids(&[0], &[]), &x], &[4], &[2.0, 4.0, 6.0, 8.0]);
}
