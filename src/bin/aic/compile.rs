//! `aic compile`: a model to files, all of them or none, and a table of what they take.

use std::io::Write;
use std::path::PathBuf;

use aic::output::{Outputs, create_folder};
use aic::{Artifacts, EmitKind, Error, Limits, Model, Weights, report};
use aic_cpu::artifact::header;
use aic_cpu::artifact::manifest::{File, Manifest};
use anyhow::Result;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::args::{CompileArgs, OptLevel, WeightsPlace};
use crate::job::{self, DefaultTarget, usage};
use crate::reply::{Reply, count, fields, size, time_ms};

/// Runs the command.
pub fn run(args: &CompileArgs) -> Result<Reply> {
    let Some(path) = &args.model else {
        return match std::env::args_os().len() {
            // `aic compile`, and nothing else.
            0..=2 => crate::demo::run(),
            _ => Err(usage("flags need a model: aic compile MODEL").into()),
        };
    };
    let asked = Asked::of(args)?;
    let mut config = job::config(&args.target, &args.shape, DefaultTarget::Common)?.limits(limits(&args.limit)?);
    if let Some(name) = &args.name {
        config = config.name(name)?;
    }
    for state in &args.state {
        let (input, output) = state.split_once('=').ok_or_else(|| usage("--state takes IN=OUT"))?;
        config = config.state(input, output);
    }
    if args.weights == WeightsPlace::External {
        config = config.weights(Weights::External);
    }
    if asked.kinds.iter().any(|(k, _)| matches!(k, EmitKind::Clif | EmitKind::Asm)) {
        config = config.listings();
    }
    if let Some(linker) = &args.linker {
        config = config.linker(linker);
    }
    let model = Model::open(path)?;
    let artifacts = job::compile(&model, config)?;
    let written = write(&asked, args, &model, &artifacts)?;
    Ok(Reply::ok(closing_table(&artifacts, &written), reply_fields(&artifacts, &written)))
}

/// What is to be written, and where what has no path of its own goes.
struct Asked {
    kinds: Vec<(EmitKind, Option<PathBuf>)>,
    folder: PathBuf,
}

impl Asked {
    fn of(args: &CompileArgs) -> Result<Self, clap::Error> {
        let mut kinds: Vec<(EmitKind, Option<PathBuf>)> = Vec::new();
        for text in &args.emit {
            let (name, path) = match text.split_once('=') {
                Some((name, path)) => (name, Some(PathBuf::from(path))),
                None => (text.as_str(), None),
            };
            let kind = EmitKind::from_name(name).ok_or_else(|| {
                let known: Vec<&str> = EmitKind::ALL.into_iter().map(EmitKind::name).collect();
                usage(&format!("--emit has no kind `{name}`; there are {}", known.join(", ")))
            })?;
            if kinds.iter().any(|(k, _)| *k == kind) {
                return Err(usage(&format!("--emit names `{name}` twice")));
            }
            kinds.push((kind, path));
        }
        if let Some(path) = &args.output {
            job::named_file(path)?;
            if kinds.is_empty() {
                let kind = EmitKind::from_path(path).ok_or_else(|| {
                    usage(
                        "the extension of --output is none of .o .obj .a .lib .so .h .d: say with --emit what to write",
                    )
                })?;
                kinds.push((kind, None));
            }
            let mut open = kinds.iter_mut().filter(|(_, p)| p.is_none());
            match (open.next(), open.next()) {
                (Some((_, slot)), None) => *slot = Some(path.clone()),
                _ => return Err(usage("--output names one file: use --out-dir, or --emit KIND=PATH, for several")),
            }
        }
        if kinds.is_empty() {
            kinds.extend([(EmitKind::Obj, None), (EmitKind::Header, None)]);
            if args.weights == WeightsPlace::External {
                kinds.push((EmitKind::Weights, None));
            }
        }
        for path in kinds.iter().filter_map(|(_, p)| p.as_deref()).chain(args.out_dir.as_deref()) {
            job::named_file(path)?;
        }
        Ok(Self { kinds, folder: args.out_dir.clone().unwrap_or_else(|| PathBuf::from(".")) })
    }
}

