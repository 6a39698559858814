//! The verifier of tile programs, naive or scheduled.
//!
//! [`verify`] checks every rule below, collects all that is broken, and gives evidence about kernels ([`ProgramInfo`]).
//! On a verified program every backend returns code or a named error, and the interpreter fails only on a failed check of
//! indices (or on a read that rule 20 lets pass).
//!
//! Entities
//! 1. Every handle exists. A loop or statement stands in one body, once; loops nest at most 64 deep.
//! 2. Names are unique: buffers in the program, kernels in force, loops and statements in force in their kernel, dimensions in
//!    their statement. A dimension is not called like a loop around it.
//! 3. Extents of dimensions and loops are at least 1, while buffers may have no elements; a statement has at most 2^60
//!    points over all its loops; shapes are within the limits of tensors.
//! 4. Layouts hold every element of a buffer in a place of its own, and at most 256 times the elements plus 65536; those of
//!    private buffers may be rings. Buffers of the caller are row-major.
//! 5. A constant has its buffer's element type and number of elements.
//! 6. Input `i` of the program is the one buffer of storage `input i`; outputs likewise.
//!
//! Accesses
//! 7. Variables are dimensions of the statement or loops around it; an access has one coordinate per dimension of the buffer.
//! 8. Coordinates stay inside the buffer, by the ranges of their variables, unless there is a fill value of its type.
//! 9. Writes have no fill value and never go to inputs or constants.
//! 10. Registers are indexed by dimensions of tiles and unrolled loops only, and have no fill values; nothing is gathered from
//!     them or scattered to them. With a machine given, those alive at once fit its vector registers.
//!
//! Types
//! 11. Instructions take their operands' types ([`Expr::dtypes`](crate::tile::Expr)), and the result has that of `dst`.
//! 12. `copy`, `reduce`, `gather` and `scatter` keep the type; `reduce` takes numbers, and so does `scatter` with an operator.
//! 13. The operands of `mma` have one type, and `acc` that type or one that holds all its products: floats of at least
//!     the size, integers of at least the size.
//! 14. An index of `gather` or `scatter` is `i32` or `i64`, and its range proved: by a check after the last write, or because it is constant. The
//!     coordinate that it replaces is written as 0.
//!
//! Order
//! 15. At most one dimension of a statement is executed in vectors. Its lanes write different elements (the reduced dimensions
//!     of `reduce` excepted, whose order the tree fixes), and read of the buffer written only the element they write, or
//!     elements that no lane writes.
//! 16. Iterations of parallel loops are independent: each buffer written inside either has its coordinates, at one position in
//!     all accesses inside, cut by the loop's variable into parts that do not overlap, or is private to the kernel, used in that
//!     loop only, and written before it is read in each iteration.
//! 17. Private buffers belong to one kernel.
//! 18. Each kernel runs at most once, in as many repeats as it has repeat loops, of their trips; those loops are its outermost
//!     and hold all of it. Repeats nest and end. Checks of inputs come first, other checks after what they check is written; bounds are
//!     at least 1.
//! 19. Outputs are wholly written.
//! 20. What is read was written, by boxes of coordinates: writes that are not boxes, and reads in a loop that writes the same
//!     buffer (so that values of earlier iterations may be read), are not followed, and pass; so do reads of a `map` from
//!     its own buffer at other coordinates than it writes. A `scatter` needs all that it could write. Of a repeat, kernels
//!     are taken to run one after the other, each for all rounds.

mod access;
mod coverage;
mod entities;
mod error;
mod order;
mod types;

use cranelift_entity::SecondaryMap;
use rustc_hash::FxHashSet;

use super::{Buffer, Kernel, KernelData, Loop, Program, Space, Step, Stmt, StmtOp, Storage};
use crate::machine::Machine;
pub use access::register_bytes;
pub use error::{Rule, VerifyError, VerifyErrors};

/// What is known of a verified program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramInfo {
    /// About each kernel in force.
    pub kernels: SecondaryMap<Kernel, KernelInfo>,
}

/// What is known of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelInfo {
    /// The buffers that it is called with, in order of first use; registers are not among them.
    pub params: Vec<Buffer>,
    /// Points of all its statements, over all iterations of the loops around them.
    pub points: u64,
    /// Arithmetic operations on floats and integers; a multiply-add is two.
    pub flops: u64,
    /// Bytes that it reads at least once, without its private buffers.
    pub bytes_read: u64,
    /// Bytes that it writes, without its private buffers.
    pub bytes_written: u64,
    /// Bytes of registers that are alive at once.
    pub register_bytes: u64,
}

/// Checks a program against all rules, without those that need a machine.
///
/// # Errors
/// All broken rules.
pub fn verify(program: &Program) -> Result<ProgramInfo, VerifyErrors> {
    Verifier::new(program).run(None)
}

/// Checks a program scheduled for a machine against all rules.
///
/// # Errors
/// All broken rules.
pub fn verify_for(program: &Program, machine: &Machine) -> Result<ProgramInfo, VerifyErrors> {
    Verifier::new(program).run(Some(machine))
}

/// A statement with what stands around it.
struct Placed {
    stmt: Stmt,
    /// Loops around it, outermost first.
    around: Vec<Loop>,
}

