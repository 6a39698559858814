//! The target of compilation: a machine, a triple, and Cranelift's settings for both.
//!
//! Cranelift's CPU presets are never used: some leave AVX off, and then a vector multiply-add becomes calls of a C library.
//! Every flag is set from the machine's list of features instead.

use std::fmt;
use std::sync::Arc;

use aic_ir::machine::{Arch, Intrinsic, Machine, Target};
use aic_ir::tile::{KernelData, Program};
use cranelift_codegen::isa::{self, CallConv, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use target_lexicon::{Aarch64Architecture, Architecture, BinaryFormat, Environment, OperatingSystem, Triple};

use crate::CpuError;
use crate::artifact::Format;

/// The calling convention of functions among each other, on every platform: micro-kernels are assembled for it. Only the functions of
/// the C interface have the platform's.
pub(crate) const INTERNAL_CONVENTION: CallConv = CallConv::SystemV;

/// Cranelift's x86 flags and the feature that each needs.
const X86_FLAGS: &[(&str, &str)] = &[
    ("has_sse3", "sse3"),
    ("has_ssse3", "ssse3"),
    ("has_sse41", "sse4.1"),
    ("has_sse42", "sse4.2"),
    ("has_popcnt", "popcnt"),
    ("has_avx", "avx"),
    ("has_avx2", "avx2"),
    ("has_fma", "fma"),
    ("has_bmi1", "bmi1"),
    ("has_bmi2", "bmi2"),
    ("has_lzcnt", "lzcnt"),
    ("has_avx_vnni", "avxvnni"),
    ("has_avx512f", "avx512f"),
    ("has_avx512dq", "avx512dq"),
    ("has_avx512vl", "avx512vl"),
    ("has_avx512bitalg", "avx512bitalg"),
    ("has_avx512vbmi", "avx512vbmi"),
    ("has_avx512vnni", "avx512vnni"),
];

/// Cranelift's AArch64 flags and the feature that each needs.
const AARCH64_FLAGS: &[(&str, &str)] =
    &[("has_lse", "lse"), ("has_dotprod", "dotprod"), ("has_i8mm", "i8mm"), ("has_fp16", "fp16")];

/// A CPU that code is compiled for.
#[derive(Clone)]
pub struct CpuTarget {
    /// The machine that the program is scheduled for.
    pub machine: Machine,
    /// The platform.
    pub triple: Triple,
    /// Cranelift's code generator, set up for both.
    pub isa: Arc<dyn TargetIsa>,
    /// Format of the platform's objects.
    pub format: Format,
    /// Micro-kernels that the machine can run.
    intrinsics: Vec<Intrinsic>,
}

impl fmt::Debug for CpuTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuTarget")
            .field("machine", &self.machine.name)
            .field("triple", &self.triple.to_string())
            .finish_non_exhaustive()
    }
}

impl CpuTarget {
    /// The calling convention of the platform's C compilers.
    pub(crate) fn c_convention(&self) -> CallConv {
        match self.machine.arch {
            Arch::X86_64 => self.isa.default_call_conv(),
            // What Apple and Microsoft changed concerns variable arguments and those on the stack, which no function here has.
            Arch::Aarch64 => CallConv::SystemV,
        }
    }

