//! Elementwise operators: functions of one and two operands, selection, casts, GELU.

use super::integer;
use super::movement::broadcast_offsets;
use super::num::{FUNCTION, Num, Rounding, distance};
use super::value::{Data, Evaluated};
use crate::graph::{BinaryOp, GeluKind, UnaryOp};
use crate::types::{DType, TensorType};

pub(super) fn unary(op: UnaryOp, x: &Evaluated, r: &Rounding) -> Evaluated {
    let (ty, dtype) = (x.ty().clone(), x.ty().dtype());
    match &x.data {
        Data::Float(values) => Evaluated::from_nums(ty, (0..values.len()).map(|i| unary_num(op, x.num(i), r))),
        Data::Int(values) => {
            let results = values.iter().map(|&v| integer::unary(op, dtype, v)).collect();
            Evaluated::new(ty, Data::Int(results), x.err.clone())
        }
    }
}

fn unary_num(op: UnaryOp, x: Num, r: &Rounding) -> Num {
    match op {
        UnaryOp::Neg => Num { v: -x.v, e: x.e },
        UnaryOp::Abs => Num { v: x.v.abs(), e: x.e },
        UnaryOp::Exp => r.monotone(x, libm::exp, FUNCTION),
        UnaryOp::Log if x.e > 0.0 && x.low() <= 0.0 => Num::undetermined(libm::log(x.v)),
        UnaryOp::Log => r.monotone(x, libm::log, FUNCTION),
        UnaryOp::Sqrt => r.sqrt(x),
        UnaryOp::Recip => r.div(Num::exact(1.0), x),
        UnaryOp::Erf => r.monotone(x, libm::erf, FUNCTION),
        UnaryOp::Tanh => r.monotone(x, libm::tanh, FUNCTION),
        UnaryOp::Sigmoid => r.monotone(x, |x| 1.0 / (1.0 + libm::exp(-x)), FUNCTION),
        UnaryOp::Sin => periodic(x, libm::sin, r),
        UnaryOp::Cos => periodic(x, libm::cos, r),
        UnaryOp::Atan => r.monotone(x, libm::atan, FUNCTION),
        UnaryOp::Expm1 => r.monotone(x, libm::expm1, FUNCTION),
        UnaryOp::Log1p if x.e > 0.0 && x.low() <= -1.0 => Num::undetermined(libm::log1p(x.v)),
        UnaryOp::Log1p => r.monotone(x, libm::log1p, FUNCTION),
        // A step is a monotone function, too: its jump is the bound. No rounding follows.
        UnaryOp::Round => r.monotone_exact(x, f64::round_ties_even),
        UnaryOp::Floor => r.monotone_exact(x, f64::floor),
        UnaryOp::Ceil => r.monotone_exact(x, f64::ceil),
        // Inference refuses floats.
        UnaryOp::Not => Num::undetermined(x.v),
    }
}

/// Sine and cosine: slopes of at most 1, and an absolute error of a 4 ULP function's largest value, since the relative
/// one has no bound at the zeros.
fn periodic(x: Num, f: fn(f64) -> f64, r: &Rounding) -> Num {
    let v = f(x.v);
    if x.is_undetermined() {
        return Num::undetermined(v);
    }
    if !x.v.is_finite() {
        return Num::exact(f64::NAN);
    }
    Num { v, e: x.e.min(2.0) + FUNCTION * r.u }
}

pub(super) fn binary(op: BinaryOp, a: &Evaluated, b: &Evaluated, ty: TensorType, r: &Rounding) -> Evaluated {
    let dtype = a.ty().dtype();
    let pairs = broadcast_offsets(a.ty(), &ty).zip(broadcast_offsets(b.ty(), &ty));
    match (&a.data, op.is_comparison()) {
        (Data::Float(_), false) => Evaluated::from_nums(ty, pairs.map(|(i, j)| binary_num(op, a.num(i), b.num(j), r))),
        (Data::Float(_), true) => Evaluated::from_ints(ty, pairs.map(|(i, j)| compare(op, a.num(i), b.num(j)))),
        (Data::Int(_), _) => {
            let results = pairs.map(|(i, j)| {
                let (x, y) = (a.int(i), b.int(j));
                (integer::binary(op, dtype, x.0, y.0), integer::binary_err(op, dtype, x, y))
            });
            Evaluated::from_ints(ty, results)
        }
    }
}

