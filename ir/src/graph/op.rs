//! The closed set of graph operators: semantics, operands and result type of each.
//!
//! Result types are computed by [`Op::infer`] alone; readers and passes never write a type by hand. Shapes in the
//! comments are letters; `...` stands for any leading dimensions.

use super::scan::Scan;
use crate::types::{DType, ShapeError};

/// Elementwise function of one operand; result has the operand's type unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-x`; integers wrap.
    Neg,
    /// `|x|`; the most negative integer stays.
    Abs,
    /// `e^x`. Floats only, as all that follow up to `Ceil`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// `1 / x`.
    Recip,
    /// Error function, `2/√π ∫₀ˣ e^(-t²) dt`.
    Erf,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Arc tangent, in `-π/2..π/2`. Together with `Sqrt` it gives the other inverse functions of angles.
    Atan,
    /// `e^x - 1` without the cancellation near 0. Hyperbolic functions are made of it.
    Expm1,
    /// `ln(1 + x)` without the rounding of `1 + x`. Inverse hyperbolic functions are made of it.
    Log1p,
    /// Round to the nearest integer, ties to even.
    Round,
    /// Round toward minus infinity.
    Floor,
    /// Round toward plus infinity.
    Ceil,
    /// Logical negation of `bool`, complement of all bits of integers.
    Not,
}

/// Elementwise function of two operands of one element type, broadcast against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`; integers truncate, and give 0 for `b = 0`.
    Div,
    /// `a - b · trunc(a / b)`, exactly: the remainder of C, with the sign of `a`. Integers give `a` for `b = 0`; floats
    /// give NaN for `b = 0` and for infinite `a`, and `a` for infinite `b`.
    Rem,
    /// `a` to the power `b`. Integers wrap; with a negative exponent they give the exact power truncated toward zero, and 0
    /// for `a = 0`.
    Pow,
    /// The larger.
    Max,
    /// The smaller.
    Min,
    /// Logical and of `bool`, and of the bits of integers, as `Or` and `Xor`.
    And,
    /// Or.
    Or,
    /// Exclusive or.
    Xor,
    /// `a · 2^b`, wrapping. Integers only. 0 if `b` is negative or not below the width.
    Shl,
    /// `a / 2^b` rounded toward minus infinity. Integers only. 0, or -1 for negative `a`, if `b` is negative or not below
    /// the width.
    Shr,
    /// `a == b`; result is `bool`, as for all comparisons.
    Eq,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
}

impl BinaryOp {
    /// Every function, in declaration order.
    pub const ALL: [BinaryOp; 16] = [
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Rem,
        BinaryOp::Pow,
        BinaryOp::Max,
        BinaryOp::Min,
        BinaryOp::And,
        BinaryOp::Or,
        BinaryOp::Xor,
        BinaryOp::Shl,
        BinaryOp::Shr,
        BinaryOp::Eq,
        BinaryOp::Lt,
        BinaryOp::Le,
    ];

    /// The mnemonic in text forms.
    pub fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Rem => "rem",
            BinaryOp::Pow => "pow",
            BinaryOp::Max => "max",
            BinaryOp::Min => "min",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Xor => "xor",
            BinaryOp::Shl => "shl",
            BinaryOp::Shr => "shr",
            BinaryOp::Eq => "eq",
            BinaryOp::Lt => "lt",
            BinaryOp::Le => "le",
        }
    }

    /// Whether the result is `bool` whatever the operands are.
    pub fn is_comparison(self) -> bool {
        matches!(self, BinaryOp::Eq | BinaryOp::Lt | BinaryOp::Le)
    }
}

/// How a reduction combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Sum; 0 for no elements.
    Sum,
    /// Arithmetic mean: NaN for no elements. Of integers of 32 and 64 bits the wrapped sum by the number of elements,
    /// truncated; 0 for no elements.
    Mean,
    /// Largest element; refused for no elements.
    Max,
    /// Smallest element; refused for no elements.
    Min,
    /// Product; 1 for no elements.
    Prod,
}

/// Which element an index is sought of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArgOp {
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// How a scatter combines an element with an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterOp {
    /// The update.
    Replace,
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// The larger.
    Max,
    /// The smaller.
    Min,
}

/// Which form of GELU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GeluKind {
    /// `x/2 · (1 + erf(x/√2))`.
    Erf,
    /// `x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))`.
    Tanh,
}

