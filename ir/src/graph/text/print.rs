//! Prints graphs. Any graph prints without panicking, broken ones too, since dumps are read when something is broken;
//! a value that is used but not defined then prints as `undefined_` and its handle.

use std::fmt;

use cranelift_entity::SecondaryMap;

use crate::graph::{ConvAttrs, Graph, NodeData, Op, PoolAttrs, Scan, Value, ValueDef};
use crate::text::constant::Constant;
use crate::text::{Float, Quoted};

/// The constant values in force, in the order of their first use.
pub(super) fn printed_consts(graph: &Graph) -> Vec<Value> {
    let mut seen = SecondaryMap::with_capacity(graph.values.len());
    let operands = graph.order.iter().filter_map(|&n| graph.nodes.get(n)).flat_map(|n| &n.inputs);
    let mut consts = Vec::new();
    for &value in operands.chain(graph.outputs.iter().map(|o| &o.value)) {
        let is_const = graph.values.get(value).is_some_and(|data| matches!(data.def, ValueDef::Const(_)));
        if is_const && !std::mem::replace(&mut seen[value], true) {
            consts.push(value);
        }
    }
    consts
}

/// The numbers that values print under.
struct Numbers {
    of: SecondaryMap<Value, Option<u32>>,
    next: u32,
}

impl Numbers {
    /// Gives a value its number and returns its handle.
    fn define(&mut self, graph: &Graph, value: Value) -> Handle {
        let number = self.next;
        self.next += 1;
        if graph.values.is_valid(value) {
            self.of[value] = Some(number);
        }
        Handle(Ok(number))
    }

    fn handle(&self, value: Value) -> Handle {
        Handle(self.of[value].ok_or(value))
    }
}

/// A printed handle: a number, or a value without one.
struct Handle(Result<u32, Value>);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(number) => write!(f, "v{number}"),
            Err(value) => write!(f, "undefined_{value}"),
        }
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = Numbers { of: SecondaryMap::with_capacity(self.values.len()), next: 0 };
        writeln!(f, "graph {} {{", Quoted(&self.name))?;
        for &value in &self.inputs {
            write!(f, "  in {}", numbers.define(self, value))?;
            write_name_and_type(f, self, value)?;
            f.write_str("\n")?;
        }
        for value in printed_consts(self) {
            write!(f, "  const {}", numbers.define(self, value))?;
            write_name_and_type(f, self, value)?;
            match self.values[value].def {
                ValueDef::Const(c) if self.consts.is_valid(c) => writeln!(f, " = {}", Constant(&self.consts[c]))?,
                _ => f.write_str(" = undefined\n")?,
            }
        }
        for &node in &self.order {
            let Some(data) = self.nodes.get(node) else {
                writeln!(f, "  undefined_{node}")?;
                continue;
            };
            write_node(f, self, &mut numbers, data)?;
        }
        for output in &self.outputs {
            writeln!(f, "  out {} {}", Quoted(&output.name), numbers.handle(output.value))?;
        }
        f.write_str("}\n")
    }
}

fn write_name_and_type(f: &mut fmt::Formatter<'_>, graph: &Graph, value: Value) -> fmt::Result {
    match graph.values.get(value) {
        Some(data) => write!(f, " {}: {}", Quoted(&data.name), data.ty),
        None => f.write_str(" undefined"),
    }
}

