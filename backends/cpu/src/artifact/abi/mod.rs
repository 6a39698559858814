//! The functions of the C interface: what stands between a caller and the program's entry.
//!
//! They check what the caller passed, then call the entry. They are written as Cranelift IR as the kernels are, but always
//! compiled for the plainest processor of the architecture, so that they can say that the processor lacks a feature instead
//! of dying of it. `docs/abi.md` is the promise that they keep.
//!
//! | symbol | does |
//! |---|---|
//! | `NAME_run` | checks the processor, calls `guard`; only where neither state nor external weights are needed |
//! | `NAME_run_ex` | checks `aic_io`, the processor and external weights, calls `guard` |
//! | `NAME_reset` | zeroes the state block |
//! | `NAME_check_weights` | checks every byte of external weights |
//! | `guard` (local) | checks blocks, puts states in place, calls the entry, takes states over |
//! | `cpu` (local) | asks the processor for its features, if there is something to ask |

mod compile;
pub(super) mod cpuid;
mod idregs;
mod wrappers;

use aic_ir::machine::{Arch, Machine};
use cranelift_codegen::isa::TargetIsa;

use super::interface::{Interface, WeightsMode};
use super::object::RelocationKind;
use super::{ArtifactError, weights};
use crate::CpuTarget;

/// Layout of `aic_io` on 64-bit targets, in bytes. Fields are only ever added behind the last.
pub(super) mod io {
    /// `uint32_t abi`.
    pub const ABI: i32 = 0;
    /// `uint32_t size`.
    pub const SIZE: i32 = 4;
    /// `const void *const *inputs`.
    pub const INPUTS: i32 = 8;
    /// `void *const *outputs`.
    pub const OUTPUTS: i32 = 16;
    /// `void *arena`.
    pub const ARENA: i32 = 24;
    /// `void *state`.
    pub const STATE: i32 = 32;
    /// `const void *weights`.
    pub const WEIGHTS: i32 = 40;
    /// `uint64_t flags`; the fields between are not read by this version.
    pub const FLAGS: i32 = 72;
    /// Size of the structure in version 1.
    pub const BYTES: i64 = 80;
    /// Flag: the caller knows from an earlier run that the processor has every feature.
    pub const FLAG_CPU_CHECKED: i64 = 1;
}

/// A function of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapper {
    /// `NAME_run`.
    Run,
    /// `NAME_run_ex`.
    RunEx,
    /// `NAME_reset`.
    Reset,
    /// `NAME_check_weights`.
    CheckWeights,
    /// Local: checks blocks and calls the entry.
    Guard,
    /// Local: whether the processor has every feature.
    Cpu,
}

impl Wrapper {
    /// What stands in the symbol.
    pub fn name(self) -> &'static str {
        match self {
            Wrapper::Run => "run",
            Wrapper::RunEx => "run_ex",
            Wrapper::Reset => "reset",
            Wrapper::CheckWeights => "check_weights",
            Wrapper::Guard => "guard",
            Wrapper::Cpu => "cpu",
        }
    }

    /// Whether callers see it.
    pub fn is_public(self) -> bool {
        !matches!(self, Wrapper::Guard | Wrapper::Cpu)
    }
}

/// What code of the interface refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Referent {
    /// The program's entry.
    Entry,
    /// The embedded weights.
    Weights,
    /// Another function of the interface.
    Wrapper(Wrapper),
}

/// A reference to be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub offset: u32,
    pub kind: RelocationKind,
    pub to: Referent,
    pub addend: i64,
}

/// Compiled code of a function of the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrapperCode {
    pub wrapper: Wrapper,
    pub code: Vec<u8>,
    pub align: u64,
    pub references: Vec<Reference>,
    /// Stack of this function alone, with its return address.
    pub frame_bytes: u64,
    /// Cranelift IR as text; nothing for assembled code.
    pub clif: Option<String>,
}

/// Compiles the functions that an interface has, callees first.
///
/// `header` is that of external weights, where the interface has them.
pub(super) fn compile(
    interface: &Interface,
    input_count: usize,
    output_count: usize,
    header: Option<&weights::Header>,
    target: &CpuTarget,
) -> Result<Vec<WrapperCode>, ArtifactError> {
    let isa = baseline(target)?;
    let mut functions = Vec::new();
    let (check, frame_bytes) = match target.machine.arch {
        Arch::X86_64 => (cpuid::check(&target.machine)?, cpuid::FRAME_BYTES),
        Arch::Aarch64 => (idregs::check(&target.machine, &target.triple)?, idregs::FRAME_BYTES),
    };
    let checks_cpu = check.is_some();
    if let Some(code) = check {
        let (align, references) = (16, Vec::new());
        functions.push(WrapperCode { wrapper: Wrapper::Cpu, code, align, references, frame_bytes, clif: None });
    }
    let convention = target.c_convention();
    let wrappers =
        wrappers::Wrappers { interface, input_count, output_count, header, checks_cpu, isa: &*isa, convention };
    let mut build = |wrapper, function| -> Result<(), ArtifactError> {
        functions.push(compile::compile(wrapper, function, &*isa)?);
        Ok(())
    };
    build(Wrapper::Guard, wrappers.guard())?;
    if interface.has_run() {
        build(Wrapper::Run, wrappers.run())?;
    }
    build(Wrapper::RunEx, wrappers.run_ex())?;
    if !interface.states.is_empty() {
        build(Wrapper::Reset, wrappers.reset())?;
    }
    if interface.weights == WeightsMode::External {
        build(Wrapper::CheckWeights, wrappers.check_weights())?;
    }
    Ok(functions)
}