struct Verifier<'a> {
    program: &'a Program,
    errors: Vec<VerifyError>,
}

impl<'a> Verifier<'a> {
    fn new(program: &'a Program) -> Self {
        Self { program, errors: Vec::new() }
    }

    fn run(mut self, machine: Option<&Machine>) -> Result<ProgramInfo, VerifyErrors> {
        self.buffers();
        self.interface();
        self.steps();
        let mut info = ProgramInfo::default();
        let mut sound = true;
        let mut seen: FxHashSet<Kernel> = FxHashSet::default();
        for step in &self.program.steps {
            let Step::Run(k) = *step else { continue };
            let Some(kernel) = self.program.kernels.get(k) else { continue };
            if !seen.insert(k) {
                continue;
            }
            let before = self.errors.len();
            // Later rules look through handles, so they are asked only where the earlier ones hold.
            let placed = self.tree(kernel);
            if self.errors.len() == before {
                self.scopes(kernel, &placed);
            }
            if self.errors.len() == before {
                self.accesses(kernel, &placed);
                self.dtypes(kernel, &placed);
                self.vectors(kernel, &placed);
            }
            if self.errors.len() == before {
                self.parallel(kernel);
                info.kernels[k] = self.info(kernel, &placed, machine);
            }
            sound &= self.errors.len() == before;
        }
        if sound {
            self.coverage();
        }
        if self.errors.is_empty() { Ok(info) } else { Err(VerifyErrors(self.errors)) }
    }

    fn report(&mut self, kernel: Option<&KernelData>, entity: String, rule: Rule) {
        self.errors.push(VerifyError { kernel: kernel.map(|k| k.name.clone()), entity, rule });
    }

    fn report_buffer(&mut self, b: Buffer, rule: Rule) {
        let name = self.program.buffers.get(b).map_or("", |d| &d.name);
        self.report(None, format!("{b} {name:?}"), rule);
    }

    fn report_stmt(&mut self, kernel: &KernelData, s: Stmt, rule: Rule) {
        let name = kernel.stmts.get(s).map_or("", |d| &d.name);
        self.report(Some(kernel), format!("{s} {name:?}"), rule);
    }

    /// What is known of a kernel whose entities, accesses and types are right; checks its registers.
    fn info(&mut self, kernel: &KernelData, placed: &[Placed], machine: Option<&Machine>) -> KernelInfo {
        let mut info = KernelInfo::default();
        let storage = |b: Buffer| &self.program.buffers[b].storage;
        for b in kernel.buffers() {
            if *storage(b) != Storage::Local(Space::Reg) {
                info.params.push(b);
            }
        }
        for Placed { stmt, around } in placed {
            let data = &kernel.stmts[*stmt];
            let times: u64 = around.iter().map(|l| kernel.loops[*l].extent).product();
            let points = times.saturating_mul(data.points());
            info.points = info.points.saturating_add(points);
            let per_point = match &data.op {
                StmtOp::Copy { .. } | StmtOp::Gather { .. } | StmtOp::Scatter { op: None, .. } => 0,
                StmtOp::Map { value, .. } => value.insts.iter().map(types::operations).sum(),
                StmtOp::Mma { .. } => 2,
                StmtOp::Reduce { .. } | StmtOp::Scatter { .. } => 1,
            };
            info.flops = info.flops.saturating_add(points.saturating_mul(per_point));
        }
        info.bytes_read = self.touched(kernel, placed, false);
        info.bytes_written = self.touched(kernel, placed, true);
        let in_registers = |b: Buffer| *storage(b) == Storage::Local(Space::Reg);
        info.register_bytes = register_bytes(self.program, kernel, &in_registers);
        if let Some(machine) = machine {
            let limit = machine.vector_registers * machine.vector_bytes;
            if info.register_bytes > limit {
                let rule = Rule::Registers { bytes: info.register_bytes, limit };
                self.report(Some(kernel), "registers".into(), rule);
            }
        }
        info
    }

    /// Bytes of buffers that are not private inside the boxes around all reads, or all writes.
    fn touched(&self, kernel: &KernelData, placed: &[Placed], writes: bool) -> u64 {
        let mut boxes: Vec<(Buffer, Vec<(i64, i64)>)> = Vec::new();
        for p in placed {
            let stmt = &kernel.stmts[p.stmt];
            let accesses = if writes { vec![stmt.write()] } else { stmt.reads() };
            for a in accesses {
                let data = &self.program.buffers[a.buffer];
                if matches!(data.storage, Storage::Local(_)) {
                    continue;
                }
                let hull = access::hull(kernel, stmt, a, &data.shape);
                match boxes.iter_mut().find(|(b, _)| *b == a.buffer) {
                    Some((_, old)) => {
                        for (o, n) in old.iter_mut().zip(hull) {
                            *o = (o.0.min(n.0), o.1.max(n.1));
                        }
                    }
                    None => boxes.push((a.buffer, hull)),
                }
            }
        }
        let bytes = |(b, hull): &(Buffer, Vec<(i64, i64)>)| {
            let elems: u64 = hull.iter().map(|(lo, hi)| (hi - lo + 1).max(0) as u64).product();
            elems * self.program.buffers[*b].dtype.bytes()
        };
        boxes.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests;
