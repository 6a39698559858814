//! Small ONNX models, written through the reader's own messages.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod alloc;
pub mod checkpoint;
pub mod compile;

use aic_frontend::onnx::{self, schema::*};
use aic_frontend::{Files, MemoryFiles, ReadError, ShapeBindings};
use aic_ir::graph::{Graph, Op};
use aic_ir::types::{DType, Tensor};
use bytes::Bytes;
use prost::Message;

/// A model under construction.
#[derive(Clone)]
pub struct Model(pub ModelProto);

impl Model {
    /// An empty model of an operator set.
    pub fn new(opset: i64) -> Self {
        Self(ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
            graph: Some(GraphProto { name: "test".into(), ..Default::default() }),
            ..Default::default()
        })
    }

    pub fn graph(&mut self) -> &mut GraphProto {
        self.0.graph.as_mut().expect("made with a graph")
    }

    /// Adds an input; dimensions are numbers, symbols, or `?`.
    pub fn input(mut self, name: &str, elem_type: i32, dims: &[&str]) -> Self {
        self.graph().input.push(value_info(name, elem_type, dims));
        self
    }

    pub fn output(mut self, name: &str) -> Self {
        self.graph().output.push(ValueInfoProto { name: name.into(), r#type: None });
        self
    }

    pub fn ints(self, name: &str, values: &[i64]) -> Self {
        self.initializer(ints(name, &[values.len() as i64], values))
    }

    pub fn floats(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.initializer(floats(name, dims, values))
    }

    pub fn initializer(mut self, tensor: TensorProto) -> Self {
        self.graph().initializer.push(tensor);
        self
    }

    /// Adds a node named after its first result.
    pub fn node(self, op: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.node_with(op, inputs, outputs, vec![])
    }

    pub fn node_with(mut self, op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> Self {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        self.graph().node.push(NodeProto {
            op_type: op.into(),
            name: format!("node_{}", outputs[0]),
            input: own(inputs),
            output: own(outputs),
            attribute,
            ..Default::default()
        });
        self
    }

    /// Adds a call of a function.
    pub fn call(mut self, function: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> Self {
        self = self.node_with(function, inputs, outputs, attribute);
        if let Some(node) = self.graph().node.last_mut() {
            node.domain = "local".into();
        }
        self
    }

    pub fn function(mut self, function: FunctionProto) -> Self {
        self.0.functions.push(function);
        self
    }

    pub fn bytes(&self) -> Bytes {
        self.0.encode_to_vec().into()
    }

    /// Reads the model without other files and bindings.
    pub fn read(&self) -> Result<Graph, ReadError> {
        self.read_with(&MemoryFiles::new(), &[])
    }

    pub fn read_with(&self, files: &dyn Files, flags: &[&str]) -> Result<Graph, ReadError> {
        onnx::read(self.bytes(), files, &bindings(flags))
    }

    /// The message of the error that reading gives.
    pub fn refusal(&self) -> String {
        self.read().expect_err("the model should be refused").to_string()
    }

    /// The first output for some inputs, by the reference interpreter.
    pub fn run(&self, inputs: &[Tensor]) -> Vec<f64> {
        let graph = self.read().unwrap_or_else(|e| panic!("{e}"));
        evaluate(&graph, inputs, 0)
    }
}

/// An output of a graph, by the reference interpreter.
pub fn evaluate(graph: &Graph, inputs: &[Tensor], output: usize) -> Vec<f64> {
    graph.verify().unwrap_or_else(|e| panic!("{e}"));
    let results = aic_ir::graph::interp::evaluate(graph, inputs).unwrap_or_else(|e| panic!("{e}"));
    let result = results[output].to_tensor();
    (0..result.ty().elems()).map(|i| result.get_f64(i).expect("inside the tensor")).collect()
}

pub fn bindings(flags: &[&str]) -> ShapeBindings {
    let mut bindings = ShapeBindings::new();
    for flag in flags {
        bindings.parse(flag).unwrap_or_else(|e| panic!("{e}"));
    }
    bindings
}

pub fn value_info(name: &str, elem_type: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = |text: &&str| match text.parse() {
        Ok(size) => DimensionProto { dim_value: Some(size), dim_param: None },
        Err(_) if *text == "?" => DimensionProto::default(),
        Err(_) => DimensionProto { dim_value: None, dim_param: Some(text.to_string()) },
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor_type = Some(TensorTypeProto { elem_type, shape: Some(shape) });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, data_type::FLOAT, dims, raw)
}

pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, data_type::INT64, dims, raw)
}

pub fn tensor(name: &str, data_type: i32, dims: &[i64], raw: Vec<u8>) -> TensorProto {
    TensorProto { name: name.into(), data_type, dims: dims.to_vec(), raw_data: Some(raw.into()), ..Default::default() }
}

pub fn attr_int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::INT, i, ..Default::default() }
}

pub fn attr_ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::INTS, ints: ints.to_vec(), ..Default::default() }
}

pub fn attr_float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::FLOAT, f, ..Default::default() }
}

pub fn attr_text(name: &str, text: &str) -> AttributeProto {
    let s = Bytes::copy_from_slice(text.as_bytes());
    AttributeProto { name: name.into(), r#type: attribute_type::STRING, s, ..Default::default() }
}

pub fn attr_tensor(name: &str, t: TensorProto) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attribute_type::TENSOR, t: Some(Box::new(t)), ..Default::default() }
}

pub fn attr_texts(name: &str, texts: &[&str]) -> AttributeProto {
    let strings = texts.iter().map(|t| Bytes::copy_from_slice(t.as_bytes())).collect();
    AttributeProto { name: name.into(), r#type: attribute_type::STRINGS, strings, ..Default::default() }
}

/// An attribute that is a graph: that of a model.
pub fn attr_graph(name: &str, model: &Model) -> AttributeProto {
    let g = model.0.graph.clone().map(Box::new);
    AttributeProto { name: name.into(), r#type: attribute_type::GRAPH, g, ..Default::default() }
}

/// An attribute of a function's node that takes the value of one of the function's.
pub fn attr_ref(name: &str, kind: i32, reference: &str) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind, ref_attr_name: reference.into(), ..Default::default() }
}

/// A function with the nodes of a model.
pub fn function(name: &str, inputs: &[&str], outputs: &[&str], model: &Model) -> FunctionProto {
    let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: own(inputs),
        output: own(outputs),
        node: model.0.graph.clone().map(|g| g.node).unwrap_or_default(),
        opset_import: model.0.opset_import.clone(),
        ..Default::default()
    }
}

/// The operators in force, in order.
pub fn ops(graph: &Graph) -> Vec<&Op> {
    graph.order.iter().map(|&n| &graph.nodes[n].op).collect()
}

pub fn f32s(shape: &[u64], values: &[f32]) -> Tensor {
    Tensor::from_f32(shape, values).expect("as many values as the shape has")
}

pub fn i64s(shape: &[u64], values: &[i64]) -> Tensor {
    Tensor::from_i64(shape, values).expect("as many values as the shape has")
}

pub fn bools(shape: &[u64], values: &[u8]) -> Tensor {
    let ty = aic_ir::types::TensorType::new(DType::Bool, shape).expect("a small shape");
    Tensor::new(ty, Bytes::copy_from_slice(values)).expect("as many values as the shape has")
}

/// Compares numbers; NaN differs from all.
#[track_caller]
pub fn assert_close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{actual:?} and {expected:?}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!(
            a == e || (a - e).abs() <= 1e-5 * e.abs().max(1.0),
            "element {i} of {actual:?} is not that of {expected:?}"
        );
    }
}
