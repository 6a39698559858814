//! Reads graphs. Types in the text are checked against inference; handles in the text may be any numbers, each defined
//! once and before its use, and the graph read is numbered in the order of definitions.

use rustc_hash::FxHashMap;

use crate::graph::{
    ArgOp, BinaryOp, ConvAttrs, GeluKind, Graph, Op, PoolAttrs, PoolKind, ReduceOp, Scan, ScatterOp, UnaryOp, Value,
};
use crate::text::constant::SideConsts;
use crate::text::{Cursor, ParseError, Token};
use crate::types::TensorType;

impl Graph {
    /// Reads a graph in the [text form](super). `side` holds the constants that the text names by hash.
    ///
    /// # Errors
    /// At the first place that is not accepted.
    pub fn parse(text: &str, side: Option<&SideConsts>) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(text)?;
        let graph = graph(&mut cursor, side, 0)?;
        if *cursor.peek() != Token::End {
            return Err(cursor.expected("the end"));
        }
        Ok(graph)
    }
}

/// Most scans inside one another; graphs are walked by recursion over them.
const MAX_DEPTH: usize = 16;

/// Takes a graph that is `depth` scans deep.
fn graph(cursor: &mut Cursor<'_>, side: Option<&SideConsts>, depth: usize) -> Result<Graph, ParseError> {
    if depth > MAX_DEPTH {
        return Err(cursor.error(format!("scans lie more than {MAX_DEPTH} deep")));
    }
    cursor.expect("graph")?;
    let graph = Graph::new(cursor.string()?);
    let mut parser = Parser { cursor, side, depth, graph, values: FxHashMap::default() };
    parser.cursor.expect("{")?;
    while !parser.cursor.eat("}")? {
        parser.statement()?;
    }
    Ok(parser.graph)
}

struct Parser<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    side: Option<&'c SideConsts>,
    depth: usize,
    graph: Graph,
    /// Values by their number in the text.
    values: FxHashMap<u32, Value>,
}

/// A definition's left-hand side: number, name and type, with the places of the first and last.
struct Definition {
    start: usize,
    number: u32,
    name: String,
    type_start: usize,
    ty: TensorType,
}

impl Parser<'_, '_> {
    fn statement(&mut self) -> Result<(), ParseError> {
        if self.cursor.eat("out")? {
            let name = self.cursor.string()?;
            let value = self.operand()?;
            self.graph.add_output(name, value);
            return Ok(());
        }
        let is_input = self.cursor.eat("in")?;
        let is_const = !is_input && self.cursor.eat("const")?;
        let first = self.definition()?;
        if is_input {
            let value = self.graph.add_input(&first.name, first.ty.clone());
            return self.define(&first, value);
        }
        if is_const {
            self.cursor.expect("=")?;
            let tensor = self.cursor.constant(first.ty.clone(), self.side)?;
            let value = self.graph.add_const(&first.name, tensor);
            return self.define(&first, value);
        }
        let mut results = vec![first];
        while self.cursor.eat(",")? {
            results.push(self.definition()?);
        }
        self.cursor.expect("=")?;
        let op_start = self.cursor.offset();
        let (op, operands, node_name) = self.application()?;
        let node_name = node_name.unwrap_or_else(|| results[0].name.clone());
        let added = self.graph.add_node_of_many(node_name, op, &operands);
        let values = added.map_err(|e| self.cursor.error_at(op_start, e.to_string()))?;
        if values.len() != results.len() {
            let message = format!("the operator has {} results, not {}", values.len(), results.len());
            return Err(self.cursor.error_at(op_start, message));
        }
        for (result, value) in results.iter().zip(values) {
            let inferred = self.graph.ty(value);
            if *inferred != result.ty {
                let message = format!("the operator computes {inferred}, not {}", result.ty);
                return Err(self.cursor.error_at(result.type_start, message));
            }
            self.graph.values[value].name.clone_from(&result.name);
            self.define(result, value)?;
        }
        Ok(())
    }

    /// `v3 "name": f32[2]`.
    fn definition(&mut self) -> Result<Definition, ParseError> {
        let start = self.cursor.offset();
        let number = self.cursor.handle("v")?;
        let name = self.cursor.string()?;
        self.cursor.expect(":")?;
        let type_start = self.cursor.offset();
        Ok(Definition { start, number, name, type_start, ty: self.cursor.tensor_type()? })
    }

