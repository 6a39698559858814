//! Scans: a repeat of the program's steps, with states in temporaries of their own.
//!
//! ```text
//! copy   state = initial
//! repeat trips {
//!   ...                       the body, as any graph: reads state and sequence[t, ..]
//!   copy   stacked[t, ..] = row
//!   copy   state = new state
//! }
//! ```
//!
//! Kernels of the body stand in a loop `t` that the program runs; a row of a sequence or of a stacked result is that
//! buffer at `t`. States change at the end of a round, after everything that reads them.

use super::kernel::{KernelBuilder, Tile};
use super::view::View;
use super::{LowerError, Lowering, Scope};
use crate::graph::{Node, Scan, Value};
use crate::tile::{Affine, Step, Storage};

/// Most rounds of repeats inside one another. A program that ran longer than this would not end in a reasonable time.
const MAX_ROUNDS: u64 = 1 << 32;

impl<'g> Lowering<'g> {
    pub(super) fn scan(&mut self, node: Node, scan: &'g Scan) -> Result<(), LowerError> {
        let data = &self.graph.nodes[node];
        let (name, results) = (&data.name, &data.outputs);
        let rounds = self.repeats.iter().try_fold(scan.trips, |n, &trips| n.checked_mul(trips));
        if rounds.is_none_or(|n| n > MAX_ROUNDS) {
            return Err(LowerError::TooManyRounds { node: name.clone() });
        }
        let (initial, rest) = data.inputs.split_at(scan.states);
        let (sequences, captured) = rest.split_at(scan.sequences);

        let states: Vec<View> = initial.iter().enumerate().map(|(i, &v)| self.state(name, i, v)).collect();
        let sequences: Vec<View> = sequences.iter().map(|&v| self.in_rows(v)).collect();
        let captured: Vec<View> = captured.iter().map(|&v| self.view(v)).collect();
        let stacked: Vec<View> = results[scan.states..].iter().map(|&v| self.stacked(name, v)).collect();

        let round = Affine::of_loop(KernelBuilder::repeat(self.repeats.len()));
        let row = if scan.reverse { round.scale(-1).add_constant(scan.trips as i64 - 1) } else { round };
        let outer = (self.graph, std::mem::replace(&mut self.scope, Scope::of(&scan.body)));
        self.graph = &scan.body;
        self.repeats.push(scan.trips);
        self.program.steps.push(Step::Repeat { trips: scan.trips });

        let rows = sequences.iter().map(|view| view.row(&row));
        let views = states.iter().cloned().chain(rows).chain(captured);
        for (&input, view) in scan.body.inputs.iter().zip(views) {
            self.scope.views[input] = Some(view);
        }
        // A value may be both a new state and a row. Its kernel writes it as a row then, where it stays readable.
        for (i, view) in stacked.iter().enumerate() {
            self.scope.outputs[scan.states + i] = Some(view.row(&row));
        }
        for (i, output) in scan.body.outputs.iter().enumerate().rev() {
            let is_computed = scan.body.node_of(output.value).is_some();
            self.scope.output_of[output.value] = (is_computed && i >= scan.states).then_some(i);
        }
        self.nodes()?;
        self.copy_rows(scan);
        self.copy_states(scan, &states);

        self.program.steps.push(Step::End);
        self.repeats.pop();
        (self.graph, self.scope) = outer;
        for (&result, view) in results.iter().zip(states.into_iter().chain(stacked)) {
            // What was checked of a state in a round says nothing about the next.
            self.checks.retain(|(buffer, _)| *buffer != view.buffer);
            self.scope.views[result] = Some(view);
        }
        Ok(())
    }

    /// A temporary for a state, with the initial state in it.
    fn state(&mut self, node: &str, index: usize, initial: Value) -> View {
        let source = self.view(initial);
        let ty = self.graph.ty(initial);
        let buffer = self.buffer(&format!("{node}.state{index}"), ty.dtype(), ty.shape(), Storage::Temp);
        let state = View::identity(buffer, ty.shape());
        self.copy_kernel(&source, &state, Some(node.to_owned()));
        state
    }

    /// A sequence whose rows are at an offset linear in their number.
    fn in_rows(&mut self, sequence: Value) -> View {
        let view = self.view(sequence);
        if view.index.iter().all(Affine::is_linear) { view } else { self.materialized(sequence) }
    }

    /// The place of a stacked result.
    fn stacked(&mut self, node: &str, result: Value) -> View {
        if let Some(output) = self.scope.output_of[result]
            && self.repeats.is_empty()
        {
            return self.output(output);
        }
        let data = &self.graph.values[result];
        let name = if data.name.is_empty() { node } else { &data.name };
        let buffer = self.buffer(name, data.ty.dtype(), data.ty.shape(), Storage::Temp);
        View::identity(buffer, data.ty.shape())
    }

    /// Copies rows that no kernel could write in place.
    fn copy_rows(&mut self, scan: &Scan) {
        for (i, output) in scan.body.outputs.iter().enumerate().skip(scan.states) {
            let (source, target) = (self.view(output.value), self.output(i));
            if source != target {
                self.copy_kernel(&source, &target, None);
            }
        }
    }

    /// Moves the new states to where the next round reads them. One that lies in a state itself is set aside first.
    fn copy_states(&mut self, scan: &Scan, states: &[View]) {
        let mut moves = Vec::new();
        for (state, output) in states.iter().zip(&scan.body.outputs) {
            let source = self.view(output.value);
            if source != *state {
                let in_state = states.iter().any(|s| s.buffer == source.buffer);
                moves.push((if in_state { self.materialized(output.value) } else { source }, state));
            }
        }
        for (source, state) in moves {
            self.copy_kernel(&source, state, None);
        }
    }
}

impl View {
    /// The value at one index of its first dimension, a function of rounds alone.
    fn row(&self, row: &Affine) -> View {
        let shape = self.shape.get(1..).unwrap_or_default().to_vec();
        let mut index = vec![row.clone()];
        index.extend(Tile::of(&shape).all());
        let at = self.at(&index, &Tile::of(&shape));
        View { buffer: self.buffer, shape, index: at.index, whole: false }
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::{BinaryOp, Graph, Op, Scan};
    use crate::lower::{LowerError, lower};
    use crate::types::{DType, TensorType};

    /// `s' = s + s`, `trips` times.
    fn doubling(trips: u64) -> Graph {
        let ty = TensorType::new(DType::F32, [2]).unwrap();
        let mut body = Graph::new("body");
        let s = body.add_input("s", ty.clone());
        let next = body.add_node("next", Op::Binary(BinaryOp::Add), &[s, s]).unwrap();
        body.add_output("s", next);
        let mut graph = Graph::new("doubling");
        let x = graph.add_input("x", ty);
        let scan = Scan { body, trips, reverse: false, states: 1, sequences: 0 };
        let results = graph.add_node_of_many("loop", Op::Scan(Box::new(scan)), &[x]).unwrap();
        graph.add_output("y", results[0]);
        graph
    }

    #[test]
    fn endless_loops_are_refused() {
        lower(&doubling(1 << 32)).unwrap();
        for trips in [(1 << 32) + 1, 1 << 62] {
            let error = lower(&doubling(trips)).unwrap_err();
            assert_eq!(error, LowerError::TooManyRounds { node: "loop".into() });
        }
    }
}
