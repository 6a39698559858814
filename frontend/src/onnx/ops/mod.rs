//! The supported operators: a table of rules, and behind each rule its importer, by family.
//!
//! A rule says from which operator set on an operator is read, what its operands and attributes are, and in one line
//! what holds; the same line is the row of the printed table. An importer reads every form that its operator had since the
//! first operator set: what is an operand today was often an attribute. Operators that the graph does not have are written as
//! several that it has, in the way that the ONNX specification defines them.

mod activation;
mod attention;
mod constant;
mod contraction;
mod control;
mod elementwise;
mod logic;
mod normalization;
mod recurrent;
mod reduce;
mod shape;
mod slicing;
mod window;

use aic_ir::graph::Value;

use super::context::NodeContext;
use super::import::Importer;
use super::schema::NodeProto;
use super::scope::Slot;
use crate::builder::Reason;
pub(super) use constant::numbers;

/// How a node becomes values of the graph.
#[derive(Clone, Copy)]
pub(super) enum Import {
    /// An operator with one result.
    One(fn(&mut NodeContext<'_>) -> Result<Value, Reason>),
    /// An operator with several results.
    Many(fn(&mut NodeContext<'_>) -> Result<Vec<Value>, Reason>),
    /// An operator whose attributes are graphs.
    Graphs(ImportGraphs),
}

/// Importer of a node that holds graphs.
pub(super) type ImportGraphs =
    for<'m> fn(&mut Importer<'m>, &'m NodeProto, &[Option<Value>]) -> Result<Vec<Slot>, Reason>;

/// A row of the table of supported operators.
#[derive(Clone, Copy)]
pub struct OpRule {
    /// Name of the operator in the standard domain.
    pub name: &'static str,
    /// First operator set it is read from; the last is that of [`super::OPSETS`].
    pub since: i64,
    /// What holds, in one line.
    pub doc: &'static str,
    /// Fewest and most operands.
    pub operands: (usize, usize),
    /// The attributes that are read; any other is refused.
    pub attributes: &'static [&'static str],
    pub(super) import: Import,
}

/// A rule for an operator of one result, since the first operator set that is read.
const fn rule(
    name: &'static str,
    operands: (usize, usize),
    attributes: &'static [&'static str],
    doc: &'static str,
    import: fn(&mut NodeContext<'_>) -> Result<Value, Reason>,
) -> OpRule {
    OpRule { name, since: *super::OPSETS.start(), doc, operands, attributes, import: Import::One(import) }
}

impl OpRule {
    /// The rule, for an operator that came with a later operator set.
    const fn since(mut self, opset: i64) -> Self {
        self.since = opset;
        self
    }
}

/// Number of operands without a bound.
const VARIADIC: usize = usize::MAX;

const FAMILIES: [&[OpRule]; 13] = [
    elementwise::RULES,
    logic::RULES,
    activation::RULES,
    constant::RULES,
    shape::RULES,
    slicing::RULES,
    reduce::RULES,
    contraction::RULES,
    window::RULES,
    normalization::RULES,
    attention::RULES,
    control::RULES,
    recurrent::RULES,
];

/// Every supported operator, by family.
pub fn supported() -> impl Iterator<Item = &'static OpRule> {
    FAMILIES.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_unique_and_consistent() {
        let mut names: Vec<&str> = supported().map(|r| r.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
        for rule in supported() {
            assert!(super::super::OPSETS.contains(&rule.since), "{}", rule.name);
            assert!(rule.operands.0 <= rule.operands.1 && !rule.doc.is_empty(), "{}", rule.name);
        }
    }
}
