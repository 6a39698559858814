//! Expansion of elementary functions into primitive instructions.
//!
//! Input form: expressions with [`Inst::Math`] and [`Inst::Pow`]. Output form: none of them on 32-bit or 16-bit floats. It is
//! done before scheduling ends, so that no backend knows any function, and every backend computes the same bits.
//! The code is free of branches, since it runs in vectors: both sides are computed and one is selected. 16-bit floats go
//! through binary32; binary64 is left alone.
//!
//! Largest errors found over every 127th bit pattern (for `pow`, 200,000 pairs, results of every magnitude among them), rounded up,
//! in units in the last place (ulp) of the exact result, with and without fused
//! multiply-add, against `libm` in binary64; tests repeat a part of that sweep:
//!
//! | function | fused | not | instructions | range and special values |
//! |---|---|---|---|---|
//! | `exp` | 1 | 1.2 | 18 | all; subnormal results, infinity and 0 rounded right |
//! | `log` | 1 | 1 | 31 | all; subnormal arguments; `log(0) = -inf`, negative gives NaN |
//! | `erf` | 1.8 | 2 | 23 | all |
//! | `tanh` | 2.6 | 2.6 | 21 | all |
//! | `sigmoid` | 2.8 | 2.8 | 21 | all; subnormal results too |
//! | `sin`, `cos` | 1.6 | 3.6 | 22, 23 | `|x| <= 1e5`; beyond, accuracy fades and only `|y| <= 1` holds; NaN for infinities |
//! | `pow` | 6 | 6 | 102 | all; special values as in C (IEEE 754 `pow`) |
//!
//! NaN arguments give NaN. The sign of a zero result follows the argument in `erf` and `tanh`.
//!
//! Reduction of arguments by constants in two or more parts is due to Cody and Waite ("Software Manual for the
//! Elementary Functions", 1980); the treatment of exponents and compensated products follows Muller et al.,
//! "Handbook of Floating-Point Arithmetic" (2018), chapters 4, 5 and 10. Coefficients are derived by `coefficients.py`,
//! beside this file.

mod erf;
mod exp;
mod log;
mod trig;

use rustc_hash::FxHashMap;

use super::expr::{Expr, ExprRef, Inst, MathFn, Scalar, ScalarBinary, ScalarUnary};
use super::{Program, StmtOp};
use crate::types::DType;

/// Replaces elementary functions in every kernel by primitive instructions. With `fused`, multiply-adds (those of
/// contractions, too) are rounded once, for machines that have the instruction; else they are a product and a sum.
///
/// Expressions that do not type-check are left as they are, for the verifier to report.
pub fn expand(program: &mut Program, fused: bool) {
    let buffers = &program.buffers;
    for kernel in program.kernels.values_mut() {
        for stmt in kernel.stmts.values_mut() {
            if let StmtOp::Mma { acc, fused: one_rounding, .. } = &mut stmt.op
                && buffers.get(acc.buffer).is_some_and(|b| b.dtype.is_float())
            {
                *one_rounding = fused;
            }
            if let StmtOp::Map { value, .. } = &mut stmt.op
                && value.insts.iter().any(|i| matches!(i, Inst::Math(..) | Inst::Pow(..)))
                && let Ok(types) = value.dtypes(&|b| buffers.get(b).map(|d| d.dtype))
            {
                *value = expand_expr(value, &types, fused);
            }
        }
    }
}

/// The expression with functions expanded; `types` are those of its instructions.
fn expand_expr(source: &Expr, types: &[DType], fused: bool) -> Expr {
    let mut code = Code { expr: Expr::default(), constants: FxHashMap::default(), fused };
    let mut new: Vec<ExprRef> = Vec::with_capacity(source.insts.len());
    for inst in &source.insts {
        let at = |r: ExprRef| new[r.0 as usize];
        let operand = match inst {
            Inst::Math(_, a) | Inst::Pow(a, _) => Some(types[a.0 as usize]),
            _ => None,
        };
        new.push(match (inst, operand) {
            (Inst::Math(f, a), Some(dtype)) if dtype != DType::F64 => {
                let x = code.widen(dtype, at(*a));
                let y = code.math(*f, x);
                code.narrow(dtype, y)
            }
            (Inst::Pow(a, b), Some(dtype)) if dtype != DType::F64 => {
                let exponent = match source.insts[b.0 as usize] {
                    Inst::Const(s) => Some(s.to_f64()),
                    _ => None,
                };
                let (x, y) = (code.widen(dtype, at(*a)), code.widen(dtype, at(*b)));
                let power = code.pow(x, y, exponent);
                code.narrow(dtype, power)
            }
            _ => code.expr.push(renumbered(inst, &at)),
        });
    }
    code.expr
}

