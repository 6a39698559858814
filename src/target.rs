//! The target asked for, resolved to a platform and a machine.
//!
//! Nothing here depends on the host unless [`TargetSpec::native`] asks for it, and then the machine's name says what was
//! found, so that a report or manifest from one host can be reproduced on another with `--target-cpu` and
//! `--target-feature`.

use aic_ir::machine::{self, Machine};
use target_lexicon::{Aarch64Architecture, Architecture, Triple};

use crate::Error;

/// What the user asks for; see the setters.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TargetSpec {
    native: bool,
    triple: Option<String>,
    cpu: Option<String>,
    features: Vec<String>,
    machine_text: Option<String>,
}

impl TargetSpec {
    /// The host's platform and a processor of the last ten years: `x86-64-v3`, or `aarch64` without extensions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The host's platform, and every feature that its processor has.
    pub fn native() -> Self {
        Self { native: true, ..Self::default() }
    }

    /// `native`, or a triple as `x86_64-unknown-linux-gnu`.
    #[must_use]
    pub fn triple(mut self, triple: &str) -> Self {
        self.native = triple == "native";
        self.triple = (!self.native).then(|| triple.to_owned());
        self
    }

    /// A built-in machine by name ([`machine::BUILTIN_NAMES`]), or `native`.
    #[must_use]
    pub fn cpu(mut self, name: &str) -> Self {
        self.cpu = Some(name.to_owned());
        self
    }

    /// Features to add (`+dotprod`) and to take away (`-fma`), separated by commas.
    #[must_use]
    pub fn features(mut self, list: &str) -> Self {
        self.features.extend(list.split(',').map(str::trim).filter(|f| !f.is_empty()).map(str::to_owned));
        self
    }

    /// The text of a machine file, instead of a built-in machine.
    #[must_use]
    pub fn machine_file(mut self, text: &str) -> Self {
        self.machine_text = Some(text.to_owned());
        self
    }

    /// Finds the platform and the machine.
    ///
    /// # Errors
    /// [`Error::Refused`] for unknown triples, processors and features, and for machine files that are refused.
    pub fn resolve(&self) -> Result<(Triple, Machine), Error> {
        let triple = match &self.triple {
            None => host_triple(),
            Some(text) => text.parse().map_err(|e| Error::Refused(format!("target `{text}` is not a triple: {e}")))?,
        };
        let mut machine = match (&self.machine_text, self.cpu.as_deref()) {
            (Some(text), _) => Machine::parse(text).map_err(refused)?,
            (None, Some("native")) => native_machine()?,
            (None, Some(name)) => machine::builtin(name).map_err(refused)?,
            (None, None) if self.native => native_machine()?,
            (None, None) => machine::builtin(default_cpu(&triple)?).map_err(refused)?,
        };
        for feature in &self.features {
            self.change_feature(&mut machine, feature)?;
        }
        Ok((triple, machine))
    }

    fn change_feature(&self, machine: &mut Machine, feature: &str) -> Result<(), Error> {
        let (add, name) = match (feature.strip_prefix('+'), feature.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            (None, None) => {
                return Err(Error::Refused(format!("feature `{feature}` must start with `+` or `-`")));
            }
        };
        let known = known_features(machine.arch);
        if !known.contains(&name) {
            let text = format!("no feature is called `{name}` for {}; there are {}", machine.name, known.join(", "));
            return Err(Error::Refused(text));
        }
        if machine.has(name) == add {
            return Ok(());
        }
        if !add && matches!(name, "sse2" | "neon") {
            let text = format!("`{feature}`: {name} is part of the architecture, and all code for it uses it");
            return Err(Error::Refused(text));
        }
        if add {
            machine.features.push(name.to_owned());
        } else {
            machine.features.retain(|f| f != name);
        }
        if name == "fma" {
            machine.fma = add;
        }
        machine.name = format!("{}{feature}", machine.name);
        Ok(())
    }
}

fn refused(e: machine::MachineError) -> Error {
    Error::Refused(e.to_string())
}

/// The host's triple.
fn host_triple() -> Triple {
    Triple::host()
}

fn default_cpu(triple: &Triple) -> Result<&'static str, Error> {
    match triple.architecture {
        Architecture::X86_64 => Ok("x86-64-v3"),
        Architecture::Aarch64(Aarch64Architecture::Aarch64) => Ok("aarch64"),
        other => Err(Error::Refused(format!(
            "target `{triple}`: architecture {other} is not supported; `aic targets` lists those that are"
        ))),
    }
}