    fn define(&mut self, definition: &Definition, value: Value) -> Result<(), ParseError> {
        let &Definition { start, number, .. } = definition;
        match self.values.insert(number, value) {
            None => Ok(()),
            Some(_) => Err(self.cursor.error_at(start, format!("v{number} is defined twice"))),
        }
    }

    fn operand(&mut self) -> Result<Value, ParseError> {
        let start = self.cursor.offset();
        let number = self.cursor.handle("v")?;
        self.values
            .get(&number)
            .copied()
            .ok_or_else(|| self.cursor.error_at(start, format!("v{number} is not defined before")))
    }

    /// Mnemonic, operands and attributes, the node's name if it has one of its own, and the body of a scan.
    fn application(&mut self) -> Result<(Op, Vec<Value>, Option<String>), ParseError> {
        let start = self.cursor.offset();
        let mnemonic = self.cursor.word()?;
        let mut operands = Vec::new();
        // No mnemonic is without operands, so a word after it is one.
        if matches!(self.cursor.peek(), Token::Word(_)) {
            operands.push(self.operand()?);
            while self.cursor.eat(",")? {
                operands.push(self.operand()?);
            }
        }
        let mut attributes = Attributes { cursor: self.cursor, any: false };
        let op = attributes.op(mnemonic)?;
        attributes.close()?;
        let mut op = op.ok_or_else(|| self.cursor.error_at(start, format!("there is no operator `{mnemonic}`")))?;
        let name = if self.cursor.eat("@")? { Some(self.cursor.string()?) } else { None };
        if let Op::Scan(scan) = &mut op {
            scan.body = graph(self.cursor, self.side, self.depth + 1)?;
        }
        Ok((op, operands, name))
    }
}

/// Reads `{key: value, ...}` with known keys in a fixed order.
struct Attributes<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    /// Whether a key was read, and with it the brace.
    any: bool,
}

