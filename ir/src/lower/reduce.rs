//! Reductions over whole dimensions and over windows: an initialization, one `reduce`, and for means a division.

use bytes::Bytes;

use super::contract::window_coordinate;
use super::elementwise::constant;
use super::kernel::{KernelBuilder, Tile};
use super::view::View;
use super::{LowerError, Lowering, MAX_TABLE_BYTES};
use crate::graph::{Node, PoolAttrs, PoolKind, ReduceOp, Value};
use crate::tile::{Affine, Combine, Expr, Inst, Scalar, ScalarBinary};
use crate::types::{DType, Tensor, TensorType};

impl Lowering<'_> {
    pub(super) fn reduce(&mut self, node: Node, result: Value, op: ReduceOp, axes: &[usize], keep_dims: bool) {
        let graph = self.graph;
        let x = graph.nodes[node].inputs[0];
        let x_shape = graph.ty(x).shape();
        let ty = graph.ty(result);
        let rank = ty.rank();
        let reduced: Vec<u64> = axes.iter().map(|&axis| x_shape[axis]).collect();
        let init = Tile::of(ty.shape());
        let tile = Tile::of(ty.shape()).reducing(&reduced);
        let (mut next_kept, mut next_reduced) = (0..rank, rank..);
        let mut index = Vec::with_capacity(x_shape.len());
        for axis in 0..x_shape.len() {
            let position = if axes.contains(&axis) {
                if keep_dims {
                    next_kept.next();
                }
                next_reduced.next()
            } else {
                next_kept.next()
            };
            index.extend(position.map(Affine::dim));
        }
        let x = self.view(x).at(&index, &tile);

        let combine = match op {
            ReduceOp::Sum | ReduceOp::Mean => Combine::Add,
            ReduceOp::Max => Combine::Max,
            ReduceOp::Min => Combine::Min,
            ReduceOp::Prod => Combine::Mul,
        };
        let mut kernel = self.kernel(node);
        let y = self.result(result, &kernel);
        kernel.init("init", &init, y.at(&init.all(), &init), neutral(combine, ty.dtype()));
        kernel.reduce("reduce", &tile, y.at(&tile.vars(0..rank), &tile), combine, x);
        if op == ReduceOp::Mean {
            let count: u64 = reduced.iter().product();
            mean(&mut kernel, &init, &y, ty.dtype(), count);
        }
        self.push(kernel);
    }

    pub(super) fn pool(&mut self, node: Node, result: Value, attrs: &PoolAttrs) -> Result<(), LowerError> {
        let graph = self.graph;
        let x = graph.nodes[node].inputs[0];
        let ty = graph.ty(result);
        let dtype = ty.dtype();
        let rank = ty.rank();
        let init = Tile::of(ty.shape());
        let tile = Tile::of(ty.shape()).reducing(&attrs.kernel);
        let combine = match attrs.kind {
            PoolKind::Max => Combine::Max,
            PoolKind::AverageIncludePad | PoolKind::AverageExcludePad => Combine::Add,
        };
        let start = neutral(combine, dtype);
        let mut index = vec![Affine::dim(0), Affine::dim(1)];
        for (i, &pad) in attrs.pads.iter().enumerate() {
            let (output, kernel) = (Affine::dim(2 + i), Affine::dim(rank + i));
            index.push(window_coordinate(&output, &kernel, attrs.strides[i], attrs.dilations[i], pad.0));
        }
        let input = &graph.ty(x).shape()[2..];
        let padded = attrs.pads.iter().any(|&p| p != (0, 0));
        let x = self.padded_view(x, &attrs.pads, 2);
        let x = if padded { x.at_padded(&index, &tile, start) } else { x.at(&index, &tile) };

        let mut kernel = self.kernel(node);
        let y = self.result(result, &kernel);
        kernel.init("init", &init, y.at(&init.all(), &init), start);
        kernel.reduce("reduce", &tile, y.at(&tile.vars(0..rank), &tile), combine, x);
        match attrs.kind {
            PoolKind::Max => {}
            PoolKind::AverageIncludePad => mean(&mut kernel, &init, &y, dtype, attrs.kernel.iter().product()),
            PoolKind::AverageExcludePad if !padded => {
                mean(&mut kernel, &init, &y, dtype, attrs.kernel.iter().product());
            }
            PoolKind::AverageExcludePad => {
                // The number of elements is a product of one count per dimension.
                let mut expr = Expr::default();
                let sum = expr.push(Inst::Load(y.at(&init.all(), &init)));
                let mut count = constant(&mut expr, dtype, 1.0);
                for (i, &size) in input.iter().enumerate() {
                    let positions = ty.shape()[2 + i];
                    // Counted as eight bytes each while they are made, whatever is stored in the end.
                    let left = positions.checked_mul(8).and_then(|bytes| self.table_bytes.checked_sub(bytes));
                    self.table_bytes = left.ok_or_else(|| LowerError::TableTooLarge {
                        node: graph.nodes[node].name.clone(),
                        what: "table of window sizes",
                        elems: positions,
                        limit: MAX_TABLE_BYTES,
                    })?;
                    let counts: Vec<u64> = (0..positions).map(|p| elements_inside(attrs, i, size, p)).collect();
                    let factor = match counts.first() {
                        Some(&first) if counts.iter().all(|&c| c == first) => constant(&mut expr, dtype, first as f64),
                        _ => {
                            let Some(table) = counts_tensor(dtype, &counts) else { continue };
                            let table = self.table(&kernel, &format!("count{i}"), table);
                            expr.push(Inst::Load(table.at(&[Affine::dim(2 + i)], &init)))
                        }
                    };
                    count = expr.push(Inst::Binary(ScalarBinary::Mul, count, factor));
                }
                expr.push(Inst::Binary(ScalarBinary::Div, sum, count));
                kernel.map("mean", &init, y.at(&init.all(), &init), expr);
            }
        }
        self.push(kernel);
        Ok(())
    }
}

