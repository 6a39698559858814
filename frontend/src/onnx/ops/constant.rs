//! Operators that make constants.

use aic_ir::graph::{BinaryOp, Op, Value};
use aic_ir::types::{DType, Tensor, TensorType};

use super::accept::{ANY, I64};
use super::logic::element_type;
use super::{OpRule, rule};
use crate::builder::{Builder, Reason};
use crate::onnx::context::NodeContext;

/// Largest number of elements of a range.
const MAX_RANGE: i128 = 1 << 20;

/// What is counted in.
const RANGES: &[DType] = &[DType::F32, DType::F64, DType::I16, DType::I32, DType::I64];

pub(super) const RULES: &[OpRule] = &[
    rule(
        "Constant",
        (0, 0),
        &["value", "sparse_value", "value_float", "value_floats", "value_int", "value_ints"],
        "dense and sparse tensors, numbers and lists of numbers",
        constant,
    )
    .gives(ANY),
    rule("ConstantOfShape", (1, 1), &["value"], "constant shape", constant_of_shape).types(I64).gives(ANY).since(9),
    rule("Range", (3, 3), &[], "constant bounds; at most 2^20 elements", range).types(RANGES).since(11),
    rule("EyeLike", (1, 1), &["dtype", "k"], "two dimensions", eye_like).types(ANY).gives(ANY).since(9),
    rule("Trilu", (1, 2), &["upper"], "any diagonal", trilu).types(ANY).own(&[(1, I64)]).since(14),
];

fn constant(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    if c.node.attribute.len() != 1 {
        return Err("exactly one attribute must give the value".into());
    }
    let list = |tensor: Option<Tensor>| tensor.ok_or_else(|| Reason::from("a constant cannot be made"));
    let tensor = if let Some(tensor) = c.tensor("value")? {
        tensor
    } else if let Some(tensor) = c.sparse_tensor("sparse_value")? {
        tensor
    } else if let Some(value) = c.optional_float("value_float")? {
        Tensor::scalar_f32(value)
    } else if let Some(value) = c.int("value_int")? {
        list(Tensor::from_i64([], &[value]))?
    } else if let Some(values) = c.floats_attribute("value_floats")? {
        list(Tensor::from_f32([values.len() as u64], values))?
    } else {
        let values = c.ints_attribute("value_ints")?.ok_or("attribute `value` is missing")?;
        list(Tensor::from_i64([values.len() as u64], values))?
    };
    // Its bytes are those of the file, so they are not taken from the budget.
    Ok(c.graph.add_const("", tensor))
}

/// Dimensions from a list of integers.
pub(super) fn dims(list: &[i64]) -> Result<Vec<u64>, Reason> {
    list.iter()
        .map(|&d| u64::try_from(d).map_err(|_| format!("shape {list:?} has negative dimensions").into()))
        .collect()
}

fn constant_of_shape(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let shape = dims(&c.int_list(0, "the shape")?)?;
    let value = match c.tensor("value")? {
        None => Tensor::scalar_f32(0.0),
        Some(value) => value.reshaped([]).ok_or("attribute `value` must have one element")?,
    };
    let value = c.constant(value)?;
    c.emit(Op::Expand { shape }, &[value])
}

fn range(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let dtype = c.dtype(c.operand(0)?);
    let bound = |i: usize, what: &str| -> Result<Tensor, Reason> {
        let tensor = c.constant_operand(i, what)?;
        match tensor.ty().elems() == 1 && tensor.ty().dtype() == dtype {
            true => Ok(tensor.clone()),
            false => Err(format!("{what} is {} instead of one number of type {dtype}", tensor.ty()).into()),
        }
    };
    let bounds = [bound(0, "the start")?, bound(1, "the limit")?, bound(2, "the step")?];
    let too_long = || Reason::from("more than 2^20 elements");
    let (count, bytes): (usize, Vec<u8>) = match dtype {
        DType::I16 | DType::I32 | DType::I64 => {
            let [start, limit, step] = bounds.map(|b| b.get_i64(0).unwrap_or_default());
            let count = match (i128::from(limit) - i128::from(start), i128::from(step)) {
                (_, 0) => return Err("the step is 0".into()),
                (distance, step) if (distance > 0) == (step > 0) && distance != 0 => {
                    (distance.abs() + step.abs() - 1) / step.abs()
                }
                _ => 0,
            };
            if count > MAX_RANGE {
                return Err(too_long());
            }
            let values = (0..count as i64).map(|i| start.wrapping_add(step.wrapping_mul(i)));
            let size = dtype.bytes() as usize;
            (count as usize, values.flat_map(|v| v.to_le_bytes().into_iter().take(size)).collect())
        }
        DType::F32 | DType::F64 => {
            let [start, limit, step] = bounds.map(|b| b.get_f64(0).unwrap_or(f64::NAN));
            let count = ((limit - start) / step).ceil().max(0.0);
            if !count.is_finite() || count > MAX_RANGE as f64 {
                return Err(too_long());
            }
            let count = count as usize;
            let bytes = match dtype {
                // As the specification has it, in the type of the range: start + i · step.
                DType::F32 => (0..count).flat_map(|i| (start as f32 + i as f32 * step as f32).to_le_bytes()).collect(),
                _ => (0..count).flat_map(|i| (start + i as f64 * step).to_le_bytes()).collect(),
            };
            (count, bytes)
        }
        other => return Err(format!("element type {other} is not accepted here").into()),
    };
    let ty = TensorType::new(dtype, [count as u64])?;
    let tensor = Tensor::new(ty, bytes.into()).map_err(|e| e.to_string())?;
    c.constant(tensor)
}

/// Ones on a diagonal, zeros beside it.
fn eye_like(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let &[rows, columns] = c.shape(x) else { return Err("the rank must be 2".into()) };
    let to = match c.int("dtype")? {
        Some(number) => element_type(number)?,
        None => c.dtype(x),
    };
    let k = c.int("k")?.unwrap_or(0);
    let row = numbers(c, rows, k)?;
    let row = c.reshape(row, [rows, 1])?;
    let column = numbers(c, columns, 0)?;
    let ones = c.binary(BinaryOp::Eq, row, column)?;
    c.cast(ones, to)
}

/// Keeps the elements above (or below) a diagonal: a selection by `row + k <= column`, from two vectors of numbers, so
/// that no mask as large as the matrix is stored.
fn trilu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let &[.., rows, columns] = c.shape(x) else { return Err("the rank must be at least 2".into()) };
    let dtype = c.dtype(x);
    let zero = c.scalar(dtype, 0.0)?;
    // In the upper part `row + k <= column`; in the lower `column <= row + k`.
    let mut row = numbers(c, rows, 0)?;
    if let Some(k) = c.optional(1) {
        let k = c.reshape(k, [])?;
        row = c.binary(BinaryOp::Add, row, k)?;
    }
    let row = c.reshape(row, [rows, 1])?;
    let column = numbers(c, columns, 0)?;
    let keep = match c.flag("upper", true)? {
        true => c.binary(BinaryOp::Le, row, column)?,
        false => c.binary(BinaryOp::Le, column, row)?,
    };
    c.select(keep, x, zero)
}

/// The vector `first, first + 1, ...`.
pub(in crate::onnx) fn numbers(c: &mut Builder, count: u64, first: i64) -> Result<Value, Reason> {
    c.charge(count.saturating_mul(8))?;
    let values: Vec<i64> = (0..count as i64).map(|i| first.saturating_add(i)).collect();
    let tensor = Tensor::from_i64([count], &values).ok_or("a constant cannot be made")?;
    Ok(c.graph.add_const("", tensor))
}
