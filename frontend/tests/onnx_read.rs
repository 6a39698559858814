//! How models are read: shapes, names, constants, refusals, and files that break the format.

mod common;

use aic_frontend::onnx::{self, schema::*};
use aic_frontend::{MemoryFiles, ReadError, Refused, ShapesError};
use aic_ir::graph::Op;
use aic_ir::types::DType;
use common::*;

const FLOAT: i32 = data_type::FLOAT;

/// `x` reshaped to a shape that is computed from its own, as exporters write the split of attention heads.
fn heads() -> Model {
    Model::new(17)
        .input("x", FLOAT, &["batch", "seq", "6"])
        .initializer(ints("zero", &[], &[0]))
        .initializer(ints("one", &[], &[1]))
        .ints("axis", &[0])
        .ints("tail", &[2, -1])
        .node("Shape", &["x"], &["shape"])
        .node("Gather", &["shape", "zero"], &["b"])
        .node("Gather", &["shape", "one"], &["s"])
        .node("Unsqueeze", &["b", "axis"], &["b1"])
        .node("Unsqueeze", &["s", "axis"], &["s1"])
        .node_with("Concat", &["b1", "s1", "tail"], &["target"], vec![attr_int("axis", 0)])
        .node("Reshape", &["x", "target"], &["split"])
        .node_with("Transpose", &["split"], &["y"], vec![attr_ints("perm", &[0, 2, 1, 3])])
        .output("y")
}

#[test]
fn arithmetic_on_shapes_folds_away_and_names_stay() {
    let graph = heads().read_with(&MemoryFiles::new(), &["x=2x5x6"]).expect("a good model");
    assert_eq!(ops(&graph), [&Op::Reshape { shape: vec![2, 5, 2, 3] }, &Op::Transpose { perm: vec![0, 2, 1, 3] }]);
    let named: Vec<(&str, &str)> = graph
        .order
        .iter()
        .map(|&n| (graph.nodes[n].name.as_str(), graph.values[graph.nodes[n].outputs[0]].name.as_str()))
        .collect();
    assert_eq!(named, [("node_split", "split"), ("node_y", "y")]);
    assert_eq!((graph.name.as_str(), graph.outputs[0].name.as_str()), ("test", "y"));
    assert_eq!(graph.values[graph.inputs[0]].name, "x");
}

#[test]
fn open_dimensions_are_named_with_the_flags_that_fix_them() {
    let error = heads().read().expect_err("dimensions are open");
    assert!(matches!(error, ReadError::Shapes(ShapesError::Unbound { .. })));
    let text = error.to_string();
    assert!(text.contains("`x` is f32[batch, seq, 6]") && text.contains("--shape batch=1 --shape seq=128"), "{text}");
    let error = heads().read_with(&MemoryFiles::new(), &["batch=1", "sec=2"]).expect_err("no such symbol");
    assert!(error.to_string().contains("no symbol `sec`"), "{error}");
}

#[test]
fn all_refused_nodes_are_listed_and_their_users_are_not() {
    let mut model = Model::new(17)
        .input("x", FLOAT, &["2", "3"])
        .node("NonZero", &["x"], &["a"])
        .node("Relu", &["a"], &["b"])
        .node("Det", &["x"], &["c"])
        .node("Add", &["b", "c"], &["d"])
        .node("MatMul", &["x", "x"], &["e"])
        .node_with("Relu", &["x"], &["f"], vec![attr_int("strange", 1)])
        .node("Unique", &["d"], &["g"])
        .node("Sum", &["d", "e", "f", "g"], &["y"])
        .output("y");
    model.graph().node[2].name.clear();
    model.graph().node[2].domain = "com.example".into();
    let Err(ReadError::Refused(Refused { nodes })) = model.read() else { panic!("the model should be refused") };
    let listed: Vec<(&str, &str)> = nodes.iter().map(|n| (n.name.as_str(), n.op.as_str())).collect();
    let expected = [
        ("node_a", "NonZero"),
        ("c", "com.example.Det"),
        ("node_e", "MatMul"),
        ("node_f", "Relu"),
        ("node_g", "Unique"),
    ];
    assert_eq!(listed, expected);
    assert!(
        nodes[2].reason.contains("do not multiply") && nodes[2].reason.contains("f32[2, 3]"),
        "{}",
        nodes[2].reason
    );
    assert!(nodes[3].reason.contains("`strange`"), "{}", nodes[3].reason);
    let text = model.refusal();
    assert!(text.starts_with("5 nodes of the model are not supported:") && text.lines().count() == 6, "{text}");
}

