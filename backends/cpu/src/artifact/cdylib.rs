//! Shared libraries: what the system's C compiler is to be told to link one.
//!
//! The driver runs the compiler; here is only what it is told. Nothing but the public symbols is exported, nothing is linked
//! in (the code needs no library and no start-up files), the stack is not executable, and a relocation of code is an error.

use super::Artifact;

/// The linker's version script: which symbols the library exports.
pub fn version_script(artifact: &Artifact) -> String {
    let mut script = String::from("{\n  global:\n");
    for symbol in artifact.object.public_symbols() {
        script += &format!("    {symbol};\n");
    }
    script + "  local:\n    *;\n};\n"
}

/// Arguments of `cc` that link `object` to `library` under the version script in `script`. `soname` is the library's file
/// name. Paths are given as text.
pub fn link_arguments(object: &str, script: &str, library: &str, soname: &str) -> Vec<String> {
    [
        "-shared",
        "-nostdlib",
        "-nostartfiles",
        "-Wl,-z,noexecstack",
        "-Wl,-z,text",
        "-Wl,-z,relro",
        "-Wl,-z,now",
        "-Wl,-z,defs",
        "-Wl,--build-id=none",
        "-Wl,--gc-sections",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([format!("-Wl,-soname,{soname}"), format!("-Wl,--version-script={script}")])
    .chain(["-o".to_owned(), library.to_owned(), object.to_owned()])
    .collect()
}
