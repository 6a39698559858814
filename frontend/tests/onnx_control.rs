//! Graphs inside of nodes, functions, and constants that are stored sparsely.

mod common;

use aic_frontend::onnx::schema::*;
use aic_ir::graph::{Graph, Op};
use common::*;

const FLOAT: i32 = data_type::FLOAT;
const INT64: i32 = data_type::INT64;

/// A graph without an operator set of its own, as inside of nodes.
fn body() -> Model {
    Model::new(17)
}

fn bool_constant(name: &str, value: bool) -> TensorProto {
    tensor(name, data_type::BOOL, &[], vec![u8::from(value)])
}

/// The scans of a graph.
fn scans(graph: &Graph) -> Vec<&aic_ir::graph::Scan> {
    ops(graph)
        .into_iter()
        .filter_map(|op| match op {
            Op::Scan(scan) => Some(scan.as_ref()),
            _ => None,
        })
        .collect()
}

/// `y = leaky(x + x; slope)`, where `slope` may be given and is 0.5 otherwise.
fn leaky_sum() -> FunctionProto {
    let nodes = Model::new(16).node("Add", &["a", "b"], &["sum"]).node_with(
        "LeakyRelu",
        &["sum"],
        &["y"],
        vec![attr_ref("alpha", attribute_type::FLOAT, "slope")],
    );
    FunctionProto {
        attribute_proto: vec![attr_float("slope", 0.5)],
        ..function("LeakySum", &["a", "b"], &["y"], &nodes)
    }
}

#[test]
fn functions_are_imported_in_place_of_their_calls() {
    let outer = Model::new(17).call(
        "LeakySum",
        &["x", "x"],
        &["doubled"],
        vec![attr_ref("slope", attribute_type::FLOAT, "factor")],
    );
    let outer = FunctionProto { attribute: vec!["factor".into()], ..function("Outer", &["x"], &["doubled"], &outer) };
    let model = Model::new(17)
        .input("x", FLOAT, &["2"])
        .function(leaky_sum())
        .function(outer)
        .call("LeakySum", &["x", "x"], &["a"], vec![])
        .call("Outer", &["x"], &["b"], vec![attr_float("factor", 0.25)])
        .call("Outer", &["x"], &["c"], vec![])
        .node_with("Concat", &["a", "b", "c"], &["y"], vec![attr_int("axis", 0)])
        .output("y");
    assert_close(&model.run(&[f32s(&[2], &[-1.0, 1.0])]), &[-1.0, 2.0, -0.5, 2.0, -1.0, 2.0]);
    let graph = model.read().expect("a good model");
    let names: Vec<&str> = graph.order.iter().map(|&n| graph.nodes[n].name.as_str()).collect();
    assert!(names.iter().all(|name| ["node_a", "node_b", "node_c", "node_y"].contains(name)), "{names:?}");
}

#[test]
fn omitted_operands_of_functions_are_omitted_inside() {
    let nodes = Model::new(17).node("Clip", &["x", "low", "high"], &["y"]);
    let model = Model::new(17)
        .input("x", FLOAT, &["3"])
        .floats("one", &[], &[1.0])
        .function(function("Bounded", &["x", "low", "high"], &["y"], &nodes))
        .call("Bounded", &["x", "", "one"], &["a"], vec![])
        .call("Bounded", &["a", "one"], &["b"], vec![])
        .output("b");
    assert_close(&model.run(&[f32s(&[3], &[-5.0, 0.5, 5.0])]), &[1.0, 1.0, 1.0]);
}

