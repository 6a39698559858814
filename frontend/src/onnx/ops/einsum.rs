//! Einsum: sums of products over labelled dimensions.
//!
//! Operands are combined from left to right. Of each one, dimensions of one label become their diagonal, and labels that
//! nothing else mentions are summed; two of them are multiplied as matrices, whose batch dimensions are the labels that
//! stay, and whose contracted dimensions are those that only these two have.

use aic_ir::graph::{BinaryOp, Op, ReduceOp, Value};

use super::accept::WIDE;
use super::{OpRule, VARIADIC, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[rule(
    "Einsum",
    (1, VARIADIC),
    &["equation"],
    "any equation: ellipses, repeated labels, labels that are summed",
    einsum,
)
.types(WIDE)
.since(12)];

/// A dimension's name: a letter, or a position in the ellipsis, counted from its last dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(std::cmp::Reverse<usize>),
    Letter(char),
}

/// A value whose dimensions have names.
struct Term {
    value: Value,
    labels: Vec<Label>,
}

/// Labels of one term; the ellipsis stands for as many dimensions as are left of `rank`.
fn labels(text: &str, rank: usize) -> Result<Vec<Label>, Reason> {
    let (before, after) = match text.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    };
    let letters = |text: &str| -> Result<Vec<Label>, Reason> {
        text.chars()
            .map(|letter| match letter.is_ascii_alphabetic() {
                true => Ok(Label::Letter(letter)),
                false => Err(format!("the equation has {letter:?} for a label").into()),
            })
            .collect()
    };
    let mut result = letters(before)?;
    if let Some(after) = after {
        let after = letters(after)?;
        let left = rank.checked_sub(result.len() + after.len());
        let left = left.ok_or_else(|| format!("{text:?} has more labels than {rank} dimensions"))?;
        result.extend((0..left).rev().map(|i| Label::Ellipsis(std::cmp::Reverse(i))));
        result.extend(after);
    }
    match result.len() == rank {
        true => Ok(result),
        false => Err(format!("{text:?} labels {} dimensions of {rank}", result.len()).into()),
    }
}

fn einsum(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let equation: String = c.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (equation.as_str(), None),
    };
    let operands = c.all_operands()?;
    let texts: Vec<&str> = inputs.split(',').collect();
    if texts.len() != operands.len() {
        return Err(format!("the equation {equation:?} is not for {} operands", operands.len()).into());
    }
    let mut terms = Vec::with_capacity(operands.len());
    for (text, value) in texts.iter().zip(operands) {
        terms.push(Term { value, labels: labels(text, c.rank(value))? });
    }
    let result = output_labels(&terms, output)?;
    let mut terms = terms.into_iter();
    let mut product = terms.next().ok_or("there are no operands")?;
    product = diagonals(c, product)?;
    while let Some(next) = terms.next() {
        let next = diagonals(c, next)?;
        let rest = terms.as_slice();
        let stays = |label: &Label| result.contains(label) || rest.iter().any(|t| t.labels.contains(label));
        product = multiply(c, product, next, stays)?;
    }
    product = sum_others(c, product, |label| result.contains(label))?;
    let perm: Option<Vec<usize>> = result.iter().map(|label| product.labels.iter().position(|l| l == label)).collect();
    c.transpose(product.value, perm.ok_or("the equation's result has labels that no operand has")?)
}

/// The labels of the result: as given, or the ellipsis and every letter that occurs once, in order of the alphabet.
fn output_labels(terms: &[Term], output: Option<&str>) -> Result<Vec<Label>, Reason> {
    let mut all: Vec<Label> = terms.iter().flat_map(|t| t.labels.iter().copied()).collect();
    all.sort_unstable();
    let is_ellipsis = |label: &Label| matches!(label, Label::Ellipsis(_));
    let mut ellipsis: Vec<Label> = all.iter().copied().filter(is_ellipsis).collect();
    ellipsis.dedup();
    let Some(text) = output else {
        let once = all.iter().filter(|l| !is_ellipsis(l) && all.iter().filter(|other| other == l).count() == 1);
        return Ok(ellipsis.iter().chain(once).copied().collect());
    };
    let letters = text.replace("...", "").chars().count();
    let rank = letters + if text.contains("...") { ellipsis.len() } else { 0 };
    let result = labels(text, rank)?;
    let mut sorted = result.clone();
    sorted.sort_unstable();
    match sorted.windows(2).any(|w| w[0] == w[1]) {
        true => Err(format!("{text:?} has a label twice").into()),
        false => Ok(result),
    }
}

