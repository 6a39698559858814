//! Operators along one dimension that depend on the order of its elements: positions of extremes, running sums, and the
//! best elements in order.
//!
//! A running sum is a `map` that reads what it wrote one step before. The best elements are found by insertion: each
//! element in turn moves those that are worse by one place, `best[m] = max(best[m], min(best[m - 1], x))` from the last
//! place to the first, which is a `map` too. What is inserted are integers that order as the elements do, with their
//! positions in the low bits where there is room for them.

use super::elementwise::constant;
use super::kernel::Tile;
use super::rows::Row;
use super::view::View;
use super::{LowerError, Lowering, MAX_TABLE_BYTES};
use crate::graph::{ArgOp, Node, Value};
use crate::tile::{Affine, Combine, Expr, ExprRef, Inst, Scalar, ScalarBinary, Storage};
use crate::types::{DType, Tensor, TensorType};

impl Lowering<'_> {
    /// `m = max x; p = min (position where x = m); y = p`. A NaN's position is the smallest of all, as `n` less than it is.
    pub(super) fn arg_reduce(
        &mut self,
        node: Node,
        result: Value,
        op: ArgOp,
        axis: usize,
        last: bool,
    ) -> Result<(), LowerError> {
        let graph = self.graph;
        let ty = graph.ty(graph.nodes[node].inputs[0]);
        let (dtype, n) = (ty.dtype(), ty.shape()[axis]);
        let x = self.view(graph.nodes[node].inputs[0]);
        let counts = self.counts(node, n)?;
        let mut kernel = self.kernel(node);
        let row = Row::new(ty.shape(), axis);
        let best = self.temp(&kernel, "best", dtype, &row.stat_shape);
        let places = self.temp(&kernel, "places", COUNT, ty.shape());
        let place = self.temp(&kernel, "place", COUNT, &row.stat_shape);
        let extreme = if op == ArgOp::Max { Combine::Max } else { Combine::Min };
        row.reduce(&mut kernel, "best", extreme, &best, &x, dtype);

        // The first is the smallest position, and the last the largest; others must lose.
        let (combine, lost, beyond) =
            if last { (Combine::Max, -1.0, n as f64) } else { (Combine::Min, n as f64, -(n as f64)) };
        let mut expr = Expr::default();
        let value = expr.push(Inst::Load(x.at(&row.at, &row.points)));
        let wanted = expr.push(Inst::Load(best.at(&row.kept, &row.points)));
        let position = expr.push(Inst::Load(counts.at(&row.at[axis..=axis], &row.points)));
        let found = expr.push(Inst::Binary(ScalarBinary::Eq, value, wanted));
        let lost = constant(&mut expr, COUNT, lost);
        let chosen = expr.push(Inst::Select(found, position, lost));
        if dtype.is_float() {
            let number = expr.push(Inst::Binary(ScalarBinary::Eq, value, value));
            let beyond = constant(&mut expr, COUNT, beyond);
            let ahead = expr.push(Inst::Binary(ScalarBinary::Add, position, beyond));
            expr.push(Inst::Select(number, chosen, ahead));
        }
        kernel.map("places", &row.points, places.at(&row.at, &row.points), expr);
        row.reduce(&mut kernel, "place", combine, &place, &places, COUNT);

        let y = self.result(result, &kernel);
        let stat_at = row.stats.all();
        let mut at = stat_at.clone();
        at.insert(axis, Affine::constant(0));
        let mut expr = Expr::default();
        let mut position = expr.push(Inst::Load(place.at(&stat_at, &row.stats)));
        if dtype.is_float() {
            // A remainder of n, where a NaN has moved the position by that.
            let (zero, n) = (constant(&mut expr, COUNT, 0.0), constant(&mut expr, COUNT, n as f64));
            let (outside, moved) = if last {
                let moved = expr.push(Inst::Binary(ScalarBinary::Sub, position, n));
                (expr.push(Inst::Binary(ScalarBinary::Le, n, position)), moved)
            } else {
                let moved = expr.push(Inst::Binary(ScalarBinary::Add, position, n));
                (expr.push(Inst::Binary(ScalarBinary::Lt, position, zero)), moved)
            };
            position = expr.push(Inst::Select(outside, moved, position));
        }
        expr.push(Inst::Cast(DType::I64, position));
        kernel.map("index", &row.stats, y.at(&at, &row.stats), expr);
        self.push(kernel);
        Ok(())
    }

    /// `y[i] = y[i - 1] + x[i]`, with 0 before the first.
    pub(super) fn cumsum(&mut self, node: Node, result: Value, axis: usize, exclusive: bool, reverse: bool) {
        let graph = self.graph;
        let ty = graph.ty(result);
        let mut pads = vec![(0, 0); ty.rank()];
        pads[axis] = if exclusive { (1, 1) } else { (0, 0) };
        let x = self.padded_view(graph.nodes[node].inputs[0], &pads, 0);
        let tile = Tile::of(ty.shape());
        let zero = Scalar::from_f64(ty.dtype(), 0.0);
        let shifted = |by: i64| {
            let mut at = tile.all();
            let last = ty.shape()[axis] as i64 - 1;
            at[axis] = if reverse { Affine::constant(last).sub(&at[axis]) } else { at[axis].clone() };
            at[axis] = at[axis].add_constant(if reverse { by } else { -by });
            at
        };
        let mut kernel = self.kernel(node);
        let y = self.plain_result(result, &kernel);
        let mut expr = Expr::default();
        let before = expr.push(Inst::Load(y.at_padded(&shifted(1), &tile, zero)));
        let term = if exclusive { x.at_padded(&shifted(1), &tile, zero) } else { x.at(&shifted(0), &tile) };
        let term = expr.push(Inst::Load(term));
        expr.push(Inst::Binary(ScalarBinary::Add, before, term));
        kernel.map("sum", &tile, y.at(&shifted(0), &tile), expr);
        self.push(kernel);
    }

    /// Keys of all elements, insertion of each into the best so far, and what the keys stand for.
    pub(super) fn top_k(&mut self, node: Node, k: u64, axis: usize, largest: bool) -> Result<(), LowerError> {
        let graph = self.graph;
        let data = &graph.nodes[node];
        let (&[x], &[values, indices]) = (data.inputs.as_slice(), data.outputs.as_slice()) else { return Ok(()) };
        let ty = graph.ty(x);
        let (dtype, n) = (ty.dtype(), ty.shape()[axis]);
        let packed = dtype.bytes() <= 4;
        let x = self.view(x);
        let counts = self.counts(node, n)?;
        let mut kernel = self.kernel(node);
        let row = Row::new(ty.shape(), axis);
        let key_type = if packed { DType::U64 } else { DType::I64 };
        let keys = self.temp(&kernel, "keys", key_type, ty.shape());
        let mut expr = Expr::default();
        let value = expr.push(Inst::Load(x.at(&row.at, &row.points)));
        let key = ordered(&mut expr, dtype, value, largest);
        if packed {
            let position = expr.push(Inst::Load(counts.at(&row.at[axis..=axis], &row.points)));
            pack(&mut expr, dtype, value, key, position);
        }
        kernel.map("keys", &row.points, keys.at(&row.at, &row.points), expr);

        // Place 0 is one that nothing passes.
        let best = self.temp(&kernel, "best", key_type, &with_axis(&row.stat_shape, axis, k + 1));
        let stats = |extents: &[u64]| Tile::without(ty.shape(), axis).reducing(extents);
        let (low, high) = (Scalar::from_f64(key_type, f64::NEG_INFINITY), Scalar::from_f64(key_type, f64::INFINITY));
        let kept = row.stats.all();
        let rank = kept.len();
        let at = |place: Affine| {
            let mut at = kept.clone();
            at.insert(axis, place);
            at
        };
        let all = stats(&[k + 1]);
        kernel.init("empty", &all, best.at(&at(Affine::dim(rank)), &all), low);
        kernel.init("bound", &row.stats, best.at(&at(Affine::constant(0)), &row.stats), high);
        let tile = stats(&[n, k]);
        let place = Affine::constant(k as i64).sub(&Affine::dim(rank + 1));
        let mut expr = Expr::default();
        let key = expr.push(Inst::Load(keys.at(&at(Affine::dim(rank)), &tile)));
        let better = expr.push(Inst::Load(best.at(&at(place.add_constant(-1)), &tile)));
        let here = expr.push(Inst::Load(best.at(&at(place.clone()), &tile)));
        let moved = expr.push(Inst::Binary(ScalarBinary::Min, better, key));
        expr.push(Inst::Binary(ScalarBinary::Max, here, moved));
        kernel.map("insert", &tile, best.at(&at(place), &tile), expr);

        let result = Tile::of(graph.ty(values).shape());
        let after_bound = |place: &Affine| place.add_constant(1);
        let mut result_at = result.all();
        result_at[axis] = after_bound(&result_at[axis]);
        let from = best.at(&result_at, &result);
        if self.is_wanted(values) {
            let mut expr = Expr::default();
            let key = expr.push(Inst::Load(from.clone()));
            value_of(&mut expr, dtype, key, largest);
            let y = self.result(values, &kernel);
            kernel.map("values", &result, y.at(&result.all(), &result), expr);
        }
        if self.is_wanted(indices) && packed {
            let mut expr = Expr::default();
            let key = expr.push(Inst::Load(from));
            position_of(&mut expr, key);
            let y = self.result(indices, &kernel);
            kernel.map("indices", &result, y.at(&result.all(), &result), expr);
        } else if self.is_wanted(indices) {
            // The first position of the key after that of the place before, if that has the same key.
            let positions = self.temp(&kernel, "positions", DType::I64, &with_axis(&row.stat_shape, axis, k + 1));
            let minus_one = Scalar::from_f64(DType::I64, -1.0);
            kernel.init("unknown", &all, positions.at(&at(Affine::dim(rank)), &all), minus_one);
            let tile = stats(&[k, n]);
            let place = Affine::dim(rank);
            let candidate = Affine::constant(n as i64 - 1).sub(&Affine::dim(rank + 1));
            let mut expr = Expr::default();
            let key = expr.push(Inst::Load(keys.at(&at(candidate.clone()), &tile)));
            let wanted = expr.push(Inst::Load(best.at(&at(after_bound(&place)), &tile)));
            let before = expr.push(Inst::Load(best.at(&at(place.clone()), &tile)));
            let last = expr.push(Inst::Load(positions.at(&at(place.clone()), &tile)));
            let old = expr.push(Inst::Load(positions.at(&at(after_bound(&place)), &tile)));
            let position = expr.push(Inst::Load(counts.at(&[candidate], &tile)));
            let position = expr.push(Inst::Cast(DType::I64, position));
            let equal = expr.push(Inst::Binary(ScalarBinary::Eq, key, wanted));
            let other = expr.push(Inst::Binary(ScalarBinary::Lt, wanted, before));
            let later = expr.push(Inst::Binary(ScalarBinary::Lt, last, position));
            let free = expr.push(Inst::Binary(ScalarBinary::Or, other, later));
            let found = expr.push(Inst::Binary(ScalarBinary::And, equal, free));
            expr.push(Inst::Select(found, position, old));
            kernel.map("find", &tile, positions.at(&at(after_bound(&place)), &tile), expr);
            let mut expr = Expr::default();
            expr.push(Inst::Load(positions.at(&result_at, &result)));
            let y = self.result(indices, &kernel);
            kernel.map("indices", &result, y.at(&result.all(), &result), expr);
        }
        self.push(kernel);
        Ok(())
    }

    /// Whether something reads a value.
    fn is_wanted(&self, value: Value) -> bool {
        // New states of a scan are outputs of its body, though no kernel writes them as such.
        !self.scope.users[value].is_empty() || self.graph.outputs.iter().any(|output| output.value == value)
    }

    /// The numbers from 0 to `n`, exclusive.
    fn counts(&mut self, node: Node, n: u64) -> Result<View, LowerError> {
        if let Some(view) = self.counts.get(&n) {
            return Ok(view.clone());
        }
        let too_large = || LowerError::TableTooLarge {
            node: self.graph.nodes[node].name.clone(),
            what: "table of positions",
            elems: n,
            limit: MAX_TABLE_BYTES,
        };
        let left = n.checked_mul(COUNT.bytes()).and_then(|bytes| self.table_bytes.checked_sub(bytes));
        let left = left.ok_or_else(too_large)?;
        let bytes: Vec<u8> = (0..n as i32).flat_map(i32::to_le_bytes).collect();
        let table = TensorType::new(COUNT, [n]).ok().and_then(|ty| Tensor::new(ty, bytes.into()).ok());
        let table = table.ok_or_else(too_large)?;
        self.table_bytes = left;
        let buffer = self.buffer(&format!("counts.{n}"), COUNT, &[n], Storage::Const(table));
        let view = View::identity(buffer, &[n]);
        self.counts.insert(n, view.clone());
        Ok(view)
    }
}

