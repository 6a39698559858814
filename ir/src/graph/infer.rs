//! Result types of operators, and the checks that operands and attributes fit: [`Op::infer`].
//!
//! It sits beside [`super::op`] rather than in it because it is the only place where a type is computed; the builder, the
//! verifier and the parser all call it. Operands and attributes come from model files, so everything is checked: after
//! `infer` succeeds, every index computed from the attributes fits an `i64`.

mod indexing;

use super::op::{BinaryOp, ConvAttrs, InferError, Op, PoolAttrs, PoolKind, ReduceOp, UnaryOp};
use crate::types::{DType, MAX_ELEMENTS, TensorType};

/// Shape that two shapes broadcast to as numpy does: aligned at the last dimension, 1 stretches (to 0 too).
///
/// # Errors
/// When two aligned dimensions differ and neither is 1.
pub fn broadcast(a: &[u64], b: &[u64]) -> Result<Vec<u64>, InferError> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[u64], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(shape_error(format!("shapes {a:?} and {b:?} do not broadcast"))),
        })
        .collect()
}

/// Output size along one spatial dimension of a window of `kernel` elements, `dilation` apart, moved by `stride` over
/// `input` elements with `pads` before and after.
///
/// # Errors
/// When an attribute is 0 or beyond [`MAX_ELEMENTS`], or the window is larger than the padded input.
pub fn window_output(input: u64, kernel: u64, stride: u64, dilation: u64, pads: (u64, u64)) -> Result<u64, InferError> {
    for (what, value) in [("kernel size", kernel), ("stride", stride), ("dilation", dilation)] {
        if value == 0 || value > MAX_ELEMENTS {
            return Err(shape_error(format!("{what} {value} is not in 1 to 2^40")));
        }
    }
    let padded = padded_size(input, pads)?;
    let window = (kernel - 1).checked_mul(dilation).and_then(|n| n.checked_add(1));
    match window {
        Some(window) if window <= padded => Ok((padded - window) / stride + 1),
        _ => Err(shape_error(format!(
            "a window of {kernel} elements with dilation {dilation} does not fit {input} elements padded by {pads:?}"
        ))),
    }
}

impl Op {
    /// Types of all results for operands of the given types, in the operator's order.
    ///
    /// # Errors
    /// As [`Op::infer`].
    pub fn infer_all(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, InferError> {
        match self {
            Op::Scan(scan) => scan.infer(operands),
            Op::TopK { k, axis, largest: _ } => {
                let x = one(operands)?;
                accept(x.dtype() != DType::Bool, x.dtype())?;
                check_axis(*axis, x)?;
                check(*k <= x.shape()[*axis], || format!("{k} of the {} elements of a dimension", x.shape()[*axis]))?;
                let mut shape = x.shape().to_vec();
                shape[*axis] = *k;
                Ok(vec![TensorType::new(x.dtype(), shape.clone())?, TensorType::new(DType::I64, shape)?])
            }
            _ => Ok(vec![self.infer(operands)?]),
        }
    }

    /// Type of the result of an operator that has one, for operands of the given types, in the operator's order.
    ///
    /// # Errors
    /// When the operator has several results, the number, element types or shapes of the operands do not fit, an attribute is out of its range, or the
    /// result passes the limits of [`TensorType`].
    pub fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        match self {
            Op::Unary(op) => unary(*op, one(operands)?),
            Op::Binary(op) => binary(*op, operands),
            Op::Select => select(operands),
            Op::Cast { to } => Ok(one(operands)?.with_dtype(*to)),
            Op::MatMul => matmul(operands),
            Op::Conv(attrs) => conv(attrs, operands),
            Op::Pool(attrs) => pool(attrs, one(operands)?),
            Op::Reduce { op, axes, keep_dims } => reduce(*op, axes, *keep_dims, one(operands)?),
            Op::Softmax { axis } => {
                let x = one(operands)?;
                float(x)?;
                check_axis(*axis, x)?;
                Ok(x.clone())
            }
            Op::LayerNorm { axis, epsilon } => layer_norm(*axis, *epsilon, operands),
            Op::BatchNorm { epsilon } => batch_norm(*epsilon, operands),
            Op::Gelu(_) => {
                let x = one(operands)?;
                float(x)?;
                Ok(x.clone())
            }
            Op::Attention { scale } => attention(*scale, operands),
            Op::Reshape { shape } => {
                let x = one(operands)?;
                let y = TensorType::new(x.dtype(), shape.as_slice())?;
                check(x.elems() == y.elems(), || {
                    format!("shape {:?} has {} elements, shape {shape:?} has {}", x.shape(), x.elems(), y.elems())
                })?;
                Ok(y)
            }
            Op::Transpose { perm } => transpose(perm, one(operands)?),
            Op::Expand { shape } => {
                let x = one(operands)?;
                let y = TensorType::new(x.dtype(), shape.as_slice())?;
                check(broadcast(x.shape(), shape)? == *shape, || {
                    format!("shape {:?} does not expand to {shape:?}", x.shape())
                })?;
                Ok(y)
            }
            Op::Concat { axis } => concat(*axis, operands),
            Op::Slice { starts, sizes, steps } => slice(starts, sizes, steps, one(operands)?),
            Op::Pad { pads, value: _ } => {
                let x = one(operands)?;
                check(pads.len() == x.rank(), || format!("{} pads for rank {}", pads.len(), x.rank()))?;
                let shape: Result<Vec<u64>, _> = x.shape().iter().zip(pads).map(|(&d, &p)| padded_size(d, p)).collect();
                Ok(TensorType::new(x.dtype(), shape?)?)
            }
            Op::Scan(_) | Op::TopK { .. } => Err(InferError::ManyResults),
            Op::Gather { axis } => indexing::gather(*axis, operands),
            Op::ArgReduce { op: _, axis, last: _ } => arg_reduce(*axis, one(operands)?),
            Op::CumSum { axis, exclusive: _, reverse: _ } => {
                let x = one(operands)?;
                accept(x.dtype() != DType::Bool, x.dtype())?;
                check_axis(*axis, x)?;
                Ok(x.clone())
            }
            Op::GatherElements { axis } => indexing::gather_elements(*axis, operands),
            Op::GatherNd { batch_dims } => indexing::gather_nd(*batch_dims, operands),
            Op::ScatterElements { axis, combine } => indexing::scatter_elements(*axis, *combine, operands),
            Op::ScatterNd { combine } => indexing::scatter_nd(*combine, operands),
        }
    }
}