#[test]
fn functions_that_cannot_be_imported_are_named_by_their_calls() {
    let with = |nodes: Model, inputs: &[&str]| {
        Model::new(17)
            .input("x", FLOAT, &["2"])
            .function(function("F", inputs, &["y"], &nodes))
            .call("F", &["x"], &["out"], vec![])
            .output("out")
    };
    let text = with(Model::new(17).node("NonZero", &["x"], &["y"]), &["x"]).refusal();
    assert!(
        text.contains("`node_out` (local.F): in function `F`, `node_y` (NonZero): the operator is not supported"),
        "{text}"
    );
    let text = with(Model::new(17).call("F", &["x"], &["y"], vec![]), &["x"]).refusal();
    assert!(text.contains("function `F` calls itself"), "{text}");
    let text = with(Model::new(5).node("Relu", &["x"], &["y"]), &["x"]).refusal();
    assert!(text.contains("its function is of operator set 5"), "{text}");
    let text = with(Model::new(17).node("Relu", &["x"], &["y"]), &[]).refusal();
    assert!(text.contains("node `node_y` uses `x`, which nothing defines"), "{text}");
    let text = with(Model::new(17).node("Relu", &["x"], &["z"]), &["x"]).refusal();
    assert!(text.contains("function `F`: output `y` is defined by nothing"), "{text}");
    let relu = || Model::new(17).node("Relu", &["x"], &["y"]);
    let mut given = with(relu(), &["x"]);
    given.graph().node[0].attribute.push(attr_int("k", 1));
    assert!(given.refusal().contains("its function has no attribute `k`"));
    let twice = with(relu(), &["x"]).function(function("F", &["x"], &["y"], &relu()));
    assert!(twice.refusal().contains("two functions are named `F`"));
    let other = Model::new(17).input("x", FLOAT, &["2"]).call("G", &["x"], &["out"], vec![]).output("out");
    assert!(other.refusal().contains("operators of domain `local` are not supported"));
}

fn sparse(indices: TensorProto, values: &[f32], dims: &[i64]) -> SparseTensorProto {
    SparseTensorProto {
        values: Some(floats("c", &[values.len() as i64], values)),
        indices: Some(indices),
        dims: dims.to_vec(),
    }
}

fn read_sparse(constant: SparseTensorProto) -> Result<Vec<f64>, String> {
    let mut model = Model::new(13).node("Identity", &["c"], &["y"]).output("y");
    model.graph().sparse_initializer.push(constant);
    let graph = model.read().map_err(|e| e.to_string())?;
    Ok(evaluate(&graph, &[], 0))
}

#[test]
fn sparse_constants_become_dense() {
    assert_eq!(
        read_sparse(sparse(ints("", &[2], &[1, 5]), &[7.0, 8.0], &[2, 3])),
        Ok(vec![0.0, 7.0, 0.0, 0.0, 0.0, 8.0])
    );
    let coordinates = ints("", &[2, 2], &[0, 2, 1, 0]);
    assert_eq!(read_sparse(sparse(coordinates, &[7.0, 8.0], &[2, 2 + 1])), Ok(vec![0.0, 0.0, 7.0, 8.0, 0.0, 0.0]));
    assert_eq!(read_sparse(sparse(ints("", &[0], &[]), &[], &[2])), Ok(vec![0.0, 0.0]));
    let attribute = AttributeProto {
        name: "sparse_value".into(),
        r#type: attribute_type::SPARSE_TENSOR,
        sparse_tensor: Some(Box::new(sparse(ints("", &[1], &[2]), &[3.0], &[3]))),
        ..Default::default()
    };
    let model = Model::new(13).node_with("Constant", &[], &["y"], vec![attribute]).output("y");
    assert_eq!(model.run(&[]), [0.0, 0.0, 3.0]);
}

#[test]
fn broken_sparse_constants_are_refused() {
    for (constant, part) in [
        (sparse(ints("", &[1], &[6]), &[1.0], &[2, 3]), "sparse index 6 is out of range for 6 elements"),
        (sparse(ints("", &[1], &[-1]), &[1.0], &[2, 3]), "sparse index -1 is out of range"),
        (sparse(ints("", &[2], &[3, 3]), &[1.0, 2.0], &[2, 3]), "not in ascending order, or one is given twice"),
        (sparse(ints("", &[2], &[4, 3]), &[1.0, 2.0], &[2, 3]), "not in ascending order"),
        (sparse(ints("", &[1, 2], &[0, 3]), &[1.0], &[2, 3]), "sparse index 3 is out of range for 3 elements"),
        (sparse(ints("", &[1, 3], &[0, 0, 0]), &[1.0], &[2, 3]), "instead of i64[1] or i64[1, 2]"),
        (sparse(ints("", &[2], &[0, 1]), &[1.0], &[2, 3]), "instead of i64[1] or i64[1, 2]"),
        (sparse(ints("", &[1], &[0]), &[1.0], &[-2]), "negative dimensions"),
        (sparse(ints("", &[1], &[0]), &[1.0], &[1 << 30, 1 << 30]), "more than 2^40 elements"),
        (sparse(ints("", &[1], &[0]), &[1.0], &[1 << 30]), "exceed their budget"),
        (SparseTensorProto { indices: None, ..sparse(ints("", &[], &[]), &[1.0], &[2]) }, "without indices"),
    ] {
        let text = read_sparse(constant).expect_err("the constant should be refused");
        assert!(text.contains("`c`") && text.contains(part), "{text}");
    }
}