/// Attributes of a convolution over the trailing spatial dimensions (one or two).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvAttrs {
    /// Step of the window per spatial dimension, at least 1.
    pub strides: Vec<u64>,
    /// Spacing of the kernel's elements per spatial dimension, at least 1.
    pub dilations: Vec<u64>,
    /// Zero elements before and after, per spatial dimension.
    pub pads: Vec<(u64, u64)>,
    /// Number of groups that channels are split into; divides both channel counts.
    pub groups: u64,
}

/// What a pooling window computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Largest element; padding never wins.
    Max,
    /// Mean over all window positions, padding counted as zeros.
    AverageIncludePad,
    /// Mean over the window positions that lie inside the input.
    AverageExcludePad,
}

/// Attributes of pooling over the trailing spatial dimensions (one or two).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolAttrs {
    /// What is computed.
    pub kind: PoolKind,
    /// Window size per spatial dimension.
    pub kernel: Vec<u64>,
    /// Step of the window per spatial dimension, at least 1.
    pub strides: Vec<u64>,
    /// Spacing of the window's elements per spatial dimension, at least 1.
    pub dilations: Vec<u64>,
    /// Elements of padding before and after, per spatial dimension.
    pub pads: Vec<(u64, u64)>,
}

/// An operator. Every variant names its operands in order and its result.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `(x) -> f(x)`.
    Unary(UnaryOp),
    /// `(a, b) -> f(a, b)`, broadcast.
    Binary(BinaryOp),
    /// `(condition: bool, a, b) -> condition ? a : b`, broadcast.
    Select,
    /// `(x) -> x` in another element type. Float to integer truncates toward zero and saturates (NaN gives 0);
    /// integers wrap; to `bool` is `x != 0`.
    Cast {
        /// Element type of the result.
        to: DType,
    },
    /// `(a: [..., M, K], b: [..., K, N]) -> [..., M, N]`, leading dimensions broadcast. Ranks of at least 2; not
    /// `bool`; integers wrap.
    MatMul,
    /// `(x: [N, C, spatial...], w: [O, C/groups, kernel...], bias?: [O]) -> [N, O, out...]`. Floats; cross-correlation
    /// (the kernel is not flipped).
    Conv(ConvAttrs),
    /// `(x: [N, C, spatial...]) -> [N, C, out...]`.
    Pool(PoolAttrs),
    /// `(x) -> x reduced over axes`. Axes are sorted and distinct; kept dimensions become 1.
    Reduce {
        /// How elements are combined.
        op: ReduceOp,
        /// The dimensions that are reduced.
        axes: Vec<usize>,
        /// Whether reduced dimensions stay with size 1.
        keep_dims: bool,
    },
    /// `(x) -> e^(x - max) / Σ e^(x - max)` along one dimension.
    Softmax {
        /// The dimension.
        axis: usize,
    },
    /// `(x, scale: [D...], bias: [D...]) -> (x - mean)/√(variance + epsilon) · scale + bias` over the dimensions from
    /// `axis` to the last, whose shape is `D...`; the variance is that of the population.
    LayerNorm {
        /// First normalized dimension.
        axis: usize,
        /// Added to the variance.
        epsilon: f32,
    },
    /// `(x: [N, C, ...], scale: [C], bias: [C], mean: [C], variance: [C]) -> (x - mean)/√(variance + epsilon) · scale + bias`.
    BatchNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// Gaussian error linear unit (Hendrycks and Gimpel, arXiv 1606.08415).
    Gelu(GeluKind),
    /// `(q: [B, H, S, D], k: [B, H, T, D], v: [B, H, T, E], bias?) -> softmax(scale · q kᵀ + bias) v : [B, H, S, E]`;
    /// the bias broadcasts to `[B, H, S, T]`.
    Attention {
        /// Factor of the products before the bias is added.
        scale: f32,
    },
    /// `(x) -> x` with the same elements in row-major order under another shape.
    Reshape {
        /// Shape of the result.
        shape: Vec<u64>,
    },
    /// `(x) -> y` with `y.shape[i] = x.shape[perm[i]]`.
    Transpose {
        /// A permutation of the dimensions.
        perm: Vec<usize>,
    },
    /// `(x) -> x` broadcast to a shape, as numpy does.
    Expand {
        /// Shape of the result.
        shape: Vec<u64>,
    },
    /// `(x0, x1, ...) -> joined along a dimension`. At least one operand.
    Concat {
        /// The dimension.
        axis: usize,
    },
    /// `(x) -> y` with `y[i...] = x[start + step · i...]`. One entry per dimension; steps may be negative, never 0.
    Slice {
        /// First element taken, per dimension.
        starts: Vec<u64>,
        /// Number of elements taken, per dimension.
        sizes: Vec<u64>,
        /// Distance between elements taken, per dimension.
        steps: Vec<i64>,
    },
    /// `(x) -> x` with elements of a value around it. One entry per dimension.
    Pad {
        /// Elements before and after, per dimension.
        pads: Vec<(u64, u64)>,
        /// Value of the added elements, converted to the element type.
        value: f64,
    },
    /// `(x, indices: i32 or i64) -> y` with `y[a..., i..., b...] = x[a..., indices[i...], b...]`. Negative indices count
    /// from the end; an index out of range is an error at run time.
    Gather {
        /// The dimension that is indexed.
        axis: usize,
    },
    /// `(states..., sequences..., captured...) -> (states..., stacked...)`: a graph repeated over the leading dimension of
    /// the sequences.
    Scan(Box<Scan>),
    /// `(x) -> the position along a dimension of its largest or smallest element : i64`; the dimension stays with size 1.
    /// A NaN wins over every number, as in numpy. At least one element; not `bool`.
    ArgReduce {
        /// Which element.
        op: ArgOp,
        /// The dimension.
        axis: usize,
        /// Whether the last of equal elements is taken instead of the first.
        last: bool,
    },
    /// `(x) -> y` with `y[i] = x[0] + … + x[i]` along a dimension, added in that order. Not `bool`.
    CumSum {
        /// The dimension.
        axis: usize,
        /// Whether `x[i]` itself is left out, so that the first sum is 0.
        exclusive: bool,
        /// Whether the sums run from the end: `x[i] + … + x[n - 1]`.
        reverse: bool,
    },
    /// `(x) -> (values, indices: i64)`: the `k` largest or smallest elements along a dimension, best first, and their
    /// positions; of equal elements the first comes first. A NaN is larger than every number. Not `bool`.
    TopK {
        /// How many; at most as many as there are.
        k: u64,
        /// The dimension.
        axis: usize,
        /// Whether the largest are taken instead of the smallest.
        largest: bool,
    },
    /// `(x, indices: i32 or i64) -> y : [indices.shape]` with `y[a..., i, b...] = x[a..., indices[a..., i, b...], b...]`.
    /// Both have one rank; other dimensions of `indices` are at most those of `x`. Indices as for `Gather`.
    GatherElements {
        /// The dimension that is indexed.
        axis: usize,
    },
    /// `(x: [B..., D..., E...], indices: [B..., I..., k]: i32 or i64) -> y : [B..., I..., E...]` with
    /// `y[b..., i..., e...] = x[b..., indices[b..., i..., 0], …, indices[b..., i..., k - 1], e...]`, where `D...` are `k`
    /// dimensions. Indices as for `Gather`, each in its own dimension.
    GatherNd {
        /// Number of dimensions `B...`.
        batch_dims: usize,
    },
    /// `(x, indices: i32 or i64, updates) -> x` where, in row-major order of the updates,
    /// `x[a..., indices[a..., i, b...], b...]` is combined with `updates[a..., i, b...]`. `indices` and `updates` have one
    /// shape, of the rank of `x`; its other dimensions are at most those of `x`. Indices as for `Gather`.
    ScatterElements {
        /// The dimension that is indexed.
        axis: usize,
        /// How an element and an update combine.
        combine: ScatterOp,
    },
    /// `(x: [D..., E...], indices: [I..., k]: i32 or i64, updates: [I..., E...]) -> x` where, in row-major order of the
    /// updates, `x[indices[i..., 0], …, indices[i..., k - 1], e...]` is combined with `updates[i..., e...]`. Indices as for
    /// `Gather`, each in its own dimension.
    ScatterNd {
        /// How an element and an update combine.
        combine: ScatterOp,
    },
}

