//! Lowering: from *what* to *how*, plainly. [`lower`] turns a graph into the naive tile program.
//!
//! The naive program has one kernel for each operator, whole tensors as tiles, and statements only: no copies between spaces,
//! and no loops but those of repeats ([`scan`]). It is meant to be obviously right; everything that makes it fast is scheduling.
//!
//! Conventions that scheduling relies on:
//!
//! - The dimensions of a statement are named `d0`, `d1`, … after the dimensions of the operator's *result* (all of them,
//!   also those of extent 1, in order), and `k0`, `k1`, … after what is reduced. In row-wise kernels the dimensions that
//!   are not reduced have the same names in all statements, and statistics of a row have no dimension for it.
//! - An elementwise operator is one `map` over exactly the result's dimensions.
//! - `reshape`, `transpose`, `slice` and `expand` have no kernel: they are composed into accesses ([`view`]).
//! - A temporary is written either by an initialization and an accumulation (and at most one map in place), or by one map.
//! - A value that is a graph output is computed in the caller's buffer, and its other readers read it there. Outputs that
//!   are views, inputs, constants or repeated are copied there at the end.
//!
//! The result of a node whose only use is a chain of reshapes and transposes is stored in the shape at the end of the chain
//! as far as that needs no division: what attention computes as `[B, H, S, D]` is written to `[B, S, H·D]` at once.

mod contract;
mod elementwise;
mod half;
mod indexing;
mod kernel;
mod movement;
mod order;
mod power;
mod reduce;
mod remainder;
mod rows;
mod scan;
mod view;

use std::collections::BTreeMap;

use cranelift_entity::SecondaryMap;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::graph::op::InferError;
use crate::graph::{Graph, Node, Op, Value, ValueDef};
use crate::tile::{Affine, Buffer, BufferData, Expr, ExprRef, Inst, Program, Scalar, Step, Storage};
use crate::types::{DType, Tensor};
use kernel::{KernelBuilder, Tile};
use view::View;

/// Most bytes of tables that lowering makes beside the model's own constants.
const MAX_TABLE_BYTES: u64 = 16 << 20;

/// Most terms of a view's coordinates. Each reshape of a transposition of a reshape multiplies them; what is more
/// entangled than this is copied.
const MAX_VIEW_TERMS: usize = 64;

/// Most kernels of a program. Students have hundreds; what has more is a chain that was made to take long.
const MAX_KERNELS: usize = 1 << 13;

/// Why a graph has no naive program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// A constant index of a gather is outside the dimension that it selects from.
    #[error("node '{node}': index {index} is not in -{bound} to {bound} exclusive")]
    IndexOutOfRange {
        /// The user's name of the node.
        node: String,
        /// The index.
        index: i64,
        /// Size of the dimension.
        bound: u64,
    },
    /// The model comes to more kernels than are compiled.
    #[error("node '{node}': the model comes to more than {limit} kernels, which is the most that are compiled")]
    TooManyKernels {
        /// The user's name of the first node that is too much.
        node: String,
        /// The most there may be.
        limit: usize,
    },
    /// A scan, with those around it, has more rounds than a program may run.
    #[error("node '{node}': more than 2^32 rounds of loops inside one another")]
    TooManyRounds {
        /// The user's name of the node.
        node: String,
    },
    /// A table that lowering would have to make is too large.
    #[error("node '{node}': {what} of {elems} elements passes the limit of {limit} bytes for all tables")]
    TableTooLarge {
        /// The user's name of the node.
        node: String,
        /// What the table holds.
        what: &'static str,
        /// Its size.
        elems: u64,
        /// The largest size of all such tables together.
        limit: u64,
    },
    /// Operands do not fit a node's operator: the graph was not verified.
    #[error("node '{node}': {error}")]
    Operands {
        /// The user's name of the node.
        node: String,
        /// Why they do not fit.
        error: InferError,
    },
}

/// Makes the naive program of a graph. The graph must be verified ([`crate::graph::verify`]); nodes that no output
/// needs are left out.
///
/// # Errors
/// [`LowerError`], for what only shows when constants are looked at.
pub fn lower(graph: &Graph) -> Result<Program, LowerError> {
    let graph = half::widen(graph).map_err(|(node, error)| LowerError::Operands { node, error })?;
    let graph = graph.as_ref();
    let mut lowering = Lowering::new(graph);
    lowering.nodes()?;
    lowering.copy_outputs();
    Ok(lowering.finish())
}

