//! Scans: the body evaluated once for each step.

use std::borrow::Cow;

use super::{ErrorModel, Evaluated, InterpError, MAX_EVALUATED_ELEMENTS, OpError, run_verified, value_of};
use crate::graph::Scan;
use crate::types::TensorType;

/// Evaluates a scan's results. The operands' error bounds enter the first step, and those of its states the next.
pub(super) fn scan(scan: &Scan, operands: &[&Evaluated], model: ErrorModel) -> Result<Vec<Evaluated>, OpError> {
    let types: Vec<&TensorType> = operands.iter().map(|x| x.ty()).collect();
    let results = scan.infer(&types)?;
    if let Some(large) = results.iter().find(|ty| ty.elems() > MAX_EVALUATED_ELEMENTS) {
        return Err(OpError::TooLarge(large.clone()));
    }
    let at = |step: u64| move |error: InterpError| OpError::Step { step, error: Box::new(error) };
    let body = &scan.body;
    let info = body.verify().map_err(|errors| at(0)(InterpError::Invalid(errors)))?;
    let mut states: Vec<Evaluated> = operands.iter().take(scan.states).map(|&x| x.clone()).collect();
    let mut rows: Vec<Vec<Evaluated>> = vec![Vec::new(); results.len() - scan.states];
    for step in 0..scan.trips {
        let row_of = |x: &Evaluated, input: usize| {
            let ty = body.ty(body.inputs[input]);
            let (row, elems) = (scan.row(step) as usize, ty.elems() as usize);
            x.at(ty.clone(), row * elems..(row + 1) * elems)
        };
        let mut inputs = std::mem::take(&mut states);
        for (i, &operand) in operands.iter().enumerate().skip(scan.states) {
            let is_sequence = i < scan.states + scan.sequences;
            inputs.push(if is_sequence { row_of(operand, i) } else { operand.clone() });
        }
        let values = run_verified(body, &info, inputs, model, false).map_err(at(step))?;
        let mut outputs =
            body.outputs.iter().filter_map(|output| value_of(body, &values, output.value).map(Cow::into_owned));
        states = outputs.by_ref().take(scan.states).collect();
        for (rows, row) in rows.iter_mut().zip(outputs) {
            rows.push(row);
        }
    }
    let mut stacked = rows.into_iter().zip(results.into_iter().skip(scan.states)).map(|(mut rows, ty)| {
        if scan.reverse {
            rows.reverse();
        }
        Evaluated::stacked(ty, &rows)
    });
    states.extend(stacked.by_ref());
    Ok(states)
}
