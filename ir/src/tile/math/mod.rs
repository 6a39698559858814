//! Expansion of elementary functions into primitive instructions.
//!
//! Input form: expressions with [`Inst::Math`], [`Inst::Pow`] and casts from and to 16-bit floats. Output form: none of them.
//! It is done before scheduling ends, so that no backend knows any function, and every backend computes the same bits.
//! The code is free of branches, since it runs in vectors: both sides are computed and one is selected. 16-bit floats go
//! through binary32, and their conversions become integer instructions on bits ([`half`]).
//!
//! Largest errors found over every 127th bit pattern (for `atan`, `expm1` and `log1p` every 8187th, for `pow`, 200,000 pairs, results of every magnitude among them), rounded up,
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
//! | `atan` | 1.9 | 1.9 | 25 | all |
//! | `expm1` | 1.6 | 1.6 | 38 | all |
//! | `log1p` | 1.6 | 1.6 | 43 | all; `log1p(-1) = -inf`, less gives NaN |
//! | `pow` | 6 | 6 | 102 | all; special values as in C (IEEE 754 `pow`) |
//!
//! In binary64 the same algorithms run with longer polynomials. Tests compare them with `libm`, whose own error is below one
//! ulp; largest differences: `exp`, `log`, `sin`, `cos`, `pow` 1, `erf`, `tanh`, `sigmoid`, `atan`, `expm1`, `log1p` 3; the angle of `sin` and `cos`
//! is at most 1e6.
//!
//! NaN arguments give NaN. The sign of a zero result follows the argument in `erf`, `tanh`, `atan`, `expm1` and
//! `log1p`.
//!
//! Reduction of arguments by constants in two or more parts is due to Cody and Waite ("Software Manual for the
//! Elementary Functions", 1980); the treatment of exponents and compensated products follows Muller et al.,
//! "Handbook of Floating-Point Arithmetic" (2018), chapters 4, 5 and 10. Coefficients are derived by `coefficients.py`,
//! beside this file.

mod atan;
mod erf;
mod exp;
mod half;
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
                && let Ok(types) = value.dtypes(&|b| buffers.get(b).map(|d| d.dtype))
                && value.insts.iter().any(|inst| is_expanded(inst, &types))
            {
                *value = expand_expr(value, &types, fused);
            }
        }
    }
}

/// The expression with functions expanded; `types` are those of its instructions.
fn expand_expr(source: &Expr, types: &[DType], fused: bool) -> Expr {
    let mut code = Code { expr: Expr::default(), constants: FxHashMap::default(), fused, format: Format::Single };
    let mut new: Vec<ExprRef> = Vec::with_capacity(source.insts.len());
    for inst in &source.insts {
        let at = |r: ExprRef| new[r.0 as usize];
        let dtype_of = |r: &ExprRef| types[r.0 as usize];
        new.push(match inst {
            Inst::Math(f, a) => {
                let dtype = dtype_of(a);
                let x = code.widen(dtype, at(*a));
                let y = code.math(*f, x);
                code.narrow(dtype, y)
            }
            Inst::Pow(a, b) => {
                let dtype = dtype_of(a);
                let exponent = match source.insts[b.0 as usize] {
                    Inst::Const(s) => Some(s.to_f64()),
                    _ => None,
                };
                let (x, y) = (code.widen(dtype, at(*a)), code.widen(dtype, at(*b)));
                let power = code.pow(x, y, exponent);
                code.narrow(dtype, power)
            }
            Inst::Cast(to, a) if is_half(*to) || is_half(dtype_of(a)) => code.convert(dtype_of(a), *to, at(*a)),
            _ => code.expr.push(renumbered(inst, &at)),
        });
    }
    code.expr
}

/// Whether an instruction is replaced.
fn is_expanded(inst: &Inst, types: &[DType]) -> bool {
    match inst {
        Inst::Math(..) | Inst::Pow(..) => true,
        Inst::Cast(to, a) => is_half(*to) || is_half(types[a.0 as usize]),
        _ => false,
    }
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
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

/// The format that a function is computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// binary32.
    Single,
    /// binary64.
    Double,
}

impl Format {
    /// The format for operands of a type.
    fn of(dtype: DType) -> Self {
        if dtype == DType::F64 { Format::Double } else { Format::Single }
    }

    /// The type of values.
    fn float(self) -> DType {
        match self {
            Format::Single => DType::F32,
            Format::Double => DType::F64,
        }
    }