impl<'a> Attributes<'_, 'a> {
    fn key(&mut self, key: &str) -> Result<&mut Cursor<'a>, ParseError> {
        self.cursor.expect(if self.any { "," } else { "{" })?;
        self.any = true;
        self.cursor.expect(key)?;
        self.cursor.expect(":")?;
        Ok(self.cursor)
    }

    fn close(&mut self) -> Result<(), ParseError> {
        if self.any { self.cursor.expect("}") } else { Ok(()) }
    }

    fn u64s(&mut self, key: &str) -> Result<Vec<u64>, ParseError> {
        self.key(key)?.list("[", "]", Cursor::u64)
    }

    fn usizes(&mut self, key: &str) -> Result<Vec<usize>, ParseError> {
        self.key(key)?.list("[", "]", Cursor::usize)
    }

    fn axis(&mut self) -> Result<usize, ParseError> {
        self.key("axis")?.usize()
    }

    fn pads(&mut self) -> Result<Vec<(u64, u64)>, ParseError> {
        self.key("pads")?.list("[", "]", |c| {
            c.expect("[")?;
            let before = c.u64()?;
            c.expect(",")?;
            let after = c.u64()?;
            c.expect("]")?;
            Ok((before, after))
        })
    }

    fn flag(&mut self, key: &str) -> Result<bool, ParseError> {
        let cursor = self.key(key)?;
        if cursor.eat("true")? {
            return Ok(true);
        }
        if cursor.eat("false")? { Ok(false) } else { Err(cursor.expected("`true` or `false`")) }
    }

    fn combine(&mut self) -> Result<ScatterOp, ParseError> {
        let cursor = self.key("combine")?;
        let start = cursor.offset();
        let word = cursor.word()?;
        let known = ScatterOp::ALL.into_iter().find(|op| op.name() == word);
        known.ok_or_else(|| cursor.error_at(start, format!("nothing combines by `{word}`")))
    }

    /// The operator of that mnemonic with its attributes, or `None` if there is no such mnemonic.
    fn op(&mut self, mnemonic: &str) -> Result<Option<Op>, ParseError> {
        if let Some(op) = UnaryOp::ALL.into_iter().find(|op| op.name() == mnemonic) {
            return Ok(Some(Op::Unary(op)));
        }
        if let Some(op) = BinaryOp::ALL.into_iter().find(|op| op.name() == mnemonic) {
            return Ok(Some(Op::Binary(op)));
        }
        Ok(Some(match mnemonic {
            "select" => Op::Select,
            "cast" => Op::Cast { to: self.key("to")?.dtype()? },
            "matmul" => Op::MatMul,
            "conv" => Op::Conv(ConvAttrs {
                strides: self.u64s("strides")?,
                dilations: self.u64s("dilations")?,
                pads: self.pads()?,
                groups: self.key("groups")?.u64()?,
            }),
            "pool_max" => self.pool(PoolKind::Max)?,
            "pool_mean" => self.pool(PoolKind::AverageExcludePad)?,
            "pool_mean_padded" => self.pool(PoolKind::AverageIncludePad)?,
            "reduce_sum" => self.reduce(ReduceOp::Sum)?,
            "reduce_mean" => self.reduce(ReduceOp::Mean)?,
            "reduce_max" => self.reduce(ReduceOp::Max)?,
            "reduce_min" => self.reduce(ReduceOp::Min)?,
            "reduce_prod" => self.reduce(ReduceOp::Prod)?,
            "softmax" => Op::Softmax { axis: self.axis()? },
            "layer_norm" => Op::LayerNorm { axis: self.axis()?, epsilon: self.key("epsilon")?.float()? },
            "batch_norm" => Op::BatchNorm { epsilon: self.key("epsilon")?.float()? },
            "gelu_erf" => Op::Gelu(GeluKind::Erf),
            "gelu_tanh" => Op::Gelu(GeluKind::Tanh),
            "attention" => Op::Attention { scale: self.key("scale")?.float()? },
            "reshape" => Op::Reshape { shape: self.u64s("shape")? },
            "transpose" => Op::Transpose { perm: self.usizes("perm")? },
            "expand" => Op::Expand { shape: self.u64s("shape")? },
            "concat" => Op::Concat { axis: self.axis()? },
            "slice" => Op::Slice {
                starts: self.u64s("starts")?,
                sizes: self.u64s("sizes")?,
                steps: self.key("steps")?.list("[", "]", Cursor::i64)?,
            },
            "pad" => Op::Pad { pads: self.pads()?, value: self.key("value")?.float()? },
            "gather" => Op::Gather { axis: self.axis()? },
            "scan" => Op::Scan(Box::new(Scan {
                trips: self.key("trips")?.u64()?,
                reverse: self.flag("reverse")?,
                states: self.key("states")?.usize()?,
                sequences: self.key("sequences")?.usize()?,
                // Follows the attributes.
                body: Graph::default(),
            })),
            "arg_max" => Op::ArgReduce { op: ArgOp::Max, axis: self.axis()?, last: self.flag("last")? },
            "arg_min" => Op::ArgReduce { op: ArgOp::Min, axis: self.axis()?, last: self.flag("last")? },
            "cumsum" => {
                Op::CumSum { axis: self.axis()?, exclusive: self.flag("exclusive")?, reverse: self.flag("reverse")? }
            }
            "top_k" => Op::TopK { k: self.key("k")?.u64()?, axis: self.axis()?, largest: self.flag("largest")? },
            "gather_elements" => Op::GatherElements { axis: self.axis()? },
            "gather_nd" => Op::GatherNd { batch_dims: self.key("batch_dims")?.usize()? },
            "scatter_elements" => Op::ScatterElements { axis: self.axis()?, combine: self.combine()? },
            "scatter_nd" => Op::ScatterNd { combine: self.combine()? },
            _ => return Ok(None),
        }))
    }

    fn pool(&mut self, kind: PoolKind) -> Result<Op, ParseError> {
        Ok(Op::Pool(PoolAttrs {
            kind,
            kernel: self.u64s("kernel")?,
            strides: self.u64s("strides")?,
            dilations: self.u64s("dilations")?,
            pads: self.pads()?,
        }))
    }

    fn reduce(&mut self, op: ReduceOp) -> Result<Op, ParseError> {
        Ok(Op::Reduce { op, axes: self.usizes("axes")?, keep_dims: self.flag("keep_dims")? })
    }
}
