//! Nodes that hold graphs: `If`, `Loop`, and what repeats the body of a loop or a `Scan`.
//!
//! The branch of an `If` is chosen while reading where that can be; otherwise both are computed. Repetitions have a number of trips that is known then; each becomes a scan
//! of the graph, with the number of the iteration as a sequence, if its states keep their types and no operator in it
//! needs to know more than one trip through it tells. Otherwise its trips are imported one after the other, with the
//! number of each as a constant, as far as the size of the file allows so many nodes.

use aic_ir::graph::{Graph, Op, Value, ValueDef};
use aic_ir::types::{DType, Tensor, TensorType};
use bytes::Bytes;

use super::import::Importer;
use super::ops::numbers;
use super::schema::{GraphProto, NodeProto};
use super::scope::Slot;
use crate::body::Steps;
use crate::builder::Reason;
use crate::fold;

/// How often a body is tried as that of a scan. It may become one only inside of a loop that was unrolled; but each loop
/// around it would double the attempts.
const MAX_ATTEMPTS: u32 = 3;

/// A repetition: operands in the order of a scan, and what its body makes of them.
pub(super) struct Repeat<'m> {
    pub body: &'m GraphProto,
    /// Whether the body has the inputs and the output of `Loop`: number of the iteration and condition, then states;
    /// condition, then states and rows. Otherwise they are those of `Scan`: states and rows; states and rows.
    pub is_loop: bool,
    pub states: Vec<Value>,
    /// Sequences, with the steps as leading dimension.
    pub sequences: Vec<Value>,
    /// Number of steps; `None` if only the condition ends the loop.
    pub trips: Option<u64>,
    pub reverse: bool,
}

pub(super) fn import_if<'m>(
    importer: &mut Importer<'m>,
    node: &'m NodeProto,
    operands: &[Option<Value>],
) -> Result<Vec<Slot>, Reason> {
    let branches = [graph_attribute(node, "then_branch")?, graph_attribute(node, "else_branch")?];
    let condition = importer.context(node, operands).operand(0)?;
    if importer.builder.graph.const_of(condition).is_none() {
        return importer.both_branches(node, condition, branches);
    }
    let [then, otherwise] = branches;
    let taken = if importer.truth(node, operands, 0, "the condition")? { then } else { otherwise };
    importer.subgraph(taken, &[])
}

pub(super) fn import_loop<'m>(
    importer: &mut Importer<'m>,
    node: &'m NodeProto,
    operands: &[Option<Value>],
) -> Result<Vec<Slot>, Reason> {
    let trips = match operands.first().copied().flatten() {
        None => None,
        Some(_) => {
            let trips = importer.context(node, operands).int_operand(0, "the number of trips")?;
            Some(u64::try_from(trips).unwrap_or(0))
        }
    };
    let runs = match operands.get(1).copied().flatten() {
        None => true,
        Some(_) => importer.truth(node, operands, 1, "the condition")?,
    };
    let states: Option<Vec<Value>> = operands.iter().skip(2).copied().collect();
    let repeat = Repeat {
        body: graph_attribute(node, "body")?,
        is_loop: true,
        states: states.ok_or("an initial value is omitted")?,
        sequences: Vec::new(),
        trips: if runs { trips } else { Some(0) },
        reverse: false,
    };
    importer.repeat(node, &repeat)
}

/// Whether an operator may end a run: it looks up indices, which may be out of range.
fn may_fail(op: &Op) -> bool {
    match op {
        Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. } => true,
        Op::Scan(scan) => scan.body.nodes.values().any(|node| may_fail(&node.op)),
        _ => false,
    }
}

/// A graph attribute of a node.
pub(super) fn graph_attribute<'m>(node: &'m NodeProto, name: &str) -> Result<&'m GraphProto, Reason> {
    let attribute = node.attribute.iter().find(|a| a.name == name);
    let graph = attribute.and_then(|a| a.g.as_deref());
    graph.ok_or_else(|| format!("attribute `{name}` holds no graph").into())
}

impl<'m> Importer<'m> {
    /// A truth value that must be known while reading.
    fn truth(
        &mut self,
        node: &'m NodeProto,
        operands: &[Option<Value>],
        index: usize,
        what: &str,
    ) -> Result<bool, Reason> {
        let context = self.context(node, operands);
        let tensor = context.constant_operand(index, what)?;
        match (tensor.ty().dtype(), tensor.ty().elems()) {
            (DType::Bool, 1) => Ok(tensor.get_i64(0) == Some(1)),
            _ => Err(format!("{what} has type {} instead of one truth value", tensor.ty()).into()),
        }
    }