/// Type of positions while they are computed; tables of them are limited far below its range.
const COUNT: DType = DType::I32;

/// A shape with one more dimension.
fn with_axis(shape: &[u64], axis: usize, size: u64) -> Vec<u64> {
    let mut shape = shape.to_vec();
    shape.insert(axis, size);
    shape
}

/// A constant of any bits.
fn bits(expr: &mut Expr, dtype: DType, bits: u64) -> ExprRef {
    expr.push(Inst::Const(Scalar { dtype, bits }))
}

fn binary(expr: &mut Expr, op: ScalarBinary, a: ExprRef, b: ExprRef) -> ExprRef {
    expr.push(Inst::Binary(op, a, b))
}

/// The bits of a float as a signed integer that orders as the floats do, and back: negative numbers in two's complement
/// instead of by sign and magnitude.
fn fold_sign(expr: &mut Expr, int: DType, x: ExprRef) -> ExprRef {
    let width = 8 * int.bytes();
    let shift = bits(expr, int, width - 1);
    let sign = binary(expr, ScalarBinary::Shr, x, shift);
    let magnitude = bits(expr, int, u64::MAX >> (65 - width));
    let flipped = binary(expr, ScalarBinary::And, sign, magnitude);
    binary(expr, ScalarBinary::Xor, x, flipped)
}