fn write_node(f: &mut fmt::Formatter<'_>, graph: &Graph, numbers: &mut Numbers, data: &NodeData) -> fmt::Result {
    // Operands first, so that a node that uses its own result prints as the broken node it is.
    let operands: Vec<Handle> = data.inputs.iter().map(|&v| numbers.handle(v)).collect();
    f.write_str("  ")?;
    for (i, &value) in data.outputs.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{}", numbers.define(graph, value))?;
        write_name_and_type(f, graph, value)?;
    }
    write!(f, " = {}", data.op.name())?;
    for (i, operand) in operands.iter().enumerate() {
        write!(f, "{} {operand}", if i > 0 { "," } else { "" })?;
    }
    write_attributes(f, &data.op)?;
    let result_name = data.outputs.first().and_then(|&v| graph.values.get(v)).map(|v| v.name.as_str());
    if result_name != Some(data.name.as_str()) {
        write!(f, " @ {}", Quoted(&data.name))?;
    }
    if let Op::Scan(scan) = &data.op {
        // The body in its own numbers, two columns further in.
        write!(f, " {}", scan.body.to_string().trim_end().replace('\n', "\n  "))?;
    }
    f.write_str("\n")
}

fn write_attributes(f: &mut fmt::Formatter<'_>, op: &Op) -> fmt::Result {
    match op {
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::MatMul | Op::Gelu(_) => Ok(()),
        Op::Cast { to } => write!(f, " {{to: {to}}}"),
        Op::Conv(ConvAttrs { strides, dilations, pads, groups }) => {
            write!(f, " {{strides: {strides:?}, dilations: {dilations:?}, pads: {}, groups: {groups}}}", Pads(pads))
        }
        Op::Pool(PoolAttrs { kind: _, kernel, strides, dilations, pads }) => {
            let pads = Pads(pads);
            write!(f, " {{kernel: {kernel:?}, strides: {strides:?}, dilations: {dilations:?}, pads: {pads}}}")
        }
        Op::Reduce { op: _, axes, keep_dims } => write!(f, " {{axes: {axes:?}, keep_dims: {keep_dims}}}"),
        Op::Softmax { axis } | Op::Concat { axis } | Op::Gather { axis } | Op::GatherElements { axis } => {
            write!(f, " {{axis: {axis}}}")
        }
        Op::ArgReduce { op: _, axis, last } => write!(f, " {{axis: {axis}, last: {last}}}"),
        Op::CumSum { axis, exclusive, reverse } => {
            write!(f, " {{axis: {axis}, exclusive: {exclusive}, reverse: {reverse}}}")
        }
        Op::TopK { k, axis, largest } => write!(f, " {{k: {k}, axis: {axis}, largest: {largest}}}"),
        Op::GatherNd { batch_dims } => write!(f, " {{batch_dims: {batch_dims}}}"),
        Op::ScatterElements { axis, combine } => write!(f, " {{axis: {axis}, combine: {}}}", combine.name()),
        Op::ScatterNd { combine } => write!(f, " {{combine: {}}}", combine.name()),
        Op::LayerNorm { axis, epsilon } => write!(f, " {{axis: {axis}, epsilon: {}}}", Float(*epsilon)),
        Op::BatchNorm { epsilon } => write!(f, " {{epsilon: {}}}", Float(*epsilon)),
        Op::Attention { scale } => write!(f, " {{scale: {}}}", Float(*scale)),
        Op::Reshape { shape } | Op::Expand { shape } => write!(f, " {{shape: {shape:?}}}"),
        Op::Transpose { perm } => write!(f, " {{perm: {perm:?}}}"),
        Op::Slice { starts, sizes, steps } => {
            write!(f, " {{starts: {starts:?}, sizes: {sizes:?}, steps: {steps:?}}}")
        }
        Op::Scan(scan) => {
            let Scan { body: _, trips, reverse, states, sequences } = &**scan;
            write!(f, " {{trips: {trips}, reverse: {reverse}, states: {states}, sequences: {sequences}}}")
        }
        Op::Pad { pads, value } => write!(f, " {{pads: {}, value: {}}}", Pads(pads), Float(*value)),
    }
}

/// Pairs as `[[1, 2], [0, 0]]`.
struct Pads<'a>(&'a [(u64, u64)]);

impl fmt::Display for Pads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, (before, after)) in self.0.iter().enumerate() {
            write!(f, "{}[{before}, {after}]", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}
