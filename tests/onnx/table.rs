//! Every declared operator with every declared element type, against onnxruntime.
//!
//! `tests/models/setup.py` makes the cases from the table itself (`tests/models/operators.json`, which [`crate::support`] keeps
//! current): ranks 0 to 5, broadcasting, negative axes, dimensions of size 0 and 1, and the attributes' values. It fails
//! for an operator without a recipe, and this test for an element type without a case. Both the graph interpreter and
//! the compiled code have to give what onnxruntime gives; integers and truth values exactly, floats within the case's
//! tolerance: 2e-5 (f32), 1e-12 (f64), 4e-3 (f16), 3e-2 (bf16) relative, and a tenth to the whole of that absolute.

use std::fmt::Write as _;

use aic_frontend::onnx;

use crate::asset::asset;
use crate::case::{Case, folders};
use crate::execute::{self, Outcome};
use crate::parallel;

/// Cases that are known to fail, each with the reason; one that passes has to be removed.
const REVIEWED: &[(&str, &str)] = &[];

#[test]
fn declared_operators_agree_with_onnxruntime() {
    let folders = folders(&asset("onnx-ops"));
    let names: Vec<String> =
        folders.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned())).collect();
    let mut faults = String::new();
    for rule in onnx::supported() {
        let types = if rule.operands.1 == 0 { rule.result_types.unwrap_or_default() } else { rule.types };
        for dtype in types {
            let prefix = format!("{}.{dtype}.", rule.name);
            if !names.iter().any(|n| n.starts_with(&prefix)) {
                let _ = writeln!(
                    faults,
                    "no case of {} with {dtype}; to make it: python3 tests/models/setup.py",
                    rule.name
                );
            }
        }
    }
    let outcomes = parallel::map(&folders, |folder| execute::run(&Case::read(folder)));
    let mut failed = 0;
    for (name, outcome) in names.iter().zip(outcomes) {
        let reviewed = REVIEWED.iter().any(|(n, _)| n == name);
        let fault = match outcome {
            Outcome::Passed { .. } if reviewed => "is in the list of failures but does not fail".to_owned(),
            Outcome::Passed { .. } => continue,
            Outcome::Refused(_) | Outcome::Failed(_) if reviewed => continue,
            Outcome::Refused(text) | Outcome::Failed(text) => text.replace('\n', " "),
        };
        failed += 1;
        let _ = writeln!(faults, "{name}: {fault}");
    }
    for (name, _) in REVIEWED.iter().filter(|(name, _)| !names.iter().any(|n| n == name)) {
        let _ = writeln!(faults, "{name}: is in the list of failures, but there is no such case");
    }
    assert!(faults.is_empty(), "{failed} of {} cases fail\n{faults}", names.len());
}
