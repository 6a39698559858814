//! The official ONNX node tests, of which every case of declared operators and element types has to pass.
//!
//! `tests/models/setup.py` writes the cases with the onnx package's own generators. A case passes when the graph interpreter
//! and the compiled code give what is expected, within the official runner's tolerance. The page
//! `docs/onnx-node-tests.md` says for each operator how many cases pass, why others are not run, and how far off the
//! compiled code is; `AIC_BLESS=1 cargo test --test onnx node` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aic_frontend::onnx::{self, OpRule};
use aic_ir::types::DType;

use crate::asset::asset;
use crate::case::{Case, folders};
use crate::execute::{self, Outcome, number};
use crate::{page, parallel};

/// Cases of declared operators and types that do not pass, each with the reason. Reviewed one by one; one that passes has
/// to be removed.
const REVIEWED: &[(&str, &str)] = &[
    ("test_batchnorm_epsilon_training_mode", TRAINING),
    ("test_batchnorm_example_training_mode", TRAINING),
    ("test_convtranspose_3d", "three spatial dimensions of a transposed convolution"),
    ("test_training_dropout", TRAINING),
    ("test_training_dropout_default", TRAINING),
    ("test_training_dropout_default_mask", TRAINING),
    ("test_training_dropout_mask", TRAINING),
    ("test_training_dropout_zero_ratio", TRAINING),
    ("test_training_dropout_zero_ratio_mask", TRAINING),
];

const TRAINING: &str = "training mode, and models are compiled for inference";

/// What became of a case.
enum Result {
    Passed { ulp: f64, constants: bool },
    NotRun(String),
    Failed(String),
}

/// The rule of an operator in a model of that operator set.
fn rule_of(name: &str, opset: i64) -> Option<&'static OpRule> {
    onnx::supported().find(|r| r.name == name && (r.since..=r.until).contains(&opset))
}

