//! Operators that move elements: concatenation and padding, and the copies that views need.

use super::Lowering;
use super::kernel::{KernelBuilder, Tile};
use super::view::View;
use crate::graph::{Node, Value};
use crate::tile::{Affine, Scalar, StmtOp, Storage};

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
