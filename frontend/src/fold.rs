//! Evaluation of small constants while reading, so that computed shapes are numbers when operators need them.
//!
//! Exporters spell target shapes as little programs: `Shape`, `Gather`, `Mul`, `Concat`. Only exact operators are
//! evaluated here (moving elements, integers, and float operations that IEEE 754 rounds correctly), so there is no
//! question of accuracy; everything larger or inexact is left to the constant folding pass. Results, and operands that are read whole, are bounded by
//! [`MAX_ELEMS`] elements each, and in sum by the builder's budget.

mod indexing;

use aic_ir::graph::{BinaryOp, Op, ReduceOp, UnaryOp};
use aic_ir::types::{DType, Tensor, TensorType};
use bytes::Bytes;

/// Largest number of elements of a result, and of an operand that is read whole.
pub(crate) const MAX_ELEMS: u64 = 4096;

/// One element, in the widest type of its kind.
#[derive(Clone, Copy, Debug)]
enum Number {
    Float(f64),
    Signed(i64),
    Unsigned(u64),
}

/// The result of an operator on constants, or `None` where it is left to later passes.
pub(crate) fn evaluate(op: &Op, operands: &[&Tensor], ty: &TensorType) -> Option<Tensor> {
    if let (Op::Reshape { shape }, &[x]) = (op, operands) {
        return x.reshaped(shape.as_slice());
    }
    if ty.elems() > MAX_ELEMS {
        return None;
    }
    if ty.elems() == 0 {
        return Tensor::new(ty.clone(), Bytes::new()).ok();
    }
    let bytes = match (op, operands) {
        (Op::Unary(UnaryOp::Not), &[x]) if ty.dtype() == DType::Bool => {
            map(ty, |i| Some(Number::Signed(i64::from(x.get_i64(i)? == 0))))?
        }
        (Op::Unary(op), &[x]) => map(ty, |i| unary(*op, element(x, i)?))?,
        (Op::Binary(op), &[a, b]) => {
            let (ia, ib) = (broadcast_indices(a, ty)?, broadcast_indices(b, ty)?);
            map(ty, |i| binary(*op, element(a, *ia.get(i as usize)?)?, element(b, *ib.get(i as usize)?)?))?
        }
        (Op::Select, &[condition, a, b]) => {
            let (ic, ia, ib) =
                (broadcast_indices(condition, ty)?, broadcast_indices(a, ty)?, broadcast_indices(b, ty)?);
            map(ty, |i| {
                let i = i as usize;
                if condition.get_i64(*ic.get(i)?)? != 0 { element(a, *ia.get(i)?) } else { element(b, *ib.get(i)?) }
            })?
        }
        (Op::Cast { .. }, &[x]) => map(ty, |i| element(x, i))?,
        (Op::Expand { .. }, &[x]) => pick(x, broadcast_indices(x, ty)?)?,
        (Op::Transpose { perm }, &[x]) => {
            let strides = row_major(x.ty().shape());
            let permuted: Option<Vec<i64>> = perm.iter().map(|&p| strides.get(p).copied()).collect();
            pick(x, walk(ty.shape(), 0, &permuted?))?
        }
        (Op::Slice { starts, sizes: _, steps }, &[x]) => {
            let strides = row_major(x.ty().shape());
            let start = strides.iter().zip(starts).map(|(s, &start)| s * start as i64).sum();
            let stepped: Vec<i64> = strides.iter().zip(steps).map(|(s, step)| s.wrapping_mul(*step)).collect();
            pick(x, walk(ty.shape(), start, &stepped))?
        }
        (Op::Concat { axis }, parts) => concat(parts, *axis, ty)?,
        (Op::Gather { axis }, &[x, indices]) => pick(x, indexing::gather(x, indices, *axis)?)?,
        (Op::GatherElements { axis }, &[x, indices]) => pick(x, indexing::elements(x.ty().shape(), indices, *axis)?)?,
        (Op::GatherNd { batch_dims }, &[x, indices]) if indexing::is_small(indices) => {
            pick(x, indexing::tuples(x.ty().shape(), indices, *batch_dims)?)?
        }
        (Op::ScatterElements { axis, combine }, &[x, indices, updates]) if indexing::is_small(updates) => {
            indexing::scatter(*combine, x, indexing::elements(x.ty().shape(), indices, *axis)?, updates)?
        }
        (Op::ScatterNd { combine }, &[x, indices, updates])
            if indexing::is_small(indices) && indexing::is_small(updates) =>
        {
            indexing::scatter(*combine, x, indexing::tuples(x.ty().shape(), indices, 0)?, updates)?
        }
        (Op::ArgReduce { op, axis, last }, &[x]) => indexing::arg_reduce(*op, *axis, *last, x, ty)?,
        (Op::CumSum { axis, exclusive, reverse }, &[x]) => indexing::cumsum(*axis, *exclusive, *reverse, x)?,
        (Op::Reduce { op, axes, keep_dims: _ }, &[x]) => reduce(*op, axes, x, ty)?,
        _ => return None,
    };
    Tensor::new(ty.clone(), bytes).ok()
}