/// The integer types that a key has: signed for arithmetic, unsigned in 32 bits.
fn key_types(dtype: DType) -> (DType, DType) {
    if dtype.bytes() <= 4 { (DType::I32, DType::F32) } else { (DType::I64, DType::F64) }
}

/// An integer that orders as the elements do, or the other way round: of 4 bytes and unsigned for types of at most that
/// size, else of 8 and signed. NaN is the largest element, and zeros are equal.
fn ordered(expr: &mut Expr, dtype: DType, x: ExprRef, largest: bool) -> ExprRef {
    let (int, float) = key_types(dtype);
    let top = 1u64 << (8 * int.bytes() - 1);
    let mut key = if dtype.is_float() {
        let wide = if dtype == float { x } else { expr.push(Inst::Cast(float, x)) };
        let zero = constant(expr, float, 0.0);
        // The sum of a negative zero and a zero is positive.
        let unsigned_zero = binary(expr, ScalarBinary::Add, wide, zero);
        let raw = expr.push(Inst::Bitcast(int, unsigned_zero));
        let folded = fold_sign(expr, int, raw);
        let number = binary(expr, ScalarBinary::Eq, wide, wide);
        let above = bits(expr, int, top - 1);
        expr.push(Inst::Select(number, folded, above))
    } else if dtype.is_signed_int() {
        if dtype == int { x } else { expr.push(Inst::Cast(int, x)) }
    } else {
        // Unsigned numbers order as signed ones do once the highest bit is flipped.
        let wide = if dtype.bytes() < 4 { expr.push(Inst::Cast(DType::U32, x)) } else { x };
        let wide = expr.push(Inst::Bitcast(int, wide));
        let flip = bits(expr, int, top);
        binary(expr, ScalarBinary::Xor, wide, flip)
    };
    if int == DType::I32 {
        let flip = bits(expr, int, top);
        key = binary(expr, ScalarBinary::Xor, key, flip);
    }
    if !largest {
        let all = bits(expr, int, u64::MAX >> (64 - 8 * int.bytes()));
        key = binary(expr, ScalarBinary::Xor, key, all);
    }
    if int == DType::I32 { expr.push(Inst::Bitcast(DType::U32, key)) } else { key }
}

