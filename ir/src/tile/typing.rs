//! Element types of the instructions of an expression, and the rules they obey.
//!
//! Shared by the verifier, the interpreter and the backends: each needs the type of every intermediate value.

use super::expr::{Expr, ExprRef, Inst, ScalarBinary, ScalarUnary};
use super::{Buffer, Scalar};
use crate::types::DType;

/// Why an expression has no type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// No instruction at all.
    #[error("the expression is empty")]
    Empty,
    /// An operand that is not an earlier instruction.
    #[error("{inst} uses {operand}, which does not come before it")]
    Operand {
        /// The instruction.
        inst: ExprRef,
        /// Its operand.
        operand: ExprRef,
    },
    /// A load from a buffer that the program does not have.
    #[error("{inst} loads from {buffer}, which does not exist")]
    Buffer {
        /// The instruction.
        inst: ExprRef,
        /// The buffer named.
        buffer: Buffer,
    },
    /// Operands of types that the instruction does not take.
    #[error("{inst} ({what}) does not take {}", list(.types))]
    Types {
        /// The instruction.
        inst: ExprRef,
        /// Its name.
        what: &'static str,
        /// Types of its operands.
        types: Vec<DType>,
    },
    /// A constant with bits above its type's size, or a truth value other than 0 and 1.
    #[error("{inst} is a constant of {dtype} with the bits {bits:#x}")]
    Bits {
        /// The instruction.
        inst: ExprRef,
        /// Its type.
        dtype: DType,
        /// Its bits.
        bits: u64,
    },
}

fn list(types: &[DType]) -> String {
    types.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ")
}

impl Scalar {
    /// Whether the bits are those of a value of the type: zero above its size, 0 or 1 for `bool`.
    pub fn is_valid(self) -> bool {
        match self.dtype {
            DType::Bool => self.bits <= 1,
            dtype => dtype.bytes() == 8 || self.bits >> (8 * dtype.bytes()) == 0,
        }
    }
}

impl Expr {
    /// The element type of each instruction; the last is the expression's.
    ///
    /// # Errors
    /// The first instruction that refers forward, or whose operands have types that it does not take.
    pub fn dtypes(&self, buffer: &dyn Fn(Buffer) -> Option<DType>) -> Result<Vec<DType>, ExprError> {
        let mut types: Vec<DType> = Vec::with_capacity(self.insts.len());
        for (i, inst) in self.insts.iter().enumerate() {
            let at = ExprRef(i as u32);
            let operand =
                |r: ExprRef| types.get(r.0 as usize).copied().ok_or(ExprError::Operand { inst: at, operand: r });
            let check = |ok: bool, what, types: &[DType], result| {
                if ok { Ok(result) } else { Err(ExprError::Types { inst: at, what, types: types.to_vec() }) }
            };
            let dtype = match inst {
                Inst::Load(a) => buffer(a.buffer).ok_or(ExprError::Buffer { inst: at, buffer: a.buffer })?,
                Inst::Const(s) if s.is_valid() => s.dtype,
                Inst::Const(s) => return Err(ExprError::Bits { inst: at, dtype: s.dtype, bits: s.bits }),
                Inst::Unary(op, a) => {
                    let a = operand(*a)?;
                    check(op.takes(a), op.name(), &[a], a)?
                }
                Inst::Binary(op, a, b) => {
                    let (a, b) = (operand(*a)?, operand(*b)?);
                    let result = if op.is_comparison() { DType::Bool } else { a };
                    check(a == b && op.takes(a), op.name(), &[a, b], result)?
                }
                Inst::Fma(a, b, c) => {
                    let (a, b, c) = (operand(*a)?, operand(*b)?, operand(*c)?);
                    check(a == b && b == c && a.is_float(), "fma", &[a, b, c], a)?
                }
                Inst::Select(c, a, b) => {
                    let (c, a, b) = (operand(*c)?, operand(*a)?, operand(*b)?);
                    check(c == DType::Bool && a == b, "select", &[c, a, b], a)?
                }
                Inst::Cast(to, a) => {
                    operand(*a)?;
                    *to
                }
                Inst::Bitcast(to, a) => {
                    let a = operand(*a)?;
                    let whole = |d: DType| d != DType::Bool;
                    check(whole(a) && whole(*to) && a.bytes() == to.bytes(), "bitcast", &[a], *to)?
                }
                Inst::Math(f, a) => {
                    let a = operand(*a)?;
                    check(a.is_float(), f.name(), &[a], a)?
                }
                Inst::Pow(a, b) => {
                    let (a, b) = (operand(*a)?, operand(*b)?);
                    check(a == b && a.is_float(), "pow", &[a, b], a)?
                }
            };
            types.push(dtype);
        }
        if types.is_empty() { Err(ExprError::Empty) } else { Ok(types) }
    }
}

impl ScalarUnary {
    /// Every instruction of one operand.
    pub const ALL: [ScalarUnary; 7] = [
        ScalarUnary::Neg,
        ScalarUnary::Abs,
        ScalarUnary::Sqrt,
        ScalarUnary::Round,
        ScalarUnary::Floor,
        ScalarUnary::Ceil,
        ScalarUnary::Not,
    ];

