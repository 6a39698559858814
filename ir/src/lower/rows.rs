//! Operators that work on rows: softmax, LayerNorm and attention, each in one kernel.
//!
//! Statistics of a row are temporaries without the row's dimension. The dimensions that are not reduced have the same
//! names in all statements, so that scheduling can put one loop around all of them.

use super::elementwise::constant;
use super::kernel::{KernelBuilder, Tile};
use super::reduce::neutral;
use super::view::View;
use super::{Lowering, broadcast_index};
use crate::graph::{Node, Value};
use crate::tile::{Access, Affine, Combine, Expr, Inst, MathFn, Scalar, ScalarBinary, ScalarUnary};
use crate::types::DType;

impl Lowering<'_> {
    /// `m = max x; e = exp(x - m); z = sum e; y = e / z`.
    pub(super) fn softmax(&mut self, node: Node, result: Value, axis: usize) {
        let graph = self.graph;
        let ty = graph.ty(result);
        let x = self.view(graph.nodes[node].inputs[0]);
        let mut kernel = self.kernel(node);
        let row = Row::new(ty.shape(), axis);
        let exp = self.temp(&kernel, "exp", ty.dtype(), ty.shape());
        let sum = self.softmax_numerator(&mut kernel, &row, &x, &exp);

        let y = self.result(result, &kernel);
        let value = quotient(exp.at(&row.at, &row.points), sum.at(&row.kept, &row.points));
        kernel.map("norm", &row.points, y.at(&row.at, &row.points), value);
        self.push(kernel);
    }

    /// The exponentials of a row, relative to its largest element, into `exp`; the result is their sum.
    fn softmax_numerator(&mut self, kernel: &mut KernelBuilder, row: &Row, x: &View, exp: &View) -> View {
        let dtype = self.program.buffers[exp.buffer].dtype;
        let max = self.temp(kernel, "max", dtype, &row.stat_shape);
        let sum = self.temp(kernel, "sum", dtype, &row.stat_shape);
        row.reduce(kernel, "max", Combine::Max, &max, x, dtype);

        let mut expr = Expr::default();
        let value = expr.push(Inst::Load(x.at(&row.at, &row.points)));
        let largest = expr.push(Inst::Load(max.at(&row.kept, &row.points)));
        let difference = expr.push(Inst::Binary(ScalarBinary::Sub, value, largest));
        expr.push(Inst::Math(MathFn::Exp, difference));
        kernel.map("exp", &row.points, exp.at(&row.at, &row.points), expr);

        row.reduce(kernel, "sum", Combine::Add, &sum, exp, dtype);
        sum
    }

    /// `c = x - mean x; d = mean c; y = (c - d) / √(mean c² - d² + epsilon) · scale + bias`.
    ///
    /// The mean of a row that is nearly constant is wrong by more than the row varies, for all that rounding can do. What it is
    /// wrong by is `d`, so that is taken off again: the corrected two-pass algorithm (Chan, Golub and LeVeque, *Algorithms
    /// for computing the sample variance*, The American Statistician 37(3), 1983).
    pub(super) fn layer_norm(&mut self, node: Node, result: Value, axis: usize, epsilon: f32) {
        let graph = self.graph;
        let &[x, scale, bias] = graph.nodes[node].inputs.as_slice() else { return };
        let ty = graph.ty(result);
        let dtype = ty.dtype();
        let x = self.view(x);
        let mut kernel = self.kernel(node);
        let (kept, normalized) = ty.shape().split_at(axis);
        let count: u64 = normalized.iter().product();
        let stats = Tile::of(kept);
        let points = Tile::of(ty.shape());
        let row_points = Tile::of(kept).reducing(normalized);
        let (stat_at, at) = (stats.all(), points.all());

        let [sum, mean, drift, shift, squares, deviation] =
            ["sum", "mean", "drift", "shift", "squares", "rstd"].map(|what| self.temp(&kernel, what, dtype, kept));
        let [centered, squared] = ["centered", "squared"].map(|what| self.temp(&kernel, what, dtype, ty.shape()));
        let zero = Scalar::from_f64(dtype, 0.0);

        kernel.init("sum_init", &stats, sum.at(&stat_at, &stats), zero);
        kernel.reduce("sum", &row_points, sum.at(&stat_at, &row_points), Combine::Add, x.at(&at, &row_points));
        let mut expr = Expr::default();
        let total = expr.push(Inst::Load(sum.at(&stat_at, &stats)));
        let n = constant(&mut expr, dtype, count as f64);
        expr.push(Inst::Binary(ScalarBinary::Div, total, n));
        kernel.map("mean", &stats, mean.at(&stat_at, &stats), expr);

        let mut expr = Expr::default();
        let value = expr.push(Inst::Load(x.at(&at, &points)));
        let center = expr.push(Inst::Load(mean.at(&stat_at, &points)));
        expr.push(Inst::Binary(ScalarBinary::Sub, value, center));
        kernel.map("center", &points, centered.at(&at, &points), expr);

        kernel.init("drift_init", &stats, drift.at(&stat_at, &stats), zero);
        let src = centered.at(&at, &row_points);
        kernel.reduce("drift", &row_points, drift.at(&stat_at, &row_points), Combine::Add, src);
        let mut expr = Expr::default();
        let total = expr.push(Inst::Load(drift.at(&stat_at, &stats)));
        let n = constant(&mut expr, dtype, count as f64);
        expr.push(Inst::Binary(ScalarBinary::Div, total, n));
        kernel.map("shift", &stats, shift.at(&stat_at, &stats), expr);

        let mut expr = Expr::default();
        let value = expr.push(Inst::Load(centered.at(&at, &points)));
        expr.push(Inst::Binary(ScalarBinary::Mul, value, value));
        kernel.map("square", &points, squared.at(&at, &points), expr);
        kernel.init("squares_init", &stats, squares.at(&stat_at, &stats), zero);
        let src = squared.at(&at, &row_points);
        kernel.reduce("squares", &row_points, squares.at(&stat_at, &row_points), Combine::Add, src);

        let mut expr = Expr::default();
        let total = expr.push(Inst::Load(squares.at(&stat_at, &stats)));
        let n = constant(&mut expr, dtype, count as f64);
        let mean_square = expr.push(Inst::Binary(ScalarBinary::Div, total, n));
        let off = expr.push(Inst::Load(shift.at(&stat_at, &stats)));
        let off_square = expr.push(Inst::Binary(ScalarBinary::Mul, off, off));
        let difference = expr.push(Inst::Binary(ScalarBinary::Sub, mean_square, off_square));
        // Rounding must not make it negative; a NaN stays one, as the second operand.
        let none = constant(&mut expr, dtype, 0.0);
        let variance = expr.push(Inst::Binary(ScalarBinary::Max, none, difference));
        let epsilon = constant(&mut expr, dtype, f64::from(epsilon));
        let variance = expr.push(Inst::Binary(ScalarBinary::Add, variance, epsilon));
        let root = expr.push(Inst::Unary(ScalarUnary::Sqrt, variance));
        let one = constant(&mut expr, dtype, 1.0);
        expr.push(Inst::Binary(ScalarBinary::Div, one, root));
        kernel.map("rstd", &stats, deviation.at(&stat_at, &stats), expr);

        let mut expr = Expr::default();
        let value = expr.push(Inst::Load(centered.at(&at, &points)));
        let off = expr.push(Inst::Load(shift.at(&stat_at, &points)));
        let value = expr.push(Inst::Binary(ScalarBinary::Sub, value, off));
        let factor = expr.push(Inst::Load(deviation.at(&stat_at, &points)));
        let normal = expr.push(Inst::Binary(ScalarBinary::Mul, value, factor));
        let scale = self.load(&mut expr, scale, &at[axis..], &points);
        let scaled = expr.push(Inst::Binary(ScalarBinary::Mul, normal, scale));
        let bias = self.load(&mut expr, bias, &at[axis..], &points);
        expr.push(Inst::Binary(ScalarBinary::Add, scaled, bias));
        let y = self.result(result, &kernel);
        kernel.map("norm", &points, y.at(&at, &points), expr);
        self.push(kernel);
    }

    /// `s = scale · q kᵀ + bias; p = exp(s - max s); z = sum p; o = p v; y = o / z`.
    ///
    /// Dimensions: `d0` batch, `d1` head, `d2` query; `d3` is the key in statements on scores and the value's feature in
    /// those on the result. The division comes last because the result has fewer columns than the scores.
    pub(super) fn attention(&mut self, node: Node, result: Value, scale: f32) {
        let graph = self.graph;
        let inputs = &graph.nodes[node].inputs;
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        let ty = graph.ty(result);
        let dtype = ty.dtype();
        let depth = graph.ty(q).shape()[3];
        let keys = graph.ty(k).shape()[2];
        let scores_shape: Vec<u64> = [&ty.shape()[..3], &[keys]].concat();
        let (q, k, v) = (self.view(q), self.view(k), self.view(v));
        let mut kernel = self.kernel(node);
        // The products are a value of their own, so that a tile of them can stay in registers until it is scaled.
        let [products, scores, exp] =
            ["products", "scores", "exp"].map(|what| self.temp(&kernel, what, dtype, &scores_shape));
        let zero = Scalar::from_f64(dtype, 0.0);
        let row = Row::new(&scores_shape, 3);
        let [b, h, i, j, reduced] = [0, 1, 2, 3, 4].map(Affine::dim);

        kernel.init("init", &row.points, products.at(&row.at, &row.points), zero);
        let tile = Tile::of(&scores_shape).reducing(&[depth]);
        let a = q.at(&[b.clone(), h.clone(), i.clone(), reduced.clone()], &tile);
        let key = k.at(&[b.clone(), h.clone(), j.clone(), reduced.clone()], &tile);
        kernel.mma("mma", &tile, products.at(&row.at, &tile), a, key);

        let mut expr = Expr::default();
        let mut value = expr.push(Inst::Load(products.at(&row.at, &row.points)));
        if scale != 1.0 {
            let scale = constant(&mut expr, dtype, f64::from(scale));
            value = expr.push(Inst::Binary(ScalarBinary::Mul, value, scale));
        }
        if let Some(&bias) = inputs.get(3) {
            let index = broadcast_index(graph.ty(bias).shape(), &scores_shape, &row.at);
            let bias = self.load(&mut expr, bias, &index, &row.points);
            expr.push(Inst::Binary(ScalarBinary::Add, value, bias));
        }
        kernel.map("scale", &row.points, scores.at(&row.at, &row.points), expr);

        let sum = self.softmax_numerator(&mut kernel, &row, &scores, &exp);

        let product = self.temp(&kernel, "product", dtype, ty.shape());
        let points = Tile::of(ty.shape());
        let at = points.all();
        kernel.init("product_init", &points, product.at(&at, &points), zero);
        let tile = Tile::of(ty.shape()).reducing(&[keys]);
        let weight = exp.at(&[b.clone(), h.clone(), i, reduced.clone()], &tile);
        let value = v.at(&[b, h, reduced, j], &tile);
        kernel.mma("mma_v", &tile, product.at(&at, &tile), weight, value);

        let y = self.result(result, &kernel);
        let value = quotient(product.at(&at, &points), sum.at(&at[..3], &points));
        kernel.map("norm", &points, y.at(&at, &points), value);
        self.push(kernel);
    }
}