#[test]
fn nodes_that_no_output_needs_are_not_judged() {
    let model = Model::new(17).input("x", FLOAT, &["2"]).node("Relu", &["x"], &["y"]);
    let model = model.node("Unheard", &["y"], &["z"]).output("y");
    assert_eq!(model.read().map(|g| g.order.len()), Ok(1));
}

#[test]
fn an_initializer_takes_the_place_of_an_input_of_its_name() {
    let model = Model::new(13).input("x", FLOAT, &["2"]).input("w", FLOAT, &["2"]).floats("w", &[2], &[3.0, 4.0]);
    let model = model.node("Mul", &["x", "w"], &["y"]).output("y");
    assert_eq!(model.run(&[f32s(&[2], &[1.0, 2.0])]), [3.0, 8.0]);
}

#[test]
fn weights_are_ranges_of_the_file() {
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let file = Model::new(13).floats("w", &[1000], &values).node("Identity", &["w"], &["y"]).output("y").bytes();
    let graph = onnx::read(file.clone(), &MemoryFiles::new(), &bindings(&[])).expect("a good model");
    let weight = graph.const_of(graph.outputs[0].value).expect("a constant");
    assert_eq!(weight.get_f64(999), Some(999.0));
    assert!(file.as_ptr_range().contains(&weight.bytes().as_ptr()), "the weights were copied");
}

#[test]
fn elements_in_typed_fields() {
    let read = |tensor: TensorProto| {
        let model = Model::new(13).initializer(tensor).node("Identity", &["c"], &["y"]).output("y");
        let graph = model.read().map_err(|e| e.to_string())?;
        let tensor = graph.const_of(graph.outputs[0].value).expect("a constant").clone();
        Ok::<_, String>((tensor.ty().dtype(), (0..tensor.ty().elems()).map(|i| tensor.get_f64(i)).collect::<Vec<_>>()))
    };
    let base = |data_type: i32| TensorProto { name: "c".into(), data_type, dims: vec![2], ..Default::default() };
    let values = Ok(vec![Some(1.0), Some(0.0)]);
    let typed = |dtype: DType| values.clone().map(|v| (dtype, v));
    let with_ints = |data_type, values: [i32; 2]| read(TensorProto { int32_data: values.to_vec(), ..base(data_type) });
    assert_eq!(read(TensorProto { float_data: vec![1.0, 0.0], ..base(FLOAT) }), typed(DType::F32));
    assert_eq!(read(TensorProto { double_data: vec![1.0, 0.0], ..base(data_type::DOUBLE) }), typed(DType::F64));
    assert_eq!(read(TensorProto { int64_data: vec![1, 0], ..base(data_type::INT64) }), typed(DType::I64));
    assert_eq!(read(TensorProto { uint64_data: vec![1, 0], ..base(data_type::UINT64) }), typed(DType::U64));
    assert_eq!(read(TensorProto { uint64_data: vec![1, 0], ..base(data_type::UINT32) }), typed(DType::U32));
    assert_eq!(with_ints(data_type::INT32, [1, 0]), typed(DType::I32));
    assert_eq!(with_ints(data_type::INT8, [1, 0]), typed(DType::I8));
    assert_eq!(with_ints(data_type::UINT16, [1, 0]), typed(DType::U16));
    assert_eq!(with_ints(data_type::BOOL, [7, 0]), typed(DType::Bool));
    assert_eq!(with_ints(data_type::FLOAT16, [0x3c00, 0]), typed(DType::F16));
    assert_eq!(with_ints(data_type::BFLOAT16, [0x3f80, 0]), typed(DType::BF16));
    for (tensor, part) in [
        (TensorProto { float_data: vec![1.0], ..base(FLOAT) }, "f32[2] needs 8 bytes, but 4 are given"),
        (TensorProto { int32_data: vec![300, 0], ..base(data_type::UINT8) }, "an element does not fit u8"),
        (TensorProto { int64_data: vec![1, 0], ..base(FLOAT) }, "in a field that is not that of f32"),
        (TensorProto { float_data: vec![1.0], raw_data: Some(vec![0; 8].into()), ..base(FLOAT) }, "several places"),
        (TensorProto { dims: vec![-1], ..base(FLOAT) }, "negative dimensions"),
        (TensorProto { dims: vec![1 << 40, 2], ..base(FLOAT) }, "more than 2^40 elements"),
        (base(FLOAT), "needs 8 bytes, but 0 are given"),
        (base(data_type::STRING), "element type string is not supported"),
        (base(99), "element type number 99 is not supported"),
    ] {
        let text = read(tensor).expect_err("the tensor should be refused");
        assert!(text.contains("`c`") && text.contains(part), "{text}");
    }
}

