//! One step of each recurrent layer, as the ONNX specification writes it.
//!
//! `given` is the input's part of the gates with the biases, `[B, G·H]`; `h` and `c` are the state and the cell, `[B, H]`.

use aic_ir::graph::{BinaryOp, Op, Value};

use super::activation::Activation;
use crate::builder::{Builder, Reason};

/// Which layer.
#[derive(Clone, Copy)]
pub(super) enum Cell {
    /// `h' = f(given + h Rᵀ)`.
    Rnn,
    /// Gates `z`, `r`, `h` (Cho et al., arXiv 1406.1078):
    /// `z, r = f(given + h Rᵀ)`, `n = g(given + (r h) Rᵀ)`, `h' = (1 - z) n + z h`.
    Gru {
        /// `n = g(given + r (h Rᵀ + bias))` instead.
        linear_before_reset: bool,
    },
    /// Gates `i`, `o`, `f`, `c`, with peepholes `p` (Gers and Schmidhuber, 2000):
    /// `i, f = f(given + h Rᵀ + p c)`, `n = g(given + h Rᵀ)`, `c' = f c + i n`, `o = f(given + h Rᵀ + p c')`, `h' = o h(c')`.
    Lstm {
        /// `f = 1 - i` instead.
        input_forget: bool,
    },
}

/// What the gates of a step are made of.
pub(super) struct Gates<'a> {
    pub given: Value,
    /// `H`.
    pub hidden: u64,
    /// Bound of what goes into activations.
    pub clip: Option<f64>,
    pub activations: &'a [Activation],
}

impl Gates<'_> {
    /// `count` gates from gate `first` on, of a value that has one after the other.
    fn part(&self, c: &mut Builder, x: Value, first: u64, count: u64) -> Result<Value, Reason> {
        let batch = c.shape(x)[0];
        c.slice(x, vec![0, first * self.hidden], vec![batch, count * self.hidden])
    }

    /// The activation `index` of a clipped value.
    fn activate(&self, c: &mut Builder, index: usize, x: Value) -> Result<Value, Reason> {
        let x = match self.clip {
            Some(bound) => {
                let low = c.binary_scalar(BinaryOp::Max, x, -bound)?;
                c.binary_scalar(BinaryOp::Min, low, bound)?
            }
            None => x,
        };
        self.activations[index].apply(c, x)
    }
}

impl Cell {
    /// `G`.
    pub fn gates(self) -> u64 {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }

    /// How many states there are.
    pub fn states(self) -> usize {
        match self {
            Cell::Rnn | Cell::Gru { .. } => 1,
            Cell::Lstm { .. } => 2,
        }
    }

    /// The default activations of one direction.
    pub fn activations(self) -> &'static [&'static str] {
        match self {
            Cell::Rnn => &["Tanh"],
            Cell::Gru { .. } => &["Sigmoid", "Tanh"],
            Cell::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
        }
    }

    /// From both biases `[2·G·H]`, what is added outside of the loop, `[G·H]`, and what is added inside, `[H]`.
    pub fn biases(self, c: &mut Builder, b: Value, hidden: u64) -> Result<(Option<Value>, Option<Value>), Reason> {
        let all = self.gates() * hidden;
        let w = c.slice(b, vec![0], vec![all])?;
        let r = c.slice(b, vec![all], vec![all])?;
        if !matches!(self, Cell::Gru { linear_before_reset: true }) {
            return Ok((Some(c.binary(BinaryOp::Add, w, r)?), None));
        }
        // The reset gate scales the last bias of the state.
        let early = 2 * hidden;
        let (w_early, r_early) = (c.slice(w, vec![0], vec![early])?, c.slice(r, vec![0], vec![early])?);
        let (w_last, r_last) = (c.slice(w, vec![early], vec![hidden])?, c.slice(r, vec![early], vec![hidden])?);
        let sum = c.binary(BinaryOp::Add, w_early, r_early)?;
        Ok((Some(c.emit(Op::Concat { axis: 0 }, &[sum, w_last])?), Some(r_last)))
    }

    /// What every step uses: transposed weights of the state, then the bias inside or the peepholes, if there are any.
    pub fn captured(
        self,
        c: &mut Builder,
        r: Value,
        p: Option<Value>,
        late_bias: Option<Value>,
        hidden: u64,
    ) -> Result<Vec<Value>, Reason> {
        let turned = |c: &mut Builder, first: u64, count: u64| {
            let part = c.slice(r, vec![first * hidden, 0], vec![count * hidden, hidden])?;
            c.emit(Op::Transpose { perm: vec![1, 0] }, &[part])
        };
        let mut captured = match self {
            Cell::Gru { linear_before_reset: false } => vec![turned(c, 0, 2)?, turned(c, 2, 1)?],
            Cell::Rnn | Cell::Gru { .. } | Cell::Lstm { .. } => vec![turned(c, 0, self.gates())?],
        };
        captured.extend(late_bias);
        if let Some(p) = p {
            for gate in 0..3 {
                captured.push(c.slice(p, vec![gate * hidden], vec![hidden])?);
            }
        }
        Ok(captured)
    }

    /// The states after a step; the first is the output.
    pub fn step(
        self,
        c: &mut Builder,
        gates: &Gates<'_>,
        states: &[Value],
        captured: &[Value],
    ) -> Result<Vec<Value>, Reason> {
        let h = states[0];
        match self {
            Cell::Rnn => {
                let product = c.emit(Op::MatMul, &[h, captured[0]])?;
                let sum = c.binary(BinaryOp::Add, gates.given, product)?;
                Ok(vec![gates.activate(c, 0, sum)?])
            }
            Cell::Gru { linear_before_reset } => gru(c, gates, h, captured, linear_before_reset),
            Cell::Lstm { input_forget } => lstm(c, gates, h, states[1], captured, input_forget),
        }
    }
}