/// Features that `--target-feature` takes, by the names that machine files use.
pub fn known_features(arch: machine::Arch) -> &'static [&'static str] {
    match arch {
        machine::Arch::X86_64 => &[
            "sse2",
            "sse3",
            "ssse3",
            "sse4.1",
            "sse4.2",
            "popcnt",
            "avx",
            "avx2",
            "fma",
            "bmi1",
            "bmi2",
            "lzcnt",
            "avxvnni",
            "avx512f",
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512vl",
            "avx512bitalg",
            "avx512vbmi",
            "avx512vnni",
        ],
        machine::Arch::Aarch64 => &["neon", "lse", "dotprod", "i8mm", "fp16"],
    }
}

/// The largest built-in machine whose features the host has, with the host's other features added.
fn native_machine() -> Result<Machine, Error> {
    let found = detected_features();
    let candidates: &[&str] = match Triple::host().architecture {
        Architecture::X86_64 => &["x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64"],
        _ => &["aarch64"],
    };
    for name in candidates {
        let mut machine = machine::builtin(name).map_err(refused)?;
        if !machine.features.iter().all(|f| found.contains(&f.as_str())) {
            continue;
        }
        for feature in found {
            if !machine.has(feature) {
                machine.name = format!("{}+{feature}", machine.name);
                machine.features.push(feature.to_owned());
            }
        }
        machine.fma |= machine.has("fma");
        return Ok(machine);
    }
    Err(Error::Refused("no built-in machine describes this host; name one with --target-cpu or --machine".into()))
}

/// Known features that the host's processor has, in the order of [`known_features`].
#[cfg(target_arch = "x86_64")]
fn detected_features() -> Vec<&'static str> {
    macro_rules! detect {
        ($($name:tt)*) => { [$(($name, std::is_x86_feature_detected!($name))),*] };
    }
    let found = detect!("sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "bmi1" "bmi2" "lzcnt"
        "avxvnni" "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512bitalg" "avx512vbmi" "avx512vnni");
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// Known features that the host's processor has, in the order of [`known_features`].
#[cfg(target_arch = "aarch64")]
fn detected_features() -> Vec<&'static str> {
    macro_rules! detect {
        ($($name:tt)*) => { [$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    let found = detect!("neon" "lse" "dotprod" "i8mm" "fp16");
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// No processor of this architecture is known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_does_not_depend_on_the_processor() {
        let spec = TargetSpec::new().triple("x86_64-unknown-linux-gnu");
        assert_eq!(spec.resolve().map(|(_, m)| m.name).expect("supported"), "x86-64-v3");
    }

    #[test]
    fn changed_features_show_in_the_name() {
        let spec = TargetSpec::new().triple("x86_64-unknown-linux-gnu").features("+avxvnni,-fma,+avx2");
        let (_, machine) = spec.resolve().expect("supported");
        assert_eq!(machine.name, "x86-64-v3+avxvnni-fma");
        assert!(!machine.fma && !machine.has("fma") && machine.has("avxvnni"));
    }

    #[test]
    fn unknown_names_are_refused_with_what_there_is() {
        let text = |spec: TargetSpec| spec.resolve().map(|_| ()).map_err(|e| e.to_string());
        assert!(text(TargetSpec::new().triple("potato")).is_err_and(|e| e.contains("potato")));
        assert!(text(TargetSpec::new().triple("riscv64gc-unknown-linux-gnu")).is_err_and(|e| e.contains("riscv64")));
        assert!(text(TargetSpec::new().cpu("z80")).is_err_and(|e| e.contains("x86-64-v3")));
        assert!(text(TargetSpec::new().features("avx")).is_err_and(|e| e.contains("`+`")));
        assert!(text(TargetSpec::new().features("+3dnow")).is_err_and(|e| e.contains("3dnow")));
        let plain = TargetSpec::new().triple("x86_64-unknown-linux-gnu").cpu("x86-64");
        assert!(text(plain.features("-sse2")).is_err_and(|e| e.contains("-sse2")));
    }

    #[test]
    fn native_has_every_feature_it_names() {
        let (_, machine) = TargetSpec::native().resolve().expect("the host is supported");
        let found = detected_features();
        assert!(machine.features.iter().all(|f| found.contains(&f.as_str())));
    }
}
