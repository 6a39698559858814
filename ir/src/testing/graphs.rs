//! Random graphs over all operators.
//!
//! A node is added only if the interpreter finds its result tame for the graph's inputs: nothing undetermined, no large
//! numbers, a narrow bound. So comparisons are not decided by rounding, nothing divides by nearly 0, and a difference
//! between executors means an error in one of them.

use cranelift_entity::SecondaryMap;

use super::Rng;
use super::scans::random_scan;
use crate::graph::interp::{Evaluated, evaluate_op_all};
use crate::graph::{
    ArgOp, BinaryOp, ConvAttrs, GeluKind, Graph, Op, PoolAttrs, PoolKind, ReduceOp, ScatterOp, UnaryOp, Value,
};
use crate::tile::Scalar;
use crate::types::{DType, Tensor, TensorType};

/// Largest number of elements of one tensor.
const MAX_ELEMENTS: u64 = 4096;

/// A valid graph of about `size` nodes with inputs for it. Every element type occurs, one floating-point type in most of a
/// graph, which is `f32` in every other graph; every value contributes to an output. Small shapes, among them single
/// elements, odd sizes, and now and then no elements at all. Every eighth seed gives a scan over such a graph.
pub fn random_graph(seed: u64, size: usize) -> (Graph, Vec<Tensor>) {
    if seed % 8 == 7 { random_scan(seed, size) } else { random_nodes(seed, size) }
}

/// A graph without scans.
pub(super) fn random_nodes(seed: u64, size: usize) -> (Graph, Vec<Tensor>) {
    let mut builder = Builder {
        float: match seed % 6 {
            1 => DType::F16,
            3 => DType::F64,
            5 => DType::BF16,
            _ => DType::F32,
        },
        rng: Rng::new(seed),
        graph: Graph::new(format!("random {seed}")),
        inputs: Vec::new(),
        values: Vec::new(),
        evaluated: SecondaryMap::new(),
        used: SecondaryMap::new(),
    };
    builder.start();
    // Attempts that do not fit the values at hand are dropped, so there are more attempts than nodes.
    let mut attempts = 40 * size;
    while builder.graph.order.len() < size && attempts > 0 {
        builder.attempt();
        attempts -= 1;
    }
    builder.finish()
}

struct Builder {
    rng: Rng,
    /// The type of most floats.
    float: DType,
    graph: Graph,
    inputs: Vec<Tensor>,
    /// Values to choose operands from.
    values: Vec<Value>,
    evaluated: SecondaryMap<Value, Option<Evaluated>>,
    used: SecondaryMap<Value, bool>,
}

impl Builder {
    fn start(&mut self) {
        let rank = self.rng.below(5);
        let mut shape: Vec<u64> = (0..rank).map(|_| self.size()).collect();
        if self.rng.one_in(30) && rank > 0 {
            let axis = self.rng.below(rank) as usize;
            shape[axis] = 0;
        }
        self.add_input(self.float, &shape);
        if self.rng.one_in(2) {
            // Something for operators over images and attention heads.
            let image = [1 + self.rng.below(2), 1 + self.rng.below(6), 1 + self.rng.below(9), 1 + self.rng.below(9)];
            let from = self.rng.below(2) as usize;
            let dtype = if self.rng.one_in(5) { *self.rng.pick(&DType::ALL) } else { self.float };
            self.add_input(dtype, &image[from..]);
        }
        if self.rng.one_in(4) {
            let dtype = *self.rng.pick(&DType::ALL);
            let length = self.size();
            self.add_input(dtype, &[length]);
        }
    }

    fn finish(mut self) -> (Graph, Vec<Tensor>) {
        let mut outputs: Vec<Value> = self.values.iter().copied().filter(|&v| !self.used[v]).collect();
        if self.rng.one_in(6) {
            outputs.push(*self.rng.pick(&self.values));
        }
        for (i, value) in outputs.into_iter().enumerate() {
            self.graph.add_output(format!("y{i}"), value);
        }
        (self.graph, self.inputs)
    }

    fn size(&mut self) -> u64 {
        *self.rng.pick(&[1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 17])
    }

    fn add_input(&mut self, dtype: DType, shape: &[u64]) -> Value {
        let ty = TensorType::new(dtype, shape).expect("small shape");
        let tensor = self.rng.tensor(&ty, 2.0);
        self.add_input_tensor(tensor)
    }

