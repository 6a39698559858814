//! Tests of expanded functions: their error in ULP against binary64, and special values.

mod double;
mod half;

use super::*;
use crate::tile::interp;
use crate::tile::{Access, Affine, Buffer, BufferData, Dim, Exec, Item, KernelData, Step, StmtData, Storage};
use crate::types::{Tensor, TensorType};

/// A program that applies an expression of one or two loads, by index, to whole inputs.
fn program(dtype: DType, n: u64, inputs: u32, make: &dyn Fn(&mut Expr, &[ExprRef])) -> Program {
    let mut p = Program::default();
    let at = |b: Buffer| Access::new(b, vec![Affine::dim(0)]);
    let mut value = Expr::default();
    let mut loads = Vec::new();
    for i in 0..inputs {
        let b = p.buffers.push(BufferData::dense(format!("x{i}"), dtype, &[n], Storage::Input(i)));
        p.inputs.push(b);
        loads.push(value.push(Inst::Load(at(b))));
    }
    make(&mut value, &loads);
    let y = p.buffers.push(BufferData::dense("y", dtype, &[n], Storage::Output(0)));
    p.outputs.push(y);
    let mut kernel = KernelData { name: "k".into(), ..KernelData::default() };
    let dims = vec![Dim { name: "d0".into(), extent: n, exec: Exec::Unroll }];
    let op = StmtOp::Map { dst: at(y), value };
    let stmt = kernel.stmts.push(StmtData { name: "map".into(), dims, op, intrinsic: None });
    kernel.body.push(Item::Stmt(stmt));
    let kernel = p.kernels.push(kernel);
    p.steps.push(Step::Run(kernel));
    p
}

fn instructions(p: &Program) -> usize {
    let StmtOp::Map { value, .. } = &p.kernels.values().next().unwrap().stmts.values().next().unwrap().op else {
        panic!("a map");
    };
    let free = |i: &&Inst| !matches!(i, Inst::Load(_) | Inst::Const(_) | Inst::Bitcast(..));
    value.insts.iter().filter(free).count()
}