/// Why a case is outside of what the table declares.
fn undeclared(case: &Case) -> Option<String> {
    let standard = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let nodes = case.nodes();
    if let Some(node) = nodes.iter().find(|n| !standard(&n.domain)) {
        return Some(format!("domain {}", node.domain));
    }
    let refused = |name: &str| onnx::REFUSED.iter().find(|r| r.names.contains(&name));
    if let Some((node, refusal)) = nodes.iter().find_map(|n| Some((n, refused(&n.op_type)?))) {
        return Some(format!("{}: {}", node.op_type, refusal.reason));
    }
    let known = |name: &str| onnx::supported().any(|r| r.name == name);
    if let Some(node) = nodes.iter().find(|n| !known(&n.op_type)) {
        return Some(format!("operator {} is not declared", node.op_type));
    }
    let opset = case.opset();
    if !onnx::OPSETS.contains(&opset) {
        return Some(format!("form of operator set {opset}"));
    }
    if let Some(node) = nodes.iter().find(|n| rule_of(&n.op_type, opset).is_none()) {
        return Some(format!("{} of operator set {opset} is not declared", node.op_type));
    }
    let value_types = case.graph().input.iter().chain(&case.graph().output).map(|v| v.r#type.as_ref());
    for ty in value_types {
        let Some(elem_type) = ty.and_then(|t| t.tensor_type.as_ref()).map(|t| t.elem_type) else {
            return Some("values that are no tensors (sequences, optional values)".to_owned());
        };
        if !DType::ALL.into_iter().any(|d| number(d) == elem_type) {
            return Some("elements that are texts, complex numbers or numbers of fewer than 8 bits".to_owned());
        }
    }
    if case.inputs.iter().chain(&case.outputs).any(|(_, t)| t.is_none()) {
        return Some("values that are no tensors (sequences, optional values)".to_owned());
    }
    let [node] = case.graph().node.as_slice() else { return None };
    let rule = rule_of(&node.op_type, opset)?;
    let dtype = |name: &String| {
        let (_, tensor) = case.inputs.iter().find(|(n, _)| n == name)?;
        tensor.as_ref().map(|t| t.ty().dtype())
    };
    let mut operands = node.input.iter().enumerate().filter_map(|(i, name)| Some((i, dtype(name)?)));
    let (index, dtype) = operands.find(|(i, dtype)| !rule.operand_types(*i).contains(dtype))?;
    Some(format!("{dtype} as operand {index} is not declared"))
}

fn judge(case: &Case) -> Result {
    if let Some(reason) = undeclared(case) {
        return Result::NotRun(reason);
    }
    match execute::run(case) {
        Outcome::Passed { ulp, constants } => Result::Passed { ulp, constants: !constants.is_empty() },
        // The types of values inside a model of several nodes are known to the importer only.
        Outcome::Refused(text) if case.nodes().len() > 1 && text.contains("has elements of type") => {
            Result::NotRun("element types inside the function are not declared".to_owned())
        }
        Outcome::Refused(text) | Outcome::Failed(text) => Result::Failed(text),
    }
}

/// The operator that a case is about: that of its only node, or, for the expansion of a function, that of the case that
/// has the function itself.
fn subject(case: &Case, all: &BTreeMap<String, String>) -> String {
    let base = case.name.split("_expanded").next().unwrap_or_default();
    let own = all.get(&case.name).cloned().unwrap_or_default();
    all.get(base).cloned().unwrap_or(own)
}

/// What is written about one operator.
#[derive(Default)]
struct Row {
    passed: usize,
    with_constants: usize,
    ulp: f64,
    not_run: BTreeMap<String, usize>,
}

#[test]
fn node_cases_of_declared_operators_pass() {
    let folders = folders(&asset("onnx-node"));
    assert!(folders.len() > 1500, "only {} cases", folders.len());
    let judged = parallel::map(&folders, |folder| {
        let case = Case::read(folder);
        let result = judge(&case);
        (case.name.clone(), (case, result))
    });
    let results: BTreeMap<String, (Case, Result)> = judged.into_iter().collect();
    let first_node = |case: &Case| case.graph().node.first().map(|n| n.op_type.clone()).unwrap_or_default();
    let operators: BTreeMap<String, String> =
        results.iter().map(|(n, (case, _))| (n.clone(), first_node(case))).collect();

    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut faults = String::new();
    let mut count = 0;
    for (name, (case, result)) in &results {
        let row = rows.entry(subject(case, &operators)).or_default();
        let reviewed = REVIEWED.iter().find(|(n, _)| n == name).map(|(_, reason)| *reason);
        match (result, reviewed) {
            (Result::Passed { ulp, constants }, None) => {
                row.passed += 1;
                row.with_constants += usize::from(*constants);
                row.ulp = row.ulp.max(*ulp);
            }
            (Result::NotRun(reason), None) => *row.not_run.entry(reason.clone()).or_default() += 1,
            (Result::Failed(_), Some(reason)) => *row.not_run.entry(reason.to_owned()).or_default() += 1,
            (Result::Failed(text), None) => {
                count += 1;
                let _ = writeln!(faults, "{name}: {}", text.replace('\n', " "));
            }
            (_, Some(_)) => {
                count += 1;
                let _ = writeln!(faults, "{name}: is in the list of failures but does not fail");
            }
        }
    }
    let stale = REVIEWED.iter().filter(|(name, _)| !results.contains_key(*name));
    for (name, _) in stale {
        let _ = writeln!(faults, "{name}: is in the list of failures, but there is no such case");
    }
    let page = text(&rows);
    assert!(faults.is_empty(), "{count} of {} cases fail\n{faults}\nAll others:\n\n{page}", results.len());
    page::check_with_bounds("docs/onnx-node-tests.md", &page);
}

/// The page. Distances are rounded up to a power of two, since the expected values come from numpy, whose functions are not
/// the same on every processor.
fn text(rows: &BTreeMap<String, Row>) -> String {
    let total = |f: fn(&Row) -> usize| rows.values().map(f).sum::<usize>();
    let (passed, constants) = (total(|r| r.passed), total(|r| r.with_constants));
    let not_run = total(|r| r.not_run.values().sum());
    let mut text = format!(
        "# The official ONNX node tests\n\n\
         Generated by `AIC_BLESS=1 cargo test --test onnx node`; the same test without the variable runs every case and keeps\n\
         this page current.\n\n\
         The cases are those of the onnx package that `tests/models/requirements.txt` pins, made by its own generators, the\n\
         expansions of functions included. A case passes when both the graph interpreter and the compiled code give the\n\
         expected outputs within the official runner's tolerance, integers and truth values exactly. All cases of declared\n\
         operators and element types ([operators.md](operators.md)) are run.\n\n\
         | | cases |\n| --- | ---: |\n\
         | passed | {passed} |\n\
         | of these with operands made constant that the operator has to know when compiling | {constants} |\n\
         | not run | {not_run} |\n\
         | all | {} |\n\n\
         The error is the largest distance of an element that the compiled code gives from the expected one, in units of the\n\
         last place of the element type at the expected element (or at a millionth of the largest one, if that is more),\n\
         rounded up to a power of two.\n\n\
         | operator | passed | error, ULP | not run |\n| --- | ---: | ---: | --- |\n",
        passed + not_run
    );
    for (operator, row) in rows {
        let reasons: Vec<String> = row.not_run.iter().map(|(reason, n)| format!("{n}: {reason}")).collect();
        let error = match row.passed {
            0 => String::new(),
            _ => page::at_most(row.ulp),
        };
        let _ = writeln!(text, "| {operator} | {} | {error} | {} |", row.passed, reasons.join("; "));
    }
    text
}