    fn add_input_tensor(&mut self, tensor: Tensor) -> Value {
        let value = self.graph.add_input(format!("x{}", self.inputs.len()), tensor.ty().clone());
        self.evaluated[value] = Some(Evaluated::from_tensor(&tensor));
        self.inputs.push(tensor);
        self.values.push(value);
        value
    }

    fn add_const(&mut self, tensor: Tensor) -> Value {
        let value = self.graph.add_const(format!("c{}", self.graph.consts.len()), tensor.clone());
        self.evaluated[value] = Some(Evaluated::from_tensor(&tensor));
        value
    }

    fn float_const(&mut self, shape: &[u64], limit: f32) -> Option<Value> {
        let ty = TensorType::new(self.float, shape).ok().filter(|ty| ty.elems() <= MAX_ELEMENTS)?;
        let tensor = self.rng.tensor(&ty, limit);
        Some(self.add_const(tensor))
    }

    fn scalar_const(&mut self, value: f64) -> Option<Value> {
        let bits = Scalar::from_f64(self.float, value).bits.to_le_bytes();
        let bytes = bits[..self.float.bytes() as usize].to_vec();
        Some(self.add_const(Tensor::new(TensorType::scalar(self.float), bytes.into()).ok()?))
    }

    /// Positive numbers: standard deviations, divisors.
    fn positive_const(&mut self, shape: &[u64]) -> Option<Value> {
        let ty = TensorType::new(self.float, shape).ok()?;
        let size = self.float.bytes() as usize;
        let element = |rng: &mut Rng| Scalar::from_f64(ty.dtype(), f64::from(rng.float(1.0).abs() + 0.5)).bits;
        let bytes: Vec<u8> =
            (0..ty.elems()).flat_map(|_| element(&mut self.rng).to_le_bytes()[..size].to_vec()).collect();
        Some(self.add_const(Tensor::new(ty, bytes.into()).ok()?))
    }

    /// A value that passes a filter on its type; recent ones more often, so that graphs get deep.
    fn value(&mut self, accept: impl Fn(&TensorType) -> bool) -> Option<Value> {
        let fitting: Vec<Value> = self.values.iter().copied().filter(|&v| accept(self.graph.ty(v))).collect();
        let recent = fitting.len().saturating_sub(3);
        let from = if self.rng.one_in(3) { 0 } else { recent };
        fitting.get(from..).filter(|f| !f.is_empty()).map(|f| *self.rng.pick(f))
    }

    fn float_value(&mut self, min_rank: usize) -> Option<Value> {
        let float = self.float;
        self.value(|ty| ty.dtype() == float && ty.rank() >= min_rank)
    }

    fn shape(&self, value: Value) -> Vec<u64> {
        self.graph.ty(value).shape().to_vec()
    }

    /// Tries one random operator.
    fn attempt(&mut self) {
        let Some((op, operands)) = self.candidate() else { return };
        let evaluated: Vec<&Evaluated> = operands.iter().filter_map(|&v| self.evaluated[v].as_ref()).collect();
        let types: Vec<&TensorType> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        if op.infer_all(&types).is_ok_and(|types| types.iter().any(|ty| ty.elems() > MAX_ELEMENTS)) {
            return;
        }
        let Ok(results) = evaluate_op_all(&op, &evaluated) else { return };
        if !results.iter().all(is_tame) {
            return;
        }
        let name = format!("n{}", self.graph.order.len());
        let values = self.graph.add_node_of_many(name.as_str(), op, &operands).expect("it was evaluated");
        for (i, (value, result)) in values.into_iter().zip(results).enumerate() {
            let suffix = if i > 0 { format!(".{i}") } else { String::new() };
            self.graph.values[value].name = format!("{name}{suffix}");
            self.evaluated[value] = Some(result);
            self.values.push(value);
        }
        for operand in operands {
            self.used[operand] = true;
        }
    }

