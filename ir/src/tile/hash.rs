//! Content hash of a program: what a schedule is tied to.

use std::fmt::{self, Write};

use super::{Program, Step, Storage};

/// FNV-1a, 64 bits (Fowler, Noll, Vo), fed by formatting.
struct Fnv(u64);

impl Fnv {
    fn feed(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Write for Fnv {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.feed(s.as_bytes());
        Ok(())
    }
}

/// Hash of what runs: steps, kernels and buffers. The elements of constants do not enter it, since no schedule depends
/// on them; so retraining a model keeps its schedules valid.
pub fn program_hash(program: &Program) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    for step in &program.steps {
        // Writing to a hash cannot fail.
        let _ok = match step {
            Step::Check { .. } => write!(fnv, "{step:?}"),
            Step::Run(k) => write!(fnv, "{:?}", program.kernels[*k]),
        };
    }
    for (b, data) in &program.buffers {
        let storage = match &data.storage {
            Storage::Const(_) => "const".to_owned(),
            other => format!("{other:?}"),
        };
        let _ok = write!(fnv, "{b} {} {:?} {:?} {:?} {storage}", data.name, data.dtype, data.shape, data.layout);
    }
    fnv.0
}