/// A file that was written.
struct Written {
    kind: &'static str,
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

/// Writes everything that was asked for, the lists of what was written last.
fn write(asked: &Asked, args: &CompileArgs, model: &Model, artifacts: &Artifacts) -> Result<Vec<Written>> {
    let name = &artifacts.graph.name;
    let path_of = |(kind, path): &(EmitKind, Option<PathBuf>)| {
        (*kind, path.clone().unwrap_or_else(|| asked.folder.join(kind.file_name(name))))
    };
    let files: Vec<(EmitKind, PathBuf)> = asked.kinds.iter().map(path_of).collect();
    if asked.kinds.iter().any(|(_, path)| path.is_none()) {
        create_folder(&asked.folder)?;
    }
    let mut outputs = Outputs::new();
    let mut written = Vec::new();
    let is_list = |kind: EmitKind| matches!(kind, EmitKind::Manifest | EmitKind::DepInfo);
    for (kind, path) in files.iter().filter(|(kind, _)| !is_list(*kind)) {
        let mut out = Hashing { out: outputs.create(path)?, bytes: 0, hash: Sha256::new() };
        artifacts.write(*kind, &mut out).map_err(|e| at(e, path))?;
        written.push(out.finish(kind.name(), path.clone()));
        if *kind == EmitKind::Header {
            let common = path.with_file_name(header::COMMON_NAME);
            let mut out = Hashing { out: outputs.create(&common)?, bytes: 0, hash: Sha256::new() };
            out.write_all(header::common().as_bytes()).map_err(|e| Error::Io {
                action: "write",
                path: common.clone(),
                source: e,
            })?;
            written.push(out.finish("common-header", common));
        }
    }
    for (kind, path) in files.iter().filter(|(kind, _)| is_list(*kind)) {
        let text = if *kind == EmitKind::Manifest {
            let files = written.iter().map(|w| File { kind: w.kind.into(), bytes: w.bytes, sha256: w.sha256.clone() });
            Manifest::new(&artifacts.artifact.note, flags(args)?, files.collect()).to_json()
        } else {
            let made: Vec<PathBuf> = files.iter().filter(|(k, _)| !is_list(*k)).map(|(_, p)| p.clone()).collect();
            report::dep_info(&made, &model.files())
        };
        let mut out = Hashing { out: outputs.create(path)?, bytes: 0, hash: Sha256::new() };
        out.write_all(text.as_bytes()).map_err(|e| Error::Io { action: "write", path: path.clone(), source: e })?;
        written.push(out.finish(kind.name(), path.clone()));
    }
    outputs.commit()?;
    Ok(written)
}

/// Names the file in an error of writing.
fn at(error: Error, file: &std::path::Path) -> Error {
    match error {
        Error::Io { action: "write", source, .. } => Error::Io { action: "write", path: file.to_owned(), source },
        e => e,
    }
}

/// Counts and hashes what goes through.
struct Hashing<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
    hash: Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(data)?;
        self.hash.update(&data[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl Hashing<'_> {
    fn finish(self, kind: &'static str, path: PathBuf) -> Written {
        Written { kind, path, bytes: self.bytes, sha256: hex(self.hash.finalize()) }
    }
}

/// The flags that shape the result; files are named by the hash of what is in them.
fn flags(args: &CompileArgs) -> Result<Vec<String>> {
    let mut flags: Vec<String> = args.shape.iter().map(|s| format!("--shape {s}")).collect();
    flags.extend(args.state.iter().map(|s| format!("--state {s}")));
    flags.extend(args.target.target.iter().map(|t| format!("--target {t}")));
    flags.extend(args.target.target_cpu.iter().map(|c| format!("--target-cpu {c}")));
    flags.extend(args.target.target_feature.iter().map(|f| format!("--target-feature {f}")));
    flags.extend(args.linker.iter().map(|l| format!("--linker {l}")));
    flags.push(match args.target.opt_level {
        OptLevel::O0 => "-O0".into(),
        OptLevel::O1 => "-O1".into(),
        OptLevel::O2 => "-O2".into(),
        OptLevel::O3 => "-O3".into(),
        OptLevel::Size => "-Os".into(),
    });
    if args.weights == WeightsPlace::External {
        flags.push("--weights external".into());
    }
    for (flag, path) in [("--machine", &args.target.machine), ("--schedule", &args.target.schedule)] {
        if let Some(path) = path {
            flags.push(format!("{flag} sha256:{}", hex(Sha256::digest(job::read_text(path)?))));
        }
    }
    Ok(flags)
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads `arena=64KiB`.
fn limits(flags: &[String]) -> Result<Limits> {
    let mut limits = Limits::default();
    for flag in flags {
        let bad =
            || usage(&format!("--limit `{flag}` is not understood: write arena=64KiB, weights=1MiB or stack=2048"));
        let (name, text) = flag.split_once('=').ok_or_else(bad)?;
        let slot = match name {
            "arena" => &mut limits.arena_bytes,
            "weights" => &mut limits.weights_bytes,
            "stack" => &mut limits.stack_bytes,
            _ => return Err(bad().into()),
        };
        *slot = Some(parse_size(text).ok_or_else(bad)?);
    }
    Ok(limits)
}

/// Bytes from `2048`, `64KiB`, `1.5MiB`, `1GB`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" | "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * unit;
    (bytes.is_finite() && bytes < 1e18).then_some(bytes as u64)
}

fn closing_table(artifacts: &Artifacts, written: &[Written]) -> String {
    let interface = &artifacts.artifact.interface;
    let mut text = String::new();
    for w in written {
        text += &format!("{:<14} {:>10}  {}\n", w.kind, size(w.bytes), w.path.display());
    }
    for (name, bytes) in report::sections(artifacts) {
        text += &format!("{:<14} {:>10}\n", format!("flash {name}"), size(bytes));
    }
    for (name, bytes) in [
        ("weights", interface.weights_bytes),
        ("arena", interface.arena_bytes),
        ("state", interface.state_bytes),
        ("stack", interface.stack_bytes),
    ] {
        text += &format!("{name:<14} {:>10}\n", size(bytes));
    }
    let flops: f64 = artifacts.costs.iter().map(|c| c.flops).sum();
    let seconds: f64 = artifacts.costs.iter().map(|c| c.seconds).sum();
    text += &format!("{:<14} {:>10}\n", "FLOPs", count(flops as u64));
    text += &format!("{:<14} {:>10}  on {}\n", "estimated time", time_ms(seconds * 1e3), artifacts.target.machine.name);
    text
}

fn reply_fields(artifacts: &Artifacts, written: &[Written]) -> serde_json::Map<String, serde_json::Value> {
    let interface = &artifacts.artifact.interface;
    let outputs: Vec<_> = written
        .iter()
        .map(|w| json!({ "kind": w.kind, "path": w.path.display().to_string(), "bytes": w.bytes, "sha256": w.sha256 }))
        .collect();
    let sections: serde_json::Map<String, serde_json::Value> =
        report::sections(artifacts).into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into())).collect();
    fields(json!({
        "name": interface.name,
        "outputs": outputs,
        "sections": sections,
        "weights_bytes": interface.weights_bytes,
        "arena_bytes": interface.arena_bytes,
        "state_bytes": interface.state_bytes,
        "stack_bytes": interface.stack_bytes,
        "flops": artifacts.costs.iter().map(|c| c.flops).sum::<f64>(),
        "estimated_ms": artifacts.costs.iter().map(|c| c.seconds).sum::<f64>() * 1e3,
        "target": artifacts.target.triple.to_string(),
        "machine": artifacts.target.machine.name,
        "features": artifacts.target.machine.features,
        "model_sha256": interface.model_sha256,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("2048", 2048), ("64KiB", 65_536), ("1.5MiB", 1_572_864), ("1GB", 1_000_000_000)] {
            assert_eq!(parse_size(text), Some(bytes));
        }
        for text in ["", "KiB", "1x", "-1", "1.2.3", "1e99GB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