/// The value that changes nothing when combined.
pub(super) fn neutral(op: Combine, dtype: DType) -> Scalar {
    let value = match op {
        Combine::Add => 0.0,
        Combine::Mul => 1.0,
        // Integers saturate to their smallest and largest value.
        Combine::Max => f64::NEG_INFINITY,
        Combine::Min => f64::INFINITY,
    };
    Scalar::from_f64(dtype, value)
}

/// `y = y / count`.
fn mean(kernel: &mut KernelBuilder, tile: &Tile, y: &View, dtype: DType, count: u64) {
    let mut expr = Expr::default();
    let sum = expr.push(Inst::Load(y.at(&tile.all(), tile)));
    let count = constant(&mut expr, dtype, count as f64);
    expr.push(Inst::Binary(ScalarBinary::Div, sum, count));
    kernel.map("mean", tile, y.at(&tile.all(), tile), expr);
}

/// How many elements of the window at `position` along a spatial dimension of `size` elements lie inside.
fn elements_inside(attrs: &PoolAttrs, dim: usize, size: u64, position: u64) -> u64 {
    let dilation = attrs.dilations[dim];
    let start = i128::from(position) * i128::from(attrs.strides[dim]) - i128::from(attrs.pads[dim].0);
    // Elements before `limit` (in coordinates of the input), of those at start, start + dilation, ...
    let below = |limit: i128| {
        let elems = (limit - start + i128::from(dilation) - 1).div_euclid(i128::from(dilation));
        elems.clamp(0, i128::from(attrs.kernel[dim]))
    };
    (below(i128::from(size)) - below(0)) as u64
}

fn counts_tensor(dtype: DType, counts: &[u64]) -> Option<Tensor> {
    let size = dtype.bytes() as usize;
    let bytes: Vec<u8> =
        counts.iter().flat_map(|&c| Scalar::from_f64(dtype, c as f64).bits.to_le_bytes()[..size].to_vec()).collect();
    Tensor::new(TensorType::new(dtype, [counts.len() as u64]).ok()?, Bytes::from(bytes)).ok()
}