    fn candidate(&mut self) -> Option<(Op, Vec<Value>)> {
        match self.rng.below(32) {
            0..3 => {
                let op = *self.rng.pick(&UnaryOp::ALL);
                let wanted = match op {
                    UnaryOp::Not if self.rng.one_in(3) => DType::I32,
                    UnaryOp::Not => DType::Bool,
                    UnaryOp::Neg | UnaryOp::Abs if self.rng.one_in(3) => *self.rng.pick(&DType::ALL),
                    _ => self.float,
                };
                Some((Op::Unary(op), vec![self.value(|ty| ty.dtype() == wanted)?]))
            }
            3..8 => self.binary(),
            8 => {
                let condition = self.value(|ty| ty.dtype() == DType::Bool)?;
                let shape = self.shape(condition);
                let a = self.value(|ty| ty.shape() == shape && ty.dtype() != DType::Bool)?;
                let b = self.partner(a)?;
                Some((Op::Select, vec![condition, a, b]))
            }
            9 => {
                let to = if self.rng.one_in(3) { self.float } else { *self.rng.pick(&DType::ALL) };
                Some((Op::Cast { to }, vec![self.value(|ty| ty.dtype() != to)?]))
            }
            10..12 => self.matmul(),
            12 => self.conv(),
            13 => self.pool(),
            14..16 => self.reduce(),
            16 => {
                let x = self.float_value(1)?;
                let axis = self.axis(x);
                Some((Op::Softmax { axis }, vec![x]))
            }
            17 => self.norm(),
            18 => {
                let kind = *self.rng.pick(&[GeluKind::Erf, GeluKind::Tanh]);
                Some((Op::Gelu(kind), vec![self.float_value(0)?]))
            }
            19 => self.attention(),
            20 => {
                let x = self.value(|_| true)?;
                let shape = self.reshaped(x);
                Some((Op::Reshape { shape }, vec![x]))
            }
            21 => {
                let x = self.value(|ty| ty.rank() >= 2)?;
                let mut perm: Vec<usize> = (0..self.graph.ty(x).rank()).collect();
                for i in (1..perm.len()).rev() {
                    perm.swap(i, self.rng.below(i as u64 + 1) as usize);
                }
                Some((Op::Transpose { perm }, vec![x]))
            }
            22 => {
                let x = self.value(|ty| ty.rank() < 5)?;
                let mut shape = self.shape(x);
                for d in shape.iter_mut().filter(|d| **d == 1) {
                    *d = self.rng.below(4) + 1;
                }
                if self.rng.one_in(2) {
                    shape.insert(0, self.rng.below(3) + 1);
                }
                Some((Op::Expand { shape }, vec![x]))
            }
            23 => {
                let x = self.value(|ty| ty.rank() >= 1)?;
                let axis = self.axis(x);
                let other = self.partner(x)?;
                Some((Op::Concat { axis }, if self.rng.one_in(2) { vec![x, other] } else { vec![other, x, x] }))
            }
            24..26 => self.slice(),
            28..30 => self.along(),
            30 => self.gather_by_elements(),
            31 => self.gather_by_tuples(),
            26 => {
                let x = self.value(|ty| ty.rank() <= 4)?;
                let pads = self.shape(x).iter().map(|_| (self.rng.below(3), self.rng.below(3))).collect();
                Some((Op::Pad { pads, value: *self.rng.pick(&[0.0, 1.0, -1.5]) }, vec![x]))
            }
            _ => self.gather(),
        }
    }

    fn axis(&mut self, x: Value) -> usize {
        let rank = self.graph.ty(x).rank();
        self.rng.below(rank as u64) as usize
    }

    /// Another value, or a new constant, of the same type.
    fn partner(&mut self, x: Value) -> Option<Value> {
        let ty = self.graph.ty(x).clone();
        if self.rng.one_in(2)
            && let Some(y) = self.value(|other| *other == ty)
        {
            return Some(y);
        }
        let tensor = self.rng.tensor(&ty, 2.0);
        Some(self.add_const(tensor))
    }

    /// A value or a constant that broadcasts against another value.
    fn broadcast_partner(&mut self, x: Value) -> Option<Value> {
        if self.rng.one_in(3) {
            return self.partner(x);
        }
        let mut shape = self.shape(x);
        let dropped = self.rng.below(shape.len() as u64 + 1) as usize;
        shape.drain(..dropped);
        for d in &mut shape {
            if self.rng.one_in(3) {
                *d = 1;
            }
        }
        let ty = TensorType::new(self.graph.ty(x).dtype(), shape).ok()?;
        let tensor = self.rng.tensor(&ty, 2.0);
        Some(self.add_const(tensor))
    }