fn gru(
    c: &mut Builder,
    gates: &Gates<'_>,
    h: Value,
    captured: &[Value],
    linear_before_reset: bool,
) -> Result<Vec<Value>, Reason> {
    let product = c.emit(Op::MatMul, &[h, captured[0]])?;
    let gate = |c: &mut Builder, index: u64| {
        let (given, product) = (gates.part(c, gates.given, index, 1)?, gates.part(c, product, index, 1)?);
        let sum = c.binary(BinaryOp::Add, given, product)?;
        gates.activate(c, 0, sum)
    };
    let (z, r) = (gate(c, 0)?, gate(c, 1)?);
    let given = gates.part(c, gates.given, 2, 1)?;
    let recurrent = if linear_before_reset {
        let mut product = gates.part(c, product, 2, 1)?;
        if let Some(&bias) = captured.get(1) {
            product = c.binary(BinaryOp::Add, product, bias)?;
        }
        c.binary(BinaryOp::Mul, r, product)?
    } else {
        let reset = c.binary(BinaryOp::Mul, r, h)?;
        c.emit(Op::MatMul, &[reset, captured[1]])?
    };
    let sum = c.binary(BinaryOp::Add, given, recurrent)?;
    let new = gates.activate(c, 1, sum)?;
    // (1 - z) n + z h
    let one = c.scalar(c.dtype(z), 1.0)?;
    let rest = c.binary(BinaryOp::Sub, one, z)?;
    let new = c.binary(BinaryOp::Mul, rest, new)?;
    let old = c.binary(BinaryOp::Mul, z, h)?;
    Ok(vec![c.binary(BinaryOp::Add, new, old)?])
}

fn lstm(
    c: &mut Builder,
    gates: &Gates<'_>,
    h: Value,
    cell: Value,
    captured: &[Value],
    input_forget: bool,
) -> Result<Vec<Value>, Reason> {
    let product = c.emit(Op::MatMul, &[h, captured[0]])?;
    let sum = c.binary(BinaryOp::Add, gates.given, product)?;
    // Peepholes are given in the order of their gates, `i`, `o`, `f`.
    let gate = |c: &mut Builder, index: u64, activation: usize, seen: Value| {
        let mut x = gates.part(c, sum, index, 1)?;
        if let Some(&peephole) = captured.get(1 + index as usize) {
            let looked = c.binary(BinaryOp::Mul, peephole, seen)?;
            x = c.binary(BinaryOp::Add, x, looked)?;
        }
        gates.activate(c, activation, x)
    };
    let i = gate(c, 0, 0, cell)?;
    let f = match input_forget {
        true => {
            let one = c.scalar(c.dtype(i), 1.0)?;
            c.binary(BinaryOp::Sub, one, i)?
        }
        false => gate(c, 2, 0, cell)?,
    };
    let new = gate(c, 3, 1, cell)?;
    let kept = c.binary(BinaryOp::Mul, f, cell)?;
    let added = c.binary(BinaryOp::Mul, i, new)?;
    let cell = c.binary(BinaryOp::Add, kept, added)?;
    let o = gate(c, 1, 0, cell)?;
    let seen = gates.activations[2].apply(c, cell)?;
    Ok(vec![c.binary(BinaryOp::Mul, o, seen)?, cell])
}