impl UnaryOp {
    /// Every function, in declaration order.
    pub const ALL: [UnaryOp; 18] = [
        UnaryOp::Neg,
        UnaryOp::Abs,
        UnaryOp::Exp,
        UnaryOp::Log,
        UnaryOp::Sqrt,
        UnaryOp::Recip,
        UnaryOp::Erf,
        UnaryOp::Tanh,
        UnaryOp::Sigmoid,
        UnaryOp::Sin,
        UnaryOp::Cos,
        UnaryOp::Atan,
        UnaryOp::Expm1,
        UnaryOp::Log1p,
        UnaryOp::Round,
        UnaryOp::Floor,
        UnaryOp::Ceil,
        UnaryOp::Not,
    ];

    /// The mnemonic in text forms.
    pub fn name(self) -> &'static str {
        match self {
            UnaryOp::Neg => "neg",
            UnaryOp::Abs => "abs",
            UnaryOp::Exp => "exp",
            UnaryOp::Log => "log",
            UnaryOp::Sqrt => "sqrt",
            UnaryOp::Recip => "recip",
            UnaryOp::Erf => "erf",
            UnaryOp::Tanh => "tanh",
            UnaryOp::Sigmoid => "sigmoid",
            UnaryOp::Sin => "sin",
            UnaryOp::Cos => "cos",
            UnaryOp::Atan => "atan",
            UnaryOp::Expm1 => "expm1",
            UnaryOp::Log1p => "log1p",
            UnaryOp::Round => "round",
            UnaryOp::Floor => "floor",
            UnaryOp::Ceil => "ceil",
            UnaryOp::Not => "not",
        }
    }
}