fn shape_error(text: String) -> InferError {
    InferError::Shape(text)
}

fn check(ok: bool, text: impl FnOnce() -> String) -> Result<(), InferError> {
    if ok { Ok(()) } else { Err(shape_error(text())) }
}

fn arity(expected: &'static str, operands: &[&TensorType]) -> InferError {
    InferError::Arity { expected, actual: operands.len() }
}

fn one<'a>(operands: &[&'a TensorType]) -> Result<&'a TensorType, InferError> {
    match operands {
        &[x] => Ok(x),
        _ => Err(arity("1", operands)),
    }
}

fn accept(ok: bool, dtype: DType) -> Result<(), InferError> {
    if ok { Ok(()) } else { Err(InferError::DType(dtype)) }
}

fn float(x: &TensorType) -> Result<(), InferError> {
    accept(x.dtype().is_float(), x.dtype())
}

fn same_dtype(x: &TensorType, others: &[&TensorType]) -> Result<(), InferError> {
    others.iter().try_for_each(|y| {
        check(x.dtype() == y.dtype(), || format!("element types {} and {} differ", x.dtype(), y.dtype()))
    })
}

fn check_axis(axis: usize, x: &TensorType) -> Result<(), InferError> {
    check(axis < x.rank(), || format!("dimension {axis} of a tensor of rank {}", x.rank()))
}

fn check_shape(what: &str, x: &TensorType, shape: &[u64]) -> Result<(), InferError> {
    check(x.shape() == shape, || format!("{what} has shape {:?} instead of {shape:?}", x.shape()))
}

fn padded_size(size: u64, (before, after): (u64, u64)) -> Result<u64, InferError> {
    size.checked_add(before)
        .and_then(|n| n.checked_add(after))
        .filter(|&n| n <= MAX_ELEMENTS)
        .ok_or_else(|| shape_error(format!("{size} elements padded by {before} and {after} pass 2^40")))
}

