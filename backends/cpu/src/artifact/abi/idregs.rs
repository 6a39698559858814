//! Asking an AArch64 processor for its features, without a library and without memory of the answer.
//!
//! `int cpu(void)` gives 1 if every feature is there that the code was compiled for. It reads identification registers (Arm
//! Architecture Reference Manual, D19.2), which programs may do in two places: without an operating system, at EL1 and above;
//! and under Linux from 4.11 on, whose kernel answers for the processor ("ARM64 CPU Feature Registers" in its documentation)
//! with what programs may use. Every Mac with such a processor has some features, which need no question; elsewhere
//! features beyond NEON are refused.

use aic_ir::machine::Machine;
use target_lexicon::{OperatingSystem, Triple};

use crate::artifact::ArtifactError;

/// Stack of the function: none.
pub const FRAME_BYTES: u64 = 0;

/// `mrs x0, REGISTER` of the identification registers that tell of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
enum Register {
    /// `ID_AA64PFR0_EL1`.
    Pfr0 = 0xd538_0400,
    /// `ID_AA64ISAR0_EL1`.
    Isar0 = 0xd538_0600,
    /// `ID_AA64ISAR1_EL1`.
    Isar1 = 0xd538_0620,
}

/// A field of four bits, and its smallest value that promises the feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Field {
    register: Register,
    lowest_bit: u32,
    least: u32,
}

/// Values of the fields `FP` and `AdvSIMD` that are negative: there is no such unit.
const ABSENT: u32 = 8;

/// The fields of a feature. None for those that every AArch64 processor with an operating system has.
fn fields_of(feature: &str) -> Option<&'static [Field]> {
    const fn field(register: Register, lowest_bit: u32, least: u32) -> Field {
        Field { register, lowest_bit, least }
    }
    const HALF: &[Field] = &[field(Register::Pfr0, 16, 1), field(Register::Pfr0, 20, 1)];
    const LSE: &[Field] = &[field(Register::Isar0, 20, 2)];
    const DOT: &[Field] = &[field(Register::Isar0, 44, 1)];
    const I8MM: &[Field] = &[field(Register::Isar1, 52, 1)];
    Some(match feature {
        "neon" | "fp" | "asimd" => &[],
        "fp16" => HALF,
        "lse" => LSE,
        "dotprod" => DOT,
        "i8mm" => I8MM,
        _ => return None,
    })
}

/// Code of the check for a machine's features. `None` if there is nothing to ask.
///
/// # Errors
/// For features that the code could not ask for.
pub fn check(machine: &Machine, triple: &Triple) -> Result<Option<Vec<u8>>, ArtifactError> {
    let mut fields = Vec::new();
    for feature in &machine.features {
        let unchecked = || ArtifactError::UncheckedFeature(feature.clone());
        let of_feature = fields_of(feature).ok_or_else(unchecked)?;
        match triple.operating_system {
            OperatingSystem::Linux | OperatingSystem::None_ => fields.extend_from_slice(of_feature),
            OperatingSystem::Darwin(_) | OperatingSystem::MacOSX(_)
                if matches!(feature.as_str(), "fp16" | "lse" | "dotprod") => {}
            _ if of_feature.is_empty() => {}
            _ => return Err(unchecked()),
        }
    }
    fields.sort_unstable();
    fields.dedup();
    Ok((!fields.is_empty()).then(|| assemble(&fields)))
}

/// ```text
///     mrs x0, REGISTER; ubfx x1, x0, #lowest, #4; cmp x1, #least; b.lo fail      for each field,
///     cmp x1, #8; b.hs fail                                                      also where fields are signed
///     mov w0, #1; ret
/// fail:
///     mov w0, #0; ret
/// ```
fn assemble(fields: &[Field]) -> Vec<u8> {
    const MOV_W0: u32 = 0x5280_0000;
    const RET: u32 = 0xd65f_03c0;
    const LOWER: u32 = 3;
    const HIGHER_OR_SAME: u32 = 2;
    let compare = |value: u32| 0xf100_003f | value << 10;
    // Words, and those that jump to `fail` under a condition.
    let mut words: Vec<(u32, bool)> = Vec::new();
    for f in fields {
        let extract = 0xd340_0001 | f.lowest_bit << 16 | (f.lowest_bit + 3) << 10;
        let jump = |condition: u32| (0x5400_0000 | condition, true);
        words.extend([(f.register as u32, false), (extract, false), (compare(f.least), false), jump(LOWER)]);
        if f.register == Register::Pfr0 {
            words.extend([(compare(ABSENT), false), jump(HIGHER_OR_SAME)]);
        }
    }
    words.extend([(MOV_W0 | 1 << 5, false), (RET, false)]);
    let fail = words.len();
    words.extend([(MOV_W0, false), (RET, false)]);
    let resolved = words.iter().enumerate().map(|(i, &(word, jumps))| {
        let distance = if jumps { (fail - i) as u32 } else { 0 };
        word | distance << 5
    });
    resolved.flat_map(u32::to_le_bytes).collect()
}