    /// Sets up code generation for a machine and a platform.
    ///
    /// # Errors
    /// For triples other than little-endian ELF, macOS and COFF on x86-64 and AArch64, and for a machine of another architecture.
    pub fn new(machine: Machine, mut triple: Triple) -> Result<Self, CpuError> {
        // Bare-metal triples (`aarch64-unknown-none`) name no format; their tools use ELF.
        if triple.binary_format == BinaryFormat::Unknown && triple.operating_system == OperatingSystem::None_ {
            triple.binary_format = BinaryFormat::Elf;
        }
        let refuse = |reason: &str| CpuError::Target { triple: triple.to_string(), reason: reason.to_owned() };
        let arch = match triple.architecture {
            Architecture::X86_64 => Arch::X86_64,
            Architecture::Aarch64(Aarch64Architecture::Aarch64) => Arch::Aarch64,
            _ => return Err(refuse("only little-endian x86_64 and aarch64 are supported")),
        };
        if matches!(triple.environment, Environment::GnuIlp32 | Environment::Gnux32) {
            return Err(refuse("pointers of 32 bits are not supported"));
        }
        if triple.operating_system == OperatingSystem::Uefi {
            return Err(refuse("UEFI takes the objects of `x86_64-pc-windows-msvc` and `aarch64-pc-windows-msvc`"));
        }
        let format = Format::of(&triple).ok_or_else(|| refuse("only ELF, Mach-O and COFF are supported"))?;
        if format == Format::MachO
            && !matches!(triple.operating_system, OperatingSystem::Darwin(_) | OperatingSystem::MacOSX(_))
        {
            return Err(refuse("of Apple's systems only macOS (`darwin`) is supported"));
        }
        if arch != machine.arch {
            return Err(refuse(&format!("machine `{}` is of another architecture", machine.name)));
        }
        let internal = |e: &dyn fmt::Display| refuse(&format!("code generator: {e}"));
        let mut flags = settings::builder();
        for (name, value) in [
            ("opt_level", "none"),
            ("is_pic", "false"),
            ("use_colocated_libcalls", "true"),
            ("unwind_info", "false"),
            ("preserve_frame_pointers", "false"),
            // Windows gives stacks their pages one by one, as they are touched in order; others as they are touched.
            ("enable_probestack", if format == Format::Coff { "true" } else { "false" }),
            ("probestack_strategy", "inline"),
            ("probestack_size_log2", "12"),
            ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
            ("log2_min_function_alignment", "5"),
        ] {
            flags.set(name, value).map_err(|e| internal(&e))?;
        }
        let mut builder = isa::lookup(triple.clone()).map_err(|e| internal(&e))?;
        let table = match arch {
            Arch::X86_64 => X86_FLAGS,
            Arch::Aarch64 => AARCH64_FLAGS,
        };
        for (flag, feature) in table {
            let value = if machine.has(feature) { "true" } else { "false" };
            builder.set(flag, value).map_err(|e| internal(&e))?;
        }
        let isa = builder.finish(settings::Flags::new(flags)).map_err(|e| internal(&e))?;
        let intrinsics = crate::microkernel::intrinsics(&machine);
        Ok(Self { machine, triple, isa, format, intrinsics })
    }
}

impl Target for CpuTarget {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn intrinsics(&self) -> &[Intrinsic] {
        &self.intrinsics
    }

    fn legal(&self, program: &Program, kernel: &KernelData) -> Result<(), String> {
        crate::emit::legal::legal(program, kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aic_ir::machine::builtin;

    fn target(machine: &str, triple: &str) -> Result<CpuTarget, CpuError> {
        CpuTarget::new(builtin(machine)?, triple.parse().expect("a triple"))
    }

    #[test]
    fn flags_follow_the_machine() {
        for (machine, avx) in [("x86-64", false), ("x86-64-v2", false), ("x86-64-v3", true), ("x86-64-v4", true)] {
            let t = target(machine, "x86_64-unknown-linux-gnu").expect("supported");
            let on = t.isa.isa_flags().iter().any(|f| f.name == "has_avx" && f.as_bool() == Some(true));
            assert_eq!(on, avx, "{machine}");
        }
        assert!(target("aarch64", "aarch64-unknown-linux-gnu").is_ok());
    }

    #[test]
    fn other_platforms_are_refused() {
        for triple in ["aarch64_be-unknown-linux-gnu", "wasm32-wasi", "riscv64gc-unknown-linux-gnu"] {
            assert!(target("x86-64", triple).is_err(), "{triple}");
        }
        assert!(target("aarch64", "aarch64-apple-ios").is_err());
        assert!(target("x86-64", "x86_64-unknown-uefi").is_err());
        for triple in ["x86_64-apple-darwin", "x86_64-pc-windows-msvc", "x86_64-pc-windows-gnu"] {
            assert!(target("x86-64", triple).is_ok(), "{triple}");
        }
        for triple in ["aarch64-apple-darwin", "aarch64-pc-windows-msvc"] {
            assert!(target("aarch64", triple).is_ok(), "{triple}");
        }
        assert!(target("aarch64", "aarch64-unknown-linux-gnu_ilp32").is_err());
        assert!(target("aarch64", "aarch64-unknown-none").is_ok());
        assert!(target("x86-64", "x86_64-unknown-none").is_ok());
        assert!(target("x86-64", "aarch64-unknown-linux-gnu").is_err());
    }
}