fn evaluate(p: &Program, inputs: &[&[f32]]) -> Vec<f32> {
    let tensors: Vec<Tensor> = inputs.iter().map(|x| Tensor::from_f32([x.len() as u64], x).unwrap()).collect();
    let y = interp::run(p, &tensors).unwrap().remove(0);
    y.bytes().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Distance of `y` from the exact value, in units in the last place of a binary32 near it.
fn ulps(y: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if rounded.is_nan() || y.is_nan() {
        return if rounded.is_nan() && y.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if f64::from(y) == exact || y == rounded {
        return (f64::from(y) - exact).abs().min(0.5);
    }
    let wide = |x: f32| if x.is_infinite() { f64::from(x.signum()) * f64::powi(2.0, 128) } else { f64::from(x) };
    let exponent = (exact.abs().to_bits() >> 52) as i32 - 1023;
    let unit = f64::powi(2.0, exponent.clamp(-126, 127) - 23);
    (wide(y) - exact.clamp(-f64::powi(2.0, 128), f64::powi(2.0, 128))).abs() / unit
}

/// Every `step`-th bit pattern, and the values where formulas change.
fn sweep(step: usize) -> Vec<f32> {
    let mut xs: Vec<f32> = (0..=u32::MAX).step_by(step).map(f32::from_bits).collect();
    let special = [
        0.0,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        1.0,
        1.0 - f32::EPSILON / 2.0,
        std::f32::consts::FRAC_1_SQRT_2,
        std::f32::consts::LN_2 / 2.0,
        std::f32::consts::FRAC_PI_4,
        3.95,
        9.1,
        88.722_84,
        87.336_54,
        103.972_08,
    ];
    for x in special {
        for by in -3i32..=3 {
            let near = f32::from_bits(x.to_bits().wrapping_add_signed(by));
            xs.extend([near, -near]);
        }
    }
    xs
}

fn worst(f: MathFn, fused: bool, xs: &[f32], exact: &dyn Fn(f64) -> f64) -> (f64, f32, f32) {
    let mut p = program(DType::F32, xs.len() as u64, 1, &|e, x| {
        e.push(Inst::Math(f, x[0]));
    });
    expand(&mut p, fused);
    let ys = evaluate(&p, &[xs]);
    let mut worst = (0.0, 0.0, 0.0);
    for (&x, &y) in xs.iter().zip(&ys) {
        let error = ulps(y, exact(f64::from(x)));
        if error > worst.0 {
            worst = (error, x, y);
        }
    }
    worst
}

fn check(f: MathFn, limits: [f64; 2], xs: &[f32], exact: &dyn Fn(f64) -> f64) {
    for (fused, limit) in [(true, limits[0]), (false, limits[1])] {
        let (error, x, y) = worst(f, fused, xs, exact);
        assert!(error <= limit, "{f:?} (fused: {fused}): {error} ulp at {x:e} ({:#x}), gives {y:e}", x.to_bits());
    }
}

// A prime step, so that all low bits occur.
const STEP: usize = 32_749;

#[test]
fn exp_is_accurate() {
    check(MathFn::Exp, [1.0, 1.2], &sweep(STEP), &libm::exp);
}

#[test]
fn log_is_accurate() {
    check(MathFn::Log, [1.0, 1.0], &sweep(STEP), &libm::log);
}

#[test]
fn atan_is_accurate() {
    let mut xs = sweep(STEP);
    // Where the ranges meet.
    for x in [std::f32::consts::SQRT_2 - 1.0, std::f32::consts::SQRT_2 + 1.0] {
        xs.extend((-3i32..=3).map(|by| f32::from_bits(x.to_bits().wrapping_add_signed(by))));
    }
    check(MathFn::Atan, [1.9, 1.9], &xs, &libm::atan);
}

#[test]
fn expm1_and_log1p_are_accurate() {
    check(MathFn::Expm1, [1.6, 1.6], &sweep(STEP), &libm::expm1);
    check(MathFn::Log1p, [1.6, 1.6], &sweep(STEP), &libm::log1p);
}

#[test]
fn erf_is_accurate() {
    check(MathFn::Erf, [1.8, 2.0], &sweep(STEP), &libm::erf);
}

#[test]
fn tanh_is_accurate() {
    check(MathFn::Tanh, [2.6, 2.6], &sweep(STEP), &libm::tanh);
}

#[test]
fn sigmoid_is_accurate() {
    check(MathFn::Sigmoid, [2.8, 2.8], &sweep(STEP), &|x| 1.0 / (1.0 + libm::exp(-x)));
}

#[test]
fn sin_and_cos_are_accurate() {
    let mut xs: Vec<f32> = sweep(STEP).into_iter().filter(|x| x.abs() <= 1e5).collect();
    // Multiples of a quarter turn, where one of the two is small.
    xs.extend((1..60_000).map(|n| (f64::from(n) * std::f64::consts::FRAC_PI_2) as f32));
    check(MathFn::Sin, [1.6, 3.6], &xs, &libm::sin);
    check(MathFn::Cos, [1.6, 3.6], &xs, &libm::cos);
}

#[test]
fn sin_and_cos_of_large_angles_stay_in_bounds() {
    let xs = sweep(STEP * 16);
    for f in [MathFn::Sin, MathFn::Cos] {
        let mut p = program(DType::F32, xs.len() as u64, 1, &|e, x| {
            e.push(Inst::Math(f, x[0]));
        });
        expand(&mut p, true);
        for (x, y) in xs.iter().zip(evaluate(&p, &[&xs])) {
            assert!(if x.is_finite() { y.abs() <= 1.0 } else { y.is_nan() }, "{f:?} {x:e} gives {y:e}");
        }
    }
}

#[test]
fn pow_is_accurate() {
    let bases = sweep(16_777_213);
    let mut exponents =
        vec![0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 4.0, 7.0, 17.3, 80.1, 100.0, 1001.0, 1e6, 1e9, 3e38, f32::INFINITY];
    exponents.extend([1e-3, 0.1, 1.0 / 3.0, 16_777_215.0, 16_777_217.0, f32::NAN, f32::MIN_POSITIVE]);
    exponents.extend(exponents.clone().iter().map(|x| -x));
    let mut a: Vec<f32> = bases.iter().flat_map(|b| vec![*b; exponents.len()]).collect();
    let mut b: Vec<f32> = bases.iter().flat_map(|_| exponents.clone()).collect();
    // Powers of ordinary size, where all the accuracy is needed: pseudo-random bases, results near every magnitude.
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 16_777_216.0
    };
    for _ in 0..20_000 {
        let base = f32::exp2(random() * 250.0 - 125.0) * (1.0 + random());
        a.push(base);
        b.push((random() * 190.0 - 103.0) / base.ln());
        let base = 0.7 + random() * 0.72;
        a.push(base);
        b.push((random() * 190.0 - 103.0) / base.ln());
    }
    for (fused, limit) in [(true, 6.0), (false, 6.0)] {
        let mut p = program(DType::F32, a.len() as u64, 2, &|e, x| {
            e.push(Inst::Pow(x[0], x[1]));
        });
        expand(&mut p, fused);
        let mut worst = (0.0, 0.0, 0.0, 0.0);
        for ((&a, &b), y) in a.iter().zip(&b).zip(evaluate(&p, &[&a, &b])) {
            let exact = libm::pow(f64::from(a), f64::from(b));
            let error = ulps(y, exact);
            let sign_wrong = y == 0.0 && y.is_sign_negative() != exact.is_sign_negative();
            assert!(!sign_wrong, "pow({a:e}, {b:e}) = {y:e}");
            if error > worst.0 {
                worst = (error, a, b, y);
            }
        }
        assert!(worst.0 <= limit, "pow (fused: {fused}): {worst:?}");
    }
}

#[test]
fn constant_exponents_are_products() {
    for (exponent, count) in [(2.0, 1), (3.0, 2)] {
        let mut p = program(DType::F32, 3, 1, &|e, x| {
            let c = e.push(Inst::Const(Scalar::f32(exponent)));
            e.push(Inst::Pow(x[0], c));
        });
        expand(&mut p, true);
        assert_eq!(instructions(&p), count);
        let xs = [1.5f32, -2.0, 0.1];
        let expected: Vec<f32> = xs.iter().map(|x| x * if count == 1 { *x } else { x * x }).collect();
        for (y, e) in evaluate(&p, &[&xs]).iter().zip(expected) {
            assert!((y - e).abs() <= e.abs() * f32::EPSILON);
        }
    }
}

#[test]
fn counts_are_as_documented() {
    let expected = [
        (MathFn::Exp, 18),
        (MathFn::Log, 31),
        (MathFn::Erf, 23),
        (MathFn::Tanh, 21),
        (MathFn::Sigmoid, 21),
        (MathFn::Sin, 22),
        (MathFn::Cos, 23),
        (MathFn::Atan, 25),
        (MathFn::Expm1, 38),
        (MathFn::Log1p, 43),
    ];
    for (f, count) in expected {
        let mut p = program(DType::F32, 1, 1, &|e, x| {
            e.push(Inst::Math(f, x[0]));
        });
        expand(&mut p, true);
        assert_eq!(instructions(&p), count, "{f:?}");
    }
    let mut p = program(DType::F32, 1, 2, &|e, x| {
        e.push(Inst::Pow(x[0], x[1]));
    });
    expand(&mut p, true);
    assert_eq!(instructions(&p), 102);
}

#[test]
fn signs_of_zeros_are_kept() {
    for f in [MathFn::Erf, MathFn::Tanh, MathFn::Atan, MathFn::Expm1, MathFn::Log1p] {
        let mut p = program(DType::F32, 2, 1, &|e, x| {
            e.push(Inst::Math(f, x[0]));
        });
        expand(&mut p, true);
        let y = evaluate(&p, &[&[0.0, -0.0]]);
        assert_eq!([y[0].to_bits(), y[1].to_bits()], [0, 1 << 31], "{f:?}");
    }
}

#[test]
fn other_instructions_stay() {
    let mut p = program(DType::F64, 1, 1, &|e, x| {
        let y = e.push(Inst::Cast(DType::F32, x[0]));
        let z = e.push(Inst::Cast(DType::F64, y));
        e.push(Inst::Unary(ScalarUnary::Neg, z));
    });
    let before = p.clone();
    expand(&mut p, true);
    assert_eq!(p, before);
}