fn unary(op: UnaryOp, x: &TensorType) -> Result<TensorType, InferError> {
    let dtype = x.dtype();
    accept(
        match op {
            UnaryOp::Neg | UnaryOp::Abs => dtype != DType::Bool,
            UnaryOp::Exp
            | UnaryOp::Log
            | UnaryOp::Sqrt
            | UnaryOp::Recip
            | UnaryOp::Erf
            | UnaryOp::Tanh
            | UnaryOp::Sigmoid
            | UnaryOp::Sin
            | UnaryOp::Cos
            | UnaryOp::Atan
            | UnaryOp::Expm1
            | UnaryOp::Log1p
            | UnaryOp::Round
            | UnaryOp::Floor
            | UnaryOp::Ceil => dtype.is_float(),
            UnaryOp::Not => !dtype.is_float(),
        },
        dtype,
    )?;
    Ok(x.clone())
}

fn binary(op: BinaryOp, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[a, b] = operands else { return Err(arity("2", operands)) };
    same_dtype(a, &[b])?;
    let dtype = a.dtype();
    accept(
        match op {
            BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Rem
            | BinaryOp::Pow
            | BinaryOp::Max
            | BinaryOp::Min
            | BinaryOp::Lt
            | BinaryOp::Le => dtype != DType::Bool,
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => !dtype.is_float(),
            BinaryOp::Shl | BinaryOp::Shr => dtype.is_int(),
            BinaryOp::Eq => true,
        },
        dtype,
    )?;
    let result = if op.is_comparison() { DType::Bool } else { dtype };
    Ok(TensorType::new(result, broadcast(a.shape(), b.shape())?)?)
}

fn select(operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[condition, a, b] = operands else { return Err(arity("3", operands)) };
    accept(condition.dtype() == DType::Bool, condition.dtype())?;
    same_dtype(a, &[b])?;
    let shape = broadcast(condition.shape(), &broadcast(a.shape(), b.shape())?)?;
    Ok(TensorType::new(a.dtype(), shape)?)
}

fn matmul(operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[a, b] = operands else { return Err(arity("2", operands)) };
    same_dtype(a, &[b])?;
    accept(a.dtype() != DType::Bool, a.dtype())?;
    let ([a_batch @ .., m, a_k], [b_batch @ .., b_k, n]) = (a.shape(), b.shape()) else {
        return Err(shape_error(format!("shapes {:?} and {:?}: both ranks must be at least 2", a.shape(), b.shape())));
    };
    check(a_k == b_k, || format!("shapes {:?} and {:?} do not multiply: {a_k} is not {b_k}", a.shape(), b.shape()))?;
    let mut shape = broadcast(a_batch, b_batch)?;
    shape.extend([*m, *n]);
    Ok(TensorType::new(a.dtype(), shape)?)
}

fn check_spatial_attrs(spatial: usize, lengths: &[(&str, usize)]) -> Result<(), InferError> {
    check((1..=2).contains(&spatial), || format!("{spatial} spatial dimensions instead of 1 or 2"))?;
    lengths.iter().try_for_each(|&(what, length)| {
        check(length == spatial, || format!("{length} {what} for {spatial} spatial dimensions"))
    })
}

fn conv(attrs: &ConvAttrs, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let ConvAttrs { strides, dilations, pads, groups } = attrs;
    let (x, w, bias) = match *operands {
        [x, w] => (x, w, None),
        [x, w, bias] => (x, w, Some(bias)),
        _ => return Err(arity("2 or 3", operands)),
    };
    same_dtype(x, &[w])?;
    float(x)?;
    let (&[n, c, ref input @ ..], &[o, c_group, ref kernel @ ..]) = (x.shape(), w.shape()) else {
        return Err(shape_error(format!("input {:?} and kernel {:?} need channels", x.shape(), w.shape())));
    };
    check_spatial_attrs(
        input.len(),
        &[
            ("kernel sizes", kernel.len()),
            ("strides", strides.len()),
            ("dilations", dilations.len()),
            ("pads", pads.len()),
        ],
    )?;
    check(*groups >= 1 && c.is_multiple_of(*groups) && o.is_multiple_of(*groups), || {
        format!("{groups} groups do not divide {c} and {o} channels")
    })?;
    check(c / groups == c_group, || {
        format!("the kernel takes {c_group} channels instead of {} of each group", c / groups)
    })?;
    if let Some(bias) = bias {
        same_dtype(x, &[bias])?;
        check_shape("bias", bias, &[o])?;
    }
    let mut shape = vec![n, o];
    for (i, &size) in input.iter().enumerate() {
        shape.push(window_output(size, kernel[i], strides[i], dilations[i], pads[i])?);
    }
    Ok(TensorType::new(x.dtype(), shape)?)
}