#[test]
fn external_data_comes_from_the_folder_only() {
    let mut files = MemoryFiles::new();
    files.insert("w.bin", 7f32.to_le_bytes().repeat(4));
    let read = |entries: &[(&str, &str)]| {
        let external_data =
            entries.iter().map(|&(k, v)| StringStringEntryProto { key: k.into(), value: v.into() }).collect();
        let tensor = TensorProto { raw_data: None, external_data, data_location: 1, ..floats("w", &[2], &[]) };
        let model = Model::new(13).initializer(tensor).node("Identity", &["w"], &["y"]).output("y");
        let graph = model.read_with(&files, &[]).map_err(|e| e.to_string())?;
        Ok::<_, String>(graph.const_of(graph.outputs[0].value).and_then(|t| t.get_f64(1)))
    };
    assert_eq!(read(&[("location", "w.bin"), ("offset", "8"), ("length", "8")]), Ok(Some(7.0)));
    assert_eq!(read(&[("location", "w.bin")]), Ok(Some(7.0)));
    for (entries, part) in [
        (&[("location", "../w.bin")][..], "only plain relative names"),
        (&[("location", "/etc/passwd")], "only plain relative names"),
        (&[("location", "other.bin")], "no file `other.bin`"),
        (&[("location", "w.bin"), ("offset", "12")], "bytes 12..20 of file `w.bin`"),
        (&[("location", "w.bin"), ("offset", "18446744073709551615")], "it has only 16"),
        (&[("location", "w.bin"), ("offset", "-1")], "offset \"-1\", which is no number"),
        (&[("location", "w.bin"), ("length", "4")], "needs 8 bytes, but external data has 4"),
        (&[], "has no location"),
    ] {
        let text = read(entries).expect_err("the data should be refused");
        assert!(text.contains("`w`") && text.contains(part), "{text}");
    }
}

