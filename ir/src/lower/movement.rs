//! Operators that move elements: concatenation, padding and gathers, and the copies that views need.

use super::kernel::{KernelBuilder, Tile};
use super::view::View;
use super::{LowerError, Lowering};
use crate::graph::{Node, Value};
use crate::tile::{Affine, Buffer, Scalar, Step, StmtOp, Storage};

/// Most operands that one kernel joins.
const MAX_PARTS: usize = 16;

impl Lowering<'_> {
    /// One copy for each operand, side by side; some of them to a kernel, so that no kernel is endless.
    pub(super) fn concat(&mut self, node: Node, result: Value, axis: usize) {
        let graph = self.graph;
        let inputs = &graph.nodes[node].inputs;
        let sources: Vec<View> = inputs.iter().map(|&v| self.view(v)).collect();
        let mut kernel = self.kernel(node);
        let y = self.result(result, &kernel);
        let mut offset = 0;
        for (i, source) in sources.iter().enumerate() {
            if i > 0 && i % MAX_PARTS == 0 {
                let next = self.kernel(node);
                self.push(std::mem::replace(&mut kernel, next));
            }
            let tile = Tile::of(&source.shape);
            let mut at = tile.all();
            let src = source.at(&at, &tile);
            at[axis] = at[axis].add_constant(offset);
            kernel.stmt(format!("copy{i}"), &tile, StmtOp::Copy { dst: y.at(&at, &tile), src });
            offset += source.shape[axis] as i64;
        }
        self.push(kernel);
    }

    /// A copy of a larger box than the operand has, with the value as fill.
    pub(super) fn pad(&mut self, node: Node, result: Value, pads: &[(u64, u64)], value: f64) {
        let graph = self.graph;
        let ty = graph.ty(result);
        let x = self.padded_view(graph.nodes[node].inputs[0], pads, 0);
        let tile = Tile::of(ty.shape());
        let at = tile.all();
        let index: Vec<Affine> = at.iter().zip(pads).map(|(a, p)| a.add_constant(-(p.0 as i64))).collect();
        let src = if pads.iter().all(|&p| p == (0, 0)) {
            x.at(&index, &tile)
        } else {
            x.at_padded(&index, &tile, Scalar::from_f64(ty.dtype(), value))
        };
        let mut kernel = self.kernel(node);
        let dst = self.result(result, &kernel).at(&at, &tile);
        kernel.stmt("copy", &tile, StmtOp::Copy { dst, src });
        self.push(kernel);
    }

    /// `y[a.., i.., b..] = x[a.., indices[i..], b..]`. Constant indices are checked here, others by a step of the program.
    pub(super) fn gather(&mut self, node: Node, result: Value, axis: usize) -> Result<(), LowerError> {
        let graph = self.graph;
        let &[x, indices] = graph.nodes[node].inputs.as_slice() else { return Ok(()) };
        let ty = graph.ty(result);
        let bound = graph.ty(x).shape()[axis];
        if ty.elems() > 0 {
            self.check_indices(node, indices, bound)?;
        }
        let mut source = self.operand(x);
        let mut buffer_axis = source.plain_axis(axis, &self.program.buffers);
        if buffer_axis.is_none() {
            source = self.materialized(x);
            buffer_axis = Some(axis);
        }
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
        kernel.stmt("gather", &tile, StmtOp::Gather { dst, src, index, axis: buffer_axis.unwrap_or(axis) });
        self.push(kernel);
        Ok(())
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

    /// Copies a value into a buffer of its own shape, for readers that cannot go through its view.
    pub(super) fn materialized(&mut self, value: Value) -> View {
        let source = self.view(value);
        let data = &self.graph.values[value];
        let name = format!("{}.copy", data.name);
        let buffer = self.buffer(&name, data.ty.dtype(), data.ty.shape(), Storage::Temp);
        let sources = self.graph.node_of(value).map(|n| self.graph.nodes[n].name.clone());
        let view = View::identity(buffer, data.ty.shape());
        self.copy_kernel(&source, &view, sources);
        self.scope.views[value] = Some(view.clone());
        view
    }

    /// A kernel that copies a view to another place of its shape.
    pub(super) fn copy_kernel(&mut self, source: &View, target: &View, sources: Option<String>) {
        let tile = Tile::of(&source.shape);
        let at = tile.all();
        let mut kernel = KernelBuilder::new(self.kernel_name("copy"), sources, &self.repeats);
        let dst = target.at(&at, &tile);
        kernel.stmt("copy", &tile, StmtOp::Copy { dst, src: source.at(&at, &tile) });
        self.push(kernel);
    }
}
