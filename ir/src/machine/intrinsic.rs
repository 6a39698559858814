//! Intrinsics: tiles that a backend executes by a micro-kernel or instruction of its own.
//!
//! The scheduler learns from an [`Intrinsic`] which statements it can give to the backend and at what rate they then run; the
//! schedule names it on the statement, and the backend's emitter takes the whole tile. No backend matches patterns by itself.

use crate::tile::{
    Access, Affine, Inst, Item, KernelData, Program, Scalar, Space, Stmt, StmtData, StmtOp, Storage, Var,
};
use crate::types::DType;

/// Rates and registers of what executes multiply-adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MacUnit {
    /// 4-byte lanes of one multiply-add.
    pub lanes: u64,
    /// Vector registers.
    pub registers: u64,
    /// Registers of the tile that hold neither accumulators nor elements of the operands in lanes.
    pub spare_registers: u64,
    /// Elements of the left operand that one load brings: more than one where multiply-adds take lanes of a register.
    pub scalars_per_load: u64,
    /// Multiply-adds started per cycle.
    pub mac_per_cycle: f64,
    /// Vector loads started per cycle.
    pub loads_per_cycle: f64,
    /// Whether the rest of a row that does not fill a vector costs one vector, rather than one operation for each element.
    pub masked: bool,
}

/// A family of micro-kernels for contractions of one shape class. Its reference is the nest
///
/// ```text
/// mma acc[d0, d1] += a[d0, k0, ..] * b[k0, .., d1]      d0: any up to max_rows, d1: whole vectors, k0, ..: any
/// ```
///
/// with `acc` and `b` contiguous along `d1`, `acc` in scratch memory, and constant strides everywhere else; or, lane by lane,
/// the same with `a[d0, k0, .., d1]` contiguous along `d1` too, as in a depthwise convolution. A statement right before it that
/// sets the same `acc` to zero may be given to the intrinsic too: then the sums start from zero and `acc` is not read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intrinsic {
    /// Name: dtype-op-isa, as `f32_gemm_avx512`.
    pub name: &'static str,
    /// Element type of all operands.
    pub dtype: DType,
    /// Most rows of a tile.
    pub max_rows: u64,
    /// What executes it.
    pub unit: MacUnit,
}

/// One reduced dimension of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Steps {
    /// Number of steps.
    pub extent: u64,
    /// Distance of steps of `a`.
    pub a: i64,
    /// Distance of steps of `b`.
    pub b: i64,
}

/// The strides of a tile that an intrinsic takes, in elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GemmTile {
    /// Rows of `acc` and `a`.
    pub rows: u64,
    /// Columns of `acc` and `b`, contiguous.
    pub columns: u64,
    /// The reduced dimensions, outermost first; those that run on in memory are one.
    pub depth: Vec<Steps>,
    /// Distance of rows of `acc`.
    pub acc_row: i64,
    /// Distance of rows of `a`.
    pub a_row: i64,
    /// Whether `a` has columns too, contiguous, and each column is a sum of its own.
    pub lanewise: bool,
    /// Whether `a` and `b` are exchanged in the statement.
    pub exchanged: bool,
    /// Whether sums start from zero rather than from `acc`.
    pub from_zero: bool,
}

impl GemmTile {
    /// Steps of all reduced dimensions together.
    pub fn steps(&self) -> u64 {
        self.depth.iter().map(|d| d.extent).product()
    }
}

/// Largest distance, in elements, that a micro-kernel encodes, and most that it goes along one dimension.
const MAX_STRIDE: i64 = 1 << 24;
const MAX_REACH: i64 = 1 << 28;

/// Most reduced dimensions of a tile: three of a window, and channels.
const MAX_DEPTH: usize = 4;