/// Bound of the stack under any function of the interface, when the entry takes `entry_bytes`.
pub(super) fn stack_bytes(functions: &[WrapperCode], entry_bytes: u64) -> u64 {
    let mut bounds: Vec<(Wrapper, u64)> = Vec::new();
    for f in functions {
        let below = f.references.iter().map(|r| match r.to {
            Referent::Entry => entry_bytes,
            Referent::Weights => 0,
            Referent::Wrapper(w) => bounds.iter().find(|b| b.0 == w).map_or(0, |b| b.1),
        });
        bounds.push((f.wrapper, f.frame_bytes + below.max().unwrap_or(0)));
    }
    bounds.iter().map(|b| b.1).max().unwrap_or(0)
}

/// The code generator for the plainest processor of the target's architecture.
fn baseline(target: &CpuTarget) -> Result<std::sync::Arc<dyn TargetIsa>, ArtifactError> {
    let features = match target.machine.arch {
        Arch::X86_64 => vec!["sse2".to_owned()],
        Arch::Aarch64 => vec!["neon".to_owned()],
    };
    let machine = Machine { features, ..target.machine.clone() };
    Ok(CpuTarget::new(machine, target.triple.clone())?.isa)
}

#[cfg(test)]
mod tests {
    use aic_ir::machine::builtin;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    use super::*;
    use crate::artifact::interface::tests::spec;

    /// What `NAME_run` executes before it knows the processor must run on every processor.
    #[test]
    fn code_of_the_interface_is_for_the_plainest_processor() {
        let target =
            CpuTarget::new(builtin("x86-64-v4").unwrap(), "x86_64-unknown-linux-gnu".parse().unwrap()).unwrap();
        let mut spec = spec("m", &[("h", &[3]), ("x", &[4])], &[("y", &[4]), ("hn", &[3])]);
        spec.states = vec![("h".into(), "hn".into())];
        spec.external_weights = true;
        let interface = Interface::new(&spec, 64, 64).unwrap();
        let header = weights::Header { weights_bytes: 64, checksum: 1, sha256: [2; 32] };
        let functions = compile(&interface, 2, 2, Some(&header), &target).unwrap();
        let names: Vec<_> = functions.iter().map(|f| f.wrapper.name()).collect();
        assert_eq!(names, ["cpu", "guard", "run_ex", "reset", "check_weights"]);
        for f in &functions {
            let mut asked = 0;
            for instruction in &mut Decoder::with_ip(64, &f.code, 0, DecoderOptions::NONE) {
                let mnemonic = format!("{:?}", instruction.mnemonic());
                assert!(!mnemonic.starts_with('V'), "{}: {mnemonic}", f.wrapper.name());
                asked += u32::from(instruction.mnemonic() == Mnemonic::Cpuid);
            }
            // x86-64-v4: leaves 1, 7 and 0x80000001.
            assert_eq!(asked, if f.wrapper == Wrapper::Cpu { 3 } else { 0 });
        }
        assert_eq!(stack_bytes(&functions, 1000) % 8, 0);
        assert!(stack_bytes(&functions, 1000) > 1000);
    }

    #[test]
    fn the_check_restores_what_it_saves_on_every_way_out() {
        let code = cpuid::check(&builtin("x86-64-v3").unwrap()).unwrap().unwrap();
        let mut last = [Mnemonic::Nop; 2];
        let mut returns = 0;
        for instruction in &mut Decoder::with_ip(64, &code, 0, DecoderOptions::NONE) {
            if instruction.mnemonic() == Mnemonic::Ret {
                assert_eq!(last[1], Mnemonic::Pop);
                returns += 1;
            }
            last = [last[1], instruction.mnemonic()];
        }
        assert_eq!((returns, code[0]), (2, 0x53), "push rbx, and two ways out");
        assert_eq!(cpuid::check(&builtin("x86-64").unwrap()).unwrap(), None);
    }

    #[test]
    fn features_of_aarch64_are_asked_for_where_programs_may() {
        let check = |feature: &str, triple: &str| {
            let mut machine = builtin("aarch64").unwrap();
            machine.features.push(feature.to_owned());
            idregs::check(&machine, &triple.parse().unwrap())
        };
        for feature in ["lse", "dotprod", "i8mm", "fp16"] {
            for triple in ["aarch64-unknown-linux-gnu", "aarch64-unknown-none"] {
                assert!(check(feature, triple).unwrap().is_some(), "{feature}, {triple}");
            }
            assert!(check(feature, "aarch64-pc-windows-msvc").is_err(), "{feature}");
            assert_eq!(check(feature, "aarch64-apple-darwin").is_err(), feature == "i8mm", "{feature}");
        }
        assert_eq!(check("neon", "aarch64-pc-windows-msvc").unwrap(), None);
        assert!(check("teleport", "aarch64-unknown-linux-gnu").is_err());
    }
}
