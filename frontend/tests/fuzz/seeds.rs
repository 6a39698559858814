//! The valid models that mutations start from: small, and together they use most operators and files.

use std::collections::BTreeMap;

use aic_frontend::onnx::schema::*;
use bytes::Bytes;
use safetensors::Dtype;

use crate::common::checkpoint::{BERT, Checkpoint, DISTILBERT, MODULES, config};
use crate::common::*;
use crate::{Case, MODEL, programs};

/// Every seed.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = [network(), encoder(), shapes(), movement(), numbers(), windows()]
        .iter()
        .chain(&programs::all())
        .map(|model| onnx_case(model.bytes(), &[]))
        .collect();
    cases.push(onnx_case(symbolic().bytes(), &["batch=1", "seq=3"]));
    let mut external = onnx_case(external().bytes(), &[]);
    external.files.insert("w.bin".to_owned(), Bytes::from_static(&[1; 64]));
    cases.push(external);
    cases.push(onnx_case(Bytes::from_static(include_bytes!("../../../tests/models/digits.onnx")), &["batch=1"]));
    cases.extend(folders());
    cases
}

/// The ONNX files of a folder, in the order of their names.
pub fn of_folder(folder: &std::path::Path) -> Vec<Case> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|e| e.expect("a readable folder").path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    paths.sort();
    assert!(!paths.is_empty(), "{} has no ONNX files", folder.display());
    let read =
        |p: std::path::PathBuf| onnx_case(std::fs::read(p).expect("a readable file").into(), &["batch=1", "seq=3"]);
    paths.into_iter().map(read).collect()
}

fn onnx_case(bytes: Bytes, flags: &[&str]) -> Case {
    Case { files: BTreeMap::from([(MODEL.to_owned(), bytes)]), flags: flags.iter().map(|f| f.to_string()).collect() }
}

const FLOAT: i32 = data_type::FLOAT;

/// A small convolutional classifier with batch normalization.
fn network() -> Model {
    Model::new(17)
        .input("x", FLOAT, &["1", "2", "6", "6"])
        .floats("w", &[4, 2, 3, 3], &[0.25; 72])
        .floats("b", &[4], &[0.5; 4])
        .floats("s", &[4], &[1.0, 2.0, 0.5, 1.5])
        .floats("w2", &[4, 1, 3, 3], &[0.5; 36])
        .floats("w3", &[5, 4], &[0.125; 20])
        .floats("b3", &[5], &[0.0; 5])
        .node_with("Conv", &["x", "w", "b"], &["c"], vec![attr_ints("pads", &[1, 1, 1, 1])])
        .node_with("BatchNormalization", &["c", "s", "b", "b", "s"], &["n"], vec![attr_float("epsilon", 1e-5)])
        .node("Relu", &["n"], &["r"])
        .node_with("MaxPool", &["r"], &["m"], vec![attr_ints("kernel_shape", &[2, 2]), attr_ints("strides", &[2, 2])])
        .node_with("Conv", &["m", "w2"], &["d"], vec![attr_int("group", 4), attr_text("auto_pad", "SAME_UPPER")])
        .node("HardSwish", &["d"], &["h"])
        .node("GlobalAveragePool", &["h"], &["g"])
        .node_with("Flatten", &["g"], &["f"], vec![attr_int("axis", 1)])
        .node_with("Gemm", &["f", "w3", "b3"], &["y"], vec![attr_int("transB", 1)])
        .node_with("Softmax", &["y"], &["p"], vec![attr_int("axis", -1)])
        .output("p")
}

