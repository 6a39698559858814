//! Valid models with graphs inside of nodes, functions, recurrent layers and sparse constants.

use aic_frontend::onnx::schema::*;

use crate::common::*;

const FLOAT: i32 = data_type::FLOAT;

/// Every seed of this file.
pub fn all() -> Vec<Model> {
    vec![recurrent(), looped(), unrolled(), scanned(), functions(), branches()]
}

/// A bidirectional layer of each kind, one after the other, with lengths and peepholes.
fn recurrent() -> Model {
    Model::new(14)
        .input("x", FLOAT, &["3", "2", "2"])
        .input("h", FLOAT, &["2", "2", "2"])
        .initializer(tensor("lengths", data_type::INT32, &[2], vec![3, 0, 0, 0, 2, 0, 0, 0]))
        .floats("w1", &[2, 2, 2], &[0.5; 8])
        .floats("w3", &[1, 6, 4], &[0.25; 24])
        .floats("r3", &[1, 6, 2], &[0.125; 12])
        .floats("w4", &[1, 8, 2], &[0.25; 16])
        .floats("b4", &[1, 16], &[0.5; 16])
        .floats("p4", &[1, 6], &[0.5; 6])
        .ints("merge", &[3, 2, 4])
        .ints("split", &[3, 2, 2])
        .node_with(
            "RNN",
            &["x", "w1", "w1", "", "lengths", "h"],
            &["y1", "h1"],
            vec![attr_text("direction", "bidirectional"), attr_texts("activations", &["Relu", "Tanh"])],
        )
        .node_with("Transpose", &["y1"], &["t1"], vec![attr_ints("perm", &[0, 2, 1, 3])])
        .node("Reshape", &["t1", "merge"], &["m1"])
        .node_with(
            "GRU",
            &["m1", "w3", "r3"],
            &["y3"],
            vec![attr_text("direction", "reverse"), attr_int("linear_before_reset", 1), attr_float("clip", 2.0)],
        )
        .node("Reshape", &["y3", "split"], &["m3"])
        .node_with(
            "LSTM",
            &["m3", "w4", "w4", "b4", "lengths", "", "", "p4"],
            &["y4", "", "c4"],
            vec![attr_int("hidden_size", 2)],
        )
        .output("h1")
        .output("y4")
        .output("c4")
}

/// A graph of the inputs of a loop's body.
fn body() -> Model {
    Model::new(17).input("i", data_type::INT64, &[]).input("go", data_type::BOOL, &[]).input("s", FLOAT, &["3"])
}

/// `Loop` on one state with the body's first output.
fn repeated(body: &Model) -> Model {
    Model::new(17)
        .input("x", FLOAT, &["3"])
        .ints("trips", &[4])
        .ints("axes", &[0])
        .ints("one", &[1])
        .node_with("Loop", &["trips", "", "x"], &["last", "rows"], vec![attr_graph("body", body)])
        .output("last")
        .output("rows")
}

fn looped() -> Model {
    let body = body()
        .floats("c", &[3], &[0.5, 1.0, 1.5])
        .node_with("Cast", &["i"], &["number"], vec![attr_int("to", 1)])
        .node("Add", &["s", "number"], &["sum"])
        .node("Mul", &["sum", "c"], &["next"])
        .node("Min", &["i", "one"], &["low"])
        .node("Gather", &["x", "low"], &["picked"]);
    repeated(&body.output("go").output("next").output("picked"))
}

fn unrolled() -> Model {
    let body = body()
        .ints("three", &[3])
        .node("Unsqueeze", &["i", "axes"], &["start"])
        .node("Slice", &["s", "start", "three"], &["part"])
        .node("ReduceSum", &["part", "axes"], &["sum"])
        .node("Add", &["s", "sum"], &["next"])
        .node("Less", &["start", "axes"], &["less"])
        .node("Not", &["less"], &["on"]);
    repeated(&body.output("on").output("next").output("sum"))
}

fn scanned() -> Model {
    let sums = Model::new(17)
        .input("s", FLOAT, &["2"])
        .input("a", FLOAT, &["2"])
        .node("Add", &["s", "a"], &["next"])
        .node("Mul", &["next", "scale"], &["row"])
        .output("next")
        .output("row");
    Model::new(17)
        .input("x", FLOAT, &["2", "3"])
        .input("scale", FLOAT, &["2"])
        .floats("zero", &[2], &[0.0, 0.0])
        .node_with(
            "Scan",
            &["zero", "x"],
            &["last", "all"],
            vec![
                attr_graph("body", &sums),
                attr_int("num_scan_inputs", 1),
                attr_ints("scan_input_axes", &[1]),
                attr_ints("scan_input_directions", &[1]),
                attr_ints("scan_output_axes", &[1]),
            ],
        )
        .output("last")
        .output("all")
}

fn functions() -> Model {
    let leaky = Model::new(16).node("Add", &["a", "b"], &["sum"]).node_with(
        "LeakyRelu",
        &["sum"],
        &["y"],
        vec![attr_ref("alpha", attribute_type::FLOAT, "slope")],
    );
    let leaky = FunctionProto {
        attribute_proto: vec![attr_float("slope", 0.5)],
        ..function("LeakySum", &["a", "b"], &["y"], &leaky)
    };
    let twice = Model::new(17).call("LeakySum", &["x", "x"], &["m"], vec![]).call(
        "LeakySum",
        &["m", "x"],
        &["y"],
        vec![attr_ref("slope", attribute_type::FLOAT, "slope")],
    );
    let twice = FunctionProto { attribute: vec!["slope".into()], ..function("Twice", &["x"], &["y"], &twice) };
    let mut model = Model::new(17)
        .input("x", FLOAT, &["4"])
        .function(leaky)
        .function(twice)
        .call("Twice", &["x"], &["a"], vec![attr_float("slope", 0.25)])
        .call("Twice", &["a"], &["b"], vec![])
        .node("Add", &["b", "s"], &["y"])
        .output("y");
    model.graph().sparse_initializer.push(SparseTensorProto {
        values: Some(floats("s", &[2], &[1.0, 2.0])),
        indices: Some(ints("", &[2, 1], &[0, 3])),
        dims: vec![4],
    });
    model
}

fn branches() -> Model {
    let then = Model::new(17).node("Neg", &["x"], &["t"]).output("t");
    let inner = Model::new(17).floats("c", &[], &[1.0]).node("Add", &["x", "c"], &["e"]).output("e");
    let other = Model::new(17)
        .node_with("If", &["other"], &["n"], vec![attr_graph("then_branch", &inner), attr_graph("else_branch", &then)])
        .output("n");
    Model::new(17)
        .input("x", FLOAT, &["2"])
        .ints("size", &[3])
        .node("Shape", &["x"], &["n0"])
        .node("Equal", &["n0", "size"], &["condition"])
        .node("Less", &["n0", "size"], &["other"])
        .node_with(
            "If",
            &["condition"],
            &["y"],
            vec![attr_graph("then_branch", &then), attr_graph("else_branch", &other)],
        )
        .output("y")
}