/// Largest position in the low bits of a key.
const MAX_POSITION: u64 = (1 << 31) - 1;

/// A key of 4 bytes over a position, smaller positions being better, and a bit for a negative zero.
fn pack(expr: &mut Expr, dtype: DType, value: ExprRef, key: ExprRef, position: ExprRef) -> ExprRef {
    let key = expr.push(Inst::Cast(DType::U64, key));
    let half = bits(expr, DType::U64, 32);
    let key = binary(expr, ScalarBinary::Shl, key, half);
    let position = expr.push(Inst::Cast(DType::U64, position));
    let max = bits(expr, DType::U64, MAX_POSITION);
    let rest = binary(expr, ScalarBinary::Sub, max, position);
    let one = bits(expr, DType::U64, 1);
    let rest = binary(expr, ScalarBinary::Shl, rest, one);
    let packed = binary(expr, ScalarBinary::Or, key, rest);
    if !dtype.is_float() {
        return packed;
    }
    let wide = if dtype == DType::F32 { value } else { expr.push(Inst::Cast(DType::F32, value)) };
    let raw = expr.push(Inst::Bitcast(DType::I32, wide));
    let negative_zero = bits(expr, DType::I32, 1 << 31);
    let is = binary(expr, ScalarBinary::Eq, raw, negative_zero);
    let is = expr.push(Inst::Cast(DType::U64, is));
    binary(expr, ScalarBinary::Or, packed, is)
}

