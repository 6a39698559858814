//! The protocol buffer messages of ONNX, from the field numbers published in `onnx.proto` (IR versions 3 to 14).
//!
//! Written by hand so that no `protoc` is needed and only what the importer reads is decoded: documentation strings,
//! metadata, training information and device placement are skipped by the decoder as unknown fields. `bytes` fields
//! are ranges of the buffer that is decoded, so weights are never copied. Messages nest (a graph inside an attribute
//! inside a node...); prost refuses more than 100 levels, which also bounds the recursion of dropping them.

use bytes::Bytes;
use prost::Message;

/// A model: a graph and the operator sets its nodes come from.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// Version of the file format.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// Program that wrote the file.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// The graph.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// Operator sets by domain.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Functions that nodes may call as operators.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
}

/// Version of one operator set.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorSetIdProto {
    /// Domain; empty or `ai.onnx` for the standard operators.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// Version of the set.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A graph: nodes in topological order, constants, inputs and outputs.
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    /// Nodes; each uses only what inputs, initializers and earlier nodes define.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// Name of the graph.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// Inputs. Before IR version 4 initializers had to be listed here too.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Constants stored as coordinates and values.
    #[prost(message, repeated, tag = "15")]
    pub sparse_initializer: Vec<SparseTensorProto>,
}

/// One application of an operator.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// Operands; an empty name is an omitted optional operand.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Results; an empty name is an omitted result.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Name, often empty.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// Attributes.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// Domain of the operator.
    #[prost(string, tag = "7")]
    pub domain: String,
    /// Which of several functions of one name is called.
    #[prost(string, tag = "8")]
    pub overload: String,
}

/// A named attribute of a node. `type` says which of the other fields holds the value.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value of type `FLOAT`.
    #[prost(float, tag = "2")]
    pub f: f32,
    /// Value of type `INT`.
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// Value of type `STRING`.
    #[prost(bytes = "bytes", tag = "4")]
    pub s: Bytes,
    /// Value of type `TENSOR`.
    #[prost(message, optional, boxed, tag = "5")]
    pub t: Option<Box<TensorProto>>,
    /// Value of type `GRAPH`.
    #[prost(message, optional, boxed, tag = "6")]
    pub g: Option<Box<GraphProto>>,
    /// Value of type `FLOATS`.
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// Value of type `INTS`.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Value of type `STRINGS`.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub strings: Vec<Bytes>,
    /// Which kind of value; see [`attribute_type`].
    #[prost(int32, tag = "20")]
    pub r#type: i32,
    /// Inside a function: the attribute of the calling node whose value is taken.
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
    /// Value of type `SPARSE_TENSOR`.
    #[prost(message, optional, boxed, tag = "22")]
    pub sparse_tensor: Option<Box<SparseTensorProto>>,
}

/// Values of [`AttributeProto`]'s `type`.
pub mod attribute_type {
    /// No type given.
    pub const UNDEFINED: i32 = 0;
    /// One float.
    pub const FLOAT: i32 = 1;
    /// One integer.
    pub const INT: i32 = 2;
    /// One byte string.
    pub const STRING: i32 = 3;
    /// One tensor.
    pub const TENSOR: i32 = 4;
    /// One graph.
    pub const GRAPH: i32 = 5;
    /// Floats.
    pub const FLOATS: i32 = 6;
    /// Integers.
    pub const INTS: i32 = 7;
    /// Byte strings.
    pub const STRINGS: i32 = 8;
    /// One sparse tensor.
    pub const SPARSE_TENSOR: i32 = 11;
}

/// A constant tensor.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// Dimensions.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// Element type; see [`data_type`].
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Elements of type `FLOAT`.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of the integer types of up to 32 bits, of `BOOL`, and the bits of 16-bit floats.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Elements of type `INT64`.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// All elements as dense little-endian bytes; takes the place of the typed fields.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Elements of type `DOUBLE`.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Elements of type `UINT32` and `UINT64`.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// Where external data lies: keys `location`, `offset`, `length`, `checksum`.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// 0: in this message; 1: external.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// Values of [`TensorProto`]'s `data_type` and of a tensor type's `elem_type`.
pub mod data_type {
    /// `f32`.
    pub const FLOAT: i32 = 1;
    /// `u8`.
    pub const UINT8: i32 = 2;
    /// `i8`.
    pub const INT8: i32 = 3;
    /// `u16`.
    pub const UINT16: i32 = 4;
    /// `i16`.
    pub const INT16: i32 = 5;
    /// `i32`.
    pub const INT32: i32 = 6;
    /// `i64`.
    pub const INT64: i32 = 7;
    /// Byte strings.
    pub const STRING: i32 = 8;
    /// Truth values.
    pub const BOOL: i32 = 9;
    /// `f16`.
    pub const FLOAT16: i32 = 10;
    /// `f64`.
    pub const DOUBLE: i32 = 11;
    /// `u32`.
    pub const UINT32: i32 = 12;
    /// `u64`.
    pub const UINT64: i32 = 13;
    /// `bf16`.
    pub const BFLOAT16: i32 = 16;
}

/// A constant as coordinates and values; all other elements are 0.
#[derive(Clone, PartialEq, Message)]
pub struct SparseTensorProto {
    /// The values, `[NNZ]`; its name is the constant's name.
    #[prost(message, optional, tag = "1")]
    pub values: Option<TensorProto>,
    /// Where they lie, in ascending order: positions in row-major order `[NNZ]`, or coordinates `[NNZ, rank]`.
    #[prost(message, optional, tag = "2")]
    pub indices: Option<TensorProto>,
    /// Dimensions of the constant.
    #[prost(int64, repeated, packed = "false", tag = "3")]
    pub dims: Vec<i64>,
}

/// A key and a value.
#[derive(Clone, PartialEq, Message)]
pub struct StringStringEntryProto {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Name and type of an input or output.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
}

/// A type; sequences, maps and optionals are left out, since no tensor is in them.
#[derive(Clone, PartialEq, Message)]
pub struct TypeProto {
    /// The tensor type, if the type is one.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
}

/// Element type and shape of a tensor (`TypeProto.Tensor`).
#[derive(Clone, PartialEq, Message)]
pub struct TensorTypeProto {
    /// Element type; see [`data_type`].
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    /// Shape; absent when not even the rank is known.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// A shape.
#[derive(Clone, PartialEq, Message)]
pub struct TensorShapeProto {
    /// Dimensions, outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<DimensionProto>,
}

/// One dimension (`TensorShapeProto.Dimension`): a number, a symbol, or neither.
#[derive(Clone, PartialEq, Message)]
pub struct DimensionProto {
    /// Size.
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
    /// Symbol that stands for the size.
    #[prost(string, optional, tag = "2")]
    pub dim_param: Option<String>,
}

/// A function: a graph with formal parameters that nodes call as an operator.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionProto {
    /// Name: the operator that calls it.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Names of the operands inside the function.
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    /// Names of the results inside the function.
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    /// Attributes that a call must give.
    #[prost(string, repeated, tag = "6")]
    pub attribute: Vec<String>,
    /// Nodes.
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<NodeProto>,
    /// Operator sets by domain.
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Domain.
    #[prost(string, tag = "10")]
    pub domain: String,
    /// Attributes with default values.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<AttributeProto>,
    /// Which of several functions of one name this is.
    #[prost(string, tag = "13")]
    pub overload: String,
}