/// `If` on whether `x` has as many elements as `size` says.
fn branches(size: i64, then: Model, other: Model) -> Model {
    Model::new(17)
        .input("x", FLOAT, &["2"])
        .initializer(ints("size", &[], &[size]))
        .floats("c", &[], &[10.0])
        .node("Size", &["x"], &["n"])
        .node("Equal", &["n", "size"], &["condition"])
        .node("Neg", &["x"], &["negative"])
        .node_with(
            "If",
            &["condition"],
            &["y"],
            vec![attr_graph("then_branch", &then), attr_graph("else_branch", &other)],
        )
        .output("y")
}

#[test]
fn the_branch_of_an_if_is_chosen_while_reading() {
    // `negative` and `c` are defined around the branches; the second branch has a `c` of its own.
    let then = body().node("Add", &["negative", "c"], &["t"]).output("t");
    let other = body().floats("c", &[], &[1.0]).node("Add", &["x", "c"], &["e"]).output("e");
    let x = [f32s(&[2], &[1.0, 2.0])];
    assert_eq!(branches(2, then.clone(), other.clone()).run(&x), [9.0, 8.0]);
    assert_eq!(branches(3, then, other).run(&x), [2.0, 3.0]);
    // What is not taken is not judged; what is taken is.
    let (then, other) =
        (body().node("NonZero", &["x"], &["t"]).output("t"), body().node("Relu", &["x"], &["e"]).output("e"));
    assert_eq!(branches(3, then.clone(), other.clone()).run(&x), [1.0, 2.0]);
    assert!(branches(2, then, other).refusal().contains("`node_t` (NonZero): the operator is not supported"));
}

#[test]
fn an_if_on_data_computes_both_branches_or_is_refused_by_name() {
    let model = |then: Model, other: Model| {
        let model = Model::new(17).input("x", FLOAT, &["2"]).input("b", data_type::BOOL, &[]).input("i", INT64, &["2"]);
        let attributes = vec![attr_graph("then_branch", &then), attr_graph("else_branch", &other)];
        model.node_with("If", &["b"], &["y"], attributes).output("y")
    };
    let negative = || body().node("Neg", &["x"], &["t"]).output("t");
    let double = body().node("Add", &["x", "x"], &["e"]).output("e");
    let both = model(negative(), double);
    let run = |b: u8| both.run(&[f32s(&[2], &[1.0, 2.0]), bools(&[], &[b]), i64s(&[2], &[0, 0])]);
    assert_eq!((run(1), run(0)), (vec![-1.0, -2.0], vec![2.0, 4.0]));
    let other_type = body().node("Size", &["x"], &["e"]).output("e");
    let text = model(negative(), other_type).refusal();
    assert!(text.contains("`node_y` (If): the condition (`b`) must be known at compile time"), "{text}");
    assert!(text.contains("the branches give f32[2] and i64[]"), "{text}");
    let lookup = body().node("Gather", &["x", "i"], &["e"]).output("e");
    let text = model(negative(), lookup).refusal();
    assert!(text.contains("`node_e` could fail in the branch that is not taken"), "{text}");
}

#[test]
fn names_inside_of_graphs_are_checked() {
    let then = |name: &str| body().node("Neg", &[name], &["t"]).output("t");
    let text = branches(2, then("q"), then("x")).refusal();
    assert!(text.contains("node `node_t` uses `q`, which nothing defines"), "{text}");
    let text = branches(2, then("y"), then("x")).refusal();
    assert!(text.contains("uses `y` before node `node_y` defines it"), "{text}");
    // A name of its own hides the outer one in the whole graph.
    let hiding = body().node("Neg", &["x"], &["t"]).node("Neg", &["t"], &["x"]).output("x");
    assert!(branches(2, hiding, then("x")).refusal().contains("uses `x` before node `node_x` defines it"));
}