fn pool(attrs: &PoolAttrs, x: &TensorType) -> Result<TensorType, InferError> {
    let PoolAttrs { kind, kernel, strides, dilations, pads } = attrs;
    let dtype = x.dtype();
    accept(dtype.is_float() || (*kind == PoolKind::Max && dtype.is_int()), dtype)?;
    let &[n, c, ref input @ ..] = x.shape() else {
        return Err(shape_error(format!("input {:?} needs channels", x.shape())));
    };
    check_spatial_attrs(
        input.len(),
        &[
            ("kernel sizes", kernel.len()),
            ("strides", strides.len()),
            ("dilations", dilations.len()),
            ("pads", pads.len()),
        ],
    )?;
    let mut shape = vec![n, c];
    for (i, &size) in input.iter().enumerate() {
        let output = window_output(size, kernel[i], strides[i], dilations[i], pads[i])?;
        if *kind != PoolKind::AverageIncludePad {
            check(windows_touch(size, kernel[i], strides[i], dilations[i], pads[i], output), || {
                format!("a window over {size} elements padded by {:?} may hold padding only", pads[i])
            })?;
        }
        shape.push(output);
    }
    Ok(TensorType::new(dtype, shape)?)
}

/// Whether every window holds an element of the input, given that the arguments passed [`window_output`].
///
/// A window that starts before the input reaches into it if its end does, and meets an element unless the dilation
/// can step over the whole input; such dilations are refused with padding.
fn windows_touch(input: u64, kernel: u64, stride: u64, dilation: u64, pads: (u64, u64), output: u64) -> bool {
    if pads == (0, 0) {
        return true;
    }
    let steps_over = kernel > 1 && dilation > input;
    let first_reaches = pads.0 <= (kernel - 1) * dilation;
    let last_start = (output - 1) * stride;
    !steps_over && first_reaches && last_start < input + pads.0
}

fn reduce(op: ReduceOp, axes: &[usize], keep_dims: bool, x: &TensorType) -> Result<TensorType, InferError> {
    let dtype = x.dtype();
    accept(
        match op {
            ReduceOp::Sum | ReduceOp::Max | ReduceOp::Min | ReduceOp::Prod => dtype != DType::Bool,
            // The number of elements must be a number of the type, too.
            ReduceOp::Mean => dtype.is_float() || (dtype.is_int() && dtype.bytes() >= 4),
        },
        dtype,
    )?;
    axes.iter().try_for_each(|&axis| check_axis(axis, x))?;
    check(axes.is_sorted_by(|a, b| a < b), || format!("dimensions {axes:?} are not sorted and distinct"))?;
    if matches!(op, ReduceOp::Max | ReduceOp::Min) {
        check(axes.iter().all(|&axis| x.shape()[axis] != 0), || {
            format!("no elements to choose from along dimensions {axes:?} of {:?}", x.shape())
        })?;
    }
    if op == ReduceOp::Mean && dtype.is_int() && dtype.bytes() == 4 {
        let count: u64 = axes.iter().map(|&axis| x.shape()[axis]).product();
        check(count <= i32::MAX as u64, || format!("{count} elements have no mean of type {dtype}"))?;
    }
    let mut shape = Vec::with_capacity(x.rank());
    for (i, &size) in x.shape().iter().enumerate() {
        match (axes.contains(&i), keep_dims) {
            (true, true) => shape.push(1),
            (true, false) => {}
            (false, _) => shape.push(size),
        }
    }
    Ok(TensorType::new(dtype, shape)?)
}

fn check_epsilon(epsilon: f32) -> Result<(), InferError> {
    check(epsilon.is_finite() && epsilon >= 0.0, || format!("epsilon {epsilon} is not a finite number of at least 0"))
}

fn layer_norm(axis: usize, epsilon: f32, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[x, scale, bias] = operands else { return Err(arity("3", operands)) };
    float(x)?;
    same_dtype(x, &[scale, bias])?;
    check_axis(axis, x)?;
    check_epsilon(epsilon)?;
    check_shape("scale", scale, &x.shape()[axis..])?;
    check_shape("bias", bias, &x.shape()[axis..])?;
    Ok(x.clone())
}

fn batch_norm(epsilon: f32, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[x, scale, bias, mean, variance] = operands else { return Err(arity("5", operands)) };
    float(x)?;
    same_dtype(x, &[scale, bias, mean, variance])?;
    check_epsilon(epsilon)?;
    check(x.rank() >= 2, || format!("rank {} has no channels", x.rank()))?;
    for (what, y) in [("scale", scale), ("bias", bias), ("mean", mean), ("variance", variance)] {
        check_shape(what, y, &x.shape()[1..2])?;
    }
    Ok(x.clone())
}

