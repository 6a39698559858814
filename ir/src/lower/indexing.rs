//! Operators that find elements by data: gathers and scatters.
//!
//! A statement takes one coordinate from data. Where tuples of indices name several dimensions, these become one: positions
//! in it are computed first, and the tensor is stored with the dimensions merged. Indices that are constants are checked
//! here, others by steps of the program, each coordinate against the size of its own dimension.

use super::elementwise::constant;
use super::kernel::Tile;
use super::view::View;
use super::{LowerError, Lowering, MAX_TABLE_BYTES};
use crate::graph::{Node, Op, ScatterOp, Value};
use crate::tile::{Access, Affine, Buffer, Combine, Expr, Inst, ScalarBinary, Step, StmtOp, Storage};
use crate::types::{DType, Tensor};

impl Lowering<'_> {
    /// `y[a.., i.., b..] = x[a.., indices[i..], b..]`. Constant indices are checked here, others by a step of the program.
    pub(super) fn gather(&mut self, node: Node, result: Value, axis: usize) -> Result<(), LowerError> {
        let graph = self.graph;
        let &[x, indices] = graph.nodes[node].inputs.as_slice() else { return Ok(()) };
        let ty = graph.ty(result);
        let bound = graph.ty(x).shape()[axis];
        if ty.elems() > 0 {
            self.check_indices(node, indices, bound)?;
        }
        let (source, buffer_axis) = self.indexed(x, axis);
        let tile = Tile::of(ty.shape());
        let at = tile.all();
        let rank = graph.ty(indices).rank();
        let mut index: Vec<Affine> = at[..axis].to_vec();
        index.push(Affine::constant(0));
        index.extend_from_slice(&at[axis + rank..]);
        let src = source.at(&index, &tile);
        let index = self.view(indices).at(&at[axis..axis + rank], &tile);
        let mut kernel = self.kernel(node);
        let dst = self.result(result, &kernel).at(&at, &tile);
        kernel.stmt("gather", &tile, StmtOp::Gather { dst, src, index, axis: buffer_axis });
        self.push(kernel);
        Ok(())
    }

    /// Where a value lies, with a dimension of it as a dimension of the buffer.
    fn indexed(&mut self, x: Value, axis: usize) -> (View, usize) {
        let source = self.operand(x);
        match source.plain_axis(axis, &self.program.buffers) {
            Some(buffer_axis) => (source, buffer_axis),
            None => (self.materialized(x), axis),
        }
    }

    /// `y[a.., i, b..] = x[a.., indices[a.., i, b..], b..]`.
    pub(super) fn gather_elements(&mut self, node: Node, result: Value, axis: usize) -> Result<(), LowerError> {
        let graph = self.graph;
        let &[x, indices] = graph.nodes[node].inputs.as_slice() else { return Ok(()) };
        if graph.ty(indices).elems() > 0 {
            self.check_indices(node, indices, graph.ty(x).shape()[axis])?;
        }
        let (source, buffer_axis) = self.indexed(x, axis);
        let tile = Tile::of(graph.ty(result).shape());
        let at = tile.all();
        let src = source.at(&replaced(&at, axis), &tile);
        let index = self.view(indices).at(&at, &tile);
        let mut kernel = self.kernel(node);
        let dst = self.result(result, &kernel).at(&at, &tile);
        kernel.stmt("gather", &tile, StmtOp::Gather { dst, src, index, axis: buffer_axis });
        self.push(kernel);
        Ok(())
    }

    /// `y[b.., i.., e..] = x[b.., indices[b.., i.., 0], …, indices[b.., i.., k - 1], e..]`.
    pub(super) fn gather_nd(&mut self, node: Node, result: Value, batch_dims: usize) -> Result<(), LowerError> {
        let graph = self.graph;
        let &[x, _] = graph.nodes[node].inputs.as_slice() else { return Ok(()) };
        let Some(positions) = self.positions(node, batch_dims)? else { return Ok(()) };
        let (source, buffer_axis) = match positions.merged {
            1 => self.indexed(x, batch_dims),
            _ => (self.merged(x, &positions), batch_dims),
        };
        let tile = Tile::of(graph.ty(result).shape());
        let at = tile.all();
        let rank = positions.places;
        let mut index: Vec<Affine> = at[..batch_dims].to_vec();
        index.push(Affine::constant(0));
        index.extend_from_slice(&at[rank..]);
        let src = source.at(&index, &tile);
        let index = positions.at(&at[..rank], &tile);
        let mut kernel = self.kernel(node);
        let dst = self.result(result, &kernel).at(&at, &tile);
        kernel.stmt("gather", &tile, StmtOp::Gather { dst, src, index, axis: buffer_axis });
        self.push(kernel);
        Ok(())
    }

    /// A copy of `x`, and then `y[a.., indices[a.., i, b..], b..] = updates[a.., i, b..]`, or a combination of both.
    pub(super) fn scatter_elements(
        &mut self,
        node: Node,
        result: Value,
        axis: usize,
        combine: ScatterOp,
    ) -> Result<(), LowerError> {
        let graph = self.graph;
        let &[x, indices, updates] = graph.nodes[node].inputs.as_slice() else { return Ok(()) };
        if graph.ty(indices).elems() > 0 {
            self.check_indices(node, indices, graph.ty(x).shape()[axis])?;
        }
        let (x, indices, updates_view) = (self.view(x), self.view(indices), self.view(updates));
        let tile = Tile::default().reducing(graph.ty(updates).shape());
        let at = tile.all();
        let mut kernel = self.kernel(node);
        let y = self.plain_result(result, &kernel);
        self.copy_into(&mut kernel, &x, &y);
        let dst = y.at(&replaced(&at, axis), &tile);
        let axis = y.plain_axis(axis, &self.program.buffers).unwrap_or(axis);
        let (src, index) = (updates_view.at(&at, &tile), indices.at(&at, &tile));
        kernel.stmt("scatter", &tile, StmtOp::Scatter { dst, op: combination(combine), src, index, axis });
        self.push(kernel);
        Ok(())
    }

    /// A copy of `x`, and then `y[indices[i.., 0], …, indices[i.., k - 1], e..] = updates[i.., e..]`, or a combination of
    /// both.
    pub(super) fn scatter_nd(&mut self, node: Node, result: Value, combine: ScatterOp) -> Result<(), LowerError> {
        let graph = self.graph;
        let &[x, _, updates] = graph.nodes[node].inputs.as_slice() else { return Ok(()) };
        let Some(positions) = self.positions(node, 0)? else { return Ok(()) };
        let shape = graph.ty(x).shape();
        let source = self.view(x);
        let updates_view = self.view(updates);
        let mut kernel = self.kernel(node);
        let y = if positions.merged == 1 {
            let y = self.plain_result(result, &kernel);
            self.copy_into(&mut kernel, &source, &y);
            y
        } else {
            // The result is a view of it in the shape of the model.
            let merged = positions.merged_shape(shape);
            let y = self.temp(&kernel, "merged", graph.ty(x).dtype(), &merged);
            let source = source.through(&Op::Reshape { shape: merged.clone() }, &merged);
            self.copy_into(&mut kernel, &source, &y);
            self.scope.views[result] = Some(y.through(&Op::Reshape { shape: shape.to_vec() }, shape));
            y
        };
        let tile = Tile::default().reducing(graph.ty(updates).shape());
        let at = tile.all();
        let rank = positions.places;
        let dst: Vec<Affine> = std::iter::once(Affine::constant(0)).chain(at[rank..].iter().cloned()).collect();
        let op = StmtOp::Scatter {
            dst: y.at(&dst, &tile),
            op: combination(combine),
            src: updates_view.at(&at, &tile),
            index: positions.at(&at[..rank], &tile),
            axis: y.plain_axis(0, &self.program.buffers).unwrap_or(0),
        };
        kernel.stmt("scatter", &tile, op);
        self.push(kernel);
        Ok(())
    }

    fn copy_into(&mut self, kernel: &mut super::KernelBuilder, source: &View, y: &View) {
        let tile = Tile::of(&source.shape);
        let at = tile.all();
        kernel.stmt("copy", &tile, StmtOp::Copy { dst: y.at(&at, &tile), src: source.at(&at, &tile) });
    }

    /// Where the tuples of indices of a node point to in the dimensions of its first operand that they name, checked.
    fn positions(&mut self, node: Node, batch_dims: usize) -> Result<Option<Positions>, LowerError> {
        let graph = self.graph;
        let &[x, indices, ..] = graph.nodes[node].inputs.as_slice() else { return Ok(None) };
        let shape = graph.ty(indices).shape();
        let Some((&k, places)) = shape.split_last() else { return Ok(None) };
        let k = k as usize;
        let sizes = &graph.ty(x).shape()[batch_dims..batch_dims + k];
        let size = sizes.iter().product();
        let found =
            |view, is_tuple| Ok(Some(Positions { view, is_tuple, places: places.len(), batch_dims, merged: k, size }));
        if k == 1 {
            if graph.ty(indices).elems() > 0 {
                self.check_indices(node, indices, sizes[0])?;
            }
            return found(self.view(indices), true);
        }
        let places_elems: u64 = places.iter().product();
        let constant_indices = graph.const_of(indices);
        if k == 0 || constant_indices.is_some() || places_elems == 0 {
            return found(self.constant_positions(node, constant_indices, sizes, places)?, false);
        }
        // One coordinate after the other, in a buffer of its own, so that a step can check it.
        let view = self.view(indices);
        let dtype = graph.ty(indices).dtype();
        let tile = Tile::of(places);
        let at = tile.all();
        let mut kernel = self.kernel(node);
        let columns: Vec<View> = (0..k)
            .map(|j| {
                let column = self.temp(&kernel, &format!("index{j}"), dtype, places);
                let from: Vec<Affine> = at.iter().cloned().chain([Affine::constant(j as i64)]).collect();
                let op = StmtOp::Copy { dst: column.at(&at, &tile), src: view.at(&from, &tile) };
                kernel.stmt(format!("index{j}"), &tile, op);
                column
            })
            .collect();
        self.push(kernel);
        let mut kernel = self.kernel(node);
        let mut expr = Expr::default();
        let mut sum = constant(&mut expr, DType::I64, 0.0);
        for (column, &size) in columns.iter().zip(sizes) {
            self.program.steps.push(Step::Check { buffer: column.buffer, bound: size });
            let mut index = expr.push(Inst::Load(column.at(&at, &tile)));
            if dtype != DType::I64 {
                index = expr.push(Inst::Cast(DType::I64, index));
            }
            let [zero, extent] = [0, size].map(|n| constant(&mut expr, DType::I64, n as f64));
            let negative = expr.push(Inst::Binary(ScalarBinary::Lt, index, zero));
            let from_end = expr.push(Inst::Binary(ScalarBinary::Add, index, extent));
            let position = expr.push(Inst::Select(negative, from_end, index));
            let outer = expr.push(Inst::Binary(ScalarBinary::Mul, sum, extent));
            sum = expr.push(Inst::Binary(ScalarBinary::Add, outer, position));
        }
        let computed = self.temp(&kernel, "positions", DType::I64, places);
        kernel.map("positions", &tile, computed.at(&at, &tile), expr);
        self.push(kernel);
        // Holds if the checks before hold, and says so to all that read this.
        self.program.steps.push(Step::Check { buffer: computed.buffer, bound: size });
        found(computed, false)
    }

    /// A table of positions for indices that are known, or that do not matter.
    fn constant_positions(
        &mut self,
        node: Node,
        indices: Option<&Tensor>,
        sizes: &[u64],
        places: &[u64],
    ) -> Result<View, LowerError> {
        let count: u64 = places.iter().product();
        let name = || self.graph.nodes[node].name.clone();
        let left = count.checked_mul(8).and_then(|bytes| self.table_bytes.checked_sub(bytes));
        self.table_bytes = left.ok_or_else(|| LowerError::TableTooLarge {
            node: name(),
            what: "table of positions",
            elems: count,
            limit: MAX_TABLE_BYTES,
        })?;
        let k = sizes.len() as u64;
        let mut positions = Vec::with_capacity(count as usize);
        for place in 0..count {
            let mut position = 0;
            for (j, &size) in sizes.iter().enumerate() {
                let index = indices.and_then(|t| t.get_i64(place * k + j as u64)).unwrap_or(0);
                let from_start = if index < 0 { index.wrapping_add_unsigned(size) } else { index };
                if !u64::try_from(from_start).is_ok_and(|i| i < size) {
                    return Err(LowerError::IndexOutOfRange { node: name(), index, bound: size });
                }
                // Below the number of elements.
                position = position * size as i64 + from_start;
            }
            positions.push(position);
        }
        let kernel = self.kernel(node);
        // There are as many as the shape says.
        let table = Tensor::from_i64(places, &positions).unwrap_or_else(|| Tensor::scalar_f32(0.0));
        Ok(self.table(&kernel, "positions", table))
    }

    /// A value stored with the dimensions that tuples name as one; a constant only gets another shape.
    fn merged(&mut self, x: Value, positions: &Positions) -> View {
        let graph = self.graph;
        let shape = graph.ty(x).shape();
        let merged = positions.merged_shape(shape);
        let name = format!("{}.merged", graph.values[x].name);
        if let Some(tensor) = graph.const_of(x).and_then(|t| t.reshaped(merged.as_slice())) {
            let buffer = self.buffer(&name, graph.ty(x).dtype(), &merged, Storage::Const(tensor));
            return View::identity(buffer, &merged);
        }
        let source = self.view(x).through(&Op::Reshape { shape: merged.clone() }, &merged);
        if source == View::identity(source.buffer, &merged) {
            return source;
        }
        let buffer = self.buffer(&name, graph.ty(x).dtype(), &merged, Storage::Temp);
        let sources = graph.node_of(x).map(|n| graph.nodes[n].name.clone());
        let view = View::identity(buffer, &merged);
        self.copy_kernel(&source, &view, sources);
        view
    }

    fn check_indices(&mut self, node: Node, indices: Value, bound: u64) -> Result<(), LowerError> {
        let mut view = self.view(indices);
        let in_range = |i: i64| if i < 0 { i.unsigned_abs() <= bound } else { i.unsigned_abs() < bound };
        if matches!(self.program.buffers[view.buffer].storage, Storage::Const(_)) {
            let wrong =
                self.index_range(view.buffer).and_then(|(low, high)| [low, high].into_iter().find(|&i| !in_range(i)));
            match wrong {
                None => return Ok(()),
                Some(index) if view.whole => {
                    let node = self.graph.nodes[node].name.clone();
                    return Err(LowerError::IndexOutOfRange { node, index, bound });
                }
                // The wrong one may be outside the view: left to the check of the copy.
                Some(_) => {}
            }
        }
        if !view.whole {
            view = self.materialized(indices);
        }
        if self.checks.insert((view.buffer, bound)) {
            let steps = match self.program.buffers[view.buffer].storage {
                Storage::Input(_) => &mut self.input_checks,
                Storage::Output(_) | Storage::Const(_) | Storage::Temp | Storage::Local(_) => &mut self.program.steps,
            };
            steps.push(Step::Check { buffer: view.buffer, bound });
        }
        Ok(())
    }

    /// Smallest and largest element of a constant; it is looked at once, however many gathers share it.
    fn index_range(&mut self, buffer: Buffer) -> Option<(i64, i64)> {
        let buffers = &self.program.buffers;
        *self.index_ranges.entry(buffer).or_insert_with(|| {
            let Storage::Const(tensor) = &buffers[buffer].storage else { return None };
            let elements = (0..tensor.ty().elems()).filter_map(|n| tensor.get_i64(n));
            elements
                .fold(None, |range, i| Some(range.map_or((i, i), |(low, high): (i64, i64)| (low.min(i), high.max(i)))))
        })
    }
}