    /// The name in text forms.
    pub fn name(self) -> &'static str {
        match self {
            ScalarUnary::Neg => "neg",
            ScalarUnary::Abs => "abs",
            ScalarUnary::Sqrt => "sqrt",
            ScalarUnary::Round => "round",
            ScalarUnary::Floor => "floor",
            ScalarUnary::Ceil => "ceil",
            ScalarUnary::Not => "not",
        }
    }

    /// Whether an operand may have this type.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            ScalarUnary::Neg | ScalarUnary::Abs => dtype != DType::Bool,
            ScalarUnary::Sqrt | ScalarUnary::Round | ScalarUnary::Floor | ScalarUnary::Ceil => dtype.is_float(),
            ScalarUnary::Not => dtype == DType::Bool,
        }
    }
}

impl ScalarBinary {
    /// Every instruction of two operands.
    pub const ALL: [ScalarBinary; 14] = [
        ScalarBinary::Add,
        ScalarBinary::Sub,
        ScalarBinary::Mul,
        ScalarBinary::Div,
        ScalarBinary::Max,
        ScalarBinary::Min,
        ScalarBinary::And,
        ScalarBinary::Or,
        ScalarBinary::Xor,
        ScalarBinary::Shl,
        ScalarBinary::Shr,
        ScalarBinary::Eq,
        ScalarBinary::Lt,
        ScalarBinary::Le,
    ];

    /// The name in text forms.
    pub fn name(self) -> &'static str {
        match self {
            ScalarBinary::Add => "add",
            ScalarBinary::Sub => "sub",
            ScalarBinary::Mul => "mul",
            ScalarBinary::Div => "div",
            ScalarBinary::Max => "max",
            ScalarBinary::Min => "min",
            ScalarBinary::And => "and",
            ScalarBinary::Or => "or",
            ScalarBinary::Xor => "xor",
            ScalarBinary::Shl => "shl",
            ScalarBinary::Shr => "shr",
            ScalarBinary::Eq => "eq",
            ScalarBinary::Lt => "lt",
            ScalarBinary::Le => "le",
        }
    }

    /// Whether operands may have this type.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            ScalarBinary::Add
            | ScalarBinary::Sub
            | ScalarBinary::Mul
            | ScalarBinary::Div
            | ScalarBinary::Max
            | ScalarBinary::Min
            | ScalarBinary::Lt
            | ScalarBinary::Le => dtype != DType::Bool,
            ScalarBinary::And | ScalarBinary::Or | ScalarBinary::Xor => !dtype.is_float(),
            ScalarBinary::Shl | ScalarBinary::Shr => dtype.is_int(),
            ScalarBinary::Eq => true,
        }
    }
}

impl super::expr::MathFn {
    /// Every function.
    pub const ALL: [super::expr::MathFn; 10] = {
        use super::expr::MathFn;
        [
            MathFn::Exp,
            MathFn::Log,
            MathFn::Erf,
            MathFn::Tanh,
            MathFn::Sigmoid,
            MathFn::Sin,
            MathFn::Cos,
            MathFn::Atan,
            MathFn::Expm1,
            MathFn::Log1p,
        ]
    };

    /// The name in text forms.
    pub fn name(self) -> &'static str {
        use super::expr::MathFn;
        match self {
            MathFn::Exp => "exp",
            MathFn::Log => "log",
            MathFn::Erf => "erf",
            MathFn::Tanh => "tanh",
            MathFn::Sigmoid => "sigmoid",
            MathFn::Sin => "sin",
            MathFn::Cos => "cos",
            MathFn::Atan => "atan",
            MathFn::Expm1 => "expm1",
            MathFn::Log1p => "log1p",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_operands() {
        let mut e = Expr::default();
        let a = e.push(Inst::Const(Scalar::f32(1.5)));
        let b = e.push(Inst::Cast(DType::I32, a));
        let c = e.push(Inst::Binary(ScalarBinary::Lt, a, a));
        e.push(Inst::Select(c, b, b));
        assert_eq!(e.dtypes(&|_| None), Ok(vec![DType::F32, DType::I32, DType::Bool, DType::I32]));
    }

    #[test]
    fn wrong_operands_are_named() {
        let expr = |insts: Vec<Inst>| Expr { insts }.dtypes(&|_| None).unwrap_err().to_string();
        assert_eq!(expr(vec![]), "the expression is empty");
        let one = || Inst::Const(Scalar::f32(1.0));
        let (e0, e1) = (ExprRef(0), ExprRef(1));
        assert_eq!(expr(vec![one(), Inst::Unary(ScalarUnary::Neg, e1)]), "e1 uses e1, which does not come before it");
        assert_eq!(expr(vec![one(), Inst::Unary(ScalarUnary::Not, e0)]), "e1 (not) does not take f32");
        assert_eq!(
            expr(vec![one(), Inst::Const(Scalar::i32(1)), Inst::Binary(ScalarBinary::Add, e0, e1)]),
            "e2 (add) does not take f32, i32"
        );
        assert!(Expr { insts: vec![Inst::Const(Scalar { dtype: DType::Bool, bits: 2 })] }.dtypes(&|_| None).is_err());
    }
}