/// The position in a packed key.
fn position_of(expr: &mut Expr, key: ExprRef) -> ExprRef {
    let one = bits(expr, DType::U64, 1);
    let rest = binary(expr, ScalarBinary::Shr, key, one);
    let max = bits(expr, DType::U64, MAX_POSITION);
    let rest = binary(expr, ScalarBinary::And, rest, max);
    let position = binary(expr, ScalarBinary::Sub, max, rest);
    expr.push(Inst::Cast(DType::I64, position))
}

/// The element that a key stands for: [`ordered`] and [`pack`] backwards.
fn value_of(expr: &mut Expr, dtype: DType, packed: ExprRef, largest: bool) -> ExprRef {
    let (int, float) = key_types(dtype);
    let top = 1u64 << (8 * int.bytes() - 1);
    let mut key = packed;
    if int == DType::I32 {
        let half = bits(expr, DType::U64, 32);
        let high = binary(expr, ScalarBinary::Shr, packed, half);
        key = expr.push(Inst::Cast(int, high));
    }
    if !largest {
        let all = bits(expr, int, u64::MAX >> (64 - 8 * int.bytes()));
        key = binary(expr, ScalarBinary::Xor, key, all);
    }
    if int == DType::I32 {
        let flip = bits(expr, int, top);
        key = binary(expr, ScalarBinary::Xor, key, flip);
    }
    if dtype.is_float() {
        let mut raw = fold_sign(expr, int, key);
        if int == DType::I32 {
            let one = bits(expr, DType::U64, 1);
            let sign = binary(expr, ScalarBinary::And, packed, one);
            let sign = expr.push(Inst::Cast(DType::I32, sign));
            let shift = bits(expr, DType::I32, 31);
            let sign = binary(expr, ScalarBinary::Shl, sign, shift);
            raw = binary(expr, ScalarBinary::Or, raw, sign);
        }
        let wide = expr.push(Inst::Bitcast(float, raw));
        return if dtype == float { wide } else { expr.push(Inst::Cast(dtype, wide)) };
    }
    if dtype.is_signed_int() {
        return if dtype == int { key } else { expr.push(Inst::Cast(dtype, key)) };
    }
    let flip = bits(expr, int, top);
    let wide = binary(expr, ScalarBinary::Xor, key, flip);
    match dtype.bytes() {
        1 | 2 => expr.push(Inst::Cast(dtype, wide)),
        _ => expr.push(Inst::Bitcast(dtype, wide)),
    }
}