/// Keeps of dimensions of one label the elements whose indices are equal.
fn diagonals(c: &mut NodeContext<'_>, mut term: Term) -> Result<Term, Reason> {
    loop {
        let labels = &term.labels;
        let twice = (0..labels.len()).find_map(|i| Some((i, (0..i).find(|&j| labels[j] == labels[i])?)));
        let Some((second, first)) = twice else { return Ok(term) };
        let (n, m) = (c.shape(term.value)[first], c.shape(term.value)[second]);
        if n != m {
            return Err(format!("dimensions {first} and {second} have one label and {n} and {m} elements").into());
        }
        let mut perm: Vec<usize> = (0..labels.len()).filter(|&i| i != first && i != second).collect();
        let lead = perm.len();
        perm.extend([first, second]);
        let moved = c.transpose(term.value, perm.as_slice())?;
        let mut shape = c.shape(moved)[..lead].to_vec();
        shape.push(n.checked_mul(n).ok_or("the operand is too large")?);
        let flat = c.reshape(moved, shape.as_slice())?;
        let mut steps = vec![1; lead + 1];
        if n > 1 {
            steps[lead] = n as i64 + 1;
        }
        shape[lead] = n;
        let value = c.emit(Op::Slice { starts: vec![0; lead + 1], sizes: shape, steps }, &[flat])?;
        term = Term { value, labels: perm[..=lead].iter().map(|&i| labels[i]).collect() };
    }
}

/// Sums the dimensions that do not stay.
fn sum_others(c: &mut NodeContext<'_>, term: Term, stays: impl Fn(&Label) -> bool) -> Result<Term, Reason> {
    let axes: Vec<usize> = (0..term.labels.len()).filter(|&i| !stays(&term.labels[i])).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let value = c.reduce(ReduceOp::Sum, term.value, &axes, false)?;
    Ok(Term { value, labels: term.labels.into_iter().filter(|l| stays(l)).collect() })
}

/// The product of two terms, summed over the labels that both have and that do not stay.
fn multiply(c: &mut NodeContext<'_>, a: Term, b: Term, stays: impl Fn(&Label) -> bool) -> Result<Term, Reason> {
    let a = sum_others(c, a, |l| stays(l) || b.labels.contains(l))?;
    let b = sum_others(c, b, |l| stays(l) || a.labels.contains(l))?;
    let of = |term: &Term, shared: bool, kept: bool| -> Vec<Label> {
        let other = if std::ptr::eq(term, &a) { &b } else { &a };
        term.labels.iter().copied().filter(|l| other.labels.contains(l) == shared && stays(l) == kept).collect()
    };
    let (batch, summed) = (of(&a, true, true), of(&a, true, false));
    let (rows, columns) = (of(&a, false, true), of(&b, false, true));
    let labels = [batch.as_slice(), &rows, &columns].concat();
    let sizes = |c: &NodeContext<'_>, term: &Term, of: &[Label]| -> Vec<u64> {
        let size = |label| term.labels.iter().position(|l| *l == label).map_or(1, |i| c.shape(term.value)[i]);
        of.iter().map(|&label| size(label)).collect()
    };
    let arranged = |c: &mut NodeContext<'_>, term: &Term, order: &[&[Label]]| {
        let order = order.concat();
        let perm = order.iter().filter_map(|label| term.labels.iter().position(|l| l == label));
        let perm: Vec<usize> = perm.collect();
        c.transpose(term.value, perm)
    };
    let (row_sizes, column_sizes) = (sizes(c, &a, &rows), sizes(c, &b, &columns));
    let (a_batch, b_batch) = (sizes(c, &a, &batch), sizes(c, &b, &batch));
    let (a_summed, b_summed) = (sizes(c, &a, &summed), sizes(c, &b, &summed));
    if a_summed != b_summed {
        return Err(format!("summed dimensions have {a_summed:?} and {b_summed:?} elements").into());
    }
    let ones = |list: &[u64]| vec![1; list.len()];
    let value = if !summed.is_empty() && c.dtype(a.value).is_float() {
        let (m, k, n): (u64, u64, u64) =
            (row_sizes.iter().product(), a_summed.iter().product(), column_sizes.iter().product());
        let left = arranged(c, &a, &[&batch, &rows, &summed])?;
        let left = c.reshape(left, [a_batch.as_slice(), &[m, k]].concat())?;
        let right = arranged(c, &b, &[&batch, &summed, &columns])?;
        let right = c.reshape(right, [b_batch.as_slice(), &[k, n]].concat())?;
        let product = c.emit(Op::MatMul, &[left, right])?;
        let lead = c.shape(product)[..batch.len()].to_vec();
        c.reshape(product, [lead, row_sizes, column_sizes].concat())?
    } else {
        let left = arranged(c, &a, &[&batch, &rows, &summed])?;
        let left = c.reshape(left, [a_batch, row_sizes.clone(), ones(&column_sizes), a_summed].concat())?;
        let right = arranged(c, &b, &[&batch, &columns, &summed])?;
        let right = c.reshape(right, [b_batch, ones(&row_sizes), column_sizes, b_summed].concat())?;
        let product = c.binary(BinaryOp::Mul, left, right)?;
        let axes: Vec<usize> = (labels.len()..labels.len() + summed.len()).collect();
        c.reduce(ReduceOp::Sum, product, &axes, false)?
    };
    Ok(Term { value, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fill_the_ellipsis_from_the_end() {
        let (i, j) = (Label::Letter('i'), Label::Letter('j'));
        let dots = |i| Label::Ellipsis(std::cmp::Reverse(i));
        assert_eq!(labels("i...j", 4), Ok(vec![i, dots(1), dots(0), j]));
        assert_eq!(labels("...", 0), Ok(vec![]));
        assert!(labels("ij", 3).is_err());
        assert!(labels("i...j", 1).is_err());
        assert!(labels("i.j", 3).is_err());
    }
}