    fn binary(&mut self) -> Option<(Op, Vec<Value>)> {
        let op = *self.rng.pick(&BinaryOp::ALL);
        let x = match op {
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => self.value(|ty| !ty.dtype().is_float())?,
            BinaryOp::Shl | BinaryOp::Shr => self.value(|ty| ty.dtype().is_int())?,
            BinaryOp::Pow if self.rng.one_in(2) => self.float_value(0)?,
            BinaryOp::Eq => self.value(|_| true)?,
            _ if self.rng.one_in(4) => self.value(|ty| ty.dtype().is_int())?,
            _ => self.float_value(0)?,
        };
        let is_float = self.graph.ty(x).dtype().is_float();
        let y = match op {
            BinaryOp::Div | BinaryOp::Rem if is_float => {
                let shape = self.shape(x);
                self.positive_const(&shape)?
            }
            BinaryOp::Pow if is_float => {
                let exponent = *self.rng.pick(&[0.5, 1.0, 2.0, 3.0, -1.0]);
                self.scalar_const(exponent)?
            }
            _ => self.broadcast_partner(x)?,
        };
        let swap = !matches!(op, BinaryOp::Pow | BinaryOp::Div | BinaryOp::Rem) && self.rng.one_in(2);
        Some((Op::Binary(op), if swap { vec![y, x] } else { vec![x, y] }))
    }

    fn matmul(&mut self) -> Option<(Op, Vec<Value>)> {
        let x = match self.rng.one_in(6) {
            true => self.value(|ty| ty.dtype().is_int() && ty.rank() >= 2)?,
            false => self.float_value(2)?,
        };
        let shape = self.shape(x);
        let k = shape[shape.len() - 1];
        let n = self.size();
        let limit = 2.0 / (k.max(1) as f32).sqrt();
        let mut weights = vec![k, n];
        match self.rng.below(4) {
            // A second computed value, if one fits.
            0 => {
                let dtype = self.graph.ty(x).dtype();
                let y = self.value(|ty| ty.dtype() == dtype && ty.rank() == 2 && ty.shape()[0] == k)?;
                return Some((Op::MatMul, vec![x, y]));
            }
            // One matrix for each of the leading dimensions.
            1 if shape.len() > 2 => weights.insert(0, shape[shape.len() - 3]),
            _ => {}
        }
        let ty = TensorType::new(self.graph.ty(x).dtype(), weights).ok().filter(|ty| ty.elems() <= MAX_ELEMENTS)?;
        let weights = self.rng.tensor(&ty, limit);
        let w = self.add_const(weights);
        Some((Op::MatMul, vec![x, w]))
    }

    /// Strides, dilations and pads per spatial dimension, for windows of the given sizes.
    fn window(&mut self, kernel: &[u64]) -> (Vec<u64>, Vec<u64>, Vec<(u64, u64)>) {
        let strides = kernel.iter().map(|_| 1 + self.rng.below(3)).collect();
        let dilations = kernel.iter().map(|_| if self.rng.one_in(4) { 2 } else { 1 }).collect();
        let pads = kernel.iter().map(|&k| (self.rng.below(k), self.rng.below(k))).collect();
        (strides, dilations, pads)
    }

    fn conv(&mut self) -> Option<(Op, Vec<Value>)> {
        let float = self.float;
        let x = self.value(|ty| ty.dtype() == float && (3..=4).contains(&ty.rank()))?;
        let shape = self.shape(x);
        let channels = shape[1];
        let groups = *self.rng.pick(&[1, 1, 2, channels]);
        if groups == 0 || !channels.is_multiple_of(groups) {
            return None;
        }
        let filters = groups * (1 + self.rng.below(4));
        let kernel: Vec<u64> = shape[2..].iter().map(|_| 1 + self.rng.below(3)).collect();
        let (strides, dilations, pads) = self.window(&kernel);
        let mut weights = vec![filters, channels / groups];
        weights.extend(&kernel);
        let mut operands = vec![x, self.float_const(&weights, 1.0)?];
        if self.rng.one_in(2) {
            operands.push(self.float_const(&[filters], 1.0)?);
        }
        Some((Op::Conv(ConvAttrs { strides, dilations, pads, groups }), operands))
    }