/// The instruction with other operands.
fn renumbered(inst: &Inst, at: &dyn Fn(ExprRef) -> ExprRef) -> Inst {
    match inst {
        Inst::Load(access) => Inst::Load(access.clone()),
        Inst::Const(s) => Inst::Const(*s),
        Inst::Unary(op, a) => Inst::Unary(*op, at(*a)),
        Inst::Binary(op, a, b) => Inst::Binary(*op, at(*a), at(*b)),
        Inst::Fma(a, b, c) => Inst::Fma(at(*a), at(*b), at(*c)),
        Inst::Select(c, a, b) => Inst::Select(at(*c), at(*a), at(*b)),
        Inst::Cast(to, a) => Inst::Cast(*to, at(*a)),
        Inst::Bitcast(to, a) => Inst::Bitcast(*to, at(*a)),
        Inst::Math(f, a) => Inst::Math(*f, at(*a)),
        Inst::Pow(a, b) => Inst::Pow(at(*a), at(*b)),
    }
}

/// An expression being written. All values are `f32`, unless a name says `bits` (`i32`) or a method gives a condition.
struct Code {
    expr: Expr,
    constants: FxHashMap<Scalar, ExprRef>,
    fused: bool,
}

/// `1.5 * 2^23`. Adding it to a float below 2^22 in magnitude rounds that to an integer, which then stands in the low bits
/// of the sum.
const MAGIC: f32 = 12_582_912.0;

impl Code {
    fn math(&mut self, f: MathFn, x: ExprRef) -> ExprRef {
        match f {
            MathFn::Exp => self.exp(x),
            MathFn::Log => self.log(x),
            MathFn::Erf => self.erf(x),
            MathFn::Tanh => self.tanh(x),
            MathFn::Sigmoid => self.sigmoid(x),
            MathFn::Sin => self.sin(x),
            MathFn::Cos => self.cos(x),
        }
    }

    fn constant(&mut self, value: Scalar) -> ExprRef {
        if let Some(&r) = self.constants.get(&value) {
            return r;
        }
        let r = self.expr.push(Inst::Const(value));
        self.constants.insert(value, r);
        r
    }

    fn f(&mut self, value: f32) -> ExprRef {
        self.constant(Scalar::f32(value))
    }

    fn i(&mut self, value: i32) -> ExprRef {
        self.constant(Scalar::i32(value))
    }

    fn binary(&mut self, op: ScalarBinary, a: ExprRef, b: ExprRef) -> ExprRef {
        self.expr.push(Inst::Binary(op, a, b))
    }

    fn add(&mut self, a: ExprRef, b: ExprRef) -> ExprRef {
        self.binary(ScalarBinary::Add, a, b)
    }

    fn sub(&mut self, a: ExprRef, b: ExprRef) -> ExprRef {
        self.binary(ScalarBinary::Sub, a, b)
    }

    fn mul(&mut self, a: ExprRef, b: ExprRef) -> ExprRef {
        self.binary(ScalarBinary::Mul, a, b)
    }

    /// `a * c` for a constant.
    fn scale(&mut self, a: ExprRef, c: f32) -> ExprRef {
        let c = self.f(c);
        self.mul(a, c)
    }

    fn div(&mut self, a: ExprRef, b: ExprRef) -> ExprRef {
        self.binary(ScalarBinary::Div, a, b)
    }

    /// `a * b + c`, rounded once if the machine can.
    fn fma(&mut self, a: ExprRef, b: ExprRef, c: ExprRef) -> ExprRef {
        if self.fused {
            self.expr.push(Inst::Fma(a, b, c))
        } else {
            let product = self.mul(a, b);
            self.add(product, c)
        }
    }

    /// `a * k + c` for a constant `k`.
    fn fma_by(&mut self, a: ExprRef, k: f32, c: ExprRef) -> ExprRef {
        let k = self.f(k);
        self.fma(a, k, c)
    }

    /// `Σ coefficients[i] * x^i`, by Horner's rule.
    fn polynomial(&mut self, x: ExprRef, coefficients: &[f32]) -> ExprRef {
        let mut terms = coefficients.iter().rev();
        let mut sum = self.f(terms.next().copied().unwrap_or(0.0));
        for &c in terms {
            let c = self.f(c);
            sum = self.fma(sum, x, c);
        }
        sum
    }