#[test]
fn broken_structure_is_named() {
    type Change = fn(&mut Model);
    let good = || Model::new(17).input("x", FLOAT, &["2"]).node("Relu", &["x"], &["y"]).output("y");
    let changed = |change: Change| {
        let mut model = good();
        change(&mut model);
        model.refusal()
    };
    let cases: [(Change, &str); 19] = [
        (|m| m.graph().node[0].input[0] = "q".into(), "node `node_y` uses `q`, which nothing defines"),
        (|m| m.graph().node[0].input[0] = "y".into(), "node `node_y` uses `y` before node `node_y` defines it"),
        (|m| *m = m.clone().node("Relu", &["x"], &["y"]), "node `node_y` defines `y`, which is defined already"),
        (|m| *m = m.clone().node("Relu", &["x"], &["x"]), "defines `x`, which is defined already"),
        (|m| *m = m.clone().input("x", FLOAT, &["2"]), "two inputs are named `x`"),
        (|m| *m = m.clone().ints("w", &[1]).ints("w", &[1]), "two initializers are named `w`"),
        (|m| *m = m.clone().ints("", &[1]), "an initializer has no name"),
        (|m| *m = m.clone().input("", FLOAT, &[]), "an input has no name"),
        (|m| *m = m.clone().output("q"), "output `q` is defined by nothing"),
        (|m| *m = m.clone().output("y"), "two outputs are named `y`"),
        (|m| m.graph().output.clear(), "no outputs"),
        (|m| m.0.graph = None, "holds no graph"),
        (|m| m.0.opset_import.clear(), "imports no standard operator set"),
        (|m| m.0.opset_import[0].version = 6, "operator set 6; 7 to 23 are read"),
        (|m| m.0.opset_import[0].version = 24, "operator set 24; 7 to 23 are read"),
        (|m| m.0.ir_version = 99, "format version 99"),
        (|m| m.graph().input[0].r#type = None, "`x` (graph input): is not a tensor"),
        (|m| m.graph().output[0] = value_info("y", data_type::INT64, &[]), "declared as i64, but f32 is computed"),
        (|m| m.graph().node[0].input.clear(), "takes 1 operands, but 0 are given"),
    ];
    for (change, part) in cases {
        let text = changed(change);
        assert!(text.contains(part), "{text:?} should contain {part:?}");
    }
    let empty = onnx::read(bytes::Bytes::new(), &MemoryFiles::new(), &bindings(&[])).expect_err("nothing to read");
    assert!(empty.to_string().contains("the file is empty"), "{empty}");
    let text = onnx::read("not a model".into(), &MemoryFiles::new(), &bindings(&[])).expect_err("no model");
    assert!(text.to_string().contains("not an ONNX file"), "{text}");
}

#[test]
fn operators_come_with_their_operator_set() {
    let gelu = |opset| Model::new(opset).input("x", FLOAT, &["2"]).node("Gelu", &["x"], &["y"]).output("y");
    assert!(gelu(19).refusal().contains("supported from operator set 20 on; the model uses 19"));
    assert!(gelu(20).read().is_ok());
}

#[test]
fn shapes_that_depend_on_data_are_refused_by_name() {
    let model = Model::new(17).input("x", FLOAT, &["4"]).input("s", data_type::INT64, &["2"]);
    let text = model.node("Reshape", &["x", "s"], &["y"]).output("y").refusal();
    assert!(text.contains("`node_y` (Reshape): the target shape (`s`) must be known at compile time"), "{text}");
}

#[test]
fn inspection_needs_no_shapes() {
    let inspect = |model: &Model, flags: &[&str]| onnx::inspect(model.bytes(), &MemoryFiles::new(), &bindings(flags));
    let mut model = heads().node("NonZero", &["y"], &["z"]).output("z");
    let open = inspect(&model, &[]).expect("a well-formed model");
    assert_eq!(open.inputs[0].to_string(), "x: f32[batch, seq, 6]");
    assert_eq!((open.outputs.len(), open.operators["Gather"], open.refused.len()), (2, 2, 1));
    // A mismatch of shapes shows only once they are fixed.
    model.graph().node[6].input[1] = "tail".into();
    assert_eq!(inspect(&model, &[]).map(|i| i.refused.len()), Ok(1));
    assert_eq!(inspect(&model, &["x=1x5x6"]).map(|i| i.refused.len()), Ok(2));
}

/// A chain this deep would overflow the stack of a reader that recursed.
#[test]
fn depth_is_not_bounded_by_the_stack() {
    let mut model = Model::new(17).input("x", FLOAT, &["2"]).output("y");
    let depth = 100_000;
    let mut last = "x".to_owned();
    for i in 0..depth {
        let name = if i + 1 == depth { "y".to_owned() } else { format!("t{i}") };
        let node =
            NodeProto { op_type: "Neg".into(), input: vec![last], output: vec![name.clone()], ..Default::default() };
        model.graph().node.push(node);
        last = name;
    }
    assert_eq!(model.read().map(|g| g.order.len()), Ok(depth));
}