    /// The type of their bits.
    fn int(self) -> DType {
        match self {
            Format::Single => DType::I32,
            Format::Double => DType::I64,
        }
    }

    /// Number of bits.
    fn width(self) -> i32 {
        match self {
            Format::Single => 32,
            Format::Double => 64,
        }
    }

    /// Bits of the mantissa that are stored, which is where the exponent starts.
    fn mantissa(self) -> i32 {
        match self {
            Format::Single => 23,
            Format::Double => 52,
        }
    }

    /// What is added to exponents.
    fn bias(self) -> i32 {
        match self {
            Format::Single => 127,
            Format::Double => 1023,
        }
    }

    /// `1.5 * 2^23` (or `2^52`). Adding it to a float below a third of it in magnitude rounds that to an integer, which
    /// then stands in the low bits of the sum.
    fn magic(self) -> f64 {
        libm::ldexp(1.5, self.mantissa())
    }
}

/// An expression being written. All values are of the format's type, unless a name says `bits` (an integer of that width)
/// or a method gives a condition.
struct Code {
    expr: Expr,
    constants: FxHashMap<Scalar, ExprRef>,
    fused: bool,
    format: Format,
}

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
            MathFn::Atan => self.atan(x),
            MathFn::Expm1 => self.expm1(x),
            MathFn::Log1p => self.log1p(x),
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

    fn f(&mut self, value: impl Into<f64>) -> ExprRef {
        self.constant(Scalar::from_f64(self.format.float(), value.into()))
    }

    fn i(&mut self, value: impl Into<i64>) -> ExprRef {
        let value: i64 = value.into();
        self.constant(match self.format {
            Format::Single => Scalar::i32(value as i32),
            Format::Double => Scalar { dtype: DType::I64, bits: value as u64 },
        })
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
    fn scale(&mut self, a: ExprRef, c: impl Into<f64>) -> ExprRef {
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
    fn fma_by(&mut self, a: ExprRef, k: impl Into<f64>, c: ExprRef) -> ExprRef {
        let k = self.f(k);
        self.fma(a, k, c)
    }

    /// `Σ coefficients[i] * x^i`, by Horner's rule.
    fn polynomial<T: Into<f64> + Copy>(&mut self, x: ExprRef, coefficients: &[T]) -> ExprRef {
        let mut terms = coefficients.iter().rev().map(|&c| -> f64 { c.into() });
        let mut sum = self.f(terms.next().unwrap_or(0.0));
        for c in terms {
            let c = self.f(c);
            sum = self.fma(sum, x, c);
        }
        sum
    }

    /// `min(x, bound)` that keeps a NaN in `x`.
    fn at_most(&mut self, x: ExprRef, bound: impl Into<f64>) -> ExprRef {
        let bound = self.f(bound);
        self.binary(ScalarBinary::Min, bound, x)
    }

    /// `max(x, bound)` that keeps a NaN in `x`.
    fn at_least(&mut self, x: ExprRef, bound: impl Into<f64>) -> ExprRef {
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
        self.expr.push(Inst::Bitcast(self.format.int(), x))
    }

    fn float(&mut self, bits: ExprRef) -> ExprRef {
        self.expr.push(Inst::Bitcast(self.format.float(), bits))
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
        let mask = self.i(match self.format {
            Format::Single => i64::from(i32::MIN),
            Format::Double => i64::MIN,
        });
        let sign = self.and(sign, mask);
        let both = self.binary(ScalarBinary::Or, x, sign);
        self.float(both)
    }

    /// The exact product as a rounded value and its error. Without fused multiply-add, by splitting both factors into halves
    /// of 12 bits, whose products are exact (Dekker, 1971; splitting by a mask cannot overflow). In binary64 they have 26 and
    /// 27 bits, and the product of the lower halves, far below the error's last bits, may be rounded.
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
        let mask = self.i(match self.format {
            Format::Single => !0xfff,
            Format::Double => !0x7ff_ffffi64,
        });
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

    /// A value of a type in the format that its functions are computed in.
    fn widen(&mut self, from: DType, x: ExprRef) -> ExprRef {
        self.format = Format::of(from);
        match from {
            DType::F16 | DType::BF16 => self.half_to_single(from, x),
            _ => x,
        }
    }

    fn narrow(&mut self, to: DType, x: ExprRef) -> ExprRef {
        match to {
            DType::F16 | DType::BF16 => self.single_to_half(to, x),
            _ => x,
        }
    }
}

#[cfg(test)]
mod tests;
