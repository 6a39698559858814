//! Intrinsics: tiles that a backend executes by a micro-kernel or instruction of its own.
//!
//! The scheduler learns from an [`Intrinsic`] which statements it can give to the backend and at what rate they then run; the
//! schedule names it on the statement, and the backend's emitter takes the whole tile. No backend matches patterns by itself.

use crate::tile::{Affine, KernelData, Program, Space, StmtData, StmtOp, Storage, Var};
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
}

/// A family of micro-kernels for contractions of one shape class. Its reference is the nest
///
/// ```text
/// mma acc[d0, d1] += a[d0, k0] * b[k0, d1]      d0: any up to max_rows, d1: multiple of lanes, k0: any
/// ```
///
/// with `acc` and `b` contiguous along `d1`, `acc` in scratch memory, and constant strides everywhere else.
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

/// The strides of a tile that an intrinsic takes, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmTile {
    /// Rows of `acc` and `a`.
    pub rows: u64,
    /// Columns of `acc` and `b`, contiguous.
    pub columns: u64,
    /// Steps of the reduced dimension.
    pub depth: u64,
    /// Distance of rows of `acc`.
    pub acc_row: i64,
    /// Distance of rows of `a`.
    pub a_row: i64,
    /// Distance of steps of `a`.
    pub a_step: i64,
    /// Distance of steps of `b`.
    pub b_step: i64,
    /// Whether `a` and `b` are exchanged in the statement.
    pub exchanged: bool,
}

/// Largest distance, in elements, that a micro-kernel encodes.
const MAX_STRIDE: i64 = 1 << 24;

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
        let offset = |access: &crate::tile::Access| -> Affine {
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
        let mut tile =
            GemmTile { rows: 1, columns: 1, depth: 1, acc_row: 0, a_row: 0, a_step: 0, b_step: 0, exchanged: false };
        let columns = dims.iter().copied().find(|&d| matches!(strides(d), [1, 0, 1] | [1, 1, 0]));
        let Some(columns) = columns else {
            return Err("no dimension is contiguous in the result and one operand".into());
        };
        tile.columns = stmt.dims[columns].extent;
        tile.exchanged = strides(columns)[2] == 0;
        for &d in dims.iter().filter(|&&d| d != columns) {
            let [c, x, y] = strides(d);
            let (left, right) = if tile.exchanged { (y, x) } else { (x, y) };
            let extent = stmt.dims[d].extent;
            match (c, right) {
                (0, _) if tile.depth == 1 => (tile.depth, tile.a_step, tile.b_step) = (extent, left, right),
                (_, 0) if c != 0 && tile.rows == 1 => (tile.rows, tile.acc_row, tile.a_row) = (extent, c, left),
                _ => return Err(format!("dimension `{}` is neither rows nor the reduced one", stmt.dims[d].name)),
            }
        }
        if !tile.columns.is_multiple_of(self.unit.lanes) || tile.rows > self.max_rows {
            return Err(format!("a tile of {} x {} does not fit its registers", tile.rows, tile.columns));
        }
        let vectors = tile.columns / self.unit.lanes;
        if tile.rows * vectors + vectors + self.unit.spare_registers > self.unit.registers {
            return Err(format!("a tile of {} x {} does not fit its registers", tile.rows, tile.columns));
        }
        if [tile.acc_row, tile.a_row, tile.a_step, tile.b_step].iter().any(|s| s.abs() > MAX_STRIDE) {
            return Err("a stride is too large".into());
        }
        Ok(tile)
    }
}