/// The tiles and coordinates of a row-wise operator.
pub(super) struct Row {
    /// All dimensions.
    pub(super) points: Tile,
    /// Coordinates of an element, in `points`.
    pub(super) at: Vec<Affine>,
    /// Coordinates of a row's statistic, in `points`.
    pub(super) kept: Vec<Affine>,
    /// Shape of a row's statistic.
    pub(super) stat_shape: Vec<u64>,
    /// The dimensions without the row's.
    pub(super) stats: Tile,
    /// The dimensions without the row's, then the row's as `k0`.
    row_points: Tile,
    /// Coordinates of an element, in `row_points`.
    row_at: Vec<Affine>,
}

impl Row {
    pub(super) fn new(shape: &[u64], axis: usize) -> Self {
        let points = Tile::of(shape);
        let at = points.all();
        let without = |list: &[Affine]| list.iter().enumerate().filter(|t| t.0 != axis).map(|t| t.1.clone()).collect();
        let stats = Tile::without(shape, axis);
        let mut row_at = stats.all();
        row_at.insert(axis, Affine::dim(shape.len() - 1));
        Self {
            kept: without(&at),
            at,
            points,
            stat_shape: shape.iter().enumerate().filter(|t| t.0 != axis).map(|t| *t.1).collect(),
            row_points: Tile::without(shape, axis).reducing(&[shape[axis]]),
            stats,
            row_at,
        }
    }

    /// `NAME_init` and `NAME`: reduces the rows of `x` into `into`.
    pub(super) fn reduce(
        &self,
        kernel: &mut KernelBuilder,
        name: &str,
        op: Combine,
        into: &View,
        x: &View,
        dtype: DType,
    ) {
        let at = self.stats.all();
        kernel.init(format!("{name}_init"), &self.stats, into.at(&at, &self.stats), neutral(op, dtype));
        let src = x.at(&self.row_at, &self.row_points);
        kernel.reduce(name, &self.row_points, into.at(&at, &self.row_points), op, src);
    }
}

/// `a / b`.
fn quotient(a: Access, b: Access) -> Expr {
    let mut expr = Expr::default();
    let a = expr.push(Inst::Load(a));
    let b = expr.push(Inst::Load(b));
    expr.push(Inst::Binary(ScalarBinary::Div, a, b));
    expr
}
