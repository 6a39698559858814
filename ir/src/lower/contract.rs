//! Contractions: matrix products and convolutions, as an initialization and one `mma` into the result.

use super::kernel::Tile;
use super::view::View;
use super::{Lowering, broadcast_index};
use crate::graph::{ConvAttrs, Node, Value};
use crate::tile::{Affine, Expr, Inst, Scalar, ScalarBinary, Var};

impl Lowering<'_> {
    /// `y[.., m, n] += a[.., m, k] · b[.., k, n]`.
    pub(super) fn matmul(&mut self, node: Node, result: Value) {
        let graph = self.graph;
        let &[a, b] = graph.nodes[node].inputs.as_slice() else { return };
        let (a_shape, b_shape) = (graph.ty(a).shape(), graph.ty(b).shape());
        let ty = graph.ty(result);
        let rank = ty.rank();
        let depth = a_shape[a_shape.len() - 1];
        let init = Tile::of(ty.shape());
        let tile = Tile::of(ty.shape()).reducing(&[depth]);
        let batch = &ty.shape()[..rank - 2];
        let at = tile.vars(0..rank - 2);
        let (m, n, k) = (Affine::dim(rank - 2), Affine::dim(rank - 1), Affine::dim(rank));
        let mut a_index = broadcast_index(&a_shape[..a_shape.len() - 2], batch, &at);
        a_index.extend([m, k.clone()]);
        let mut b_index = broadcast_index(&b_shape[..b_shape.len() - 2], batch, &at);
        b_index.extend([k, n]);
        let a = self.operand(a).at(&a_index, &tile);
        let b = self.operand(b).at(&b_index, &tile);

        let mut kernel = self.kernel(node);
        let y = self.result(result, &kernel);
        kernel.init("init", &init, y.at(&init.all(), &init), Scalar::from_f64(ty.dtype(), 0.0));
        kernel.mma("mma", &tile, y.at(&tile.vars(0..rank), &tile), a, b);
        self.push(kernel);
    }

    /// `y[n, o, p..] += x[n, group(o) + c, stride·p + dilation·k - pad ..] · w[o, c, k..]`, then the bias.
    pub(super) fn conv(&mut self, node: Node, result: Value, attrs: &ConvAttrs) {
        let graph = self.graph;
        let inputs = &graph.nodes[node].inputs;
        let (x, w) = (inputs[0], inputs[1]);
        let ty = graph.ty(result);
        let zero = Scalar::from_f64(ty.dtype(), 0.0);
        let rank = ty.rank();
        let w_shape = graph.ty(w).shape();
        let init = Tile::of(ty.shape());
        let spatial = rank - 2;
        let mut window = w_shape[2..].to_vec();
        window.push(w_shape[1]);
        let tile = Tile::of(ty.shape()).reducing(&window);

        // Dimensions of the tile: n, o, out.., kernel.., c. Channels are innermost, so that where they are stored side by
        // side the sum runs over memory in order.
        let extents = |v: Var| tile.extent(v);
        let outputs_per_group = ty.shape()[1] / attrs.groups;
        let group = match attrs.groups {
            1 => Affine::constant(0),
            _ if outputs_per_group == 0 => Affine::constant(0),
            _ => Affine::dim(1).floor_div(outputs_per_group as i64, &extents),
        };
        let channel = group.scale(w_shape[1] as i64).add(&reduced(&tile, rank + spatial));
        let mut x_index = vec![Affine::dim(0), channel];
        for (i, &pad) in attrs.pads.iter().enumerate() {
            let (output, kernel) = (Affine::dim(2 + i), reduced(&tile, rank + i));
            x_index.push(window_coordinate(&output, &kernel, attrs.strides[i], attrs.dilations[i], pad.0));
        }
        let mut w_index = vec![Affine::dim(1), reduced(&tile, rank + spatial)];
        w_index.extend((0..spatial).map(|i| reduced(&tile, rank + i)));

        let x = self.padded_view(x, &attrs.pads, 2);
        let padded = attrs.pads.iter().any(|&p| p != (0, 0));
        let x = if padded { x.at_padded(&x_index, &tile, zero) } else { x.at(&x_index, &tile) };
        let w = self.operand(w).at(&w_index, &tile);

        let mut kernel = self.kernel(node);
        let y = self.result(result, &kernel);
        let at = init.all();
        kernel.init("init", &init, y.at(&at, &init), zero);
        kernel.mma("mma", &tile, y.at(&tile.vars(0..rank), &tile), x, w);
        if let Some(&bias) = inputs.get(2) {
            let mut expr = Expr::default();
            let sum = expr.push(Inst::Load(y.at(&at, &init)));
            let bias = self.load(&mut expr, bias, &[Affine::dim(1)], &init);
            expr.push(Inst::Binary(ScalarBinary::Add, sum, bias));
            kernel.map("bias", &init, y.at(&at, &init), expr);
        }
        self.push(kernel);
    }

    /// The view of a value whose dimensions from `first` on are read with the given padding: a copy where the view does not
    /// keep those dimensions apart, since only coordinates outside the buffer read as the fill value.
    pub(super) fn padded_view(&mut self, value: Value, pads: &[(u64, u64)], first: usize) -> View {
        let view = self.view(value);
        let fits = |(i, &pad): (usize, &(u64, u64))| {
            pad == (0, 0) || view.plain_axis(first + i, &self.program.buffers).is_some()
        };
        if pads.iter().enumerate().all(fits) { view } else { self.materialized(value) }
    }
}

/// A reduced dimension as a coordinate; one of extent 1 is left out.
fn reduced(tile: &Tile, position: usize) -> Affine {
    let var = Var::Dim(position as u32);
    if tile.extent(var) == 1 { Affine::constant(0) } else { Affine::var(var) }
}

/// Coordinate in the input of a window's element `kernel` at position `output`.
pub(super) fn window_coordinate(output: &Affine, kernel: &Affine, stride: u64, dilation: u64, pad: u64) -> Affine {
    output.scale(stride as i64).add(&kernel.scale(dilation as i64)).add_constant(-(pad as i64))
}