fn binary_num(op: BinaryOp, a: Num, b: Num, r: &Rounding) -> Num {
    match op {
        BinaryOp::Add => r.add(a, b),
        BinaryOp::Sub => r.sub(a, b),
        BinaryOp::Mul => r.mul(a, b),
        BinaryOp::Div => r.div(a, b),
        BinaryOp::Rem => rem(a, b),
        BinaryOp::Pow => pow(a, b, r),
        BinaryOp::Max => r.max(a, b),
        BinaryOp::Min => r.min(a, b),
        // Inference refuses floats for what works on bits; comparisons do not come here.
        BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Shl
        | BinaryOp::Shr
        | BinaryOp::Eq
        | BinaryOp::Lt
        | BinaryOp::Le => Num::undetermined(a.v),
    }
}

/// A comparison as 0 or 1: certain if the operands are, or if their intervals are apart.
fn compare(op: BinaryOp, a: Num, b: Num) -> (i64, f64) {
    let result = if op == BinaryOp::Lt {
        a.v < b.v
    } else if op == BinaryOp::Le {
        a.v <= b.v
    } else {
        a.v == b.v
    };
    let certain = (a.e == 0.0 && b.e == 0.0) || a.high() < b.low() || b.high() < a.low();
    (i64::from(result), if certain { 0.0 } else { f64::INFINITY })
}

/// The remainder is exact. Within a whole quotient it moves with `a`; at the next one it jumps.
fn rem(a: Num, b: Num) -> Num {
    let v = libm::fmod(a.v, b.v);
    if a.e == 0.0 && b.e == 0.0 {
        return Num::exact(v);
    }
    let quotient = |x: f64| (x - libm::fmod(x, b.v)) / b.v;
    let one_sign = a.v.abs() > a.e || quotient(a.v) == 0.0;
    if b.e == 0.0 && v.is_finite() && one_sign && quotient(a.low()) == quotient(a.high()) {
        return Num { v, e: a.e };
    }
    Num::undetermined(v)
}

/// `a` to the power `b`. Implementations compute `e^(b ln a)`, where the product's rounding becomes a relative error of
/// `|b ln a| u`. For positive `a` the power is monotone in each operand, so its extremes are at the corners; for other
/// `a` and a certain integer `b` they are at the ends of the interval of `a`, or at 0.
fn pow(a: Num, b: Num, r: &Rounding) -> Num {
    let v = libm::pow(a.v, b.v);
    if a.is_undetermined() || b.is_undetermined() {
        return Num::undetermined(v);
    }
    let mut propagated: f64 = 0.0;
    if a.e > 0.0 || b.e > 0.0 {
        let integer = b.e == 0.0 && b.v.fract() == 0.0;
        let crosses_zero = a.low() <= 0.0 && a.high() >= 0.0;
        if (a.low() <= 0.0 && !integer) || (crosses_zero && b.v < 0.0) {
            return Num::undetermined(v);
        }
        for x in [a.low(), a.high()] {
            for y in [b.low(), b.high()] {
                propagated = propagated.max(distance(libm::pow(x, y), v));
            }
        }
        if crosses_zero {
            propagated = propagated.max(distance(libm::pow(0.0, b.v), v));
        }
    }
    let exponent = (b.v * libm::log(a.v.abs())).abs();
    let roundings = 2.0 * FUNCTION + if exponent.is_finite() { FUNCTION * exponent } else { 0.0 };
    r.settle(v, propagated, roundings)
}

/// Where the condition is undetermined, the result is either operand: the first, give or take the distance to the other.
pub(super) fn select(condition: &Evaluated, a: &Evaluated, b: &Evaluated, ty: TensorType) -> Evaluated {
    let indices =
        broadcast_offsets(condition.ty(), &ty).zip(broadcast_offsets(a.ty(), &ty).zip(broadcast_offsets(b.ty(), &ty)));
    if ty.dtype().is_float() {
        Evaluated::from_nums(
            ty,
            indices.map(|(c, (i, j))| {
                let (x, y) = (a.num(i), b.num(j));
                match condition.int(c) {
                    (0, 0.0) => y,
                    (_, 0.0) => x,
                    _ => {
                        let e = x.e.max(distance(x.v, y.v) + y.e);
                        if e.is_nan() { Num::undetermined(x.v) } else { Num { v: x.v, e } }
                    }
                }
            }),
        )
    } else {
        Evaluated::from_ints(
            ty,
            indices.map(|(c, (i, j))| {
                let (x, y) = (a.int(i), b.int(j));
                match condition.int(c) {
                    (0, 0.0) => y,
                    (_, 0.0) => x,
                    _ if x == y => x,
                    _ => (x.0, f64::INFINITY),
                }
            }),
        )
    }
}