    /// `min(x, bound)` that keeps a NaN in `x`.
    fn at_most(&mut self, x: ExprRef, bound: f32) -> ExprRef {
        let bound = self.f(bound);
        self.binary(ScalarBinary::Min, bound, x)
    }

    /// `max(x, bound)` that keeps a NaN in `x`.
    fn at_least(&mut self, x: ExprRef, bound: f32) -> ExprRef {
        let bound = self.f(bound);
        self.binary(ScalarBinary::Max, bound, x)
    }

    fn abs(&mut self, x: ExprRef) -> ExprRef {
        self.expr.push(Inst::Unary(ScalarUnary::Abs, x))
    }

    fn neg(&mut self, x: ExprRef) -> ExprRef {
        self.expr.push(Inst::Unary(ScalarUnary::Neg, x))
    }

    fn lt(&mut self, a: ExprRef, b: ExprRef) -> ExprRef {
        self.binary(ScalarBinary::Lt, a, b)
    }

    fn eq(&mut self, a: ExprRef, b: ExprRef) -> ExprRef {
        self.binary(ScalarBinary::Eq, a, b)
    }

    fn and(&mut self, a: ExprRef, b: ExprRef) -> ExprRef {
        self.binary(ScalarBinary::And, a, b)
    }

    fn select(&mut self, condition: ExprRef, a: ExprRef, b: ExprRef) -> ExprRef {
        self.expr.push(Inst::Select(condition, a, b))
    }

    fn bits(&mut self, x: ExprRef) -> ExprRef {
        self.expr.push(Inst::Bitcast(DType::I32, x))
    }

    fn float(&mut self, bits: ExprRef) -> ExprRef {
        self.expr.push(Inst::Bitcast(DType::F32, bits))
    }

    fn shl(&mut self, bits: ExprRef, by: i32) -> ExprRef {
        let by = self.i(by);
        self.binary(ScalarBinary::Shl, bits, by)
    }

    fn shr(&mut self, bits: ExprRef, by: i32) -> ExprRef {
        let by = self.i(by);
        self.binary(ScalarBinary::Shr, bits, by)
    }

    /// The magnitude of `x` with the sign of `sign`; `x` is not negative.
    fn with_sign(&mut self, x: ExprRef, sign: ExprRef) -> ExprRef {
        let (x, sign) = (self.bits(x), self.bits(sign));
        let mask = self.i(i32::MIN);
        let sign = self.and(sign, mask);
        let both = self.binary(ScalarBinary::Or, x, sign);
        self.float(both)
    }

    /// The exact product as a rounded value and its error. Without fused multiply-add, by splitting both factors into halves
    /// of 12 bits, whose products are exact (Dekker, 1971; splitting by a mask cannot overflow).
    fn exact_product(&mut self, a: ExprRef, b: ExprRef) -> (ExprRef, ExprRef) {
        let high = self.mul(a, b);
        if self.fused {
            let negated = self.neg(high);
            return (high, self.fma(a, b, negated));
        }
        let (a1, a2) = self.halves(a);
        let (b1, b2) = self.halves(b);
        let mut error = self.mul(a1, b1);
        error = self.sub(error, high);
        for (x, y) in [(a1, b2), (a2, b1), (a2, b2)] {
            let product = self.mul(x, y);
            error = self.add(error, product);
        }
        (high, error)
    }

    fn halves(&mut self, x: ExprRef) -> (ExprRef, ExprRef) {
        let bits = self.bits(x);
        let mask = self.i(!0xfff);
        let high = self.and(bits, mask);
        let high = self.float(high);
        (high, self.sub(x, high))
    }

    /// `a + b` as a rounded value and its exact error, where `|a| >= |b|` or `a = 0` (Dekker's Fast2Sum).
    fn exact_sum(&mut self, a: ExprRef, b: ExprRef) -> (ExprRef, ExprRef) {
        let sum = self.add(a, b);
        let b_part = self.sub(sum, a);
        (sum, self.sub(b, b_part))
    }

    fn widen(&mut self, from: DType, x: ExprRef) -> ExprRef {
        if from == DType::F32 { x } else { self.expr.push(Inst::Cast(DType::F32, x)) }
    }

    fn narrow(&mut self, to: DType, x: ExprRef) -> ExprRef {
        if to == DType::F32 { x } else { self.expr.push(Inst::Cast(to, x)) }
    }
}

#[cfg(test)]
mod tests;
