//! Files that ask for much more than they hold: one clear error each, in memory that is in proportion to the file.
//!
//! None of these tests ends in reasonable time if the work is not in proportion either.

mod common;

use aic_frontend::onnx::schema::*;
use aic_frontend::{MemoryFiles, onnx};
use bytes::Bytes;
use common::alloc::{Counting, peak_of};
use common::*;
use prost::Message;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FLOAT: i32 = data_type::FLOAT;

/// Memory that any model may take, and how much more for each of its bytes.
const BASE_BYTES: usize = 64 << 20;
const BYTES_PER_BYTE: usize = 16;

/// The message of the one error that reading gives, which must not be a list.
fn one_error(bytes: Bytes) -> String {
    let size = bytes.len();
    let (result, peak) = peak_of(|| onnx::read(bytes, &MemoryFiles::new(), &bindings(&[])));
    let limit = BASE_BYTES + BYTES_PER_BYTE * size;
    assert!(peak <= limit, "{size} bytes of model take {peak} bytes of memory, {limit} are allowed");
    let text = result.map(|_| ()).expect_err("the model should be refused").to_string();
    assert!(text.lines().count() <= 2 && text.len() < 1000, "{text:.2000}");
    text
}

/// Wraps bytes, which are held in reverse, into a field of a message.
fn wrap(reversed: &mut Vec<u8>, tag: u8) {
    let mut length = Vec::new();
    prost::encoding::encode_varint(reversed.len() as u64, &mut length);
    reversed.extend(length.iter().rev());
    reversed.push(tag << 3 | 2);
}

fn append_reversed(reversed: &mut Vec<u8>, field: &[u8]) {
    reversed.extend(field.iter().rev());
}

