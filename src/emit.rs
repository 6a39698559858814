//! Kinds of output files: names, extensions and the order in which they are written.

use std::path::Path;

/// What can be written of a compiled model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EmitKind {
    /// Object in the platform's format: ELF, Mach-O or COFF.
    Obj,
    /// Static archive of that object.
    StaticLib,
    /// Shared library, linked by a C compiler for the target.
    CDyLib,
    /// C header of the model, and the common `aic.h` beside it.
    Header,
    /// Weights as a checked blob that the caller loads; only for external weights.
    Weights,
    /// Hashes, flags and version as JSON: what reproduces the artifact.
    Manifest,
    /// Dependencies of the outputs in Makefile format.
    DepInfo,
    /// What the compiler did: sizes, kernels, passes.
    Report,
    /// The graph after its passes, as text.
    Graph,
    /// The scheduled tile program, as text.
    Tile,
    /// The schedule, as text that `--schedule` takes.
    Schedule,
    /// The memory plan, as text.
    Plan,
    /// Cranelift IR of every function.
    Clif,
    /// Disassembly of every function.
    Asm,
}

impl EmitKind {
    /// Every kind.
    pub const ALL: [EmitKind; 14] = [
        EmitKind::Obj,
        EmitKind::StaticLib,
        EmitKind::CDyLib,
        EmitKind::Header,
        EmitKind::Weights,
        EmitKind::Manifest,
        EmitKind::DepInfo,
        EmitKind::Report,
        EmitKind::Graph,
        EmitKind::Tile,
        EmitKind::Schedule,
        EmitKind::Plan,
        EmitKind::Clif,
        EmitKind::Asm,
    ];

    /// The name that `--emit` takes.
    pub fn name(self) -> &'static str {
        match self {
            EmitKind::Obj => "obj",
            EmitKind::StaticLib => "staticlib",
            EmitKind::CDyLib => "cdylib",
            EmitKind::Header => "header",
            EmitKind::Weights => "weights",
            EmitKind::Manifest => "manifest",
            EmitKind::DepInfo => "dep-info",
            EmitKind::Report => "report",
            EmitKind::Graph => "graph",
            EmitKind::Tile => "tile",
            EmitKind::Schedule => "schedule",
            EmitKind::Plan => "plan",
            EmitKind::Clif => "clif",
            EmitKind::Asm => "asm",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<EmitKind> {
        EmitKind::ALL.into_iter().find(|k| k.name() == name)
    }

    /// The kind that a file's extension stands for: `.o`, `.obj`, `.a`, `.lib`, `.so`, `.h`, `.d`.
    pub fn from_path(path: &Path) -> Option<EmitKind> {
        Some(match path.extension()?.to_str()? {
            "o" | "obj" => EmitKind::Obj,
            "a" | "lib" => EmitKind::StaticLib,
            "so" => EmitKind::CDyLib,
            "h" => EmitKind::Header,
            "d" => EmitKind::DepInfo,
            _ => return None,
        })
    }

    /// Name of the file for a model, where the user gives none.
    pub fn file_name(self, model: &str) -> String {
        match self {
            EmitKind::Obj => format!("{model}.o"),
            EmitKind::StaticLib => format!("lib{model}.a"),
            EmitKind::CDyLib => format!("lib{model}.so"),
            EmitKind::Header => format!("{model}.h"),
            EmitKind::Weights => format!("{model}.weights"),
            EmitKind::Manifest => format!("{model}.manifest.json"),
            EmitKind::DepInfo => format!("{model}.d"),
            EmitKind::Report => format!("{model}.report.txt"),
            EmitKind::Graph => format!("{model}.graph.aic"),
            EmitKind::Tile => format!("{model}.tile.aic"),
            EmitKind::Schedule => format!("{model}.schedule.aic"),
            EmitKind::Plan => format!("{model}.plan.txt"),
            EmitKind::Clif => format!("{model}.clif"),
            EmitKind::Asm => format!("{model}.s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_extensions_lead_back() {
        for kind in EmitKind::ALL {
            assert_eq!(EmitKind::from_name(kind.name()), Some(kind));
            let named = EmitKind::from_path(Path::new(&kind.file_name("m")));
            assert!(named.is_none_or(|k| k == kind));
        }
    }
}