/// How many elements folding an operator reads at most, if it may be more than it writes.
pub(crate) fn reads_at_most(op: &Op) -> u64 {
    match op {
        Op::Reduce { .. } | Op::ArgReduce { .. } | Op::GatherNd { .. } => MAX_ELEMS,
        Op::ScatterElements { .. } | Op::ScatterNd { .. } => 2 * MAX_ELEMS,
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Cast { .. }
        | Op::MatMul
        | Op::Conv(_)
        | Op::Pool(_)
        | Op::Softmax { .. }
        | Op::LayerNorm { .. }
        | Op::BatchNorm { .. }
        | Op::Gelu(_)
        | Op::Attention { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Expand { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Gather { .. }
        | Op::CumSum { .. }
        | Op::GatherElements { .. }
        // Of several results, which are not folded here.
        | Op::TopK { .. }
        | Op::Scan(_) => 0,
    }
}

/// A constant of one element: `value` in the element type.
pub(crate) fn scalar(dtype: DType, value: f64) -> Option<Tensor> {
    let mut bytes = Vec::new();
    encode(dtype, Number::Float(value), &mut bytes);
    Tensor::new(TensorType::scalar(dtype), bytes.into()).ok()
}

fn element(x: &Tensor, index: u64) -> Option<Number> {
    match x.ty().dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => x.get_f64(index).map(Number::Float),
        DType::U64 => x.get_i64(index).map(|v| Number::Unsigned(v as u64)),
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 | DType::U32 | DType::Bool => {
            x.get_i64(index).map(Number::Signed)
        }
    }
}

/// Appends a number in an element type, converted as [`Op::Cast`] does.
fn encode(dtype: DType, value: Number, out: &mut Vec<u8>) {
    macro_rules! convert {
        ($t:ty) => {
            out.extend_from_slice(
                &match value {
                    Number::Float(v) => v as $t,
                    Number::Signed(v) => v as $t,
                    Number::Unsigned(v) => v as $t,
                }
                .to_le_bytes(),
            )
        };
    }
    let wide = match value {
        Number::Float(v) => v,
        Number::Signed(v) => v as f64,
        Number::Unsigned(v) => v as f64,
    };
    match dtype {
        DType::F16 => out.extend_from_slice(&half::f16::from_f64(wide).to_le_bytes()),
        DType::BF16 => out.extend_from_slice(&half::bf16::from_f64(wide).to_le_bytes()),
        DType::F32 => convert!(f32),
        DType::F64 => convert!(f64),
        DType::I8 => convert!(i8),
        DType::I16 => convert!(i16),
        DType::I32 => convert!(i32),
        DType::I64 => convert!(i64),
        DType::U8 => convert!(u8),
        DType::U16 => convert!(u16),
        DType::U32 => convert!(u32),
        DType::U64 => convert!(u64),
        DType::Bool => out.push(u8::from(match value {
            Number::Float(v) => v != 0.0,
            Number::Signed(v) => v != 0,
            Number::Unsigned(v) => v != 0,
        })),
    }
}

fn map(ty: &TensorType, f: impl Fn(u64) -> Option<Number>) -> Option<Bytes> {
    let mut out = Vec::with_capacity(usize::try_from(ty.bytes()).ok()?);
    for i in 0..ty.elems() {
        encode(ty.dtype(), f(i)?, &mut out);
    }
    Some(out.into())
}

fn unary(op: UnaryOp, x: Number) -> Option<Number> {
    use Number::{Float, Signed, Unsigned};
    Some(match (op, x) {
        (UnaryOp::Neg, Float(v)) => Float(-v),
        (UnaryOp::Neg, Signed(v)) => Signed(v.wrapping_neg()),
        (UnaryOp::Neg, Unsigned(v)) => Unsigned(v.wrapping_neg()),
        (UnaryOp::Abs, Float(v)) => Float(v.abs()),
        (UnaryOp::Abs, Signed(v)) => Signed(v.wrapping_abs()),
        (UnaryOp::Abs, Unsigned(v)) => Unsigned(v),
        (UnaryOp::Sqrt, Float(v)) => Float(v.sqrt()),
        (UnaryOp::Recip, Float(v)) => Float(1.0 / v),
        (UnaryOp::Round, Float(v)) => Float(v.round_ties_even()),
        (UnaryOp::Floor, Float(v)) => Float(v.floor()),
        (UnaryOp::Ceil, Float(v)) => Float(v.ceil()),
        (UnaryOp::Not, Signed(v)) => Signed(!v),
        (UnaryOp::Not, Unsigned(v)) => Unsigned(!v),
        _ => return None,
    })
}

/// Binary operators. Float results are computed in f64 and rounded once more to the element type, which gives the
/// correctly rounded result for `+ - * /` (53 ≥ 2·24 + 2 bits; Figueroa 1995).
fn binary(op: BinaryOp, a: Number, b: Number) -> Option<Number> {
    use Number::{Float, Signed, Unsigned};
    let truth = |t: bool| Signed(i64::from(t));
    Some(match (a, b) {
        (Float(a), Float(b)) => match op {
            BinaryOp::Add => Float(a + b),
            BinaryOp::Sub => Float(a - b),
            BinaryOp::Mul => Float(a * b),
            BinaryOp::Div => Float(a / b),
            BinaryOp::Max => Float(a.max(b)),
            BinaryOp::Min => Float(a.min(b)),
            BinaryOp::Eq => truth(a == b),
            BinaryOp::Lt => truth(a < b),
            BinaryOp::Le => truth(a <= b),
            BinaryOp::Rem => Float(a % b),
            BinaryOp::Pow | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr => {
                return None;
            }
        },
        (Signed(a), Signed(b)) => match op {
            BinaryOp::Add => Signed(a.wrapping_add(b)),
            BinaryOp::Sub => Signed(a.wrapping_sub(b)),
            BinaryOp::Mul => Signed(a.wrapping_mul(b)),
            BinaryOp::Div => Signed(if b == 0 { 0 } else { a.wrapping_div(b) }),
            BinaryOp::Rem => Signed(if b == 0 { a } else { a.wrapping_rem(b) }),
            BinaryOp::Max => Signed(a.max(b)),
            BinaryOp::Min => Signed(a.min(b)),
            BinaryOp::And => Signed(a & b),
            BinaryOp::Or => Signed(a | b),
            BinaryOp::Xor => Signed(a ^ b),
            BinaryOp::Eq => truth(a == b),
            BinaryOp::Lt => truth(a < b),
            BinaryOp::Le => truth(a <= b),
            // The number of bits is that of the element type, which is not known here.
            BinaryOp::Pow | BinaryOp::Shl | BinaryOp::Shr => return None,
        },
        (Unsigned(a), Unsigned(b)) => match op {
            BinaryOp::Add => Unsigned(a.wrapping_add(b)),
            BinaryOp::Sub => Unsigned(a.wrapping_sub(b)),
            BinaryOp::Mul => Unsigned(a.wrapping_mul(b)),
            BinaryOp::Div => Unsigned(a.checked_div(b).unwrap_or(0)),
            BinaryOp::Rem => Unsigned(a.checked_rem(b).unwrap_or(a)),
            BinaryOp::Max => Unsigned(a.max(b)),
            BinaryOp::Min => Unsigned(a.min(b)),
            BinaryOp::Eq => truth(a == b),
            BinaryOp::Lt => truth(a < b),
            BinaryOp::Le => truth(a <= b),
            BinaryOp::And => Unsigned(a & b),
            BinaryOp::Or => Unsigned(a | b),
            BinaryOp::Xor => Unsigned(a ^ b),
            BinaryOp::Pow | BinaryOp::Shl | BinaryOp::Shr => return None,
        },
        _ => return None,
    })
}

/// Strides in elements of a dense row-major tensor.
fn row_major(shape: &[u64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as i64;
    }
    strides
}

/// Offsets `base + Σ index · stride` of all indices of a shape, in row-major order.
fn walk(shape: &[u64], base: i64, strides: &[i64]) -> Vec<u64> {
    if shape.contains(&0) {
        return Vec::new();
    }
    let mut offsets = vec![base];
    for (&size, &stride) in shape.iter().zip(strides) {
        offsets = offsets
            .iter()
            .flat_map(|&o| (0..size as i64).map(move |i| o.wrapping_add(i.wrapping_mul(stride))))
            .collect();
    }
    offsets.into_iter().map(|o| o as u64).collect()
}

/// For each element of the result, which element of a broadcast operand it reads.
fn broadcast_indices(x: &Tensor, ty: &TensorType) -> Option<Vec<u64>> {
    let lead = ty.rank().checked_sub(x.ty().rank())?;
    let mut strides = vec![0; ty.rank()];
    for ((s, stride), &size) in strides.iter_mut().skip(lead).zip(row_major(x.ty().shape())).zip(x.ty().shape()) {
        *s = if size == 1 { 0 } else { stride };
    }
    Some(walk(ty.shape(), 0, &strides))
}

/// The bytes of the elements at some offsets.
fn pick(x: &Tensor, offsets: Vec<u64>) -> Option<Bytes> {
    let size = x.ty().dtype().bytes();
    let mut out = Vec::with_capacity(offsets.len() * size as usize);
    for offset in offsets {
        let start = usize::try_from(offset.checked_mul(size)?).ok()?;
        out.extend_from_slice(x.bytes().get(start..start.checked_add(size as usize)?)?);
    }
    Some(out.into())
}

/// Row-major positions split at an axis: product of the dimensions before and after it.
fn around(shape: &[u64], axis: usize) -> Option<(u64, u64)> {
    Some((shape.get(..axis)?.iter().product(), shape.get(axis + 1..)?.iter().product()))
}

fn concat(parts: &[&Tensor], axis: usize, ty: &TensorType) -> Option<Bytes> {
    let (outer, inner) = around(ty.shape(), axis)?;
    let mut out = Vec::with_capacity(usize::try_from(ty.bytes()).ok()?);
    // Without the empty parts, the work is bounded by the elements of the result.
    let parts: Vec<&&Tensor> = parts.iter().filter(|p| p.ty().elems() > 0).collect();
    for o in 0..outer {
        for part in &parts {
            let run = usize::try_from(part.ty().shape().get(axis)? * inner * ty.dtype().bytes()).ok()?;
            let start = usize::try_from(o).ok()?.checked_mul(run)?;
            out.extend_from_slice(part.bytes().get(start..start.checked_add(run)?)?);
        }
    }
    Some(out.into())
}

/// Reductions of integers; the order of a float sum is not fixed, so it is not computed here.
fn reduce(op: ReduceOp, axes: &[usize], x: &Tensor, ty: &TensorType) -> Option<Bytes> {
    if x.ty().elems() > MAX_ELEMS || ty.dtype().is_float() {
        return None;
    }
    let combine = match op {
        ReduceOp::Sum => BinaryOp::Add,
        ReduceOp::Prod => BinaryOp::Mul,
        ReduceOp::Max => BinaryOp::Max,
        ReduceOp::Min => BinaryOp::Min,
        ReduceOp::Mean => return None,
    };
    let unsigned = ty.dtype() == DType::U64;
    let start = match (op, unsigned) {
        (ReduceOp::Prod, false) => Some(Number::Signed(1)),
        (ReduceOp::Prod, true) => Some(Number::Unsigned(1)),
        (ReduceOp::Sum, false) => Some(Number::Signed(0)),
        (ReduceOp::Sum, true) => Some(Number::Unsigned(0)),
        _ => None,
    };
    // Strides of the result over the dimensions of the operand: reduced dimensions stay at one place.
    let kept: Vec<u64> =
        x.ty().shape().iter().enumerate().map(|(i, &d)| if axes.contains(&i) { 1 } else { d }).collect();
    let mut strides = row_major(&kept);
    axes.iter().for_each(|&axis| strides[axis] = 0);
    let mut sums = vec![start; usize::try_from(ty.elems()).ok()?];
    for (i, target) in walk(x.ty().shape(), 0, &strides).into_iter().enumerate() {
        let sum = sums.get_mut(usize::try_from(target).ok()?)?;
        let value = element(x, i as u64)?;
        *sum = Some(match *sum {
            None => value,
            Some(sum) => binary(combine, sum, value)?,
        });
    }
    map(ty, |i| *sums.get(i as usize)?)
}

#[cfg(test)]
mod tests {
    use aic_ir::graph::{ArgOp, ScatterOp};

    use super::*;

    fn fold(op: Op, operands: &[&Tensor]) -> Option<Tensor> {
        let types: Vec<&TensorType> = operands.iter().map(|t| t.ty()).collect();
        evaluate(&op, operands, &op.infer(&types).expect("operands fit"))
    }

    fn ints(shape: &[u64], values: &[i64]) -> Tensor {
        Tensor::from_i64(shape, values).expect("as many values as the shape has")
    }

    #[test]
    fn elements_are_moved() {
        let x = ints(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        let transposed = fold(Op::Transpose { perm: vec![1, 0] }, &[&x]);
        assert_eq!(transposed, Some(ints(&[3, 2], &[0, 3, 1, 4, 2, 5])));
        let slice = Op::Slice { starts: vec![1, 2], sizes: vec![1, 2], steps: vec![1, -2] };
        assert_eq!(fold(slice, &[&x]), Some(ints(&[1, 2], &[5, 3])));
        assert_eq!(fold(Op::Gather { axis: 1 }, &[&x, &ints(&[], &[-1])]), Some(ints(&[2], &[2, 5])));
        assert_eq!(fold(Op::Gather { axis: 1 }, &[&x, &ints(&[], &[3])]), None);
        let joined = fold(Op::Concat { axis: 1 }, &[&x, &ints(&[2, 1], &[8, 9])]);
        assert_eq!(joined, Some(ints(&[2, 4], &[0, 1, 2, 8, 3, 4, 5, 9])));
        let expanded = fold(Op::Expand { shape: vec![2, 2] }, &[&ints(&[2, 1], &[7, 8])]);
        assert_eq!(expanded, Some(ints(&[2, 2], &[7, 7, 8, 8])));
    }

    #[test]
    fn data_says_where() {
        let x = ints(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        let of = |op, others: &[&Tensor]| fold(op, &[&[&x], others].concat());
        let at = ints(&[2, 1], &[-1, 0]);
        assert_eq!(of(Op::GatherElements { axis: 1 }, &[&at]), Some(ints(&[2, 1], &[2, 3])));
        let pairs = ints(&[2, 2], &[1, -1, 0, 0]);
        assert_eq!(of(Op::GatherNd { batch_dims: 0 }, &[&pairs]), Some(ints(&[2], &[5, 0])));
        assert_eq!(of(Op::GatherNd { batch_dims: 1 }, &[&at]), Some(ints(&[2], &[2, 3])));
        assert_eq!(of(Op::GatherNd { batch_dims: 0 }, &[&ints(&[1], &[2])]), None);
        let updates = ints(&[2, 1], &[10, 20]);
        let scattered = of(Op::ScatterElements { axis: 1, combine: ScatterOp::Add }, &[&at, &updates]);
        assert_eq!(scattered, Some(ints(&[2, 3], &[0, 1, 12, 23, 4, 5])));
        let twice = ints(&[2, 2], &[1, 1, 1, 1]);
        let scattered = of(Op::ScatterNd { combine: ScatterOp::Replace }, &[&twice, &ints(&[2], &[7, 8])]);
        assert_eq!(scattered, Some(ints(&[2, 3], &[0, 1, 2, 3, 8, 5])));
        let least = Op::ArgReduce { op: ArgOp::Min, axis: 0, last: true };
        assert_eq!(fold(least, &[&ints(&[3, 1], &[1, 0, 0])]), Some(ints(&[1, 1], &[2])));
        let sums = Op::CumSum { axis: 1, exclusive: true, reverse: true };
        assert_eq!(of(sums, &[]), Some(ints(&[2, 3], &[3, 2, 0, 9, 5, 0])));
    }

    #[test]
    fn integers_are_exact() {
        let a = ints(&[3], &[7, -7, i64::MIN]);
        let b = ints(&[3], &[2, 2, -1]);
        assert_eq!(fold(Op::Binary(BinaryOp::Div), &[&a, &b]), Some(ints(&[3], &[3, -3, i64::MIN])));
        assert_eq!(fold(Op::Binary(BinaryOp::Div), &[&a, &ints(&[], &[0])]), Some(ints(&[3], &[0, 0, 0])));
        let reduce = |op| Op::Reduce { op, axes: vec![0], keep_dims: false };
        assert_eq!(fold(reduce(ReduceOp::Prod), &[&ints(&[2, 2], &[1, 2, 3, 4])]), Some(ints(&[2], &[3, 8])));
        assert_eq!(fold(reduce(ReduceOp::Min), &[&ints(&[3], &[4, -2, 3])]), Some(ints(&[], &[-2])));
    }

    #[test]
    fn casts_truncate_and_saturate() {
        let x = Tensor::from_f32([4], &[1.9, -1.9, f32::NAN, 1e30]).expect("four values");
        assert_eq!(fold(Op::Cast { to: DType::I64 }, &[&x]), Some(ints(&[4], &[1, -1, 0, i64::MAX])));
        let half = scalar(DType::BF16, 0.5).expect("a scalar");
        assert_eq!((half.ty().dtype(), half.get_f64(0)), (DType::BF16, Some(0.5)));
    }

    #[test]
    fn large_and_inexact_results_are_left() {
        assert_eq!(fold(Op::Expand { shape: vec![MAX_ELEMS + 1] }, &[&ints(&[1], &[1])]), None);
        let x = Tensor::scalar_f32(2.0);
        assert_eq!(fold(Op::Unary(UnaryOp::Exp), &[&x]), None);
        assert_eq!(fold(Op::Unary(UnaryOp::Sqrt), &[&x]), Some(Tensor::scalar_f32(2f32.sqrt())));
    }
}
