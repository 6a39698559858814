//! The page of supported operators, written from the table that the importer itself goes by, and the same as JSON for
//! `tests/models/write_operator_cases.py`.
//!
//! `AIC_BLESS=1 cargo test --test onnx support` writes it anew.

use std::process::Command;

use aic_frontend::onnx;
use serde_json::Value;

use crate::page;

/// A row per supported operator, and a paragraph per reason to refuse.
fn text() -> String {
    let (first, last) = (onnx::OPSETS.start(), onnx::OPSETS.end());
    let mut rules: Vec<_> = onnx::supported().collect();
    rules.sort_by_key(|r| r.name);
    let mut text = format!(
        "# ONNX operators\n\n\
         Generated from the importer's table by `AIC_BLESS=1 cargo test --test onnx support`; `aic ops` prints the same.\n\n\
         Models of operator sets {first} to {last} are read. Every shape is known when compiling. Operands of an operator\n\
         have one element type out of those listed, except for operands that are listed with types of their own; “floats”\n\
         are f16, bf16, f32 and f64, “integers” are i8 to i64 and u8 to u64, “all” are these and bool. “Constant” operands\n\
         are those whose elements are known when compiling: initializers, and what follows from them and from shapes.\n\n\
         | operator | operator sets | element types | what holds |\n| --- | --- | --- | --- |\n"
    );
    for rule in rules {
        text += &format!(
            "| {} | {} to {} | {} | {} |\n",
            rule.name,
            rule.since,
            rule.until,
            rule.types_in_words(),
            rule.doc
        );
    }
    text += "\n## Refused\n\nThese operators are refused by name, each for the reason that stands below.\n\n";
    for refusal in onnx::REFUSED {
        text += &format!("- {}: {}.\n", refusal.names.join(", "), refusal.reason);
    }
    text
}

#[test]
fn the_page_of_operators_is_current() {
    page::check("docs/operators.md", &text());
}

#[test]
fn the_table_for_operator_cases_is_current() {
    let aic = Command::new(env!("CARGO_BIN_EXE_aic")).args(["ops", "--json"]).output().expect("aic starts");
    let reply: Value = serde_json::from_slice(&aic.stdout).expect("JSON");
    let rows: Vec<String> = reply["onnx"].as_array().expect("a list").iter().map(Value::to_string).collect();
    // One line for each operator.
    page::check("tests/models/operators.json", &format!("[\n{}\n]\n", rows.join(",\n")));
}