    fn pool(&mut self) -> Option<(Op, Vec<Value>)> {
        let kind = *self.rng.pick(&[PoolKind::Max, PoolKind::AverageIncludePad, PoolKind::AverageExcludePad]);
        let float = self.float;
        let takes = |dtype: DType| dtype == float || (kind == PoolKind::Max && dtype.is_int());
        let x = self.value(|ty| takes(ty.dtype()) && (3..=4).contains(&ty.rank()))?;
        let kernel: Vec<u64> = self.shape(x)[2..].iter().map(|_| 1 + self.rng.below(3)).collect();
        let (strides, dilations, pads) = self.window(&kernel);
        Some((Op::Pool(PoolAttrs { kind, kernel, strides, dilations, pads }), vec![x]))
    }

    fn reduce(&mut self) -> Option<(Op, Vec<Value>)> {
        let op = *self.rng.pick(&[ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Max, ReduceOp::Min, ReduceOp::Prod]);
        let x = if self.rng.one_in(4) { self.value(|ty| ty.dtype().is_int())? } else { self.float_value(0)? };
        let axes = (0..self.graph.ty(x).rank()).filter(|_| self.rng.one_in(2)).collect();
        Some((Op::Reduce { op, axes, keep_dims: self.rng.one_in(2) }, vec![x]))
    }

    fn norm(&mut self) -> Option<(Op, Vec<Value>)> {
        let x = self.float_value(1)?;
        let shape = self.shape(x);
        let epsilon = 1e-5;
        if shape.len() >= 2 && self.rng.one_in(2) {
            let c = &shape[1..2];
            let operands = [
                self.float_const(c, 1.0)?,
                self.float_const(c, 1.0)?,
                self.float_const(c, 1.0)?,
                self.positive_const(c)?,
            ];
            return Some((Op::BatchNorm { epsilon }, [vec![x], operands.to_vec()].concat()));
        }
        let axis = self.axis(x);
        let (scale, bias) = (self.float_const(&shape[axis..], 1.0)?, self.float_const(&shape[axis..], 1.0)?);
        Some((Op::LayerNorm { axis, epsilon }, vec![x, scale, bias]))
    }

    fn attention(&mut self) -> Option<(Op, Vec<Value>)> {
        let float = self.float;
        let q = self.value(|ty| ty.dtype() == float && ty.rank() == 4)?;
        let [b, h, s, d] = self.shape(q)[..] else { return None };
        let (t, e) = (self.size(), self.size());
        let (k, v) = if self.rng.one_in(3) {
            (q, q)
        } else {
            (self.float_const(&[b, h, t, d], 1.0)?, self.float_const(&[b, h, t, e], 1.0)?)
        };
        let mut operands = vec![q, k, v];
        if self.rng.one_in(2) {
            let keys = self.shape(k)[2];
            let shape = *self.rng.pick(&[[1, 1, 1, keys], [b, 1, s, keys], [1, h, s, 1]]);
            operands.push(self.float_const(&shape, 2.0)?);
        }
        let scale = 1.0 / (d.max(1) as f32).sqrt();
        Some((Op::Attention { scale }, operands))
    }

    /// Another shape of as many elements: dimensions merged, split or added.
    fn reshaped(&mut self, x: Value) -> Vec<u64> {
        let mut shape = self.shape(x);
        match self.rng.below(3) {
            0 if shape.len() >= 2 => {
                let i = self.rng.below(shape.len() as u64 - 1) as usize;
                let merged = shape.remove(i);
                shape[i] *= merged;
            }
            1 if !shape.is_empty() => {
                let i = self.rng.below(shape.len() as u64) as usize;
                if let Some(factor) = [2, 3, 5].into_iter().find(|&f| shape[i] > f && shape[i].is_multiple_of(f)) {
                    shape[i] /= factor;
                    shape.insert(i, factor);
                }
            }
            _ => {
                let i = self.rng.below(shape.len() as u64 + 1) as usize;
                shape.insert(i, 1);
            }
        }
        shape
    }