/// One encoder layer as exporters spell it: LayerNorm, GELU and attention from primitives.
fn encoder() -> Model {
    let mut m = Model::new(17)
        .input("ids", data_type::INT64, &["1", "3"])
        .input("mask", data_type::INT64, &["1", "3"])
        .floats("table", &[7, 4], &[0.5; 28])
        .floats("scale", &[4], &[1.0; 4])
        .floats("bias", &[4], &[0.25; 4])
        .floats("epsilon", &[], &[1e-5])
        .floats("two", &[], &[2.0])
        .floats("root2", &[], &[std::f32::consts::SQRT_2])
        .floats("one", &[], &[1.0])
        .floats("half", &[], &[0.5])
        .floats("low", &[], &[-1e9])
        .ints("heads", &[1, 3, 2, 2])
        .ints("rows", &[1, 3, 4])
        .ints("axes", &[1, 2])
        .node("Gather", &["table", "ids"], &["x"]);
    for (part, fill) in [("q", 0.1), ("k", 0.2), ("v", 0.3), ("o", 0.4)] {
        m = m.floats(&format!("w{part}"), &[4, 4], &[fill; 16]);
    }
    for part in ["q", "k", "v"] {
        let name = |stage: &str| format!("{part}{stage}");
        let perm = if part == "k" { [0, 2, 3, 1] } else { [0, 2, 1, 3] };
        m = m
            .node("MatMul", &["x", &format!("w{part}")], &[&name("m")])
            .node("Add", &["bias", &name("m")], &[&name("b")])
            .node("Reshape", &[&name("b"), "heads"], &[&name("r")])
            .node_with("Transpose", &[&name("r")], &[&name("t")], vec![attr_ints("perm", &perm)]);
    }
    m.node("MatMul", &["qt", "kt"], &["qk"])
        .node("Div", &["qk", "root2"], &["scores"])
        .node_with("Cast", &["mask"], &["maskf"], vec![attr_int("to", 1)])
        .node("Unsqueeze", &["maskf", "axes"], &["mask4"])
        .node("Sub", &["one", "mask4"], &["inverse"])
        .node("Mul", &["inverse", "low"], &["hidden"])
        .node("Add", &["scores", "hidden"], &["biased"])
        .node_with("Softmax", &["biased"], &["weights"], vec![attr_int("axis", 3)])
        .node("MatMul", &["weights", "vt"], &["context"])
        .node_with("Transpose", &["context"], &["contextt"], vec![attr_ints("perm", &[0, 2, 1, 3])])
        .node("Reshape", &["contextt", "rows"], &["joined"])
        .node("MatMul", &["joined", "wo"], &["projected"])
        .node("Add", &["projected", "x"], &["sum"])
        .node_with("ReduceMean", &["sum"], &["mean"], vec![attr_ints("axes", &[-1])])
        .node("Sub", &["sum", "mean"], &["d"])
        .node("Pow", &["d", "two"], &["dd"])
        .node_with("ReduceMean", &["dd"], &["variance"], vec![attr_ints("axes", &[-1])])
        .node("Add", &["variance", "epsilon"], &["stable"])
        .node("Sqrt", &["stable"], &["deviation"])
        .node("Div", &["d", "deviation"], &["normal"])
        .node("Mul", &["normal", "scale"], &["scaled"])
        .node("Add", &["scaled", "bias"], &["z"])
        .node("Div", &["z", "root2"], &["zr"])
        .node("Erf", &["zr"], &["erf"])
        .node("Add", &["erf", "one"], &["gate"])
        .node("Mul", &["z", "gate"], &["gated"])
        .node("Mul", &["gated", "half"], &["y"])
        .output("y")
}

/// Arithmetic on shapes, evaluated while reading.
fn shapes() -> Model {
    Model::new(18)
        .input("x", FLOAT, &["2", "3", "4"])
        .initializer(ints("zero", &[], &[0]))
        .initializer(ints("three", &[], &[3]))
        .initializer(ints("one", &[], &[1]))
        .ints("axis0", &[0])
        .ints("minus1", &[-1])
        .ints("pads", &[0, 1, 0, 0, 0, 2])
        .floats("fill", &[], &[0.5])
        .node("Shape", &["x"], &["s"])
        .node_with("Gather", &["s", "zero"], &["batch"], vec![attr_int("axis", 0)])
        .node("Unsqueeze", &["batch", "axis0"], &["batch1"])
        .node_with("Concat", &["batch1", "minus1"], &["target"], vec![attr_int("axis", 0)])
        .node("Reshape", &["x", "target"], &["r"])
        .node("Range", &["zero", "three", "one"], &["range"])
        .node_with("Cast", &["range"], &["rangef"], vec![attr_int("to", 1)])
        .node_with("ConstantOfShape", &["s"], &["c"], vec![attr_tensor("value", floats("", &[1], &[2.0]))])
        .node("Add", &["x", "c"], &["sum"])
        .node("Pad", &["sum", "pads", "fill"], &["p"])
        .node_with("Trilu", &["p"], &["t"], vec![attr_int("upper", 0)])
        .node("ReduceSum", &["t", "axis0"], &["reduced"])
        .node("Size", &["x"], &["size"])
        .node("Mod", &["size", "three"], &["rest"])
        .node("Where", &["flags", "rangef", "fill"], &["w"])
        .initializer(tensor("flags", data_type::BOOL, &[3], vec![1, 0, 1]))
        .output("r")
        .output("reduced")
        .output("rest")
        .output("w")
}

