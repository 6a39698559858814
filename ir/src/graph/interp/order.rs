//! Operators along one dimension whose result depends on the order of its elements: positions of extremes, sorting, running
//! sums.

use std::cmp::Ordering;

use super::integer;
use super::num::{Num, Rounding};
use super::reduce::Sum;
use super::value::{Data, Evaluated};
use crate::graph::{ArgOp, BinaryOp};
use crate::types::{DType, TensorType};

/// For each line along a dimension, the offsets of its elements in order.
fn lines(shape: &[u64], axis: usize) -> impl Iterator<Item = impl DoubleEndedIterator<Item = usize> + Clone> {
    let size = shape[axis] as usize;
    let outer = shape[..axis].iter().product::<u64>() as usize;
    let inner = shape[axis + 1..].iter().product::<u64>() as usize;
    (0..outer).flat_map(move |o| (0..inner).map(move |i| (0..size).map(move |k| (o * size + k) * inner + i)))
}

/// Whether the order of two elements is certain, that of equal ones included.
fn are_apart(a: Num, b: Num) -> bool {
    (a.e == 0.0 && b.e == 0.0) || a.high() < b.low() || b.high() < a.low()
}

/// How two elements of one tensor compare, a NaN being larger than every number.
fn compare(x: &Evaluated, a: usize, b: usize) -> Ordering {
    match &x.data {
        Data::Float(values) => {
            let (a, b) = (values[a], values[b]);
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
        Data::Int(values) if x.ty().dtype() == DType::U64 => (values[a] as u64).cmp(&(values[b] as u64)),
        Data::Int(values) => values[a].cmp(&values[b]),
    }
}

/// The values and the positions of the best. An order statistic moves at most as far as some element does, so the largest
/// bound of a line is that of its values; a position is certain if its element is apart from all others of the line.
pub(super) fn top_k(k: u64, axis: usize, largest: bool, x: &Evaluated, types: Vec<TensorType>) -> Vec<Evaluated> {
    let first_first = |a: &(usize, usize), b: &(usize, usize)| {
        let order = compare(x, a.1, b.1);
        (if largest { order.reverse() } else { order }).then(a.0.cmp(&b.0))
    };
    let count = types.first().map_or(0, |ty| ty.elems() as usize);
    let (mut values, mut positions) = (vec![Num::exact(0.0); count], vec![(0, 0.0); count]);
    let mut integers = vec![(0, 0.0); count];
    let mut shape = x.ty().shape().to_vec();
    shape[axis] = k;
    for (line, target) in lines(x.ty().shape(), axis).zip(lines(&shape, axis)) {
        let mut order: Vec<(usize, usize)> = line.clone().enumerate().collect();
        order.sort_by(first_first);
        let e = line.map(|i| x.err(i)).fold(0.0, f64::max);
        let certain = certain_places(x, &order);
        for (target, (&(position, i), certain)) in target.zip(order.iter().zip(certain)) {
            values[target] = Num { e, ..x.num(i) };
            integers[target] = (x.int(i).0, e);
            positions[target] = (position as i64, if certain { 0.0 } else { f64::INFINITY });
        }
    }
    let mut types = types.into_iter();
    let (Some(value_ty), Some(index_ty)) = (types.next(), types.next()) else { return Vec::new() };
    let values = if value_ty.dtype().is_float() {
        Evaluated::from_nums(value_ty, values)
    } else {
        Evaluated::from_ints(value_ty, integers)
    };
    vec![values, Evaluated::from_ints(index_ty, positions)]
}

/// For each element of a sorted line, whether every evaluation finds it at that place: its interval is apart from those of
/// all elements before and after it, which need not be sorted by their ends. Where bounds differ, equal certain elements
/// count as uncertain.
fn certain_places(x: &Evaluated, order: &[(usize, usize)]) -> Vec<bool> {
    if order.iter().all(|&(_, i)| x.err(i) == 0.0) {
        return vec![true; order.len()];
    }
    // Intervals in order, as if the smallest came first.
    let ends: Vec<(f64, f64)> = order.iter().map(|&(_, i)| (x.num(i).low(), x.num(i).high())).collect();
    let ascending = order.windows(2).all(|w| compare(x, w[0].1, w[1].1).is_le());
    let ends: Vec<(f64, f64)> =
        if ascending { ends } else { ends.into_iter().map(|(low, high)| (-high, -low)).collect() };
    let mut certain = vec![true; order.len()];
    let mut highest = f64::NEG_INFINITY;
    for (&(low, high), certain) in ends.iter().zip(&mut certain) {
        *certain &= highest < low;
        highest = highest.max(high);
    }
    let mut lowest = f64::INFINITY;
    for (&(low, high), certain) in ends.iter().zip(&mut certain).rev() {
        *certain &= high < lowest;
        lowest = lowest.min(low);
    }
    certain
}

pub(super) fn arg_reduce(op: ArgOp, axis: usize, last: bool, x: &Evaluated, ty: TensorType) -> Evaluated {
    let wins = |i: usize, best: usize| -> bool {
        let mut order = compare(x, i, best);
        // A NaN is the best there is, as the largest and as the smallest.
        let is_nan = |i: usize| x.floats().is_some_and(|values| values[i].is_nan());
        if op == ArgOp::Min && !is_nan(i) && !is_nan(best) {
            order = order.reverse();
        }
        order.is_gt() || (last && order.is_eq())
    };
    let results = lines(x.ty().shape(), axis).map(|line| {
        let (mut best, mut at) = (None, 0);
        for (k, i) in line.clone().enumerate() {
            if best.is_none_or(|best| wins(i, best)) {
                (best, at) = (Some(i), k);
            }
        }
        let certain = best.is_some_and(|best| line.clone().all(|i| i == best || are_apart(x.num(i), x.num(best))));
        (at as i64, if certain { 0.0 } else { f64::INFINITY })
    });
    Evaluated::from_ints(ty, results)
}

pub(super) fn cumsum(axis: usize, exclusive: bool, reverse: bool, x: &Evaluated, r: &Rounding) -> Evaluated {
    let ty = x.ty().clone();
    let count = ty.elems() as usize;
    let in_order =
        |line: &mut dyn DoubleEndedIterator<Item = usize>| if reverse { line.next_back() } else { line.next() };
    match &x.data {
        Data::Float(_) => {
            let mut results = vec![Num::exact(0.0); count];
            for mut line in lines(ty.shape(), axis) {
                let (mut sum, mut n) = (Sum::EMPTY, 0.0);
                while let Some(i) = in_order(&mut line) {
                    if exclusive {
                        results[i] = sum.total(n, 0.0, r);
                    }
                    sum.add(x.num(i), r);
                    n += 1.0;
                    if !exclusive {
                        results[i] = sum.total(n, 0.0, r);
                    }
                }
            }
            Evaluated::from_nums(ty, results)
        }
        Data::Int(_) => {
            let mut results = vec![(0, 0.0); count];
            for mut line in lines(ty.shape(), axis) {
                let mut sum = (0, 0.0);
                while let Some(i) = in_order(&mut line) {
                    let x = x.int(i);
                    let next = (integer::binary(BinaryOp::Add, ty.dtype(), sum.0, x.0), x.1.max(sum.1));
                    results[i] = if exclusive { sum } else { next };
                    sum = next;
                }
            }
            Evaluated::from_ints(ty, results)
        }
    }
}
