//! `aic ops` and `aic targets`: tables made from what the readers and the backend themselves go by.

use std::collections::BTreeMap;

use aic_frontend::{hf, onnx};
use aic_ir::machine;
use aic_ir::types::DType;
use serde_json::json;

use crate::reply::{Reply, fields, table};

/// The supported operators, and those refused on principle.
pub fn ops() -> Reply {
    let (first, last) = (onnx::OPSETS.start(), onnx::OPSETS.end());
    let mut rules: Vec<_> = onnx::supported().collect();
    rules.sort_by_key(|r| r.name);
    let width = rules.iter().map(|r| r.name.len()).max().unwrap_or(0);
    let types_width = rules.iter().map(|r| r.types_in_words().len()).max().unwrap_or(0);
    let mut text =
        format!("ONNX, operator sets {first} to {last}: operator, operator sets, element types, what holds\n");
    for rule in &rules {
        let (types, doc) = (rule.types_in_words(), rule.doc);
        let line = format!("{:width$}  {:>2}..{}  {types:types_width$}  {doc}", rule.name, rule.since, rule.until);
        text += &format!("  {}\n", line.trim_end());
    }
    text += "\nONNX operators that are refused\n";
    for refusal in onnx::REFUSED {
        text += &format!("  {}: {}\n", refusal.names.join(", "), refusal.reason);
    }
    text += "\nHugging Face folders, by `model_type`\n";
    for name in hf::model_types() {
        text += &format!("  {name}\n");
    }
    let names = |types: &[DType]| types.iter().map(|d| d.name()).collect::<Vec<_>>();
    let supported: Vec<_> = rules
        .iter()
        .map(|r| {
            let own: BTreeMap<String, _> = r.own_types.iter().map(|(i, t)| (i.to_string(), names(t))).collect();
            json!({
                "op": r.name,
                "since": r.since,
                "until": r.until,
                "operands": [r.operands.0, r.operands.1],
                "types": names(r.types),
                "operand_types": own,
                "result_types": r.result_types.map(names),
                "attributes": r.attributes,
                "rule": r.doc,
            })
        })
        .collect();
    let refused: Vec<_> = onnx::REFUSED.iter().map(|r| json!({ "ops": r.names, "reason": r.reason })).collect();
    let huggingface: Vec<_> = hf::model_types().collect();
    let tables = json!({ "onnx": supported, "onnx_refused": refused, "huggingface": huggingface });
    Reply::ok(text, fields(tables))
}

/// The targets: what `--target`, `--target-cpu` and `--target-feature` take.
pub fn targets() -> Reply {
    let triples = [
        "x86_64-unknown-linux-gnu",
        "aarch64-unknown-linux-gnu",
        "x86_64-unknown-none",
        "aarch64-unknown-none",
        "x86_64-apple-darwin",
        "aarch64-apple-darwin",
        "x86_64-pc-windows-msvc",
        "x86_64-pc-windows-gnu",
        "aarch64-pc-windows-msvc",
    ];
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
    let mut text = String::from("Triples (and any other of these architectures whose objects are little-endian ELF)\n");
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
