//! Machines that come with the compiler.
//!
//! The x86-64 levels are those of the psABI (x86-64 psABI, section 3.1.1); `native` machines are made by the driver from one
//! of these by adding the features it found. Rates describe a current server core at 128-bit vectors; the cost model needs
//! them to rank choices, not to predict a particular chip.

use super::{Machine, MachineError};

/// Names of the built-in machines.
pub const BUILTIN_NAMES: &[&str] = &["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"];

const X86_64: &str = include_str!("x86-64.toml");
const X86_64_V2: &str = include_str!("x86-64-v2.toml");
const X86_64_V3: &str = include_str!("x86-64-v3.toml");
const X86_64_V4: &str = include_str!("x86-64-v4.toml");
const AARCH64: &str = include_str!("aarch64.toml");

/// The built-in machine of that name.
///
/// # Errors
/// When there is none.
pub fn builtin(name: &str) -> Result<Machine, MachineError> {
    Machine::parse(match name {
        "x86-64" => X86_64,
        "x86-64-v2" => X86_64_V2,
        "x86-64-v3" => X86_64_V3,
        "x86-64-v4" => X86_64_V4,
        "aarch64" => AARCH64,
        other => return Err(MachineError::Unknown { name: other.to_owned() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_machine_is_valid_and_named_after_itself() {
        for name in BUILTIN_NAMES {
            assert_eq!(builtin(name).map(|m| m.name), Ok((*name).to_owned()));
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        let text = format!("{}\n[extra]\nspeed = 1\n", X86_64_V3);
        let error = Machine::parse(&text).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("extra") && e.contains("line")));
    }
}
