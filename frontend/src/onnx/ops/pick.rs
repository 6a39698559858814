//! Elements of a dimension picked by a list that is known when compiling: what padding, resizing and their kin come to.

use aic_ir::graph::{Op, Value};

use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// A list of more runs than this is looked up instead of being copied run by run.
const MAX_RUNS: usize = 8;

/// Longest list, so that time and memory stay in proportion to the file.
pub(super) const MAX_PICKED: u64 = 1 << 20;

/// `count` elements from `start` on, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    count: u64,
    step: i64,
}

/// Splits a list into runs, each as long as possible.
fn runs(list: &[u64]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &index in list {
        let extended = runs.last_mut().is_some_and(|run| {
            let last = run.start as i64 + run.step * (run.count as i64 - 1);
            let step = index as i64 - last;
            if run.count == 1 {
                run.step = step;
            }
            let fits = step == run.step;
            run.count += u64::from(fits);
            fits
        });
        if !extended {
            runs.push(Run { start: index, count: 1, step: 1 });
        }
    }
    runs
}

/// Whether the list is `0 0 … 1 1 … n-1 n-1 …`, each index the same number of times.
fn repetition(list: &[u64], size: u64) -> Option<u64> {
    let times = (list.len() as u64).checked_div(size)?;
    let repeats = times > 0 && times * size == list.len() as u64;
    (repeats && list.iter().enumerate().all(|(i, &index)| i as u64 / times == index)).then_some(times)
}

/// `y` with `y[a..., i, b...] = x[a..., list[i], b...]`. Every index must be inside the dimension.
pub(super) fn pick(c: &mut NodeContext<'_>, x: Value, axis: usize, list: &[u64]) -> Result<Value, Reason> {
    let shape = c.shape(x).to_vec();
    let size = shape[axis];
    if let Some(index) = list.iter().find(|&&i| i >= size) {
        return Err(format!("element {index} of a dimension of {size} is needed").into());
    }
    let (before, after) = (&shape[..axis], &shape[axis + 1..]);
    if let Some(times) = repetition(list, size).filter(|&times| times > 1) {
        let split = c.reshape(x, [before, &[size, 1], after].concat())?;
        let repeated = c.expand(split, [before, &[size, times], after].concat())?;
        return c.reshape(repeated, [before, &[list.len() as u64], after].concat());
    }
    let runs = runs(list);
    if runs.len() > MAX_RUNS {
        let list: Vec<i64> = list.iter().map(|&i| i as i64).collect();
        let indices = c.ints(&list)?;
        return c.emit(Op::Gather { axis }, &[x, indices]);
    }
    let mut parts = Vec::with_capacity(runs.len().max(1));
    for Run { start, count, step } in runs {
        let mut starts = vec![0; shape.len()];
        let mut sizes = shape.clone();
        let mut steps = vec![1; shape.len()];
        starts[axis] = start;
        sizes[axis] = if step == 0 { 1 } else { count };
        steps[axis] = if step == 0 { 1 } else { step };
        let part = c.emit(Op::Slice { starts, sizes, steps }, &[x])?;
        parts.push(match step {
            0 => c.expand(part, [before, &[count], after].concat())?,
            _ => part,
        });
    }
    match parts.is_empty() {
        true => {
            let mut sizes = shape.clone();
            sizes[axis] = 0;
            c.slice(x, vec![0; shape.len()], sizes)
        }
        false => c.concat(&parts, axis),
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, repetition, runs};

    #[test]
    fn lists_are_split_into_runs() {
        let run = |start, count, step| Run { start, count, step };
        assert_eq!(runs(&[2, 1, 0, 1, 2, 3]), [run(2, 3, -1), run(1, 3, 1)]);
        assert_eq!(runs(&[0, 0, 0, 1, 2]), [run(0, 3, 0), run(1, 2, 1)]);
        assert_eq!(runs(&[4]), [run(4, 1, 1)]);
        assert_eq!(runs(&[]), []);
    }

    #[test]
    fn repetitions_are_seen() {
        assert_eq!(repetition(&[0, 0, 1, 1, 2, 2], 3), Some(2));
        assert_eq!(repetition(&[0, 1, 1], 2), None);
        assert_eq!(repetition(&[0, 0, 1, 1], 3), None);
    }
}