/// The state of one lowering.
struct Lowering<'g> {
    /// The graph at hand: the model, or the body of a scan.
    graph: &'g Graph,
    /// What is known of that graph's values.
    scope: Scope,
    /// Trips of the scans around, outermost first.
    repeats: Vec<u64>,
    program: Program,
    /// Checks of the inputs, which run before everything else.
    input_checks: Vec<Step>,
    /// Names of buffers, each with the number that the next one called so gets.
    buffer_names: BTreeMap<String, u32>,
    /// Checks that are steps already.
    checks: FxHashSet<(Buffer, u64)>,
    /// Smallest and largest element of constants that are indices.
    index_ranges: FxHashMap<Buffer, Option<(i64, i64)>>,
    /// Bytes of tables that may still be made.
    table_bytes: u64,
    /// Tables of the numbers from 0, by how many.
    counts: BTreeMap<u64, View>,
    /// Buffers of constants that a contraction or gather reads.
    claimed: FxHashSet<Buffer>,
    kernels_named: usize,
}

/// What is known of the values of one graph.
#[derive(Default)]
struct Scope {
    /// Where each value lies; filled on first use for constants.
    views: SecondaryMap<Value, Option<View>>,
    /// Nodes that some output needs.
    live: SecondaryMap<Node, bool>,
    /// Live nodes that use a value, once for each operand.
    users: SecondaryMap<Value, Vec<Node>>,
    /// The first output that returns a value.
    output_of: SecondaryMap<Value, Option<usize>>,
    /// Where each output lies, once its place is made; for the model, in the caller's buffers.
    outputs: Vec<Option<View>>,
}

impl Scope {
    fn of(graph: &Graph) -> Self {
        let mut scope = Self { outputs: vec![None; graph.outputs.len()], ..Self::default() };
        let mut needed: SecondaryMap<Value, bool> = SecondaryMap::new();
        for (i, output) in graph.outputs.iter().enumerate() {
            scope.output_of[output.value].get_or_insert(i);
            needed[output.value] = true;
        }
        for &node in graph.order.iter().rev() {
            let data = &graph.nodes[node];
            scope.live[node] = data.outputs.iter().any(|&v| needed[v]);
            if scope.live[node] {
                for &v in &data.inputs {
                    needed[v] = true;
                    scope.users[v].push(node);
                }
            }
        }
        scope
    }
}

