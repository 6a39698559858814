//! The supported operators: a table of rules, and behind each rule its importer, by family.
//!
//! A rule says in which operator sets an operator is read, what its operands, their element types and its attributes are,
//! and in one line what else holds; the same line is the row of the printed table. The importer checks each node against
//! its rule, so the table cannot promise less or more than is read.
//!
//! An importer reads every form that its operator had since the first operator set: what is an operand today was often an
//! attribute. Operators that the graph does not have are written as several that it has, in the way that the ONNX
//! specification defines them.

mod accept;
mod activation;
mod attention;
mod bits;
mod constant;
mod contraction;
mod control;
mod conv_transpose;
mod convolution;
mod einsum;
mod elementwise;
mod fold_columns;
mod grid_sample;
mod logic;
mod normalization;
mod pad;
mod pick;
mod pool;
mod power;
mod recurrent;
mod reduce;
mod refused;
mod resample;
mod resize;
mod rotary;
mod scatter;
mod shape;
mod slicing;
mod softmax;
mod trigonometry;
mod window;

use aic_ir::graph::Value;
use aic_ir::types::DType;

use super::context::NodeContext;
use super::import::Importer;
use super::schema::NodeProto;
use super::scope::Slot;
use crate::builder::Reason;
pub(super) use accept::{check_operands, check_result};
pub(super) use constant::numbers;
pub(super) use refused::reason as refusal;
pub use refused::{REFUSED, Refusal};

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
    /// First operator set it is read from.
    pub since: i64,
    /// Last operator set it is read from.
    pub until: i64,
    /// What holds beside the element types, in one line.
    pub doc: &'static str,
    /// Element types of the operands that have no types of their own. Operators without operands have none.
    pub types: &'static [DType],
    /// Operands with element types of their own, by position.
    pub own_types: &'static [(usize, &'static [DType])],
    /// Element types of the first result, where an attribute or a constant chooses it.
    pub result_types: Option<&'static [DType]>,
    /// Fewest and most operands.
    pub operands: (usize, usize),
    /// The attributes that are read; any other is refused.
    pub attributes: &'static [&'static str],
    pub(super) import: Import,
}

/// A rule for an operator of one result, since the first operator set that is read. Every rule of an operator with
/// operands says which element types they have.
const fn rule(
    name: &'static str,
    operands: (usize, usize),
    attributes: &'static [&'static str],
    doc: &'static str,
    import: fn(&mut NodeContext<'_>) -> Result<Value, Reason>,
) -> OpRule {
    new(name, operands, attributes, doc, Import::One(import))
}

/// Like [`rule`], for an operator of several results.
const fn many(
    name: &'static str,
    operands: (usize, usize),
    attributes: &'static [&'static str],
    doc: &'static str,
    import: fn(&mut NodeContext<'_>) -> Result<Vec<Value>, Reason>,
) -> OpRule {
    new(name, operands, attributes, doc, Import::Many(import))
}

/// Like [`rule`], for an operator whose attributes are graphs.
const fn graphs(
    name: &'static str,
    operands: (usize, usize),
    attributes: &'static [&'static str],
    doc: &'static str,
    import: ImportGraphs,
) -> OpRule {
    new(name, operands, attributes, doc, Import::Graphs(import))
}

const fn new(
    name: &'static str,
    operands: (usize, usize),
    attributes: &'static [&'static str],
    doc: &'static str,
    import: Import,
) -> OpRule {
    let (since, until) = (*super::OPSETS.start(), *super::OPSETS.end());
    OpRule { name, since, until, doc, types: &[], own_types: &[], result_types: None, operands, attributes, import }
}

impl OpRule {
    /// The rule, for an operator that came with a later operator set.
    const fn since(mut self, opset: i64) -> Self {
        self.since = opset;
        self
    }

    /// The rule, for an operator that a later operator set dropped.
    const fn until(mut self, opset: i64) -> Self {
        self.until = opset;
        self
    }

    /// The rule, with the element types of the operands that have none of their own.
    const fn types(mut self, types: &'static [DType]) -> Self {
        self.types = types;
        self
    }

    /// The rule, with operands that have element types of their own.
    const fn own(mut self, own_types: &'static [(usize, &'static [DType])]) -> Self {
        self.own_types = own_types;
        self
    }

    /// The rule, with the element types that the first result may be given.
    const fn gives(mut self, types: &'static [DType]) -> Self {
        self.result_types = Some(types);
        self
    }

    /// Element types that operand `index` may have.
    pub fn operand_types(&self, index: usize) -> &'static [DType] {
        self.own_types.iter().find(|(i, _)| *i == index).map_or(self.types, |(_, types)| types)
    }

    /// The element types in words: those of the operands, of operands with types of their own, and of the result where
    /// it is chosen. `floats; operand 1: i64`.
    pub fn types_in_words(&self) -> String {
        let mut parts = Vec::new();
        if !self.types.is_empty() {
            parts.push(accept::in_words(self.types));
        }
        let own = self.own_types.iter();
        parts.extend(own.map(|(index, types)| format!("operand {index}: {}", accept::in_words(types))));
        parts.extend(self.result_types.map(|types| format!("result: {}", accept::in_words(types))));
        parts.join("; ")
    }
}

/// Number of operands without a bound.
const VARIADIC: usize = usize::MAX;

const FAMILIES: [&[OpRule]; 26] = [
    elementwise::RULES,
    power::RULES,
    trigonometry::RULES,
    logic::RULES,
    bits::RULES,
    activation::RULES,
    constant::RULES,
    shape::RULES,
    slicing::RULES,
    pad::RULES,
    scatter::RULES,
    reduce::RULES,
    contraction::RULES,
    einsum::RULES,
    convolution::RULES,
    conv_transpose::RULES,
    pool::RULES,
    resize::RULES,
    grid_sample::RULES,
    fold_columns::RULES,
    normalization::RULES,
    softmax::RULES,
    attention::RULES,
    rotary::RULES,
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
            let opsets = super::super::OPSETS;
            assert!(opsets.contains(&rule.since) && opsets.contains(&rule.until), "{}", rule.name);
            assert!(rule.since <= rule.until, "{}", rule.name);
            assert!(rule.operands.0 <= rule.operands.1 && !rule.doc.is_empty(), "{}", rule.name);
            // Every operand has types, and no operand that cannot be has some.
            let own = rule.own_types.iter().filter(|(i, _)| *i < rule.operands.1).count();
            assert_eq!(own, rule.own_types.len(), "{}", rule.name);
            assert_eq!(rule.types.is_empty(), own == rule.operands.1, "{}: `.types` is missing or too much", rule.name);
        }
    }

    #[test]
    fn what_is_refused_is_not_supported() {
        let mut names: Vec<&str> = REFUSED.iter().flat_map(|r| r.names).copied().collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
        for rule in supported() {
            assert_eq!(refusal(rule.name), None, "{}", rule.name);
        }
    }
}