/// Operators that move elements.
fn movement() -> Model {
    Model::new(16)
        .input("x", FLOAT, &["2", "4", "6"])
        .input("i", data_type::INT64, &["3"])
        .ints("starts", &[5, 0])
        .ints("ends", &[-100, 3])
        .ints("axes", &[2, 1])
        .ints("steps", &[-2, 1])
        .ints("parts", &[1, 3])
        .ints("repeats", &[1, 2, 1])
        .ints("wide", &[3, 1, 1, 1])
        .ints("nd", &[0, 1])
        .ints("flat", &[6, 8])
        .ints("cube", &[8, 2, 3])
        .node("Slice", &["x", "starts", "ends", "axes", "steps"], &["s"])
        .node_with("Split", &["x", "parts"], &["a", "b"], vec![attr_int("axis", 1)])
        .node_with("Concat", &["b", "a"], &["c"], vec![attr_int("axis", 1)])
        .node("Tile", &["a", "repeats"], &["t"])
        .node("Expand", &["t", "wide"], &["e"])
        .node_with("Transpose", &["e"], &["f"], vec![attr_ints("perm", &[3, 0, 2, 1])])
        .node_with("Gather", &["c", "i"], &["g"], vec![attr_int("axis", 1)])
        .node("GatherND", &["x", "nd"], &["h"])
        .node("Reshape", &["x", "flat"], &["k"])
        .node("Transpose", &["k"], &["l"])
        .node("Reshape", &["l", "cube"], &["m"])
        .node("Squeeze", &["h"], &["n"])
        .output("s")
        .output("f")
        .output("g")
        .output("m")
        .output("n")
        .output("x")
        .output("starts")
}

/// Elementwise operators, comparisons and reductions.
fn numbers() -> Model {
    let mut m = Model::new(20)
        .input("x", FLOAT, &["3", "4"])
        .input("n", data_type::INT64, &["4"])
        .floats("c", &[4], &[0.5, -1.0, 2.0, 3.0])
        .ints("k", &[2])
        .ints("axes", &[1]);
    for op in [
        "Abs",
        "Neg",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Erf",
        "Sin",
        "Cos",
        "Floor",
        "Ceil",
        "Round",
        "Sigmoid",
        "Tanh",
        "LeakyRelu",
        "Elu",
        "Softplus",
        "HardSigmoid",
        "Gelu",
        "LogSoftmax",
        "IsNaN",
    ] {
        m = m.node(op, &["x"], &[&format!("u{op}")]).output(&format!("u{op}"));
    }
    for op in ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Less", "Equal", "GreaterOrEqual", "PRelu"] {
        m = m.node(op, &["x", "c"], &[&format!("b{op}")]).output(&format!("b{op}"));
    }
    for op in ["ReduceMax", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"] {
        m = m.node(op, &["x", "axes"], &[&format!("r{op}")]).output(&format!("r{op}"));
    }
    m.node("Clip", &["x", "low", "high"], &["clip"])
        .initializer(floats("low", &[], &[-1.0]))
        .initializer(floats("high", &[], &[1.0]))
        .node("Div", &["n", "k"], &["nd"])
        .node("Pow", &["nd", "k"], &["np"])
        .node_with("Cast", &["np"], &["nf"], vec![attr_int("to", 10)])
        .node("CastLike", &["nf", "x"], &["nx"])
        .node("Not", &["bLess"], &["not"])
        .node("Xor", &["not", "bEqual"], &["xor"])
        .node("Where", &["xor", "nx", "clip"], &["where"])
        .node_with("LayerNormalization", &["where", "c", "c"], &["norm"], vec![attr_int("axis", -1)])
        .output("norm")
}

/// Pooling, one spatial dimension, and rearranged blocks.
fn windows() -> Model {
    Model::new(19)
        .input("x", FLOAT, &["2", "4", "5", "6"])
        .input("a", FLOAT, &["1", "3", "9"])
        .floats("w", &[2, 3, 2], &[0.5; 12])
        .floats("s", &[4], &[1.0; 4])
        .node_with(
            "AveragePool",
            &["x"],
            &["p"],
            vec![attr_ints("kernel_shape", &[3, 2]), attr_ints("pads", &[1, 0, 1, 1]), attr_int("ceil_mode", 1)],
        )
        .node_with(
            "AveragePool",
            &["x"],
            &["q"],
            vec![
                attr_ints("kernel_shape", &[2, 2]),
                attr_ints("pads", &[1, 1, 0, 0]),
                attr_int("count_include_pad", 1),
            ],
        )
        .node_with(
            "MaxPool",
            &["x"],
            &["m"],
            vec![attr_ints("kernel_shape", &[2, 2]), attr_ints("dilations", &[2, 1]), attr_ints("strides", &[1, 3])],
        )
        .node_with(
            "Conv",
            &["a", "w"],
            &["c"],
            vec![attr_ints("strides", &[2]), attr_ints("dilations", &[3]), attr_ints("pads", &[2, 1])],
        )
        .node("InstanceNormalization", &["x", "s", "s"], &["n"])
        .node_with("DepthToSpace", &["n"], &["d"], vec![attr_int("blocksize", 2), attr_text("mode", "CRD")])
        .node_with("SpaceToDepth", &["d"], &["e"], vec![attr_int("blocksize", 2)])
        .node("GlobalMaxPool", &["e"], &["g"])
        .output("p")
        .output("q")
        .output("m")
        .output("c")
        .output("g")
}