/// A loop of `trips` whose body has the given nodes after its inputs `i`, `go` and `s`.
fn looped(trips: i64, body: Model) -> Model {
    Model::new(17)
        .input("x", FLOAT, &["3"])
        .initializer(ints("trips", &[], &[trips]))
        .initializer(bool_constant("true", true))
        .node_with("Loop", &["trips", "true", "x"], &["last", "rows"], vec![attr_graph("body", &body)])
        .output("last")
        .output("rows")
}

fn loop_body() -> Model {
    body().input("i", INT64, &[]).input("go", data_type::BOOL, &[]).input("s", FLOAT, &["3"])
}

/// `s' = s + c + i`; each row is `2 s'`.
fn counting() -> Model {
    loop_body()
        .floats("c", &[], &[0.5])
        .node("Identity", &["go"], &["on"])
        .node_with("Cast", &["i"], &["number"], vec![attr_int("to", 1)])
        .node("Add", &["s", "c"], &["moved"])
        .node("Add", &["moved", "number"], &["next"])
        .node("Add", &["next", "next"], &["row"])
        .output("on")
        .output("next")
        .output("row")
}

#[test]
fn loops_are_scans() {
    let model = looped(3, counting());
    let graph = model.read().expect("a good model");
    assert_eq!(scans(&graph).len(), 1);
    let x = [f32s(&[3], &[0.0, 10.0, 20.0])];
    assert_close(&evaluate(&graph, &x, 0), &[4.5, 14.5, 24.5]);
    assert_close(&evaluate(&graph, &x, 1), &[1.0, 21.0, 41.0, 4.0, 24.0, 44.0, 9.0, 29.0, 49.0]);
    // One trip is no loop, and none gives rows without elements.
    let once = looped(1, counting()).read().expect("a good model");
    assert!(scans(&once).is_empty());
    assert_close(&evaluate(&once, &x, 1), &[1.0, 21.0, 41.0]);
    let never = looped(0, counting()).read().expect("a good model");
    assert_close(&evaluate(&never, &x, 0), &[0.0, 10.0, 20.0]);
    assert_eq!(never.ty(never.outputs[1].value).shape(), [0, 3]);
    // The number of the trip is a sequence only where it is used.
    let unused = loop_body().node("Neg", &["s"], &["next"]).output("go").output("next").output("next");
    let graph = looped(5, unused).read().expect("a good model");
    assert_eq!(scans(&graph)[0].sequences, 0);
    assert_close(&evaluate(&graph, &x, 0), &[0.0, -10.0, -20.0]);
}

#[test]
fn loops_whose_bodies_need_numbers_are_unrolled() {
    // The trip's number is the start of a slice, and the state grows.
    let slicing = loop_body()
        .ints("one", &[1])
        .ints("first", &[0])
        .node("Unsqueeze", &["i", "first"], &["start"])
        .node("Add", &["start", "one"], &["end"])
        .node("Slice", &["x", "start", "end"], &["part"])
        .node_with("Concat", &["s", "part"], &["next"], vec![attr_int("axis", 0)])
        .output("go")
        .output("next")
        .output("part");
    let graph = looped(2, slicing).read().expect("a good model");
    assert!(scans(&graph).is_empty());
    let x = [f32s(&[3], &[5.0, 6.0, 7.0])];
    assert_close(&evaluate(&graph, &x, 0), &[5.0, 6.0, 7.0, 5.0, 6.0]);
    assert_close(&evaluate(&graph, &x, 1), &[5.0, 6.0]);
    // A condition that is a constant of each trip ends the loop.
    let ending = loop_body()
        .initializer(ints("last", &[], &[2]))
        .node("Less", &["i", "last"], &["on"])
        .node("Add", &["s", "s"], &["next"])
        .output("on")
        .output("next")
        .output("next");
    assert_close(&looped(100, ending).run(&x), &[40.0, 48.0, 56.0]);
}

