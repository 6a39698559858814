//! probe
mod common;
use aic_frontend::onnx::schema::*;
use common::*;
use std::time::Instant;
#[test]
fn probe() {
    for n in [1000usize, 2000, 4000] {
        for kind in ["chain", "wide", "gather", "reshape"] {
            let mut m = Model::new(17).input("x", data_type::FLOAT, &["8", "8"]).input("i", data_type::INT64, &["8"]);
            let mut last = "x".to_string();
            let mut outs = vec![];
            for i in 0..n {
                let name = format!("v{i}");
                match kind {
                    "chain" => m = m.node("Exp", &[&last], &[&name]),
                    "wide" => m = m.node_with("Softmax", &["x"], &[&name], vec![]),
                    "gather" => m = m.node("Gather", &["x", "i"], &[&name]),
                    _ => {
                        m = if i % 2 == 0 {
                            m.node_with("Transpose", &[&last], &[&name], vec![])
                        } else {
                            m.node("Exp", &[&last], &[&name])
                        }
                    }
                }
                last = name.clone();
                outs.push(name);
            }
            if kind == "chain" || kind == "reshape" {
                m = m.output(&last);
            } else {
                let refs: Vec<&str> = outs.iter().map(|s| s.as_str()).collect();
                m = m.node_with("Concat", &refs, &["all"], vec![attr_int("axis", 0)]).output("all");
            }
            let t = Instant::now();
            let mut g = m.read().unwrap();
            let a = t.elapsed();
            aic_ir::graph::passes::run(&mut g, Default::default(), &mut |_, _, _, _| {}).unwrap();
            let b = t.elapsed();
            let p = aic_ir::lower::lower(&g).unwrap();
            let c = t.elapsed();
            aic_ir::tile::verify::verify(&p).unwrap();
            let d = t.elapsed();
            let s = compile::scheduled(&p).unwrap();
            let e = t.elapsed();
            let plan = aic_ir::plan::plan(&s).unwrap();
            let f = t.elapsed();
            aic_ir::plan::check(&s, &plan).unwrap();
            println!(
                "{kind} {n}: read {a:?} passes {:?} lower {:?} verify {:?} schedule {:?} plan {:?} check {:?}",
                b - a,
                c - b,
                d - c,
                e - d,
                f - e,
                t.elapsed() - f
            );
        }
    }
}