#[test]
fn graphs_nested_ten_thousand_deep() {
    for (op, attribute) in [("If", "then_branch"), ("Loop", "body")] {
        let empty = GraphProto { name: "g".into(), ..Default::default() };
        let mut reversed: Vec<u8> = empty.encode_to_vec().into_iter().rev().collect();
        for _ in 0..10_000 {
            // graph in attribute, attribute in node, node in graph
            wrap(&mut reversed, 6);
            let name = AttributeProto { name: attribute.into(), r#type: attribute_type::GRAPH, ..Default::default() };
            append_reversed(&mut reversed, &name.encode_to_vec());
            wrap(&mut reversed, 5);
            append_reversed(&mut reversed, &NodeProto { op_type: op.into(), ..Default::default() }.encode_to_vec());
            wrap(&mut reversed, 1);
        }
        wrap(&mut reversed, 7);
        let model = Model::new(17).0;
        append_reversed(&mut reversed, &ModelProto { graph: None, ..model }.encode_to_vec());
        reversed.reverse();
        assert_eq!(one_error(reversed.into()), "malformed model: its graphs are nested more than 32 deep");
    }
}

/// Functions of one operand, the first a `Relu` and each further one made of the one before.
fn chain(count: usize, body: impl Fn(&str) -> Model) -> Model {
    let mut model = Model::new(17).input("x", FLOAT, &["2"]).function(function(
        "f0",
        &["x"],
        &["y"],
        &Model::new(17).node("Relu", &["x"], &["y"]),
    ));
    for i in 1..count {
        let before = format!("f{}", i - 1);
        model = model.function(function(&format!("f{i}"), &["x"], &["y"], &body(&before)));
    }
    model.call(&format!("f{}", count - 1), &["x"], &["out"], vec![]).output("out")
}

#[test]
fn functions_that_call_functions() {
    let once = |before: &str| Model::new(17).call(before, &["x"], &["y"], vec![]);
    assert!(chain(60, once).read().is_ok());
    let text = one_error(chain(10_000, once).bytes());
    assert!(text.contains("`node_out` (local.f9999)") && text.contains("nested more than 64 deep"), "{text}");
    // Each calls the one before twice.
    let twice = |before: &str| Model::new(17).call(before, &["x"], &["m"], vec![]).call(before, &["m"], &["y"], vec![]);
    assert!(chain(10, twice).read().is_ok_and(|graph| graph.order.len() == 512));
    let text = one_error(chain(60, twice).bytes());
    assert!(text.contains("more nodes than a file of its size may hold"), "{text}");
    // Nothing is built for these, and yet they must end.
    let nothing = |before: &str| {
        let calls = Model::new(17).call(before, &["x"], &["m"], vec![]).call(before, &["m"], &["n"], vec![]);
        calls.node("Identity", &["n"], &["y"])
    };
    let mut idle = chain(60, nothing);
    idle.0.functions[0].node[0].op_type = "Identity".into();
    assert!(one_error(idle.bytes()).contains("more nodes than a file of its size may hold"));
}

/// Loops inside of loops that must all be unrolled, since the sum of the numbers of all trips is a shape.
fn loops(depth: usize, trips: i64) -> Model {
    let mut inner = Model::new(17).node("Identity", &["i0"], &["sum0"]);
    for level in 1..depth {
        let (before, number, sum) = (format!("sum{}", level - 1), format!("i{level}"), format!("sum{level}"));
        inner = inner.node("Add", &[&before, &number], &[&sum]);
    }
    inner = inner
        .node("Unsqueeze", &[&format!("sum{}", depth - 1), "axes"], &["shape"])
        .node("ConstantOfShape", &["shape"], &["ones"])
        .node("ReduceSum", &["ones"], &["sum"])
        .node("Add", &["s0", "sum"], &["n0"]);
    for level in 0..depth {
        let graph = inner
            .input(&format!("i{level}"), data_type::INT64, &[])
            .input(&format!("go{level}"), data_type::BOOL, &[])
            .input(&format!("s{level}"), FLOAT, &["1", "1"])
            .output(&format!("go{level}"))
            .output(&format!("n{level}"));
        let (outer, next) = (format!("s{}", level + 1), format!("n{}", level + 1));
        inner = Model::new(17).node_with("Loop", &["trips", "", &outer], &[&next], vec![attr_graph("body", &graph)]);
    }
    let (last, result) = (format!("s{depth}"), format!("n{depth}"));
    inner.ints("trips", &[trips]).ints("axes", &[0]).input(&last, FLOAT, &["1", "1"]).output(&result)
}

#[test]
fn loops_unrolled_inside_of_loops() {
    assert_eq!(loops(2, 3).read().map(|graph| graph.order.len()), Ok(18));
    for (depth, trips) in [(1, i64::MAX), (8, 100), (20, 2), (2, 1 << 40)] {
        let text = one_error(loops(depth, trips).bytes());
        assert!(text.contains("more nodes than a file of its size may hold") || text.contains("budget"), "{text}");
    }
}

#[test]
fn constants_of_a_body_are_copied_once() {
    // Elements in a typed field must be copied; the body is imported for each of its trips.
    let typed = TensorProto { float_data: vec![1.0; 1 << 18], raw_data: None, ..floats("c", &[1 << 18], &[]) };
    let body = Model::new(17)
        .input("i", data_type::INT64, &[])
        .input("go", data_type::BOOL, &[])
        .input("s", FLOAT, &[])
        .initializer(typed)
        .node("Unsqueeze", &["i", "axes"], &["start"])
        .node("Add", &["start", "one"], &["end"])
        .node("Slice", &["c", "start", "end"], &["part"])
        .node("Add", &["s", "part"], &["next"])
        .output("go")
        .output("next");
    let model = Model::new(17)
        .input("x", FLOAT, &["1"])
        .ints("trips", &[1000])
        .ints("axes", &[0])
        .ints("one", &[1])
        .node_with("Loop", &["trips", "", "x"], &["y"], vec![attr_graph("body", &body)])
        .output("y");
    let bytes = model.bytes();
    let size = bytes.len();
    let (graph, peak) = peak_of(|| onnx::read(bytes, &MemoryFiles::new(), &bindings(&[])));
    assert_eq!(graph.map(|g| g.order.len()), Ok(1000));
    assert!(peak <= BASE_BYTES + BYTES_PER_BYTE * size, "{peak} bytes of memory for {size} bytes");
}

#[test]
fn a_chain_of_more_kernels_than_are_compiled_is_refused_by_its_first_node_too_many() {
    let mut model = Model::new(17).input("x0", FLOAT, &["2"]);
    for i in 0..8200 {
        model = model.node("Tanh", &[&format!("x{i}")], &[&format!("x{}", i + 1)]);
    }
    let graph = model.output("x8200").read().expect("a good model");
    let text = compile::lowered(graph).expect_err("too many kernels");
    assert_eq!(
        text,
        "node 'node_x8193': the model comes to more than 8192 kernels, which is the most that are compiled"
    );
}