/// Where tuples of indices point to.
struct Positions {
    /// Positions in the merged dimension.
    view: View,
    /// Whether the view has a last dimension of one element, the tuple.
    is_tuple: bool,
    /// Number of dimensions of the tuples' places.
    places: usize,
    /// First of the dimensions that are named.
    batch_dims: usize,
    /// How many dimensions are named.
    merged: usize,
    /// Their elements.
    size: u64,
}

impl Positions {
    /// The position of a place.
    fn at(&self, place: &[Affine], tile: &Tile) -> Access {
        let mut index = place.to_vec();
        if self.is_tuple {
            index.push(Affine::constant(0));
        }
        self.view.at(&index, tile)
    }

    /// A shape with the dimensions that are named as one.
    fn merged_shape(&self, shape: &[u64]) -> Vec<u64> {
        [&shape[..self.batch_dims], &[self.size], &shape[self.batch_dims + self.merged..]].concat()
    }
}

/// Coordinates with 0 in place of one that data replaces.
fn replaced(at: &[Affine], axis: usize) -> Vec<Affine> {
    let mut index = at.to_vec();
    index[axis] = Affine::constant(0);
    index
}

fn combination(op: ScatterOp) -> Option<Combine> {
    match op {
        ScatterOp::Replace => None,
        ScatterOp::Add => Some(Combine::Add),
        ScatterOp::Mul => Some(Combine::Mul),
        ScatterOp::Max => Some(Combine::Max),
        ScatterOp::Min => Some(Combine::Min),
    }
}