impl<'g> Lowering<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut lowering = Self {
            graph,
            scope: Scope::of(graph),
            repeats: Vec::new(),
            program: Program { name: graph.name.clone(), ..Program::default() },
            input_checks: Vec::new(),
            buffer_names: BTreeMap::new(),
            checks: FxHashSet::default(),
            index_ranges: FxHashMap::default(),
            table_bytes: MAX_TABLE_BYTES,
            counts: BTreeMap::new(),
            claimed: FxHashSet::default(),
            kernels_named: 0,
        };
        for (i, &input) in graph.inputs.iter().enumerate() {
            let data = &graph.values[input];
            let buffer = lowering.buffer(&data.name, data.ty.dtype(), data.ty.shape(), Storage::Input(i as u32));
            lowering.program.inputs.push(buffer);
            lowering.scope.views[input] = Some(View::identity(buffer, data.ty.shape()));
        }
        lowering
    }

    /// Lowers the nodes of the graph at hand.
    fn nodes(&mut self) -> Result<(), LowerError> {
        for &node in &self.graph.order {
            if self.scope.live[node] {
                self.node(node)?;
            }
            if self.program.kernels.len() > MAX_KERNELS {
                let node = self.graph.nodes[node].name.clone();
                return Err(LowerError::TooManyKernels { node, limit: MAX_KERNELS });
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Program {
        self.input_checks.append(&mut self.program.steps);
        self.program.steps = self.input_checks;
        // Every output has a buffer by now.
        self.program.outputs = self.scope.outputs.into_iter().flatten().map(|view| view.buffer).collect();
        self.program
    }

    /// Lowers one node: exhaustive, so that a new operator does not compile until it has a rule.
    fn node(&mut self, node: Node) -> Result<(), LowerError> {
        let data = &self.graph.nodes[node];
        if let Op::Scan(scan) = &data.op {
            return self.scan(node, scan);
        }
        let Some(&result) = data.outputs.first() else { return Ok(()) };
        match &data.op {
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Expand { .. } => {
                if self.scope.views[result].is_none() {
                    let shape = self.graph.ty(result).shape();
                    let source = self.view(data.inputs[0]);
                    let mut view = source.through(&data.op, shape);
                    if view.terms() > MAX_VIEW_TERMS && source != View::identity(source.buffer, &source.shape) {
                        view = self.materialized(data.inputs[0]).through(&data.op, shape);
                    }
                    self.scope.views[result] = Some(view.tidied(&self.program.buffers));
                }
            }
            Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast { .. } | Op::Gelu(_) | Op::BatchNorm { .. } => {
                self.elementwise(node, result)
            }
            Op::MatMul => self.matmul(node, result),
            Op::Conv(attrs) => self.conv(node, result, attrs),
            Op::Pool(attrs) => self.pool(node, result, attrs)?,
            Op::Reduce { op, axes, keep_dims } => self.reduce(node, result, *op, axes, *keep_dims),
            Op::Softmax { axis } => self.softmax(node, result, *axis),
            Op::LayerNorm { axis, epsilon } => self.layer_norm(node, result, *axis, *epsilon),
            Op::Attention { scale } => self.attention(node, result, *scale),
            Op::Concat { axis } => self.concat(node, result, *axis),
            Op::Pad { pads, value } => self.pad(node, result, pads, *value),
            Op::Gather { axis } => self.gather(node, result, *axis)?,
            // Has several results, so it never comes here.
            Op::Scan(_) => {}
            Op::ArgReduce { op, axis, last } => self.arg_reduce(node, result, *op, *axis, *last)?,
            Op::CumSum { axis, exclusive, reverse } => self.cumsum(node, result, *axis, *exclusive, *reverse),
            Op::TopK { k, axis, largest } => self.top_k(node, *k, *axis, *largest)?,
            Op::GatherElements { axis } => self.gather_elements(node, result, *axis)?,
            Op::GatherNd { batch_dims } => self.gather_nd(node, result, *batch_dims)?,
            Op::ScatterElements { axis, combine } => self.scatter_elements(node, result, *axis, *combine)?,
            Op::ScatterNd { combine } => self.scatter_nd(node, result, *combine)?,
        }
        Ok(())
    }

    /// The place of an output: what the scan at hand gave, or a buffer of the caller.
    fn output(&mut self, index: usize) -> View {
        if let Some(view) = &self.scope.outputs[index] {
            return view.clone();
        }
        let output = &self.graph.outputs[index];
        let ty = self.graph.ty(output.value);
        let buffer = self.buffer(&output.name, ty.dtype(), ty.shape(), Storage::Output(index as u32));
        let view = View::identity(buffer, ty.shape());
        self.scope.outputs[index] = Some(view.clone());
        view
    }

    /// Copies outputs that no kernel could write in place.
    fn copy_outputs(&mut self) {
        for (i, output) in self.graph.outputs.iter().enumerate() {
            if self.scope.outputs[i].is_some() {
                continue;
            }
            let source = self.view(output.value);
            let target = self.output(i);
            let sources = self.graph.node_of(output.value).map(|n| self.graph.nodes[n].name.clone());
            self.copy_kernel(&source, &target, sources);
        }
    }

    /// Where a value lies. Constants get their buffer here, so unused ones have none.
    fn view(&mut self, value: Value) -> View {
        if let Some(view) = &self.scope.views[value] {
            return view.clone();
        }
        let data = &self.graph.values[value];
        let storage = match data.def {
            ValueDef::Const(c) => Storage::Const(self.graph.consts[c].clone()),
            // Inputs and results of nodes have views before they are used; a dangling one is a temporary that the
            // verifier of tile programs reports as never written.
            ValueDef::Input(_) | ValueDef::Node(..) => Storage::Temp,
        };
        let buffer = self.buffer(&data.name, data.ty.dtype(), data.ty.shape(), storage);
        let view = View::identity(buffer, data.ty.shape());
        self.scope.views[value] = Some(view.clone());
        view
    }

    /// Where an operand lies that scheduling may want in a layout of its own. A constant that another such operand uses
    /// already (tied embeddings, shared layers) gets a second buffer; its bytes are shared, and stored once if the layouts
    /// turn out equal.
    fn operand(&mut self, value: Value) -> View {
        let mut view = self.view(value);
        let data = &self.program.buffers[view.buffer];
        if matches!(data.storage, Storage::Const(_)) && !self.claimed.insert(view.buffer) {
            let (name, dtype, shape, storage) =
                (data.name.clone(), data.dtype, data.shape.clone(), data.storage.clone());
            view.buffer = self.buffer(&name, dtype, &shape, storage);
            self.claimed.insert(view.buffer);
        }
        view
    }

    /// Makes the buffer that a node's result is written to, and returns how its coordinates map into it.
    fn result(&mut self, value: Value, kernel: &KernelBuilder) -> View {
        let mut end = value;
        let shape = self.graph.ty(value).shape();
        let extents = Tile::of(shape);
        let mut index: Vec<Affine> = (0..shape.len()).map(Affine::dim).collect();
        while self.scope.output_of[end].is_none()
            && let &[user] = self.scope.users[end].as_slice()
        {
            let data = &self.graph.nodes[user];
            let Some(forward) = view::forward(&data.op, self.graph.ty(end).shape(), &index, &extents) else { break };
            if !forward.iter().all(Affine::is_linear) {
                break;
            }
            index = forward;
            end = data.outputs[0];
        }
        let place = self.result_place(end, kernel);
        let index = place.at(&index, &extents).index;
        let written = View { buffer: place.buffer, shape: shape.to_vec(), index, whole: place.whole }
            .tidied(&self.program.buffers);
        self.scope.views[end] = Some(place);
        if end != value {
            self.scope.views[value] = Some(written.clone());
        }
        written
    }

    /// Like [`Lowering::result`], with every dimension of the node's result as one of the buffer: for coordinates that are
    /// outside, or come from data.
    fn plain_result(&mut self, value: Value, kernel: &KernelBuilder) -> View {
        let place = self.result_place(value, kernel);
        self.scope.views[value] = Some(place.clone());
        place
    }

    /// Where a value goes that a kernel computes.
    fn result_place(&mut self, value: Value, kernel: &KernelBuilder) -> View {
        let ty = self.graph.ty(value);
        match self.scope.output_of[value] {
            Some(i) => self.output(i),
            None => {
                let user_name = &self.graph.values[value].name;
                let name = if user_name.is_empty() { kernel.name() } else { user_name };
                View::identity(self.buffer(name, ty.dtype(), ty.shape(), Storage::Temp), ty.shape())
            }
        }
    }

    /// Makes a temporary of a kernel.
    fn temp(&mut self, kernel: &KernelBuilder, what: &str, dtype: DType, shape: &[u64]) -> View {
        let buffer = self.buffer(&format!("{}.{what}", kernel.name()), dtype, shape, Storage::Temp);
        View::identity(buffer, shape)
    }

    /// Makes a table that the model does not have.
    fn table(&mut self, kernel: &KernelBuilder, what: &str, tensor: Tensor) -> View {
        let ty = tensor.ty().clone();
        let name = format!("{}.{what}", kernel.name());
        View::identity(self.buffer(&name, ty.dtype(), ty.shape(), Storage::Const(tensor)), ty.shape())
    }

    fn buffer(&mut self, name: &str, dtype: DType, shape: &[u64], storage: Storage) -> Buffer {
        let base = if name.is_empty() { "t" } else { name };
        // A name counts where it is, so that many buffers of one name do not try all numbers again and again.
        let mut next = self.buffer_names.get(base).copied();
        let mut unique = base.to_owned();
        while let Some(n) = next {
            unique = format!("{base}_{n}");
            self.buffer_names.insert(base.to_owned(), n + 1);
            next = self.buffer_names.contains_key(&unique).then_some(n + 1);
        }
        self.buffer_names.insert(unique.clone(), 2);
        self.program.buffers.push(BufferData::dense(unique, dtype, shape, storage))
    }

    /// Starts the kernel of a node.
    fn kernel(&mut self, node: Node) -> KernelBuilder {
        let data = &self.graph.nodes[node];
        let name = self.kernel_name(data.op.name());
        KernelBuilder::new(name, Some(data.name.clone()), &self.repeats)
    }

    fn kernel_name(&mut self, mnemonic: &str) -> String {
        let name = format!("{mnemonic}_{}", self.kernels_named);
        self.kernels_named += 1;
        name
    }

    /// Appends a kernel to the program; one whose statements were all empty is dropped.
    fn push(&mut self, kernel: KernelBuilder) {
        if let Some(data) = kernel.finish() {
            let kernel = self.program.kernels.push(data);
            self.program.steps.push(Step::Run(kernel));
        }
    }

    /// Loads a value at logical coordinates into an expression; a constant of one element is written into the expression.
    fn load(&mut self, expr: &mut Expr, value: Value, index: &[Affine], tile: &Tile) -> ExprRef {
        if let Some(scalar) = self.graph.const_of(value).and_then(single_element) {
            return expr.push(Inst::Const(scalar));
        }
        let access = self.view(value).at(index, tile);
        expr.push(Inst::Load(access))
    }
}

/// The element of a tensor of one element, with exactly its bits.
fn single_element(tensor: &Tensor) -> Option<Scalar> {
    if tensor.ty().elems() != 1 {
        return None;
    }
    let bits = tensor.bytes().iter().rev().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
    Some(Scalar { dtype: tensor.ty().dtype(), bits })
}

/// Coordinates of an operand that broadcasts to the shape of the result, at coordinates `at` of the result.
fn broadcast_index(operand: &[u64], result: &[u64], at: &[Affine]) -> Vec<Affine> {
    let skipped = result.len() - operand.len();
    let coordinate = |(i, &size): (usize, &u64)| {
        if size == result[skipped + i] { at[skipped + i].clone() } else { Affine::constant(0) }
    };
    operand.iter().enumerate().map(coordinate).collect()
}

#[cfg(test)]
mod tests;
