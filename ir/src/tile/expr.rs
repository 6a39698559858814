//! Scalar expressions of `map` statements.
//!
//! An expression is a list of instructions in SSA form; each refers to earlier ones by position and the last is the
//! result. Lists (rather than trees) keep shared subexpressions shared, which polynomials need, and are walked without
//! recursion. Every backend implements these instructions and nothing else: elementary functions ([`MathFn`]) are
//! expanded into them before scheduling ends ([`super::math`]).

use super::Access;
use crate::types::DType;

/// Position of an instruction in an [`Expr`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExprRef(pub u32);
cranelift_entity::entity_impl!(ExprRef, "e");

/// A scalar constant: an element type and its bits, zero-extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scalar {
    /// Element type.
    pub dtype: DType,
    /// The bits, in the low bytes.
    pub bits: u64,
}

impl Scalar {
    /// A 32-bit float.
    pub fn f32(value: f32) -> Self {
        Self { dtype: DType::F32, bits: u64::from(value.to_bits()) }
    }

    /// A 32-bit integer.
    pub fn i32(value: i32) -> Self {
        Self { dtype: DType::I32, bits: u64::from(value as u32) }
    }

    /// The value nearest to `value` of any element type; integers saturate.
    pub fn from_f64(dtype: DType, value: f64) -> Self {
        let bits = match dtype {
            DType::F16 => u64::from(half::f16::from_f64(value).to_bits()),
            DType::BF16 => u64::from(half::bf16::from_f64(value).to_bits()),
            DType::F32 => u64::from((value as f32).to_bits()),
            DType::F64 => value.to_bits(),
            DType::I8 => u64::from(value as i8 as u8),
            DType::I16 => u64::from(value as i16 as u16),
            DType::I32 => u64::from(value as i32 as u32),
            DType::I64 => value as i64 as u64,
            DType::U8 => u64::from(value as u8),
            DType::U16 => u64::from(value as u16),
            DType::U32 => u64::from(value as u32),
            DType::U64 => value as u64,
            DType::Bool => u64::from(value != 0.0),
        };
        Self { dtype, bits }
    }

    /// The value as a double (64-bit integers may round).
    pub fn to_f64(self) -> f64 {
        match self.dtype {
            DType::F16 => half::f16::from_bits(self.bits as u16).to_f64(),
            DType::BF16 => half::bf16::from_bits(self.bits as u16).to_f64(),
            DType::F32 => f64::from(f32::from_bits(self.bits as u32)),
            DType::F64 => f64::from_bits(self.bits),
            DType::I8 => f64::from(self.bits as i8),
            DType::I16 => f64::from(self.bits as i16),
            DType::I32 => f64::from(self.bits as i32),
            DType::I64 => self.bits as i64 as f64,
            DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool => self.bits as f64,
        }
    }
}

/// One-operand instructions; the result has the operand's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalarUnary {
    /// `-x`.
    Neg,
    /// `|x|`.
    Abs,
    /// Square root, correctly rounded. Floats only.
    Sqrt,
    /// Nearest integer, ties to even. Floats only.
    Round,
    /// Toward minus infinity. Floats only.
    Floor,
    /// Toward plus infinity. Floats only.
    Ceil,
    /// Logical negation of `bool`.
    Not,
}

/// Two-operand instructions on operands of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalarBinary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`; integers truncate and give 0 for `b = 0` (the most negative integer over -1 wraps).
    Div,
    /// `a > b ? a : b`.
    Max,
    /// `a < b ? a : b`.
    Min,
    /// Bitwise (and logical, for `bool`) and. Integers and `bool`, as `Or` and `Xor`.
    And,
    /// Or.
    Or,
    /// Exclusive or.
    Xor,
    /// `a << b`, `b` below the width. Integers.
    Shl,
    /// `a >> b` keeping the sign of signed types, `b` below the width. Integers.
    Shr,
    /// `a == b`, as `bool`; false for NaN, as all comparisons.
    Eq,
    /// `a < b`, as `bool`.
    Lt,
    /// `a <= b`, as `bool`.
    Le,
}

impl ScalarBinary {
    /// Whether the result is `bool`.
    pub fn is_comparison(self) -> bool {
        matches!(self, ScalarBinary::Eq | ScalarBinary::Lt | ScalarBinary::Le)
    }
}

/// Elementary functions, before expansion. Semantics: the exact value, rounded to the operand's type; an expansion states
/// its error in units in the last place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MathFn {
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Error function.
    Erf,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Arc tangent.
    Atan,
    /// `e^x - 1`.
    Expm1,
    /// `ln(1 + x)`.
    Log1p,
}

/// One instruction of an expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inst {
    /// The element that an access refers to.
    Load(Access),
    /// A constant.
    Const(Scalar),
    /// One operand.
    Unary(ScalarUnary, ExprRef),
    /// Two operands.
    Binary(ScalarBinary, ExprRef, ExprRef),
    /// `a * b + c`, rounded once. Floats.
    Fma(ExprRef, ExprRef, ExprRef),
    /// `c ? a : b`, `c` of type `bool`.
    Select(ExprRef, ExprRef, ExprRef),
    /// Conversion of the value: float to integer truncates toward zero and saturates (NaN gives 0); integers wrap; to
    /// `bool` is `x != 0`.
    Cast(DType, ExprRef),
    /// The same bits as another type of the same size.
    Bitcast(DType, ExprRef),
    /// An elementary function.
    Math(MathFn, ExprRef),
    /// `a` to the power `b`, as a math function of two operands.
    Pow(ExprRef, ExprRef),
}

/// A scalar expression. See the [module documentation](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Expr {
    /// Instructions; the last one is the result.
    pub insts: Vec<Inst>,
}

impl Expr {
    /// Appends an instruction.
    pub fn push(&mut self, inst: Inst) -> ExprRef {
        self.insts.push(inst);
        ExprRef(self.insts.len() as u32 - 1)
    }

    /// An expression of a single constant.
    pub fn constant(value: Scalar) -> Self {
        Self { insts: vec![Inst::Const(value)] }
    }

    /// All accesses that are read.
    pub fn loads(&self) -> impl Iterator<Item = &Access> {
        self.insts.iter().filter_map(|i| if let Inst::Load(a) = i { Some(a) } else { None })
    }

    /// All accesses that are read, to be rewritten.
    pub fn loads_mut(&mut self) -> impl Iterator<Item = &mut Access> {
        self.insts.iter_mut().filter_map(|i| if let Inst::Load(a) = i { Some(a) } else { None })
    }
}