/// A cast; `r` is the rounding of the result's type.
pub(super) fn cast(x: &Evaluated, ty: TensorType, r: &Rounding) -> Evaluated {
    let to = ty.dtype();
    let from = x.ty().dtype();
    let count = x.ty().elems() as usize;
    match (&x.data, to.is_float()) {
        (Data::Float(_), true) if from == to || to == DType::F64 || (to == DType::F32 && from != DType::F64) => {
            x.clone().with_type(ty)
        }
        (_, true) => Evaluated::from_nums(
            ty,
            (0..count).map(|i| {
                let x = x.num(i);
                if x.v.is_nan() { x } else { r.correct(x.v, x.e) }
            }),
        ),
        (Data::Float(_), false) => Evaluated::from_ints(
            ty,
            (0..count).map(|i| {
                let x = x.num(i);
                let result = integer::from_float(to, x.v);
                // Truncation is monotone, so equal ends decide; being 0 is not.
                let certain = if to == DType::Bool {
                    x.e == 0.0 || x.v.abs() > x.e
                } else {
                    x.e == 0.0
                        || (integer::from_float(to, x.low()) == result && integer::from_float(to, x.high()) == result)
                };
                (result, if certain && !x.is_undetermined() { 0.0 } else { f64::INFINITY })
            }),
        ),
        (Data::Int(values), false) => {
            let results = values.iter().map(|&v| integer::wrap(to, v)).collect();
            Evaluated::new(ty, Data::Int(results), x.err.clone())
        }
    }
}

/// Largest slope of both forms of GELU, which is at √2 for the exact one.
const GELU_SLOPE: f64 = 1.13;

pub(super) fn gelu(kind: GeluKind, x: &Evaluated, r: &Rounding) -> Evaluated {
    let f = match kind {
        GeluKind::Erf => gelu_erf,
        GeluKind::Tanh => gelu_tanh,
    };
    Evaluated::from_nums(
        x.ty().clone(),
        (0..x.ty().elems() as usize).map(|i| {
            let x = x.num(i);
            if x.is_undetermined() || !x.v.is_finite() {
                return Num::undetermined(x.v);
            }
            let (v, gate_error, gate) = f(x.v, r.u);
            // x/2 · gate with three roundings; 1 + erf cancels for negative x, which is why the gate's error is absolute.
            let computed = x.v.abs() / 2.0 * (gate_error + 3.0 * r.u * gate);
            r.settle(v, GELU_SLOPE * x.e + computed, 1.0)
        }),
    )
}

/// GELU, the absolute error of its gate `1 + erf(x/√2)`, and the gate. The argument errs by `3u` relatively (the constant,
/// its conversion, the product), and the slope of erf is at most `2/√π · e^(-t²)`.
fn gelu_erf(x: f64, u: f64) -> (f64, f64, f64) {
    let t = x * std::f64::consts::FRAC_1_SQRT_2;
    let erf = libm::erf(t);
    // erfc keeps the digits that 1 + erf would cancel.
    let gate = libm::erfc(-t);
    let slope = std::f64::consts::FRAC_2_SQRT_PI * libm::exp(-t * t);
    (x / 2.0 * gate, slope * 3.0 * u * t.abs() + FUNCTION * u * erf.abs() + u * gate, gate)
}

/// As [`gelu_erf`] for the tanh form. The argument errs by `8u` relatively: its terms have one sign, and each passes
/// through at most seven roundings and constants.
fn gelu_tanh(x: f64, u: f64) -> (f64, f64, f64) {
    let t = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    let tanh = libm::tanh(t);
    // 1 + tanh t = 2/(1 + e^(-2t)) without cancellation.
    let gate = 2.0 / (1.0 + libm::exp(-2.0 * t));
    let near = libm::tanh(t.abs() * (1.0 - 8.0 * u));
    let slope = (1.0 - near * near).max(0.0);
    (x / 2.0 * gate, slope * 8.0 * u * t.abs() + FUNCTION * u * tanh.abs() + u * gate, gate)
}
