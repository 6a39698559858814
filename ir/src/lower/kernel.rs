//! Building kernels: the box of a statement, and the list of statements.

use cranelift_entity::{EntityRef, PrimaryMap};

use crate::tile::{
    Access, Affine, Combine, Dim, Exec, Expr, Item, KernelData, Loop, LoopData, LoopKind, Scalar, StmtData, StmtOp, Var,
};

/// The dimensions of a statement.
#[derive(Clone, Debug, Default)]
pub(super) struct Tile {
    dims: Vec<Dim>,
}

impl Tile {
    /// `d0`, `d1`, … with the extents of a shape.
    pub(super) fn of(shape: &[u64]) -> Self {
        shape.iter().enumerate().fold(Self::default(), |tile, (i, &extent)| tile.with(format!("d{i}"), extent))
    }

    /// The dimensions of a shape without one, which keep the names they have in the whole shape.
    pub(super) fn without(shape: &[u64], axis: usize) -> Self {
        let kept = shape.iter().enumerate().filter(|&(i, _)| i != axis);
        kept.fold(Self::default(), |tile, (i, &extent)| tile.with(format!("d{i}"), extent))
    }

    /// Appends `k0`, `k1`, … with the given extents.
    pub(super) fn reducing(self, extents: &[u64]) -> Self {
        extents.iter().enumerate().fold(self, |tile, (i, &extent)| tile.with(format!("k{i}"), extent))
    }

    fn with(mut self, name: String, extent: u64) -> Self {
        self.dims.push(Dim { name, extent, exec: Exec::Unroll });
        self
    }

    /// The dimensions in a range of positions, as coordinates.
    pub(super) fn vars(&self, positions: std::ops::Range<usize>) -> Vec<Affine> {
        positions.map(Affine::dim).collect()
    }

    /// All dimensions, as coordinates.
    pub(super) fn all(&self) -> Vec<Affine> {
        self.vars(0..self.dims.len())
    }

    /// Number of points of a variable.
    pub(super) fn extent(&self, var: Var) -> u64 {
        match var {
            Var::Dim(i) => self.dims.get(i as usize).map_or(1, |d| d.extent),
            // A round, which lowering never divides.
            Var::Loop(_) => u64::from(u32::MAX),
        }
    }
}

/// A kernel in the making.
pub(super) struct KernelBuilder {
    data: KernelData,
}

impl KernelBuilder {
    /// An empty kernel that computes the user's nodes of the given names, inside repeats of the given trips.
    pub(super) fn new(name: String, sources: impl IntoIterator<Item = String>, repeats: &[u64]) -> Self {
        let sources = sources.into_iter().collect();
        let round = |(depth, &extent)| LoopData { name: format!("t{depth}"), extent, kind: LoopKind::Repeat };
        let loops: PrimaryMap<Loop, LoopData> = repeats.iter().enumerate().map(round).collect();
        Self { data: KernelData { name, sources, loops, stmts: PrimaryMap::new(), body: Vec::new() } }
    }

    /// The loop of the repeat at that depth, in every kernel inside it.
    pub(super) fn repeat(depth: usize) -> Loop {
        Loop::new(depth)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.data.name
    }

    /// Appends a statement, unless its tile is empty.
    pub(super) fn stmt(&mut self, name: impl Into<String>, tile: &Tile, op: StmtOp) {
        if tile.dims.iter().all(|d| d.extent > 0) {
            let stmt = StmtData { name: name.into(), dims: tile.dims.clone(), op, intrinsic: None };
            let stmt = self.data.stmts.push(stmt);
            self.data.body.push(Item::Stmt(stmt));
        }
    }

    /// `dst = value`.
    pub(super) fn map(&mut self, name: impl Into<String>, tile: &Tile, dst: Access, value: Expr) {
        self.stmt(name, tile, StmtOp::Map { dst, value });
    }

    /// `dst = constant`.
    pub(super) fn init(&mut self, name: impl Into<String>, tile: &Tile, dst: Access, value: Scalar) {
        self.map(name, tile, dst, Expr::constant(value));
    }

    /// `dst = op(dst, src...)`.
    pub(super) fn reduce(&mut self, name: impl Into<String>, tile: &Tile, dst: Access, op: Combine, src: Access) {
        self.stmt(name, tile, StmtOp::Reduce { dst, op, src });
    }

    /// `acc += a * b`. Products are rounded here; [`crate::tile::math::expand`] fuses them where the machine can.
    pub(super) fn mma(&mut self, name: impl Into<String>, tile: &Tile, acc: Access, a: Access, b: Access) {
        self.stmt(name, tile, StmtOp::Mma { acc, a, b, fused: false });
    }

    /// The kernel, or `None` if it has no statements.
    pub(super) fn finish(mut self) -> Option<KernelData> {
        if self.data.body.is_empty() {
            return None;
        }
        let loops: Vec<Loop> = self.data.loops.keys().collect();
        for l in loops.into_iter().rev() {
            self.data.body = vec![Item::Loop(l, std::mem::take(&mut self.data.body))];
        }
        Some(self.data)
    }
}
