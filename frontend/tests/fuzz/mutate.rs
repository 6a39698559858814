//! Mutations of models: of their bytes, of decoded messages, and of the numbers in texts.

use aic_frontend::onnx::{self, schema::*};
use aic_ir::testing::Rng;
use bytes::Bytes;
use prost::Message;

use crate::{Case, MODEL};

/// Numbers that break arithmetic, and small ones that fit by chance.
const EDGES: [i64; 24] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    17,
    64,
    255,
    -1,
    -2,
    -3,
    -9,
    1 << 16,
    1 << 20,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 62,
    i64::MAX,
    i64::MIN,
];

const FLOATS: [f32; 10] =
    [0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE];

/// A changed copy of one of the seeds.
pub fn mutated(seeds: &[Case], rng: &mut Rng) -> Case {
    let mut case = rng.pick(seeds).clone();
    for _ in 0..=rng.below(4) {
        let Some(model) = case.files.get(MODEL) else {
            let names: Vec<String> = case.files.keys().cloned().collect();
            let name = rng.pick(&names).clone();
            let changed = if name.ends_with(".json") || !rng.one_in(4) {
                numbers(&case.files[&name], rng)
            } else {
                raw(&case.files[&name], seeds, rng)
            };
            case.files.insert(name, changed);
            continue;
        };
        if rng.one_in(8) {
            let changed = raw(model, seeds, rng);
            case.files.insert(MODEL.to_owned(), changed);
            continue;
        }
        let Ok(mut message) = ModelProto::decode(model.clone()) else { continue };
        structure(&mut message, rng);
        case.files.insert(MODEL.to_owned(), message.encode_to_vec().into());
    }
    if rng.one_in(10) {
        let extent = EDGES[rng.below(EDGES.len() as u64) as usize].max(0);
        case.flags.push(format!("{}={extent}", rng.pick(&["batch", "seq", "x", "n"])));
    }
    case
}

