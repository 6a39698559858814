//! `aic ops` and `aic targets`: tables made from what the readers and the backend themselves go by.

use aic_frontend::{hf, onnx};
use aic_ir::machine;
use serde_json::json;

use crate::reply::{Reply, fields, table};

/// The supported operators.
pub fn ops() -> Reply {
    let (first, last) = (onnx::OPSETS.start(), onnx::OPSETS.end());
    let mut rules: Vec<_> = onnx::supported().collect();
    rules.sort_by_key(|r| r.name);
    let width = rules.iter().map(|r| r.name.len()).max().unwrap_or(0);
    let mut text = format!("ONNX, operator sets {first} to {last}\n");
    for rule in &rules {
        text += &format!("  {:width$}  {:>2}..{last}  {}\n", rule.name, rule.since, rule.doc);
    }
    text += "\nHugging Face folders, by `model_type`\n";
    for name in hf::ARCHITECTURES {
        text += &format!("  {name}\n");
    }
    let onnx: Vec<_> =
        rules.iter().map(|r| json!({ "op": r.name, "since": r.since, "until": last, "rule": r.doc })).collect();
    Reply::ok(text, fields(json!({ "onnx": onnx, "huggingface": hf::ARCHITECTURES })))
}

/// The targets: what `--target`, `--target-cpu` and `--target-feature` take.
pub fn targets() -> Reply {
    let triples = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];
    let mut machines: Vec<machine::Machine> =
        machine::BUILTIN_NAMES.iter().filter_map(|name| machine::builtin(name).ok()).collect();
    let native = aic::TargetSpec::native().resolve().ok();
    if let Some((_, found)) = &native {
        machines.push(machine::Machine { name: format!("native ({})", found.name), ..found.clone() });
    }
    let rows: Vec<_> = machines
        .iter()
        .map(|m| {
            vec![m.name.clone(), format!("{:.0}", m.peak_flops() / 1e9), m.threads.to_string(), m.features.join(" ")]
        })
        .collect();
    let mut text = String::from("Triples (any little-endian ELF triple of these architectures)\n");
    for triple in triples {
        text += &format!("  {triple}\n");
    }
    text += "\nProcessors and machines\n";
    // Features go last and are long, so they are set apart from the aligned columns.
    let aligned: Vec<_> = rows.iter().map(|r| r[..3].to_vec()).collect();
    for (line, features) in table(&["name", "GFLOP/s", "threads"], &aligned)
        .lines()
        .zip(std::iter::once("features").chain(rows.iter().map(|r| r[3].as_str())))
    {
        text += &format!("  {line}  {features}\n");
    }
    text += "\nFeatures that --target-feature takes\n";
    for arch in [machine::Arch::X86_64, machine::Arch::Aarch64] {
        text += &format!("  {arch:?}: {}\n", aic::known_features(arch).join(" "));
    }
    let machines: Vec<_> = machines
        .iter()
        .map(|m| json!({ "name": m.name, "features": m.features, "peak_flops": m.peak_flops(), "threads": m.threads }))
        .collect();
    let native = native.map(|(triple, m)| json!({ "triple": triple.to_string(), "machine": m.name }));
    Reply::ok(text, fields(json!({ "triples": triples, "machines": machines, "native": native })))
}
