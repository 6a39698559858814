//! Elementwise operators: one `map` over the dimensions of the result.

use super::kernel::Tile;
use super::power::integer_power;
use super::remainder::remainder;
use super::{Lowering, broadcast_index};
use crate::graph::{BinaryOp, GeluKind, Node, Op, UnaryOp, Value};
use crate::tile::{Affine, Expr, ExprRef, Inst, MathFn, Scalar, ScalarBinary, ScalarUnary};
use crate::types::DType;

impl Lowering<'_> {
    pub(super) fn elementwise(&mut self, node: Node, result: Value) {
        let mut kernel = self.kernel(node);
        let graph = self.graph;
        let data = &graph.nodes[node];
        let ty = graph.ty(result);
        let tile = Tile::of(ty.shape());
        let at = tile.all();
        let mut expr = Expr::default();
        let mut operands: Vec<ExprRef> = Vec::with_capacity(data.inputs.len());
        for (i, &v) in data.inputs.iter().enumerate() {
            let same = data.inputs[..i].iter().position(|&w| w == v);
            operands.push(match same {
                Some(j) => operands[j],
                None => {
                    let index = match data.op {
                        // Statistics of batch normalization follow the channels.
                        Op::BatchNorm { .. } if i > 0 => vec![Affine::dim(1)],
                        _ => broadcast_index(graph.ty(v).shape(), ty.shape(), &at),
                    };
                    self.load(&mut expr, v, &index, &tile)
                }
            });
        }
        // All operands have one element type, or the last ones do.
        let dtype = data.inputs.last().map_or(ty.dtype(), |&v| graph.ty(v).dtype());
        apply(&mut expr, &data.op, dtype, &operands);
        let dst = self.result(result, &kernel).at(&at, &tile);
        kernel.map("map", &tile, dst, expr);
        self.push(kernel);
    }
}

/// Appends what an elementwise operator computes from its operands; `dtype` is that of the last.
fn apply(expr: &mut Expr, op: &Op, dtype: DType, operands: &[ExprRef]) {
    match (op, operands) {
        (Op::Unary(op), &[x]) => unary(expr, *op, dtype, x),
        (Op::Binary(op), &[a, b]) => binary(expr, *op, dtype, a, b),
        (Op::Select, &[c, a, b]) => expr.push(Inst::Select(c, a, b)),
        (Op::Cast { to }, &[x]) => expr.push(Inst::Cast(*to, x)),
        (Op::Gelu(kind), &[x]) => gelu(expr, *kind, dtype, x),
        (Op::BatchNorm { epsilon }, &[x, scale, bias, mean, variance]) => {
            let epsilon = constant(expr, dtype, f64::from(*epsilon));
            let variance = expr.push(Inst::Binary(ScalarBinary::Add, variance, epsilon));
            let deviation = expr.push(Inst::Unary(ScalarUnary::Sqrt, variance));
            let centered = expr.push(Inst::Binary(ScalarBinary::Sub, x, mean));
            let normal = expr.push(Inst::Binary(ScalarBinary::Div, centered, deviation));
            let scaled = expr.push(Inst::Binary(ScalarBinary::Mul, normal, scale));
            expr.push(Inst::Binary(ScalarBinary::Add, scaled, bias))
        }
        _ => return,
    };
}

/// Appends a constant.
pub(super) fn constant(expr: &mut Expr, dtype: DType, value: f64) -> ExprRef {
    expr.push(Inst::Const(Scalar::from_f64(dtype, value)))
}

fn unary(expr: &mut Expr, op: UnaryOp, dtype: DType, x: ExprRef) -> ExprRef {
    let inst = match op {
        UnaryOp::Neg => Inst::Unary(ScalarUnary::Neg, x),
        UnaryOp::Abs => Inst::Unary(ScalarUnary::Abs, x),
        UnaryOp::Exp => Inst::Math(MathFn::Exp, x),
        UnaryOp::Log => Inst::Math(MathFn::Log, x),
        UnaryOp::Sqrt => Inst::Unary(ScalarUnary::Sqrt, x),
        UnaryOp::Recip => Inst::Binary(ScalarBinary::Div, constant(expr, dtype, 1.0), x),
        UnaryOp::Erf => Inst::Math(MathFn::Erf, x),
        UnaryOp::Tanh => Inst::Math(MathFn::Tanh, x),
        UnaryOp::Sigmoid => Inst::Math(MathFn::Sigmoid, x),
        UnaryOp::Sin => Inst::Math(MathFn::Sin, x),
        UnaryOp::Cos => Inst::Math(MathFn::Cos, x),
        UnaryOp::Round => Inst::Unary(ScalarUnary::Round, x),
        UnaryOp::Floor => Inst::Unary(ScalarUnary::Floor, x),
        UnaryOp::Ceil => Inst::Unary(ScalarUnary::Ceil, x),
        UnaryOp::Not if dtype == DType::Bool => Inst::Unary(ScalarUnary::Not, x),
        UnaryOp::Not => Inst::Binary(ScalarBinary::Xor, x, all_bits(expr, dtype)),
        UnaryOp::Atan => Inst::Math(MathFn::Atan, x),
        UnaryOp::Expm1 => Inst::Math(MathFn::Expm1, x),
        UnaryOp::Log1p => Inst::Math(MathFn::Log1p, x),
    };
    expr.push(inst)
}