fn attention(scale: f32, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let (q, k, v, bias) = match *operands {
        [q, k, v] => (q, k, v, None),
        [q, k, v, bias] => (q, k, v, Some(bias)),
        _ => return Err(arity("3 or 4", operands)),
    };
    float(q)?;
    same_dtype(q, &[k, v])?;
    check(scale.is_finite(), || format!("scale {scale} is not finite"))?;
    let &[b, h, s, d] = q.shape() else {
        return Err(shape_error(format!("queries {:?} are not of rank 4", q.shape())));
    };
    let &[_, _, t, e] = v.shape() else {
        return Err(shape_error(format!("values {:?} are not of rank 4", v.shape())));
    };
    check_shape("keys", k, &[b, h, t, d])?;
    check_shape("values", v, &[b, h, t, e])?;
    let scores = TensorType::new(q.dtype(), [b, h, s, t])?;
    if let Some(bias) = bias {
        same_dtype(q, &[bias])?;
        check(broadcast(bias.shape(), scores.shape())? == scores.shape(), || {
            format!("bias {:?} does not broadcast to {:?}", bias.shape(), scores.shape())
        })?;
    }
    Ok(TensorType::new(q.dtype(), [b, h, s, e])?)
}

fn transpose(perm: &[usize], x: &TensorType) -> Result<TensorType, InferError> {
    let mut seen = vec![false; x.rank()];
    let fresh = |&axis: &usize| seen.get_mut(axis).is_some_and(|s| !std::mem::replace(s, true));
    check(perm.len() == x.rank() && perm.iter().all(fresh), || {
        format!("{perm:?} is not a permutation of the dimensions of rank {}", x.rank())
    })?;
    Ok(TensorType::new(x.dtype(), perm.iter().map(|&axis| x.shape()[axis]).collect::<Vec<_>>())?)
}

fn concat(axis: usize, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[first, ref rest @ ..] = operands else { return Err(arity("at least 1", operands)) };
    same_dtype(first, rest)?;
    check_axis(axis, first)?;
    let mut shape = first.shape().to_vec();
    for y in rest {
        let fits = y.rank() == first.rank() && (0..shape.len()).all(|i| i == axis || y.shape()[i] == shape[i]);
        check(fits, || format!("shapes {:?} and {:?} do not join along {axis}", first.shape(), y.shape()))?;
        // Each term is at most 2^40, and as many terms as would overflow do not fit memory.
        shape[axis] = shape[axis].saturating_add(y.shape()[axis]);
    }
    Ok(TensorType::new(first.dtype(), shape)?)
}

fn slice(starts: &[u64], sizes: &[u64], steps: &[i64], x: &TensorType) -> Result<TensorType, InferError> {
    check([starts.len(), sizes.len(), steps.len()] == [x.rank(); 3], || {
        format!("{} starts, {} sizes and {} steps for rank {}", starts.len(), sizes.len(), steps.len(), x.rank())
    })?;
    for (i, &dim) in x.shape().iter().enumerate() {
        let (start, size, step) = (starts[i], sizes[i], steps[i]);
        let last = i128::from(start) + i128::from(step) * (i128::from(size) - 1);
        let inside = if size == 0 { start <= dim } else { start < dim && (0..i128::from(dim)).contains(&last) };
        // The magnitude is bounded, too, so that a step of a slice of one element is harmless wherever it is used.
        check(inside && step != 0 && step.unsigned_abs() <= MAX_ELEMENTS, || {
            format!("{size} elements from {start} by {step} are not inside dimension {i} of {dim} elements")
        })?;
    }
    Ok(TensorType::new(x.dtype(), sizes)?)
}

fn arg_reduce(axis: usize, x: &TensorType) -> Result<TensorType, InferError> {
    accept(x.dtype() != DType::Bool, x.dtype())?;
    check_axis(axis, x)?;
    let mut shape = x.shape().to_vec();
    shape[axis] = 1;
    let result = TensorType::new(DType::I64, shape)?;
    check(x.elems() != 0 || result.elems() == 0, || format!("dimension {axis} has no elements"))?;
    Ok(result)
}

#[cfg(test)]
mod tests;