    fn slice(&mut self) -> Option<(Op, Vec<Value>)> {
        let x = self.value(|ty| ty.rank() >= 1)?;
        let (mut starts, mut sizes, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for dim in self.shape(x) {
            if dim == 0 {
                starts.push(0);
                sizes.push(0);
                steps.push(1);
                continue;
            }
            let step = *self.rng.pick(&[1i64, 1, 2, 3, -1, -2]);
            let start = self.rng.below(dim);
            let reach = if step > 0 { dim - 1 - start } else { start };
            starts.push(start);
            steps.push(step);
            sizes.push(1 + self.rng.below(reach / step.unsigned_abs() + 1));
        }
        Some((Op::Slice { starts, sizes, steps }, vec![x]))
    }

    fn gather(&mut self) -> Option<(Op, Vec<Value>)> {
        let x = self.value(|ty| ty.rank() >= 1 && ty.rank() <= 4)?;
        let axis = self.axis(x);
        let size = self.shape(x)[axis];
        if size == 0 {
            return None;
        }
        let shape = self.rng.pick(&[vec![], vec![1], vec![3], vec![2, 2], vec![5]]).clone();
        let indices = self.indices(shape, |_| size)?;
        Some((Op::Gather { axis }, vec![x, indices]))
    }

    /// Indices as an input or a constant; the one at position `i` is valid in a dimension of `sizes(i)` elements.
    fn indices(&mut self, shape: Vec<u64>, sizes: impl Fn(usize) -> u64) -> Option<Value> {
        let count = shape.iter().product::<u64>() as usize;
        let indices: Vec<i64> =
            (0..count).map(sizes).map(|size| self.rng.below(2 * size) as i64 - size as i64).collect();
        let indices = if self.rng.one_in(2) {
            Tensor::from_i64(shape, &indices)?
        } else {
            let bytes: Vec<u8> = indices.iter().flat_map(|&i| (i as i32).to_le_bytes()).collect();
            Tensor::new(TensorType::new(DType::I32, shape).ok()?, bytes.into()).ok()?
        };
        Some(if self.rng.one_in(2) { self.add_input_tensor(indices) } else { self.add_const(indices) })
    }

    /// An operator whose result depends on the order of elements along a dimension.
    fn along(&mut self) -> Option<(Op, Vec<Value>)> {
        let any = self.rng.one_in(2);
        let x = self.value(|ty| ty.rank() >= 1 && ty.dtype() != DType::Bool && (any || ty.dtype().is_int()))?;
        let axis = self.axis(x);
        let (one, other) = (self.rng.one_in(2), self.rng.one_in(2));
        let op = match self.rng.below(3) {
            0 => Op::CumSum { axis, exclusive: one, reverse: other },
            1 => Op::ArgReduce { op: if one { ArgOp::Max } else { ArgOp::Min }, axis, last: other },
            _ => {
                let n = self.shape(x)[axis];
                let k = if self.rng.one_in(60) { 0 } else { n.min(1 + self.rng.below(n)) };
                Op::TopK { k, axis, largest: one }
            }
        };
        Some((op, vec![x]))
    }

    fn combine(&mut self, x: Value) -> ScatterOp {
        if self.graph.ty(x).dtype() == DType::Bool { ScatterOp::Replace } else { *self.rng.pick(&ScatterOp::ALL) }
    }

    /// A gather of elements, or a scatter to them.
    fn gather_by_elements(&mut self) -> Option<(Op, Vec<Value>)> {
        let x = self.value(|ty| ty.rank() >= 1 && ty.rank() <= 4)?;
        let axis = self.axis(x);
        let size = self.shape(x)[axis];
        let mut shape: Vec<u64> =
            self.shape(x).iter().map(|&d| if self.rng.one_in(2) { d } else { d.min(1 + self.rng.below(d)) }).collect();
        shape[axis] = if size == 0 || self.rng.one_in(60) { 0 } else { 1 + self.rng.below(4) };
        let indices = self.indices(shape.clone(), |_| size)?;
        if self.rng.one_in(2) {
            return Some((Op::GatherElements { axis }, vec![x, indices]));
        }
        let updates = self.of_shape(x, &shape)?;
        Some((Op::ScatterElements { axis, combine: self.combine(x) }, vec![x, indices, updates]))
    }

    /// A gather of what tuples of indices name, or a scatter to it.
    fn gather_by_tuples(&mut self) -> Option<(Op, Vec<Value>)> {
        let x = self.value(|ty| ty.rank() <= 4)?;
        let sizes = self.shape(x);
        let is_gather = self.rng.one_in(2);
        let rank = sizes.len();
        let batch_dims = if is_gather { self.rng.below(rank as u64 + 1) as usize } else { 0 };
        let dims = (rank - batch_dims) as u64;
        let k = if self.rng.one_in(8) { 0 } else { dims.min(1 + self.rng.below(dims)) as usize };
        if sizes[batch_dims..batch_dims + k].contains(&0) {
            return None;
        }
        let places = if self.rng.one_in(60) { &[0] } else { *self.rng.pick(&[&[][..], &[1], &[3], &[2, 2]]) };
        let shape = [&sizes[..batch_dims], places, &[k as u64]].concat();
        let indices = self.indices(shape, |i| sizes[batch_dims + i % k])?;
        if is_gather {
            return Some((Op::GatherNd { batch_dims }, vec![x, indices]));
        }
        let updates = self.of_shape(x, &[places, &sizes[k..]].concat())?;
        Some((Op::ScatterNd { combine: self.combine(x) }, vec![x, indices, updates]))
    }

    /// A value, or a new constant, of the element type of another value.
    fn of_shape(&mut self, x: Value, shape: &[u64]) -> Option<Value> {
        let ty = TensorType::new(self.graph.ty(x).dtype(), shape).ok().filter(|ty| ty.elems() <= MAX_ELEMENTS)?;
        if let Some(y) = self.value(|other| *other == ty) {
            return Some(y);
        }
        let tensor = self.rng.tensor(&ty, 2.0);
        Some(self.add_const(tensor))
    }
}

/// Whether a result is certain, of moderate size, and narrowly bounded.
pub(super) fn is_tame(x: &Evaluated) -> bool {
    let narrow = match x.ty().dtype() {
        DType::F16 => 0.05,
        DType::BF16 => 0.3,
        DType::F64 => 1e-11,
        _ => 1e-4,
    };
    (0..x.ty().elems() as usize).all(|i| match x.floats() {
        Some(values) => values[i].abs() <= 1e3 && x.err(i) <= narrow * values[i].abs().max(1.0),
        None => x.err(i) == 0.0,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::interp::evaluate;

    #[test]
    fn graphs_are_valid_varied_and_reproducible() {
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        let (mut empty, mut nodes) = (0, 0);
        for seed in 0..400 {
            let (graph, inputs) = random_nodes(seed, 12);
            let info = graph.verify().unwrap();
            assert_eq!(random_nodes(seed, 12).0, graph);
            nodes += graph.order.len();
            for &node in &graph.order {
                let data = &graph.nodes[node];
                *names.entry(data.op.name()).or_default() += 1;
                assert!(data.outputs.iter().all(|&v| info.uses(v) > 0));
            }
            empty += u32::from(graph.values.values().any(|v| v.ty.elems() == 0));
            for output in evaluate(&graph, &inputs).unwrap() {
                assert!(is_tame(&output));
                assert_eq!(output.check(&output.to_tensor()).unwrap().outside, 0);
            }
        }
        assert!(nodes > 400 * 9, "{nodes}");
        assert!((5..100).contains(&empty), "{empty}");
        let mnemonics = UnaryOp::ALL.iter().map(|op| op.name()).chain(BinaryOp::ALL.iter().map(|op| op.name()));
        let others = "select cast matmul conv pool_max pool_mean pool_mean_padded reduce_sum reduce_mean reduce_max \
            reduce_min reduce_prod softmax layer_norm batch_norm gelu_erf gelu_tanh attention reshape transpose expand \
            concat slice pad gather arg_max arg_min cumsum top_k gather_elements gather_nd scatter_elements scatter_nd";
        let missing: Vec<&str> = mnemonics.chain(others.split(' ')).filter(|name| !names.contains_key(name)).collect();
        assert!(missing.is_empty(), "{missing:?} never occur in {names:?}");
    }

    #[test]
    fn every_eighth_graph_is_a_scan() {
        for seed in (7..200).step_by(8) {
            let (graph, inputs) = random_graph(seed, 8);
            graph.verify().unwrap();
            assert!(graph.nodes.values().any(|n| matches!(n.op, Op::Scan(_))));
            evaluate(&graph, &inputs).unwrap();
        }
    }
}
