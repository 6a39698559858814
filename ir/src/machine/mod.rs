//! The machine that a program is scheduled for, and the trait that a backend implements.
//!
//! A machine is data: a TOML file with its memory hierarchy, vector units and rates. The scheduler reads nothing else about
//! the hardware, so a new core is a new file. Unknown keys and impossible values are refused.

mod builtin;
mod intrinsic;

use serde::Deserialize;

use crate::tile::{KernelData, Program};
pub use builtin::{BUILTIN_NAMES, builtin};
pub use intrinsic::{GemmTile, Intrinsic, MacUnit, Steps, zeroed_contraction};

/// Processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
}

/// One level of memory, nearest first.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryLevel {
    /// Name: `l1`, `l2`, `dram`.
    pub name: String,
    /// Capacity in bytes; 0 for unlimited.
    pub bytes: u64,
    /// Line size in bytes.
    pub line_bytes: u64,
    /// Sustained bandwidth in bytes per second, one core.
    pub bandwidth: f64,
    /// Latency of a first access in nanoseconds.
    pub latency_ns: f64,
}

/// A machine. Rates are of one core.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Name, as `--target-cpu` takes it.
    pub name: String,
    /// Architecture.
    pub arch: Arch,
    /// Instruction-set features that code may use, by the names of the architecture's manual in lower case (`avx2`, `fma`).
    pub features: Vec<String>,
    /// Clock in hertz.
    pub clock_hz: f64,
    /// Size of a vector in bytes, as the backend's code generator offers it.
    pub vector_bytes: u64,
    /// Number of vector registers.
    pub vector_registers: u64,
    /// Whether multiply-add is one instruction with one rounding.
    pub fma: bool,
    /// Vector multiply-adds (or multiplies, without `fma`) started per cycle.
    pub mac_per_cycle: f64,
    /// Whether a multiply-add takes one lane of a register as a factor for all lanes.
    #[serde(default)]
    pub mac_by_lane: bool,
    /// Vector arithmetic instructions of other kinds started per cycle.
    pub alu_per_cycle: f64,
    /// Vector loads started per cycle.
    pub loads_per_cycle: f64,
    /// Cycles to enter and leave a kernel.
    pub call_cycles: f64,
    /// Number of cores that `parallel` loops may use.
    pub threads: u64,
    /// Memory levels, nearest first; the last one holds everything.
    pub memory: Vec<MemoryLevel>,
}

/// Why a machine file is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MachineError {
    /// Not TOML, an unknown key or a wrong type; the text has the line.
    #[error("machine file: {0}")]
    Syntax(String),
    /// A value that no machine has.
    #[error("machine `{machine}`: {reason}")]
    Impossible {
        /// The machine's name.
        machine: String,
        /// Which value, and why.
        reason: String,
    },
    /// No built-in machine of that name.
    #[error("no built-in machine is called `{name}`; there are {known}", known = BUILTIN_NAMES.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
    },
}

impl Machine {
    /// Reads a machine file.
    ///
    /// # Errors
    /// On unknown keys, wrong types and impossible values.
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        let machine: Self = toml::from_str(text).map_err(|e| MachineError::Syntax(e.to_string()))?;
        machine.validate()?;
        Ok(machine)
    }

    fn validate(&self) -> Result<(), MachineError> {
        let fail =
            |reason: &str| Err(MachineError::Impossible { machine: self.name.clone(), reason: reason.to_owned() });
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(self.clock_hz) || self.clock_hz > 1e11 {
            return fail("`clock_hz` must lie between 0 and 1e11");
        }
        if self.vector_bytes != 16 {
            return fail("`vector_bytes` must be 16, the width of the code generator's vectors");
        }
        if !(8..=64).contains(&self.vector_registers) {
            return fail("`vector_registers` must lie between 8 and 64");
        }
        if ![self.mac_per_cycle, self.alu_per_cycle, self.loads_per_cycle].into_iter().all(|r| positive(r) && r <= 16.0)
        {
            return fail("rates per cycle must lie between 0 and 16");
        }
        if !(self.call_cycles.is_finite() && self.call_cycles >= 0.0) {
            return fail("`call_cycles` must not be negative");
        }
        if !(1..=1024).contains(&self.threads) {
            return fail("`threads` must lie between 1 and 1024");
        }
        if self.memory.is_empty() {
            return fail("at least one `[[memory]]` level is needed");
        }
        for level in &self.memory {
            if !(positive(level.bandwidth) && level.latency_ns.is_finite() && level.latency_ns >= 0.0) {
                return fail(&format!("memory `{}` has an impossible bandwidth or latency", level.name));
            }
            if !level.line_bytes.is_power_of_two() {
                return fail(&format!("memory `{}`: `line_bytes` must be a power of two", level.name));
            }
        }
        Ok(())
    }

    /// Number of 4-byte lanes of a vector.
    pub fn lanes_f32(&self) -> u64 {
        self.vector_bytes / 4
    }

    /// Whether code may use a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }

    /// What executes multiply-adds that the code generator emits.
    pub fn mac_unit(&self) -> MacUnit {
        MacUnit {
            lanes: self.lanes_f32(),
            registers: self.vector_registers,
            // A broadcast, the register that a multiply-add overwrites (or the product), and one for the allocator.
            spare_registers: if self.mac_by_lane { 1 } else { 3 },
            scalars_per_load: if self.mac_by_lane { self.lanes_f32() } else { 1 },
            mac_per_cycle: self.mac_per_cycle,
            loads_per_cycle: self.loads_per_cycle,
            masked: false,
        }
    }

    /// Float operations per second of one core at best.
    pub fn peak_flops(&self) -> f64 {
        2.0 * self.mac_per_cycle * self.lanes_f32() as f64 * self.clock_hz
    }
}

/// What a backend tells the scheduler.
pub trait Target {
    /// The machine.
    fn machine(&self) -> &Machine;

    /// Tiles that the backend executes by a micro-kernel of its own; none by default.
    fn intrinsics(&self) -> &[Intrinsic] {
        &[]
    }

    /// Whether the backend can emit a kernel.
    ///
    /// # Errors
    /// The reason, in words for the user.
    fn legal(&self, program: &Program, kernel: &KernelData) -> Result<(), String>;

    /// Bytes that a constant takes in the artifact.
    fn stored_bytes(&self, program: &Program, constant: crate::tile::Buffer) -> u64 {
        program.buffers[constant].bytes()
    }
}