    /// Imports an `If` on data: both branches are computed, and the condition selects from their results. That takes
    /// branches whose results have the same types, and none of whose operators could fail if it were not taken.
    fn both_branches(
        &mut self,
        node: &'m NodeProto,
        condition: Value,
        branches: [&'m GraphProto; 2],
    ) -> Result<Vec<Slot>, Reason> {
        let name = node.input.first().map_or("", String::as_str);
        let refuse = |why: String| {
            Err(Reason(format!(
                "the condition (`{name}`) must be known at compile time, but is computed from the model's inputs, and {why}"
            )))
        };
        if self.builder.graph.ty(condition).elems() != 1 {
            return refuse(format!("has type {}", self.builder.graph.ty(condition)));
        }
        let first_new = self.builder.graph.order.len();
        let mut results = Vec::new();
        for branch in branches {
            let slots = self.subgraph(branch, &[])?;
            let values: Option<Vec<Value>> = slots.into_iter().map(Slot::value).collect();
            // Why is noted already.
            let Some(values) = values else { return Ok(vec![Slot::Refused; node.output.len()]) };
            results.push(values);
        }
        self.label_nodes(node);
        let graph = &self.builder.graph;
        let new = graph.order.get(first_new..).unwrap_or_default();
        if let Some(&fails) = new.iter().find(|&&n| may_fail(&graph.nodes[n].op)) {
            return refuse(format!("`{}` could fail in the branch that is not taken", graph.nodes[fails].name));
        }
        let condition = self.builder.reshape(condition, [])?;
        let mut selected = Vec::new();
        for (&a, &b) in results[0].iter().zip(&results[1]) {
            let (then, otherwise) = (self.builder.graph.ty(a), self.builder.graph.ty(b));
            if then != otherwise {
                return refuse(format!("the branches give {then} and {otherwise}"));
            }
            selected.push(Slot::Value(self.builder.emit(Op::Select, &[condition, a, b])?));
        }
        Ok(selected)
    }

    /// Imports a repetition: its last states, and its stacked rows.
    pub fn repeat(&mut self, node: &'m NodeProto, repeat: &Repeat<'m>) -> Result<Vec<Slot>, Reason> {
        let given = repeat.body.output.len();
        let needed = repeat.states.len() + usize::from(repeat.is_loop);
        if given < needed {
            return Err(format!("its body has {given} outputs, but at least {needed} are needed").into());
        }
        let address = std::ptr::from_ref(repeat.body).addr();
        if let Some(trips) = repeat.trips.filter(|&n| n >= 2)
            && self.no_scans.get(&address).is_none_or(|&failed| failed < MAX_ATTEMPTS)
        {
            match self.as_scan(node, repeat, trips) {
                Some(results) => return Ok(results),
                None => *self.no_scans.entry(address).or_insert(0) += 1,
            }
        }
        self.unrolled(node, repeat)
    }

    /// The repetition as a scan; `None` where it is none. What an attempt refused is forgotten.
    fn as_scan(&mut self, node: &'m NodeProto, repeat: &Repeat<'m>, trips: u64) -> Option<Vec<Slot>> {
        let refused = self.refused.len();
        let types = self.step_types(repeat).ok()?;
        self.open_body();
        let body = self.scan_body(repeat, types);
        let (mut graph, captured) = self.close_body();
        self.refused.truncate(refused);
        self.label_nodes(node);
        let ScanBody { results, number } = body?;
        let mut sequences = repeat.sequences.clone();
        match number {
            Some(number) if is_used(&graph, number, &results) => {
                sequences.push(numbers(&mut self.builder, trips, 0).ok()?);
            }
            Some(number) => remove_input(&mut graph, number)?,
            None => {}
        }
        let (states, reverse) = (repeat.states.as_slice(), repeat.reverse);
        let steps = Steps { trips, reverse, states, sequences: &sequences, captured: &captured };
        let results = self.builder.scan_of(graph, &results, &steps).ok()?;
        Some(results.into_iter().map(Slot::Value).collect())
    }

    /// Types of the states, and of the rows of the sequences.
    fn step_types(&self, repeat: &Repeat<'m>) -> Result<Vec<TensorType>, Reason> {
        let states = repeat.states.iter().map(|&v| Ok(self.builder.graph.ty(v).clone()));
        let rows = repeat.sequences.iter().map(|&v| self.builder.row_type(v));
        states.chain(rows).collect()
    }

    /// Imports the body as that of a scan, if it can be one: states keep their types, and the condition is always true.
    fn scan_body(&mut self, repeat: &Repeat<'m>, types: Vec<TensorType>) -> Option<ScanBody> {
        let inputs: Vec<Value> = types.iter().map(|ty| self.builder.body_input(ty.clone())).collect();
        let number = repeat.is_loop.then(|| self.builder.body_input(TensorType::scalar(DType::I64)));
        let mut slots = self.loop_inputs(number)?;
        slots.extend(inputs.iter().map(|&v| Slot::Value(v)));
        let results: Option<Vec<Value>> =
            self.subgraph(repeat.body, &slots).ok()?.into_iter().map(Slot::value).collect();
        let mut results = results?;
        if repeat.is_loop && self.builder.truth_of(results.remove(0)) != Some(true) {
            return None;
        }
        let kept = results.iter().zip(&types).take(repeat.states.len()).all(|(&v, ty)| self.builder.graph.ty(v) == ty);
        kept.then_some(ScanBody { results, number })
    }

    /// The first inputs of a body of `Loop`: the number of the trip and the condition, which holds inside. None of
    /// `Scan`.
    fn loop_inputs(&mut self, number: Option<Value>) -> Option<Vec<Slot>> {
        let Some(number) = number else { return Some(Vec::new()) };
        let holds = self.builder.scalar(DType::Bool, 1.0).ok()?;
        Some(vec![Slot::Value(number), Slot::Value(holds)])
    }

    /// Imports the trips one after the other.
    fn unrolled(&mut self, node: &'m NodeProto, repeat: &Repeat<'m>) -> Result<Vec<Slot>, Reason> {
        let state_count = repeat.states.len();
        let mut states = repeat.states.clone();
        let mut rows: Vec<Vec<Value>> =
            vec![Vec::new(); repeat.body.output.len() - state_count - usize::from(repeat.is_loop)];
        let mut trip = 0;
        while repeat.trips.is_none_or(|trips| trip < trips) {
            self.builder.step()?;
            let number = match repeat.is_loop {
                true => Some(self.builder.scalar(DType::I64, trip as f64)?),
                false => None,
            };
            let mut inputs = self.loop_inputs(number).ok_or("a constant cannot be made")?;
            inputs.extend(states.iter().map(|&v| Slot::Value(v)));
            let at = if repeat.reverse { repeat.trips.unwrap_or_default() - 1 - trip } else { trip };
            for &sequence in &repeat.sequences {
                inputs.push(Slot::Value(self.builder.row(sequence, at)?));
            }
            let results = self.subgraph(repeat.body, &inputs)?;
            self.label_nodes(node);
            if results.iter().any(|slot| matches!(slot, Slot::Absent)) {
                return Err("an output of its body is an omitted operand".into());
            }
            let results: Option<Vec<Value>> = results.into_iter().map(Slot::value).collect();
            // Why is noted already.
            let Some(mut results) = results else { return Ok(vec![Slot::Refused; node.output.len()]) };
            let goes_on = !repeat.is_loop || {
                let condition = self.builder.truth_of(results.remove(0));
                condition.ok_or("the condition that its body computes must be known at compile time, but is not")?
            };
            for (rows, row) in rows.iter_mut().zip(results.split_off(state_count)) {
                rows.push(row);
            }
            states = results;
            trip += 1;
            if !goes_on {
                break;
            }
        }
        if trip == 0 && !rows.is_empty() {
            states.extend(self.no_rows(node, repeat)?);
            return Ok(states.into_iter().map(Slot::Value).collect());
        }
        for mut rows in rows {
            if repeat.reverse {
                rows.reverse();
            }
            states.push(self.builder.stack(&rows)?);
        }
        Ok(states.into_iter().map(Slot::Value).collect())
    }

    /// The stacked results of no trips; the body tells their types.
    fn no_rows(&mut self, node: &'m NodeProto, repeat: &Repeat<'m>) -> Result<Vec<Value>, Reason> {
        let types = self.step_types(repeat)?;
        self.open_body();
        let body = self.scan_body(repeat, types);
        let (graph, _) = self.close_body();
        self.label_nodes(node);
        let body = body.ok_or("it makes no trip, and its body does not tell the types of its results")?;
        let mut values = Vec::new();
        for &row in body.results.iter().skip(repeat.states.len()) {
            let ty = graph.ty(row);
            let shape: Vec<u64> = std::iter::once(0).chain(ty.shape().iter().copied()).collect();
            let empty = Tensor::new(TensorType::new(ty.dtype(), shape)?, Bytes::new()).map_err(|e| e.to_string())?;
            values.push(self.builder.constant(empty)?);
        }
        Ok(values)
    }
}

/// A body that was imported for a scan, not yet closed.
struct ScanBody {
    /// States and rows.
    results: Vec<Value>,
    /// The input that is the number of the trip.
    number: Option<Value>,
}

fn is_used(graph: &Graph, value: Value, results: &[Value]) -> bool {
    results.contains(&value) || graph.order.iter().any(|&node| graph.nodes[node].inputs.contains(&value))
}

/// Removes the input for the number of the trip, which nothing uses; a value must be something, so it is a constant.
fn remove_input(graph: &mut Graph, number: Value) -> Option<()> {
    graph.inputs.retain(|&input| input != number);
    for (index, &input) in graph.inputs.iter().enumerate() {
        graph.values[input].def = ValueDef::Input(index as u32);
    }
    graph.values[number].def = ValueDef::Const(graph.consts.push(fold::scalar(DType::I64, 0.0)?));
    Some(())
}
