//! Reports about a compiled model: what the compiler did, and what its files depend on. Nothing here has times or paths of
//! its own, so equal compiles give equal reports.

use std::path::{Path, PathBuf};

use aic_cpu::artifact::object::SectionKind;
use aic_ir::tile::Storage;

use crate::Artifacts;

/// Flash of an artifact by section kind, in bytes: code, constants. Writable sections do not exist.
pub fn sections(artifacts: &Artifacts) -> [(&'static str, u64); 2] {
    let object = &artifacts.artifact.object;
    [(".text", object.bytes_of(SectionKind::Text)), (".rodata", object.bytes_of(SectionKind::ReadOnly))]
}

/// The report as text: target, sizes, passes, kernels with what they compute and are predicted to take, packed constants.
pub fn report(artifacts: &Artifacts) -> String {
    let Artifacts { graph, declared: _, passes, schedule, costs, program, plan, compiled, artifact, target, linker: _ } =
        artifacts;
    let interface = &artifact.interface;
    let mut out = format!("model {}\nsha256 {}\n", graph.name, interface.model_sha256);
    out += &format!("target {}\nmachine {}\n", target.triple, target.machine.name);
    out += &format!("features {}\n\n", target.machine.features.join(" "));

    for (name, bytes) in sections(artifacts) {
        out += &format!("{name:<10} {bytes:>12} bytes\n");
    }
    for (name, bytes) in [
        ("weights", interface.weights_bytes),
        ("arena", interface.arena_bytes),
        ("live", plan.live_bytes),
        ("state", interface.state_bytes),
        ("stack", interface.stack_bytes),
    ] {
        out += &format!("{name:<10} {bytes:>12} bytes\n");
    }

    out += "\npasses\n";
    for run in &passes.runs {
        out += &format!("  {:<14} {:>6} changes\n", run.pass, run.changes);
    }
    out += &format!("\nschedule: {} directives\n", schedule.directives.len());

    out += "\nkernels: predicted µs, FLOPs, bytes, code bytes, nodes of the model\n";
    for cost in costs {
        let data = program.kernels.values().rfind(|k| k.name == cost.kernel);
        let sources = data.map(|k| k.sources.join(", ")).unwrap_or_default();
        let function = compiled.steps.iter().find(|s| s.name == cost.kernel).and_then(|s| s.function);
        let code = function.map_or(0, |f| compiled.functions[f].code.len());
        out += &format!(
            "  {:<24} {:>10.1} {:>14.0} {:>12.0} {:>8}  {sources}\n",
            cost.kernel,
            cost.seconds * 1e6,
            cost.flops,
            cost.bytes,
            code
        );
    }

    out += "\nconstants stored in another layout than the model's\n";
    for data in program.buffers.values() {
        if matches!(data.storage, Storage::Const(_)) && !data.layout.is_row_major(&data.shape) {
            out += &format!("  {} {}{:?} in {} bytes\n", data.name, data.dtype, data.shape, data.bytes());
        }
    }
    out
}

/// Dependencies in Makefile format: every output depends on every file of the model, and those have empty rules of their own,
/// so that a deleted file does not stop `make`.
pub fn dep_info(outputs: &[PathBuf], inputs: &[PathBuf]) -> String {
    let join = |paths: &[PathBuf]| paths.iter().map(|p| escape(p)).collect::<Vec<_>>().join(" ");
    let mut text = format!("{}: {}\n", join(outputs), join(inputs));
    for input in inputs {
        text += &format!("\n{}:\n", escape(input));
    }
    text
}

/// A path as `make` reads it.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        match c {
            ' ' | '#' | '\\' => text.extend(['\\', c]),
            '$' => text.push_str("$$"),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_escaped_and_may_vanish() {
        let text = dep_info(&["out/m.o".into()], &["my model.onnx".into(), "$x".into()]);
        assert_eq!(text, "out/m.o: my\\ model.onnx $$x\n\nmy\\ model.onnx:\n\n$$x:\n");
    }
}