/// A constant of an integer type with all bits set.
fn all_bits(expr: &mut Expr, dtype: DType) -> ExprRef {
    expr.push(Inst::Const(Scalar { dtype, bits: u64::MAX >> (64 - 8 * dtype.bytes()) }))
}

/// A shift by any amount, from shifts by less than the width.
fn shift(expr: &mut Expr, op: ScalarBinary, dtype: DType, a: ExprRef, b: ExprRef) -> ExprRef {
    let zero = constant(expr, dtype, 0.0);
    let width = constant(expr, dtype, (8 * dtype.bytes()) as f64);
    let mut inside = expr.push(Inst::Binary(ScalarBinary::Lt, b, width));
    // What a shift by more than that leaves: the sign, or nothing.
    let mut rest = zero;
    if dtype.is_signed_int() {
        let forward = expr.push(Inst::Binary(ScalarBinary::Le, zero, b));
        inside = expr.push(Inst::Binary(ScalarBinary::And, inside, forward));
        if op == ScalarBinary::Shr {
            let negative = expr.push(Inst::Binary(ScalarBinary::Lt, a, zero));
            let ones = all_bits(expr, dtype);
            rest = expr.push(Inst::Select(negative, ones, zero));
        }
    }
    let amount = expr.push(Inst::Select(inside, b, zero));
    let shifted = expr.push(Inst::Binary(op, a, amount));
    expr.push(Inst::Select(inside, shifted, rest))
}

/// Appends a binary operator on operands of element type `dtype`.
fn binary(expr: &mut Expr, op: BinaryOp, dtype: DType, a: ExprRef, b: ExprRef) -> ExprRef {
    let op = match op {
        BinaryOp::Add => ScalarBinary::Add,
        BinaryOp::Sub => ScalarBinary::Sub,
        BinaryOp::Mul => ScalarBinary::Mul,
        BinaryOp::Div => ScalarBinary::Div,
        BinaryOp::Rem if dtype.is_float() => return remainder(expr, dtype, a, b),
        BinaryOp::Rem => {
            // A quotient by 0 is 0, which leaves the dividend.
            let quotient = expr.push(Inst::Binary(ScalarBinary::Div, a, b));
            let whole = expr.push(Inst::Binary(ScalarBinary::Mul, quotient, b));
            return expr.push(Inst::Binary(ScalarBinary::Sub, a, whole));
        }
        BinaryOp::Shl => return shift(expr, ScalarBinary::Shl, dtype, a, b),
        BinaryOp::Shr => return shift(expr, ScalarBinary::Shr, dtype, a, b),
        BinaryOp::Pow if dtype.is_int() => return integer_power(expr, dtype, a, b),
        BinaryOp::Pow => return expr.push(Inst::Pow(a, b)),
        BinaryOp::Max => ScalarBinary::Max,
        BinaryOp::Min => ScalarBinary::Min,
        BinaryOp::And => ScalarBinary::And,
        BinaryOp::Or => ScalarBinary::Or,
        BinaryOp::Xor => ScalarBinary::Xor,
        BinaryOp::Eq => ScalarBinary::Eq,
        BinaryOp::Lt => ScalarBinary::Lt,
        BinaryOp::Le => ScalarBinary::Le,
    };
    expr.push(Inst::Binary(op, a, b))
}

fn gelu(expr: &mut Expr, kind: GeluKind, dtype: DType, x: ExprRef) -> ExprRef {
    let mul = |expr: &mut Expr, a, b| expr.push(Inst::Binary(ScalarBinary::Mul, a, b));
    let bent = match kind {
        GeluKind::Erf => {
            let factor = constant(expr, dtype, std::f64::consts::FRAC_1_SQRT_2);
            let scaled = mul(expr, x, factor);
            expr.push(Inst::Math(MathFn::Erf, scaled))
        }
        GeluKind::Tanh => {
            // √(2/π) (x + 0.044715 x³) = x · √(2/π) (1 + 0.044715 x²)
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let cubic = constant(expr, dtype, 0.044715 * root);
            let linear = constant(expr, dtype, root);
            let square = mul(expr, x, x);
            let bend = mul(expr, square, cubic);
            let factor = expr.push(Inst::Binary(ScalarBinary::Add, bend, linear));
            let inner = mul(expr, x, factor);
            expr.push(Inst::Math(MathFn::Tanh, inner))
        }
    };
    let half = constant(expr, dtype, 0.5);
    let one = constant(expr, dtype, 1.0);
    let half_x = mul(expr, x, half);
    let gate = expr.push(Inst::Binary(ScalarBinary::Add, bent, one));
    mul(expr, half_x, gate)
}