impl ScatterOp {
    /// Every way, in declaration order.
    pub const ALL: [ScatterOp; 5] =
        [ScatterOp::Replace, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Max, ScatterOp::Min];

    /// The word in text forms.
    pub fn name(self) -> &'static str {
        match self {
            ScatterOp::Replace => "replace",
            ScatterOp::Add => "add",
            ScatterOp::Mul => "mul",
            ScatterOp::Max => "max",
            ScatterOp::Min => "min",
        }
    }

    /// The operator that combines an element and an update, unless the update replaces it.
    pub fn binary(self) -> Option<BinaryOp> {
        match self {
            ScatterOp::Replace => None,
            ScatterOp::Add => Some(BinaryOp::Add),
            ScatterOp::Mul => Some(BinaryOp::Mul),
            ScatterOp::Max => Some(BinaryOp::Max),
            ScatterOp::Min => Some(BinaryOp::Min),
        }
    }
}

impl Op {
    /// The mnemonic in text forms: `matmul`, `add`, `reduce_sum`.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Unary(u) => u.name(),
            Op::Binary(b) => b.name(),
            Op::Select => "select",
            Op::Cast { .. } => "cast",
            Op::MatMul => "matmul",
            Op::Conv(_) => "conv",
            Op::Pool(p) => match p.kind {
                PoolKind::Max => "pool_max",
                PoolKind::AverageIncludePad => "pool_mean_padded",
                PoolKind::AverageExcludePad => "pool_mean",
            },
            Op::Reduce { op, .. } => match op {
                ReduceOp::Sum => "reduce_sum",
                ReduceOp::Mean => "reduce_mean",
                ReduceOp::Max => "reduce_max",
                ReduceOp::Min => "reduce_min",
                ReduceOp::Prod => "reduce_prod",
            },
            Op::Softmax { .. } => "softmax",
            Op::LayerNorm { .. } => "layer_norm",
            Op::BatchNorm { .. } => "batch_norm",
            Op::Gelu(GeluKind::Erf) => "gelu_erf",
            Op::Gelu(GeluKind::Tanh) => "gelu_tanh",
            Op::Attention { .. } => "attention",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Expand { .. } => "expand",
            Op::Concat { .. } => "concat",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Gather { .. } => "gather",
            Op::Scan(_) => "scan",
            Op::ArgReduce { op: ArgOp::Max, .. } => "arg_max",
            Op::ArgReduce { op: ArgOp::Min, .. } => "arg_min",
            Op::CumSum { .. } => "cumsum",
            Op::TopK { .. } => "top_k",
            Op::GatherElements { .. } => "gather_elements",
            Op::GatherNd { .. } => "gather_nd",
            Op::ScatterElements { .. } => "scatter_elements",
            Op::ScatterNd { .. } => "scatter_nd",
        }
    }
}

/// Why operands do not fit an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// Its results were asked for as one.
    #[error("has several results")]
    ManyResults,
    /// Too few or too many operands.
    #[error("takes {expected} operands, but {actual} are given")]
    Arity {
        /// How many it takes, in words.
        expected: &'static str,
        /// How many are given.
        actual: usize,
    },
    /// An element type is not accepted.
    #[error("element type {0} is not accepted here")]
    DType(DType),
    /// Shapes or attributes do not fit together; the text says which.
    #[error("{0}")]
    Shape(String),
    /// The result would be too large.
    #[error(transparent)]
    Limit(#[from] ShapeError),
}