/// Attention as one operator, with symbols for dimensions.
fn symbolic() -> Model {
    Model::new(23)
        .input("q", FLOAT, &["batch", "seq", "8"])
        .input("k", FLOAT, &["batch", "seq", "4"])
        .node_with(
            "Attention",
            &["q", "k", "k"],
            &["y"],
            vec![attr_int("q_num_heads", 4), attr_int("kv_num_heads", 2), attr_int("is_causal", 1)],
        )
        .node_with("RMSNormalization", &["y", "s"], &["z"], vec![attr_int("axis", 2)])
        .floats("s", &[8], &[0.5; 8])
        .output("z")
}

/// Weights in another file.
fn external() -> Model {
    let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
    let stored = |name: &str, data_type, dims: &[i64], offset: &str, length: &str| TensorProto {
        name: name.into(),
        data_type,
        dims: dims.to_vec(),
        data_location: 1,
        external_data: vec![entry("location", "w.bin"), entry("offset", offset), entry("length", length)],
        ..Default::default()
    };
    Model::new(13)
        .input("x", FLOAT, &["2", "4"])
        .initializer(stored("w", FLOAT, &[4, 3], "0", "48"))
        .initializer(stored("m", data_type::BOOL, &[2, 3], "50", "6"))
        .node("MatMul", &["x", "w"], &["y"])
        .node("Where", &["m", "y", "zero"], &["z"])
        .floats("zero", &[], &[0.0])
        .output("z")
}

/// Hugging Face folders of several families and heads, one in shards, and one of sentence-transformers.
fn folders() -> Vec<Case> {
    let case = |files: Vec<(&str, Vec<u8>)>, flags: &[&str]| Case {
        files: files.into_iter().map(|(name, bytes)| (name.to_owned(), Bytes::from(bytes))).collect(),
        flags: flags.iter().map(|f| f.to_string()).collect(),
    };
    let pooling =
        br#"{"word_embedding_dimension": 4, "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}"#;
    let mut language_model = Checkpoint::of("roberta");
    language_model.linear("lm_head.dense", 4, 4);
    language_model.norm("lm_head.layer_norm");
    language_model.add("lm_head.bias", &[7]);
    let index = |tensors: &Checkpoint| {
        let map: Vec<String> = tensors.0.keys().map(|name| format!(r#""{name}": "a.safetensors""#)).collect();
        format!(r#"{{"metadata": {{"total_size": 1}}, "weight_map": {{{}}}}}"#, map.join(", ")).into_bytes()
    };
    let albert = Checkpoint::of("albert");
    vec![
        case(
            vec![
                ("config.json", config("roberta", "RobertaForMaskedLM").into_bytes()),
                ("model.safetensors", language_model.bytes(Dtype::BF16, "")),
            ],
            &["seq=3"],
        ),
        case(
            vec![
                ("config.json", config("albert", "AlbertModel").into_bytes()),
                ("model.safetensors.index.json", index(&albert)),
                ("a.safetensors", albert.bytes(Dtype::F32, "")),
            ],
            &["seq=3"],
        ),
        case(
            vec![
                ("config.json", BERT.as_bytes().to_vec()),
                ("model.safetensors", Checkpoint::bert(1).bytes(Dtype::F16, "bert.")),
            ],
            &["seq=3"],
        ),
        case(
            vec![
                ("config.json", DISTILBERT.as_bytes().to_vec()),
                ("model.safetensors", Checkpoint::distilbert().bytes(Dtype::F32, "")),
            ],
            &["input_ids=2x3"],
        ),
        case(
            vec![
                ("config.json", BERT.as_bytes().to_vec()),
                ("model.safetensors", Checkpoint::bert(1).bytes(Dtype::F32, "")),
                ("modules.json", MODULES.as_bytes().to_vec()),
                ("1_Pooling/config.json", pooling.to_vec()),
                ("sentence_bert_config.json", br#"{"max_seq_length": 4}"#.to_vec()),
            ],
            &[],
        ),
    ]
}