#[test]
fn loops_that_depend_on_data_are_refused_by_name() {
    let deciding = loop_body()
        .floats("limit", &[], &[3.0])
        .node("ReduceMax", &["s"], &["most"])
        .node("Less", &["most", "limit"], &["on"])
        .node("Add", &["s", "s"], &["next"])
        .output("on")
        .output("next")
        .output("next");
    let text = looped(4, deciding).refusal();
    assert!(text.contains("`node_last` (Loop): the condition that its body computes must be known"), "{text}");
    let mut data = looped(4, counting()).input("n", INT64, &[]);
    data.graph().node[0].input[0] = "n".into();
    let text = data.refusal();
    assert!(text.contains("`node_last` (Loop): the number of trips (`n`) must be known at compile time"), "{text}");
    let det = loop_body().node("NonZero", &["s"], &["next"]).output("go").output("next").output("next");
    let text = looped(4, det).refusal();
    assert_eq!(text.matches("NonZero").count(), 1, "{text}");
}

#[test]
fn loops_inside_of_loops_and_functions() {
    // Each trip of the outer loop adds its number three times; the inner body uses names of the outer one.
    let inner = body()
        .input("j", INT64, &[])
        .input("go2", data_type::BOOL, &[])
        .input("t", FLOAT, &["3"])
        .node("Add", &["t", "number"], &["t2"])
        .output("go2")
        .output("t2");
    let outer = loop_body()
        .initializer(ints("three", &[], &[3]))
        .node_with("Cast", &["i"], &["number"], vec![attr_int("to", 1)])
        .node_with("Loop", &["three", "", "s"], &["next"], vec![attr_graph("body", &inner)])
        .output("go")
        .output("next")
        .output("number");
    let graph = looped(4, outer.clone()).read().expect("a good model");
    assert_eq!(scans(&graph).len(), 1);
    assert_eq!(scans(&scans(&graph)[0].body).len(), 1);
    let x = [f32s(&[3], &[0.0, 1.0, 2.0])];
    assert_close(&evaluate(&graph, &x, 0), &[18.0, 19.0, 20.0]);
    let nodes = looped(4, outer).0.graph.expect("made with a graph");
    let mut function = function("F", &["x", "trips", "true"], &["last"], &Model::new(17));
    function.node = nodes.node;
    let model = Model::new(17)
        .input("a", FLOAT, &["3"])
        .initializer(ints("n", &[], &[4]))
        .function(function)
        .call("F", &["a", "n"], &["b"], vec![])
        .output("b");
    assert_close(&model.run(&x), &[18.0, 19.0, 20.0]);
}

#[test]
fn scans_run_along_any_dimension_and_in_both_directions() {
    // Running sums of the columns of one sequence and the rows of the other.
    let sums = body()
        .input("s", FLOAT, &["2"])
        .input("a", FLOAT, &["2"])
        .input("b", FLOAT, &["2"])
        .node("Add", &["s", "a"], &["sa"])
        .node("Add", &["sa", "b"], &["next"])
        .output("next")
        .output("next");
    let scan = |directions: &[i64], output: i64, axis: i64| {
        let model = Model::new(17)
            .input("x", FLOAT, &["2", "3"])
            .input("y", FLOAT, &["3", "2"])
            .floats("zero", &[2], &[0.0, 0.0])
            .node_with(
                "Scan",
                &["zero", "x", "y"],
                &["last", "all"],
                vec![
                    attr_graph("body", &sums),
                    attr_int("num_scan_inputs", 2),
                    attr_ints("scan_input_axes", &[-1, 0]),
                    attr_ints("scan_input_directions", directions),
                    attr_ints("scan_output_axes", &[axis]),
                    attr_ints("scan_output_directions", &[output]),
                ],
            )
            .output("all");
        let graph = model.read().expect("a good model");
        assert_eq!(scans(&graph).len(), 1);
        let inputs =
            [f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), f32s(&[3, 2], &[0.0, 10.0, 20.0, 30.0, 40.0, 50.0])];
        evaluate(&graph, &inputs, 0)
    };
    assert_close(&scan(&[0, 0], 0, 0), &[1.0, 14.0, 23.0, 49.0, 66.0, 105.0]);
    assert_close(&scan(&[0, 0], 0, 1), &[1.0, 23.0, 66.0, 14.0, 49.0, 105.0]);
    assert_close(&scan(&[1, 1], 1, 0), &[66.0, 105.0, 65.0, 91.0, 43.0, 56.0]);
    assert_close(&scan(&[1, 0], 0, 0), &[3.0, 16.0, 25.0, 51.0, 66.0, 105.0]);
    assert_close(&scan(&[0, 1], 1, 0), &[66.0, 105.0, 63.0, 89.0, 41.0, 54.0]);
}