impl Intrinsic {
    /// The tile of a statement, if this intrinsic executes it.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn tile(&self, program: &Program, kernel: &KernelData, stmt: &StmtData) -> Result<GemmTile, String> {
        let StmtOp::Mma { acc, a, b, fused } = &stmt.op else { return Err("it is not a contraction".into()) };
        if !*fused {
            return Err("it rounds products before adding them".into());
        }
        for access in [acc, a, b] {
            let info = &program.buffers[access.buffer];
            if info.dtype != self.dtype || access.fill.is_some() || info.storage == Storage::Local(Space::Reg) {
                return Err(format!("`{}` is not a full box of {} in memory", info.name, self.dtype));
            }
        }
        let offset = |access: &Access| -> Affine {
            let layout = &program.buffers[access.buffer].layout;
            layout.offset(&access.index, &|v| kernel.extent_of(stmt, v))
        };
        let offsets = [offset(acc), offset(a), offset(b)];
        let dims: Vec<usize> = (0..stmt.dims.len()).filter(|&d| stmt.dims[d].extent > 1).collect();
        let hidden = offsets.iter().any(|o| {
            dims.iter().any(|&d| {
                let var = Var::Dim(d as u32);
                o.sub(&Affine::var(var).scale(o.coefficient(var))).uses(var)
            })
        });
        if hidden {
            return Err("a coordinate is divided".into());
        }
        let strides = |d: usize| offsets.each_ref().map(|o| o.coefficient(Var::Dim(d as u32)));
        let shared = dims.iter().copied().find(|&d| matches!(strides(d), [1, 0, 1] | [1, 1, 0]));
        let Some(columns) = shared.or_else(|| dims.iter().copied().find(|&d| strides(d) == [1, 1, 1])) else {
            return Err("no dimension is contiguous in the result and an operand".into());
        };
        let lanewise = shared.is_none();
        let row = dims.iter().copied().find(|&d| d != columns && strides(d)[0] != 0);
        let exchanged = if lanewise { row.is_some_and(|d| strides(d)[1] == 0) } else { strides(columns)[2] == 0 };
        let columns_extent = stmt.dims[columns].extent;
        let mut tile = GemmTile {
            rows: 1,
            columns: columns_extent,
            depth: Vec::new(),
            acc_row: 0,
            a_row: 0,
            lanewise,
            exchanged,
            from_zero: false,
        };
        for &d in dims.iter().filter(|&&d| d != columns) {
            let [c, x, y] = strides(d);
            let (left, right) = if tile.exchanged { (y, x) } else { (x, y) };
            let extent = stmt.dims[d].extent;
            match (c, right) {
                (0, _) => push_steps(&mut tile.depth, Steps { extent, a: left, b: right }),
                (_, 0) if tile.rows == 1 => (tile.rows, tile.acc_row, tile.a_row) = (extent, c, left),
                _ => return Err(format!("dimension `{}` is neither rows nor a reduced one", stmt.dims[d].name)),
            }
        }
        let whole = self.unit.masked || tile.columns.is_multiple_of(self.unit.lanes);
        if !whole || tile.rows > self.max_rows {
            return Err(format!("a tile of {} x {} does not fit its registers", tile.rows, tile.columns));
        }
        let vectors = tile.columns.div_ceil(self.unit.lanes);
        if tile.rows * vectors + vectors + self.unit.spare_registers > self.unit.registers {
            return Err(format!("a tile of {} x {} does not fit its registers", tile.rows, tile.columns));
        }
        let far = |s: &Steps| [s.a, s.b].iter().any(|&x| too_far(x, s.extent));
        if too_far(tile.acc_row, tile.rows) || too_far(tile.a_row, tile.rows) || tile.depth.iter().any(far) {
            return Err("a stride is too large".into());
        }
        if tile.depth.len() > MAX_DEPTH {
            return Err(format!("it has more than {MAX_DEPTH} reduced dimensions"));
        }
        Ok(tile)
    }
}

/// The contraction after a statement that sets its accumulators to zero, element by element: what an intrinsic can do in one.
///
/// # Errors
/// Why there is none, in words.
pub fn zeroed_contraction(program: &Program, kernel: &KernelData, stmt: Stmt) -> Result<Stmt, String> {
    let zero = &kernel.stmts[stmt];
    let StmtOp::Map { dst, value } = &zero.op else { return Err("it is no map".into()) };
    let plain = Scalar::from_f64(program.buffers[dst.buffer].dtype, 0.0);
    if value.insts[..] != [Inst::Const(plain)] {
        return Err("it does not write zeros".into());
    }
    let next = kernel.locate(stmt).and_then(|(path, _)| {
        let (last, parents) = path.split_last()?;
        let mut body = &kernel.body;
        for &p in parents {
            let Item::Loop(_, inner) = body.get(p)? else { return None };
            body = inner;
        }
        match body.get(last + 1)? {
            Item::Stmt(next) => Some(*next),
            Item::Loop(..) => None,
        }
    });
    let Some(next) = next else { return Err("no statement follows it".into()) };
    let sum = &kernel.stmts[next];
    let StmtOp::Mma { acc, .. } = &sum.op else { return Err("what follows it is not a contraction".into()) };
    let same =
        dst.buffer == acc.buffer && footprint(program, kernel, zero, dst) == footprint(program, kernel, sum, acc);
    if same { Ok(next) } else { Err("what follows it uses other accumulators".into()) }
}

/// Where an access starts, and the strides and extents of the dimensions that move it.
fn footprint(program: &Program, kernel: &KernelData, stmt: &StmtData, access: &Access) -> (Affine, Vec<(i64, u64)>) {
    let layout = &program.buffers[access.buffer].layout;
    let mut start = layout.offset(&access.index, &|v| kernel.extent_of(stmt, v));
    let mut moves = Vec::new();
    for (d, dim) in stmt.dims.iter().enumerate() {
        let var = Var::Dim(d as u32);
        let stride = start.coefficient(var);
        if stride != 0 && dim.extent > 1 {
            moves.push((stride, dim.extent));
        }
        start = start.sub(&Affine::var(var).scale(stride));
    }
    moves.sort_unstable();
    (start, moves)
}

/// Appends a reduced dimension, as one with the last if steps run on from one to the other.
fn push_steps(depth: &mut Vec<Steps>, next: Steps) {
    let reach = |stride: i64| stride.checked_mul(next.extent as i64);
    match depth.last_mut() {
        Some(last) if reach(next.a) == Some(last.a) && reach(next.b) == Some(last.b) => {
            *last = Steps { extent: last.extent * next.extent, ..next };
        }
        _ => depth.push(next),
    }
}

fn too_far(stride: i64, extent: u64) -> bool {
    let reach = stride.checked_mul(extent as i64);
    stride.abs() > MAX_STRIDE || reach.is_none_or(|r| r.abs() > MAX_REACH)
}
