//! Scans: a graph repeated over the leading dimension of sequences, with states carried from one step to the next.
//!
//! It is what recurrent layers and loops of a known number of trips become, so that a sequence of a thousand steps costs
//! code for one. The form is that of `scan` in functional languages, restricted to the leading dimension:
//!
//! ```text
//! operands  (states..., sequences..., captured...)      results  (states..., stacked...)
//!
//! for i in 0..trips, or trips - 1 down to 0 if reverse:
//!     (states..., rows...) = body(states..., sequence[i]..., captured...)
//!     stacked[i]... = rows...
//! ```

use super::Graph;
use super::op::InferError;
use crate::types::TensorType;

/// Attributes of a scan. See the [module documentation](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// One step. Inputs are the states, one row of each sequence, and the captured values; outputs are the new states and
    /// one row of each stacked result.
    pub body: Graph,
    /// Number of steps, at least 1; the leading dimension of sequences and stacked results.
    pub trips: u64,
    /// Whether steps run from the last row to the first, for sequences and stacked results alike.
    pub reverse: bool,
    /// How many states there are.
    pub states: usize,
    /// How many sequences there are.
    pub sequences: usize,
}

impl Scan {
    /// Types of the results. The body is taken to be verified.
    ///
    /// # Errors
    /// When the body's inputs do not fit the operands, or its first outputs are not its states.
    pub(super) fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, InferError> {
        let refuse = |text: String| Err(InferError::Shape(text));
        if operands.len() != self.body.inputs.len() {
            return refuse(format!("the body takes {} operands, not {}", self.body.inputs.len(), operands.len()));
        }
        if self.trips == 0 {
            return refuse("a scan has at least one step".to_owned());
        }
        let rows = self.states..self.states.saturating_add(self.sequences);
        if rows.end > operands.len() || self.states > self.body.outputs.len() {
            return refuse(format!("{} states and {} sequences are not there", self.states, self.sequences));
        }
        for (i, (&operand, &input)) in operands.iter().zip(&self.body.inputs).enumerate() {
            let row = self.body.ty(input);
            let expected = if rows.contains(&i) { self.stacked(row)? } else { row.clone() };
            if *operand != expected {
                return refuse(format!("operand {i} has type {operand}, the body takes {expected}"));
            }
        }
        let results = self.body.outputs.iter().map(|o| self.body.ty(o.value));
        let mut types = Vec::with_capacity(self.body.outputs.len());
        for (i, ty) in results.enumerate() {
            match operands.get(i).filter(|_| i < self.states) {
                Some(&state) if state != ty => {
                    return refuse(format!("state {i} has type {state}, but the body returns {ty}"));
                }
                Some(_) => types.push(ty.clone()),
                None => types.push(self.stacked(ty)?),
            }
        }
        if types.is_empty() {
            return refuse("a scan has at least one result".to_owned());
        }
        Ok(types)
    }

    /// The row that step `step` reads and writes.
    pub fn row(&self, step: u64) -> u64 {
        if self.reverse { self.trips - 1 - step } else { step }
    }

    /// Type of a sequence with rows of a type.
    fn stacked(&self, row: &TensorType) -> Result<TensorType, InferError> {
        let mut shape = Vec::with_capacity(row.rank() + 1);
        shape.push(self.trips);
        shape.extend_from_slice(row.shape());
        Ok(TensorType::new(row.dtype(), shape)?)
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::Graph;
    use crate::graph::interp::evaluate;
    use crate::types::Tensor;

    /// Running sums of rows from the last to the first, and the sum of all: `s' = s + x`, `y = scale · s'`.
    const SUMS: &str = r#"graph "sums" {
  in v0 "x": f32[3, 2]
  in v1 "scale": f32[]
  const v2 "zero": f32[2] = [0.0, 0.0]
  v3 "sum": f32[2], v4 "scaled": f32[3, 2] = scan v2, v0, v1 {trips: 3, reverse: true, states: 1, sequences: 1} @ "loop" graph "step" {
    in v0 "s": f32[2]
    in v1 "row": f32[2]
    in v2 "scale": f32[]
    v3 "next": f32[2] = add v0, v1
    v4 "y": f32[2] = mul v3, v2
    out "s" v3
    out "y" v4
  }
  out "sum" v3
  out "scaled" v4
}
"#;

    #[test]
    fn steps_carry_states_and_stack_rows() {
        let graph = Graph::parse(SUMS, None).unwrap();
        graph.verify().unwrap();
        let x = Tensor::from_f32([3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let results = evaluate(&graph, &[x, Tensor::scalar_f32(10.0)]).unwrap();
        assert_eq!(results[0].floats().unwrap(), [9.0, 12.0]);
        assert_eq!(results[1].floats().unwrap(), [90.0, 120.0, 80.0, 100.0, 50.0, 60.0]);
    }

    #[test]
    fn text_survives() {
        let graph = Graph::parse(SUMS, None).unwrap();
        assert_eq!(graph.to_string(), SUMS);
    }

    #[test]
    fn misfits_are_refused() {
        for (from, to, expected) in [
            ("trips: 3", "trips: 2", "operand 1 has type f32[3, 2], the body takes f32[2, 2]"),
            ("states: 1", "states: 3", "3 states and 1 sequences are not there"),
            ("    out \"s\" v3\n", "    out \"s\" v2\n", "state 0 has type f32[2], but the body returns f32[]"),
            ("scan v2, v0, v1", "scan v2, v0", "the body takes 3 operands, not 2"),
            ("v4 \"scaled\": f32[3, 2] =", "v4 \"scaled\": f32[3, 2], v5 \"\": f32[] =", "has 2 results, not 3"),
        ] {
            assert!(SUMS.contains(from));
            let error = Graph::parse(&SUMS.replace(from, to), None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
