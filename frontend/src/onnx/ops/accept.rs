//! Which element types operands may have: the named sets that the table of operators uses, and their check at import.
//!
//! The sets are those of the ONNX specification without the types that no value has here (strings, complex numbers,
//! floats and integers of fewer than 8 bits).

use aic_ir::graph::Value;
use aic_ir::types::DType;

use super::OpRule;
use crate::builder::{Builder, Reason};
use crate::onnx::schema::NodeProto;

/// Floating-point numbers.
pub(super) const FLOATS: &[DType] = &[DType::F16, DType::BF16, DType::F32, DType::F64];

/// Integers.
pub(super) const INTS: &[DType] =
    &[DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

/// All numbers.
pub(super) const NUMBERS: &[DType] = {
    let [numbers @ .., _] = &DType::ALL;
    numbers
};

/// Numbers with a sign.
pub(super) const SIGNED: &[DType] =
    &[DType::F16, DType::BF16, DType::F32, DType::F64, DType::I8, DType::I16, DType::I32, DType::I64];

/// Floats and integers of 32 and 64 bits: what many operators of linear algebra and most reductions take.
pub(super) const WIDE: &[DType] =
    &[DType::F16, DType::BF16, DType::F32, DType::F64, DType::I32, DType::I64, DType::U32, DType::U64];

/// Numbers and truth values.
pub(super) const ANY: &[DType] = &DType::ALL;

/// Truth values.
pub(super) const BOOL: &[DType] = &[DType::Bool];

/// Sizes, shapes and most axes.
pub(super) const I64: &[DType] = &[DType::I64];

/// What elements are selected by.
pub(super) const INDICES: &[DType] = &[DType::I32, DType::I64];

/// A set of element types in words: `floats, i32, i64`.
pub(super) fn in_words(types: &[DType]) -> String {
    if types.len() == DType::ALL.len() {
        return "all".to_owned();
    }
    let mut words = Vec::new();
    for (set, name) in [(FLOATS, "floats"), (INTS, "integers")] {
        match set.iter().all(|d| types.contains(d)) {
            true => words.push(name),
            false => words.extend(set.iter().filter(|d| types.contains(d)).map(|d| d.name())),
        }
    }
    if types.contains(&DType::Bool) {
        words.push(DType::Bool.name());
    }
    words.join(", ")
}

/// Refuses operands of element types that the rule does not name.
pub(in crate::onnx) fn check_operands(
    rule: &OpRule,
    node: &NodeProto,
    operands: &[Option<Value>],
    builder: &Builder,
) -> Result<(), Reason> {
    for (index, value) in operands.iter().enumerate() {
        let Some(value) = *value else { continue };
        let (accepted, actual) = (rule.operand_types(index), builder.dtype(value));
        if !accepted.contains(&actual) {
            let name = node.input.get(index).map(String::as_str).unwrap_or_default();
            let accepted = in_words(accepted);
            return Err(
                format!("operand {index} (`{name}`) has elements of type {actual}; supported: {accepted}").into()
            );
        }
    }
    Ok(())
}

/// Refuses a first result of an element type that the rule does not name, where an attribute or constant chooses it.
pub(in crate::onnx) fn check_result(rule: &OpRule, results: &[Value], builder: &Builder) -> Result<(), Reason> {
    let Some(actual) = results.first().map(|&v| builder.dtype(v)) else { return Ok(()) };
    match rule.result_types {
        Some(accepted) if !accepted.contains(&actual) => {
            Err(format!("the result has elements of type {actual}; supported: {}", in_words(accepted)).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_named() {
        assert_eq!(in_words(ANY), "all");
        assert_eq!(in_words(NUMBERS), "floats, integers");
        assert_eq!(in_words(SIGNED), "floats, i8, i16, i32, i64");
        assert_eq!(in_words(&[DType::F32, DType::I64, DType::Bool]), "f32, i64, bool");
    }
}
