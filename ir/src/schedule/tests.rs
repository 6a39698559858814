//! Schedules of whole small graphs.

use super::*;
use crate::graph::{BinaryOp, ConvAttrs, GeluKind, Graph, Op, Value};
use crate::machine::{Machine, Target, builtin};
use crate::tile::{Affine, Atom, Item, KernelData, Program, Step, StmtOp, Var};
use crate::types::{DType, Tensor, TensorType};

struct Cpu(Machine);

impl Target for Cpu {
    fn machine(&self) -> &Machine {
        &self.0
    }
    fn legal(&self, _: &Program, _: &KernelData) -> Result<(), String> {
        Ok(())
    }
}

fn show(program: &Program) {
    for step in &program.steps {
        if let Step::Run(k) = step {
            let data = &program.kernels[*k];
            println!("kernel {}", data.name);
            items(program, data, &data.body, 1);
        }
    }
}

fn items(program: &Program, data: &KernelData, body: &[Item], depth: usize) {
    for item in body {
        match item {
            Item::Loop(l, inner) => {
                println!("{:w$}loop {} {}", "", data.loops[*l].name, data.loops[*l].extent, w = depth * 2);
                items(program, data, inner, depth + 1);
            }
            Item::Stmt(s) => {
                let stmt = &data.stmts[*s];
                let name = |v: Var| match v {
                    Var::Loop(l) => data.loops[l].name.clone(),
                    Var::Dim(i) => stmt.dims[i as usize].name.clone(),
                };
                let dims: Vec<String> = stmt
                    .dims
                    .iter()
                    .map(|d| {
                        format!("{}:{}{}", d.name, d.extent, if d.exec == crate::tile::Exec::Vector { "v" } else { "" })
                    })
                    .collect();
                let acc: Vec<String> = stmt
                    .accesses()
                    .iter()
                    .map(|a| {
                        let b = &program.buffers[a.buffer];
                        let st = match &b.storage {
                            crate::tile::Storage::Const(_) => "C".into(),
                            x => format!("{x:?}"),
                        };
                        let idx: Vec<String> = a.index.iter().map(|e| e.display(&name).to_string()).collect();
                        format!("{}<{:?} {}>[{}]", b.name, b.shape, st, idx.join(", "))
                    })
                    .collect();
                let op = match &stmt.op {
                    StmtOp::Map { .. } => "map",
                    StmtOp::Mma { .. } => "mma",
                    StmtOp::Copy { .. } => "copy",
                    StmtOp::Reduce { .. } => "reduce",
                    StmtOp::Gather { .. } => "gather",
                };
                println!("{:w$}{op} {} ({}) {}", "", stmt.name, dims.join(" "), acc.join("  "), w = depth * 2);
            }
        }
    }
}

fn t(shape: &[u64]) -> Tensor {
    let n: u64 = shape.iter().product();
    Tensor::from_f32(shape, &vec![0.5; n as usize]).unwrap()
}

#[test]
fn layer() {
    let mut g = Graph::new("layer");
    let s = 14;
    let x = g.add_input("x", TensorType::new(DType::F32, [1, s, 384]).unwrap());
    let mut dense = |g: &mut Graph, x: Value, o: u64, i: u64, n: &str| {
        let w = g.add_const(format!("{n}.w"), t(&[o, i]));
        let w = g.add_node(format!("{n}.wt"), Op::Transpose { perm: vec![1, 0] }, &[w]).unwrap();
        let b = g.add_const(format!("{n}.b"), t(&[o]));
        let y = g.add_node(format!("{n}.mm"), Op::MatMul, &[x, w]).unwrap();
        g.add_node(format!("{n}.add"), Op::Binary(BinaryOp::Add), &[y, b]).unwrap()
    };
    let heads = |g: &mut Graph, x: Value, n: &str| {
        let r = g.add_node(format!("{n}.r"), Op::Reshape { shape: vec![1, s, 12, 32] }, &[x]).unwrap();
        g.add_node(format!("{n}.t"), Op::Transpose { perm: vec![0, 2, 1, 3] }, &[r]).unwrap()
    };
    let q = dense(&mut g, x, 384, 384, "q");
    let k = dense(&mut g, x, 384, 384, "k");
    let v = dense(&mut g, x, 384, 384, "v");
    let (q, k, v) = (heads(&mut g, q, "q"), heads(&mut g, k, "k"), heads(&mut g, v, "v"));
    let m = g.add_input("mask", TensorType::new(DType::F32, [1, 1, 1, s]).unwrap());
    let a = g.add_node("att", Op::Attention { scale: 0.2 }, &[q, k, v, m]).unwrap();
    let a = g.add_node("att.t", Op::Transpose { perm: vec![0, 2, 1, 3] }, &[a]).unwrap();
    let a = g.add_node("att.r", Op::Reshape { shape: vec![1, s, 384] }, &[a]).unwrap();
    let o = dense(&mut g, a, 384, 384, "o");
    let r = g.add_node("res", Op::Binary(BinaryOp::Add), &[o, x]).unwrap();
    let (ga, be) = (g.add_const("ga", t(&[384])), g.add_const("be", t(&[384])));
    let ln = g.add_node("ln", Op::LayerNorm { axis: 2, epsilon: 1e-12 }, &[r, ga, be]).unwrap();
    let f = dense(&mut g, ln, 1530, 384, "f1");
    let f = g.add_node("gelu", Op::Gelu(GeluKind::Erf), &[f]).unwrap();
    g.add_output("y", f);
    let img = g.add_input("img", TensorType::new(DType::F32, [2, 3, 9, 8]).unwrap());
    let w = g.add_const("cw", t(&[7, 3, 3, 3]));
    let b = g.add_const("cb", t(&[7]));
    let attrs = ConvAttrs { strides: vec![1, 1], dilations: vec![1, 1], pads: vec![(1, 1), (1, 1)], groups: 1 };
    let c = g.add_node("conv", Op::Conv(attrs), &[img, w, b]).unwrap();
    let z = g.add_const("zero", Tensor::scalar_f32(0.0));
    let c = g.add_node("relu", Op::Binary(BinaryOp::Max), &[c, z]).unwrap();
    g.add_output("c", c);
    let naive = crate::lower::lower(&g).unwrap();
    show(&naive);
    let target = Cpu(builtin("x86-64-v3").unwrap());
    let s = schedule(&naive, &target, &Options { level: Level::Full }).unwrap();
    println!("{}", s.schedule);
    show(&s.program);
    for c in &s.costs {
        println!("{:?}", c);
    }
    let again = apply(&naive, &Schedule::parse(&s.schedule.to_string()).unwrap(), &target).unwrap();
    assert_eq!(again, s.program);
}