/// Cuts, flips, copies and overwrites bytes.
fn raw(bytes: &Bytes, seeds: &[Case], rng: &mut Rng) -> Bytes {
    let mut out = bytes.to_vec();
    let place = |rng: &mut Rng, len: usize| rng.below(len as u64 + 1) as usize;
    match rng.below(6) {
        0 => out.truncate(place(rng, bytes.len())),
        1 => {
            for _ in 0..=rng.below(4) {
                let at = place(rng, bytes.len());
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
        // A piece of another file in the place of some bytes.
        2 => {
            let other = rng.pick(seeds);
            let pieces: Vec<&Bytes> = other.files.values().collect();
            let piece = *rng.pick(&pieces);
            let (a, b) = (place(rng, piece.len()), place(rng, piece.len()));
            let at = place(rng, out.len());
            let end = (at + rng.below(16) as usize).min(out.len());
            out.splice(at..end, piece[a.min(b)..a.max(b)].iter().copied());
        }
        // Variable-length integers at their limits.
        3 => {
            let at = place(rng, out.len());
            let end = (at + rng.below(3) as usize).min(out.len());
            let mut varint = vec![0xff; rng.below(10) as usize];
            varint.push(rng.below(128) as u8);
            out.splice(at..end, varint);
        }
        4 => {
            let (a, b) = (place(rng, out.len()), place(rng, out.len()));
            let piece = out[a.min(b)..a.max(b)].to_vec();
            out.splice(a..a, piece);
        }
        _ => {
            let (a, b) = (place(rng, out.len()), place(rng, out.len()));
            out.drain(a.min(b)..a.max(b).min(a.min(b) + 64));
        }
    }
    out.into()
}

/// Replaces a number or a piece of a text; of a checkpoint, in its header.
fn numbers(bytes: &Bytes, rng: &mut Rng) -> Bytes {
    let text_end = bytes.iter().rposition(|&b| b == b'}').map_or(bytes.len(), |p| p + 1);
    let mut spans = Vec::new();
    let mut start = None;
    for (i, b) in bytes[..text_end].iter().enumerate() {
        match (b.is_ascii_digit(), start) {
            (true, None) => start = Some(i),
            (false, Some(s)) => {
                spans.push(s..i);
                start = None;
            }
            _ => {}
        }
    }
    let mut out = bytes.to_vec();
    if spans.is_empty() || rng.one_in(6) {
        let at = rng.below(text_end as u64 + 1) as usize;
        let piece = *rng.pick(&["null", "-", "[", "{", "\"", "1e999", "NaN", "\\u0000", "../", ",", "true", "}"]);
        let end = (at + rng.below(6) as usize).min(out.len());
        out.splice(at..end, piece.bytes());
        return out.into();
    }
    let span = rng.pick(&spans).clone();
    let text = match rng.below(3) {
        0 => rng.pick(&EDGES).to_string(),
        1 => rng.below(10).to_string(),
        _ => String::from_utf8_lossy(&out[rng.pick(&spans).clone()]).into_owned(),
    };
    out.splice(span, text.bytes());
    out.into()
}

/// Changes one thing about a decoded model.
fn structure(model: &mut ModelProto, rng: &mut Rng) {
    if rng.one_in(40) {
        model.opset_import.iter_mut().for_each(|o| o.version = 12 + rng.below(13) as i64);
    }
    if rng.one_in(6) && !model.functions.is_empty() {
        let at = rng.below(model.functions.len() as u64) as usize;
        return function(&mut model.functions[at], rng);
    }
    if let Some(graph) = &mut model.graph {
        graph_or_inner(graph, Vec::new(), rng);
    }
}

/// Changes one thing about a function.
fn function(function: &mut FunctionProto, rng: &mut Rng) {
    let names: Vec<String> =
        function.input.iter().cloned().chain(function.node.iter().flat_map(|n| n.output.clone())).collect();
    let nodes = function.node.len() as u64;
    match rng.below(8) {
        0..3 if nodes > 0 => edges(&mut function.node[rng.below(nodes) as usize], &names, rng),
        3..6 if nodes > 0 => attributes(&mut function.node[rng.below(nodes) as usize], rng),
        6 => {
            function.input.pop();
        }
        _ => function.attribute_proto.iter_mut().for_each(|a| a.r#type = rng.below(12) as i32),
    }
}

/// Changes one thing about a graph, or one inside of it. `outer` are names that are defined around it.
fn graph_or_inner(graph: &mut GraphProto, outer: Vec<String>, rng: &mut Rng) {
    let own = names_of(graph);
    let names: Vec<String> = own.into_iter().chain(outer).collect();
    let mut inner: Vec<&mut GraphProto> =
        graph.node.iter_mut().flat_map(|n| &mut n.attribute).filter_map(|a| a.g.as_deref_mut()).collect();
    if !inner.is_empty() && !rng.one_in(3) {
        let at = rng.below(inner.len() as u64) as usize;
        return graph_or_inner(inner[at], names, rng);
    }
    let nodes = graph.node.len() as u64;
    match rng.below(12) {
        0..3 if nodes > 0 => {
            let node = rng.below(nodes) as usize;
            edges(&mut graph.node[node], &names, rng);
        }
        3..6 if nodes > 0 => {
            let node = rng.below(nodes) as usize;
            attributes(&mut graph.node[node], rng);
        }
        6..8 if !graph.initializer.is_empty() => {
            let at = rng.below(graph.initializer.len() as u64) as usize;
            tensor(&mut graph.initializer[at], rng);
        }
        8 if !graph.sparse_initializer.is_empty() && rng.one_in(2) => {
            let at = rng.below(graph.sparse_initializer.len() as u64) as usize;
            sparse(&mut graph.sparse_initializer[at], rng);
        }
        8 if !graph.input.is_empty() => {
            let at = rng.below(graph.input.len() as u64) as usize;
            value_info(&mut graph.input[at], rng);
        }
        9 => add_node(graph, &names, rng),
        10 if nodes > 1 => {
            let (a, b) = (rng.below(nodes) as usize, rng.below(nodes) as usize);
            match rng.below(3) {
                0 => graph.node.swap(a, b),
                1 => {
                    graph.node.remove(a);
                }
                _ => {
                    let attribute = graph.node[b].attribute.clone();
                    graph.node[a].attribute = attribute;
                }
            }
        }
        // What was computed inside is returned, too, so that later stages keep it.
        _ if !names.is_empty() => {
            let name = if rng.one_in(20) { String::new() } else { rng.pick(&names).clone() };
            graph.output.push(ValueInfoProto { name, r#type: None });
        }
        _ => {}
    }
}

fn names_of(graph: &GraphProto) -> Vec<String> {
    let inputs = graph.input.iter().map(|i| i.name.clone());
    let constants = graph.initializer.iter().map(|t| t.name.clone());
    inputs.chain(constants).chain(graph.node.iter().flat_map(|n| n.output.clone())).collect()
}

fn edges(node: &mut NodeProto, names: &[String], rng: &mut Rng) {
    let Some(name) = (!names.is_empty()).then(|| rng.pick(names).clone()) else { return };
    let operands = node.input.len() as u64;
    match rng.below(8) {
        0..4 if operands > 0 => node.input[rng.below(operands) as usize] = name,
        4 if operands > 0 => {
            node.input.remove(rng.below(operands) as usize);
        }
        5 => node.input.push(if rng.one_in(3) { String::new() } else { name }),
        6 if operands > 1 => node.input.swap(0, rng.below(operands) as usize),
        _ => {
            let count = onnx::supported().count() as u64;
            if let Some(rule) = onnx::supported().nth(rng.below(count) as usize) {
                node.op_type = rule.name.to_owned();
            }
        }
    }
}

const ATTRIBUTES: [&str; 28] = [
    "axis",
    "axes",
    "keepdims",
    "perm",
    "kernel_shape",
    "strides",
    "pads",
    "dilations",
    "group",
    "auto_pad",
    "to",
    "alpha",
    "beta",
    "epsilon",
    "value",
    "ceil_mode",
    "count_include_pad",
    "blocksize",
    "mode",
    "upper",
    "transA",
    "scale",
    "layout",
    "direction",
    "clip",
    "linear_before_reset",
    "num_scan_inputs",
    "scan_input_directions",
];

fn attributes(node: &mut NodeProto, rng: &mut Rng) {
    if node.attribute.is_empty() || rng.one_in(5) {
        let mut attribute = AttributeProto { name: (*rng.pick(&ATTRIBUTES)).to_owned(), ..Default::default() };
        attribute.r#type = *rng.pick(&[1, 2, 2, 2, 3, 7, 7]);
        attribute.i = *rng.pick(&EDGES);
        attribute.f = *rng.pick(&FLOATS);
        attribute.s = Bytes::from_static(rng.pick(&["SAME_UPPER", "VALID", "tanh", "CRD", "\u{1b}[31m"]).as_bytes());
        attribute.ints = (0..rng.below(5)).map(|_| *rng.pick(&EDGES)).collect();
        node.attribute.push(attribute);
        return;
    }
    let at = rng.below(node.attribute.len() as u64) as usize;
    let attribute = &mut node.attribute[at];
    match rng.below(6) {
        0 => {
            node.attribute.remove(at);
        }
        1 => attribute.r#type = rng.below(12) as i32,
        _ => match attribute.r#type {
            attribute_type::FLOAT => attribute.f = *rng.pick(&FLOATS),
            attribute_type::INT => attribute.i = *rng.pick(&EDGES),
            attribute_type::STRING => attribute.s = Bytes::from_static(b"SAME_LOWER"),
            attribute_type::TENSOR => attribute.t.iter_mut().for_each(|t| tensor(t, rng)),
            attribute_type::FLOATS => attribute.floats.push(*rng.pick(&FLOATS)),
            _ => list(&mut attribute.ints, rng),
        },
    }
}

/// Changes, adds or takes away an element of a list.
fn list(list: &mut Vec<i64>, rng: &mut Rng) {
    let length = list.len() as u64;
    match rng.below(6) {
        0 => list.push(*rng.pick(&EDGES)),
        1 if length > 0 => {
            list.remove(rng.below(length) as usize);
        }
        _ if length > 0 => list[rng.below(length) as usize] = *rng.pick(&EDGES),
        _ => {}
    }
}

fn tensor(tensor: &mut TensorProto, rng: &mut Rng) {
    match rng.below(8) {
        0 => list(&mut tensor.dims, rng),
        1 => tensor.data_type = rng.below(18) as i32,
        2 => tensor.raw_data = None,
        3 => {
            // A shape with as many elements.
            tensor.dims.push(1);
            let (a, b) = (rng.below(tensor.dims.len() as u64) as usize, rng.below(tensor.dims.len() as u64) as usize);
            tensor.dims.swap(a, b);
        }
        4 if tensor.data_location == 1 => {
            let value = if rng.one_in(3) {
                (*rng.pick(&["../w.bin", "/etc/passwd", "", "a\\b", "w.bin\0", "\u{1b}[2J", "no"])).to_owned()
            } else {
                rng.pick(&EDGES).to_string()
            };
            let entries = tensor.external_data.len() as u64;
            if entries > 0 {
                tensor.external_data[rng.below(entries) as usize].value = value;
            }
        }
        _ => {
            // One element: at an edge, or any bits.
            let Some(raw) = &tensor.raw_data else { return };
            let mut raw = raw.to_vec();
            let size = if tensor.data_type == data_type::INT64 { 8 } else { 4 };
            let count = (raw.len() / size) as u64;
            if count > 0 {
                let at = rng.below(count) as usize * size;
                let bits = match size {
                    8 => rng.pick(&EDGES).to_le_bytes().to_vec(),
                    _ => rng.pick(&FLOATS).to_le_bytes().to_vec(),
                };
                raw[at..at + size].copy_from_slice(&bits);
            }
            tensor.raw_data = Some(raw.into());
        }
    }
}

fn sparse(constant: &mut SparseTensorProto, rng: &mut Rng) {
    match rng.below(3) {
        0 => list(&mut constant.dims, rng),
        1 => constant.values.iter_mut().for_each(|t| tensor(t, rng)),
        _ => constant.indices.iter_mut().for_each(|t| tensor(t, rng)),
    }
}

fn value_info(info: &mut ValueInfoProto, rng: &mut Rng) {
    let Some(ty) = info.r#type.as_mut().and_then(|t| t.tensor_type.as_mut()) else { return };
    if rng.one_in(4) {
        ty.elem_type = rng.below(18) as i32;
        return;
    }
    let Some(shape) = &mut ty.shape else { return };
    let dim = DimensionProto { dim_value: Some(*rng.pick(&EDGES)), dim_param: None };
    let rank = shape.dim.len() as u64;
    match rng.below(5) {
        0 => shape.dim.push(dim),
        1 if rank > 0 => {
            shape.dim.remove(rng.below(rank) as usize);
        }
        2 => shape.dim.insert(0, DimensionProto { dim_value: Some(1), dim_param: None }),
        _ if rank > 0 => shape.dim[rng.below(rank) as usize] = dim,
        _ => {}
    }
}

/// Appends a node of any operator on any values, and returns its result.
fn add_node(graph: &mut GraphProto, names: &[String], rng: &mut Rng) {
    let count = onnx::supported().count() as u64;
    let (Some(rule), false) = (onnx::supported().nth(rng.below(count) as usize), names.is_empty()) else { return };
    let name = format!("added_{}", graph.node.len());
    let input = (0..1 + rng.below(3)).map(|_| rng.pick(names).clone()).collect();
    let mut node = NodeProto {
        op_type: rule.name.to_owned(),
        name: if rng.one_in(20) { "a\nb\u{1b}[0m".repeat(40) } else { name.clone() },
        input,
        output: vec![name.clone()],
        ..Default::default()
    };
    if rng.one_in(2) {
        attributes(&mut node, rng);
    }
    graph.node.push(node);
    graph.output.push(ValueInfoProto { name, r#type: None });
}
