//! Asking an x86-64 processor for its features, without a library and without memory of the answer.
//!
//! `int cpu(void)` gives 1 if every feature is there that the code was compiled for, and the operating system saves the
//! registers that it uses. Bits are from the Intel 64 manual, volume 2A, instruction `CPUID`, and volume 1, section 14.3
//! ("Detection of Intel AVX Instructions"). Three questions suffice for x86-64-v3. On real hardware each takes about a hundred
//! cycles, but in a virtual machine 1 to 20 microseconds: `CPUID` leaves it. Nothing cheaper is certain, and there is
//! no place to keep the answer; so callers who run small models often set a flag in `aic_io` after the first run.

use aic_ir::machine::Machine;
use iced_x86::IcedError;
use iced_x86::code_asm::{AsmRegister32, CodeAssembler, eax, ebx, ecx, rbx};

use crate::artifact::ArtifactError;

/// Stack of the function: its return address and `rbx`.
pub const FRAME_BYTES: u64 = 16;

/// Where the processor reports a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bit {
    leaf: u32,
    subleaf: u32,
    register: Register,
    bit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Register {
    Eax,
    Ebx,
    Ecx,
}

const fn bit(leaf: u32, subleaf: u32, register: Register, bit: u32) -> Bit {
    Bit { leaf, subleaf, register, bit }
}

/// Highest standard leaf that `CPUID` answers is in `eax` of leaf 0.
const FEATURES: u32 = 1;
const EXTENDED_FEATURES: u32 = 7;
/// Every processor with 64-bit mode answers this leaf.
const AMD_FEATURES: u32 = 0x8000_0001;

/// Operating system uses `XSAVE`, so that `XGETBV` may be executed.
const OSXSAVE: Bit = bit(FEATURES, 0, Register::Ecx, 27);

/// Bits of `XCR0`: registers that the operating system saves.
const XCR0_AVX: u32 = 0b110;
const XCR0_AVX512: u32 = 0b1110_0110;

/// The bit of a feature. `None` for those that every x86-64 processor has.
fn bit_of(feature: &str) -> Result<Option<Bit>, ArtifactError> {
    use Register::{Eax, Ebx, Ecx};
    Ok(Some(match feature {
        "sse" | "sse2" | "fxsr" | "cmov" | "x87" => return Ok(None),
        "sse3" => bit(FEATURES, 0, Ecx, 0),
        "ssse3" => bit(FEATURES, 0, Ecx, 9),
        "fma" => bit(FEATURES, 0, Ecx, 12),
        "sse4.1" => bit(FEATURES, 0, Ecx, 19),
        "sse4.2" => bit(FEATURES, 0, Ecx, 20),
        "movbe" => bit(FEATURES, 0, Ecx, 22),
        "popcnt" => bit(FEATURES, 0, Ecx, 23),
        "avx" => bit(FEATURES, 0, Ecx, 28),
        "f16c" => bit(FEATURES, 0, Ecx, 29),
        "bmi1" => bit(EXTENDED_FEATURES, 0, Ebx, 3),
        "avx2" => bit(EXTENDED_FEATURES, 0, Ebx, 5),
        "bmi2" => bit(EXTENDED_FEATURES, 0, Ebx, 8),
        "avx512f" => bit(EXTENDED_FEATURES, 0, Ebx, 16),
        "avx512dq" => bit(EXTENDED_FEATURES, 0, Ebx, 17),
        "avx512ifma" => bit(EXTENDED_FEATURES, 0, Ebx, 21),
        "avx512cd" => bit(EXTENDED_FEATURES, 0, Ebx, 28),
        "avx512bw" => bit(EXTENDED_FEATURES, 0, Ebx, 30),
        "avx512vl" => bit(EXTENDED_FEATURES, 0, Ebx, 31),
        "avx512vbmi" => bit(EXTENDED_FEATURES, 0, Ecx, 1),
        "avx512vbmi2" => bit(EXTENDED_FEATURES, 0, Ecx, 6),
        "avx512vnni" => bit(EXTENDED_FEATURES, 0, Ecx, 11),
        "avx512bitalg" => bit(EXTENDED_FEATURES, 0, Ecx, 12),
        "avx512vpopcntdq" => bit(EXTENDED_FEATURES, 0, Ecx, 14),
        "avxvnni" => bit(EXTENDED_FEATURES, 1, Eax, 4),
        "avx512bf16" => bit(EXTENDED_FEATURES, 1, Eax, 5),
        "lzcnt" => bit(AMD_FEATURES, 0, Ecx, 5),
        other => return Err(ArtifactError::UncheckedFeature(other.to_owned())),
    }))
}

/// Whether a feature works on registers that the operating system must save.
fn xcr0_of(feature: &str) -> u32 {
    if feature.starts_with("avx512") {
        XCR0_AVX512
    } else if feature.starts_with("avx") || matches!(feature, "fma" | "f16c") {
        XCR0_AVX
    } else {
        0
    }
}

/// Code of the check for a machine's features. `None` if there is nothing to ask.
///
/// # Errors
/// For features that the code could not ask for.
pub fn check(machine: &Machine) -> Result<Option<Vec<u8>>, ArtifactError> {
    let mut bits = Vec::new();
    let mut xcr0 = 0;
    for feature in &machine.features {
        bits.extend(bit_of(feature)?);
        xcr0 |= xcr0_of(feature);
    }
    if xcr0 != 0 {
        bits.push(OSXSAVE);
    }
    if bits.is_empty() {
        return Ok(None);
    }
    bits.sort_by_key(|b| (b.leaf, b.subleaf, b.register, b.bit));
    bits.dedup();
    assemble(&bits, xcr0).map(Some).map_err(|e| ArtifactError::Internal(e.to_string()))
}

fn assemble(bits: &[Bit], xcr0: u32) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut fail = a.create_label();
    a.push(rbx)?;
    // `rbx` is the caller's, and `CPUID` writes it.
    if xcr0 == 0 && bits.iter().any(|b| b.leaf == EXTENDED_FEATURES) {
        // Processors with AVX answer this leaf; others are asked whether they do.
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.cmp(eax, EXTENDED_FEATURES as i32)?;
        a.jb(fail)?;
    }
    for group in bits.chunk_by(|a, b| (a.leaf, a.subleaf) == (b.leaf, b.subleaf)) {
        let Bit { leaf, subleaf, .. } = group[0];
        a.mov(eax, leaf)?;
        a.mov(ecx, subleaf)?;
        a.cpuid()?;
        for same in group.chunk_by(|a, b| a.register == b.register) {
            let mask = same.iter().fold(0, |m, b| m | 1u32 << b.bit);
            let register = register(same[0].register);
            a.and(register, mask as i32)?;
            a.cmp(register, mask as i32)?;
            a.jne(fail)?;
        }
        if leaf == FEATURES && xcr0 != 0 {
            a.xor(ecx, ecx)?;
            a.xgetbv()?;
            a.and(eax, xcr0 as i32)?;
            a.cmp(eax, xcr0 as i32)?;
            a.jne(fail)?;
        }
    }
    a.mov(eax, 1)?;
    a.pop(rbx)?;
    a.ret()?;
    a.set_label(&mut fail)?;
    a.xor(eax, eax)?;
    a.pop(rbx)?;
    a.ret()?;
    a.assemble(0)
}

fn register(register: Register) -> AsmRegister32 {
    match register {
        Register::Eax => eax,
        Register::Ebx => ebx,
        Register::Ecx => ecx,
    }
}
