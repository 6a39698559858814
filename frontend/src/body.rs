//! Scans under construction: a body is written once, as a function of the values of one step.

use aic_ir::graph::{Graph, Op, Scan, Value};
use aic_ir::types::{DType, TensorType};

use crate::builder::{Builder, Reason};

/// What a scan runs over. Operands of [`Scan`] in its order.
pub(crate) struct Steps<'a> {
    /// Number of steps, at least 1.
    pub trips: u64,
    /// Whether the last row comes first.
    pub reverse: bool,
    /// The states before the first step.
    pub states: &'a [Value],
    /// Sequences, of which each step sees a row; their leading dimension is the number of steps.
    pub sequences: &'a [Value],
    /// Values that every step sees.
    pub captured: &'a [Value],
}

/// The values of one step, in the order of [`Steps`].
pub(crate) struct Step {
    /// The states before the step.
    pub states: Vec<Value>,
    /// One row of each sequence.
    pub rows: Vec<Value>,
    /// Values that every step sees.
    pub captured: Vec<Value>,
}

/// What one step gives.
pub(crate) struct Next {
    /// The states after the step.
    pub states: Vec<Value>,
    /// One row of each stacked result.
    pub rows: Vec<Value>,
}

impl Builder {
    /// Repeats `body`; gives the last states and the stacked results. One step needs no loop.
    pub fn scan(
        &mut self,
        steps: &Steps<'_>,
        body: impl FnOnce(&mut Builder, Step) -> Result<Next, Reason>,
    ) -> Result<Vec<Value>, Reason> {
        if steps.trips == 1 {
            return self.single_step(steps, body);
        }
        let types =
            |values: &[Value]| -> Vec<TensorType> { values.iter().map(|&v| self.graph.ty(v).clone()).collect() };
        let (states, captured) = (types(steps.states), types(steps.captured));
        let rows: Result<Vec<TensorType>, Reason> = steps.sequences.iter().map(|&v| self.row_type(v)).collect();
        let rows = rows?;
        let outer = self.enter_body();
        let mut inputs = |types: Vec<_>| types.into_iter().map(|ty| self.body_input(ty)).collect();
        let step = Step { states: inputs(states), rows: inputs(rows), captured: inputs(captured) };
        let next = body(self, step);
        let graph = self.leave_body(outer);
        let Next { states, rows } = next?;
        let results: Vec<Value> = states.into_iter().chain(rows).collect();
        self.scan_of(graph, &results, steps)
    }

    /// A scan with a body that was built, and its results: states and rows.
    pub fn scan_of(&mut self, mut body: Graph, results: &[Value], steps: &Steps<'_>) -> Result<Vec<Value>, Reason> {
        for (index, &result) in results.iter().enumerate() {
            body.add_output(format!("result{index}"), result);
        }
        let &Steps { trips, reverse, states, sequences, captured } = steps;
        let scan = Scan { body, trips, reverse, states: states.len(), sequences: sequences.len() };
        self.emit_all(Op::Scan(Box::new(scan)), &[states, sequences, captured].concat())
    }

    /// An input of the body that is being built.
    pub fn body_input(&mut self, ty: TensorType) -> Value {
        let name = format!("in{}", self.graph.inputs.len());
        self.graph.add_input(name, ty)
    }

    /// Type of the rows of a sequence.
    pub fn row_type(&self, sequence: Value) -> Result<TensorType, Reason> {
        let shape = self.shape(sequence).get(1..).ok_or("a sequence must have a leading dimension")?;
        Ok(TensorType::new(self.dtype(sequence), shape)?)
    }

    /// One row of a sequence.
    pub fn row(&mut self, sequence: Value, index: u64) -> Result<Value, Reason> {
        let row = self.row_type(sequence)?;
        let mut sizes = self.shape(sequence).to_vec();
        let mut starts = vec![0; sizes.len()];
        (starts[0], sizes[0]) = (index, 1);
        let row_of_one = self.slice(sequence, starts, sizes)?;
        self.reshape(row_of_one, row.shape())
    }

    /// A sequence of rows, at least one.
    pub fn stack(&mut self, rows: &[Value]) -> Result<Value, Reason> {
        let mut parts = Vec::with_capacity(rows.len());
        for &row in rows {
            let shape: Vec<u64> = std::iter::once(1).chain(self.shape(row).iter().copied()).collect();
            parts.push(self.reshape(row, shape)?);
        }
        self.emit(Op::Concat { axis: 0 }, &parts)
    }

    /// A truth value that is a constant.
    pub fn truth_of(&self, value: Value) -> Option<bool> {
        let tensor = self.graph.const_of(value)?;
        (tensor.ty().dtype() == DType::Bool && tensor.ty().elems() == 1).then(|| tensor.get_i64(0) == Some(1))
    }

    fn single_step(
        &mut self,
        steps: &Steps<'_>,
        body: impl FnOnce(&mut Builder, Step) -> Result<Next, Reason>,
    ) -> Result<Vec<Value>, Reason> {
        let rows: Result<Vec<Value>, Reason> = steps.sequences.iter().map(|&v| self.row(v, 0)).collect();
        let step = Step { states: steps.states.to_vec(), rows: rows?, captured: steps.captured.to_vec() };
        let Next { mut states, rows } = body(self, step)?;
        for row in rows {
            states.push(self.stack(&[row])?);
        }
        Ok(states)
    }
}
