//! Tests of the verifier of tile programs: each rule broken once, and nothing refused that is right.

use super::*;
use crate::lower::lower;
use crate::machine::{Target, builtin};
use crate::schedule::{Level, Options, schedule};
use crate::testing::random_graph;
use crate::tile::interp;
use crate::tile::{Access, Affine, Item, Loop, StmtData};

struct Cpu(Machine);

impl Target for Cpu {
    fn machine(&self) -> &Machine {
        &self.0
    }
    fn legal(&self, _: &Program, _: &KernelData) -> Result<(), String> {
        Ok(())
    }
}

/// A product in tiles with a peeled rest, a gather, a recurrence, a softmax-like row and a rolling window.
const TEXT: &str = r#"program "all" {
  b0 "x": f32[4, 10] = input 0
  b1 "ids": i64[3] = input 1
  b2 "table": f32[7, 10] = const #77
  b3 "w": f32[3, 2] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
  b4 "acc": f32[2, 4] = reg
  b5 "rest": f32[2, 2] = reg
  b6 "y": f32[4, 10] = output 0
  b7 "rows": f32[3, 10] = temp
  b8 "row": f32[10] = scratch
  b9 "sum": f32[1] = reg
  b10 "z": f32[3, 10] = output 1
  b11 "state": f32[6, 10] = temp
  b12 "q": i8[8] = temp
  b13 "q_sum": i32[1] = temp
  b14 "ring": f32[6, 2] (0%2:2)(1:2) = scratch
  inputs [b0, b1]
  outputs [b6, b10]
  check b1 < 7
  kernel product {
    parallel i 2 {
      loop j 2 {
        map init [d0:2, d1:4v] b4[d0, d1] {
          e0 = f32 0.0
        }
        loop p 10 {
          mma mma [d0:2, d1:4v, k0:1] b4[d0, d1] += b0[2*i + d0, p + k0] * b2[d1 + 1, 4*j + d1] fused
        }
        copy store [d0:2, d1:4v] b6[2*i + d0, 4*j + d1] = b4[d0, d1]
      }
      map init_t [d0:2, d1:2] b5[d0, d1] {
        e0 = b0[2*i + d0, d1 + 9] else f32 0.0
      }
      copy store_t [d0:2, d1:2] b6[2*i + d0, d1 + 8] = b5[d0, d1]
    }
  }
  kernel embed {
    gather gather [d0:3, d1:10v] b7[d0, d1] = b2[0, d1] axis 0 at b1[d0]
  }
  kernel rows {
    parallel r 3 {
      map zero [] b9[0] {
        e0 = f32 0.0
      }
      map exp [d1:8v] b8[d1] {
        e0 = b7[r, d1]
        e1 = exp e0
      }
      loop t 2 {
        map exp_t [d1:1] b8[t + 8] {
          e0 = b7[r, t + 8]
          e1 = exp e0
        }
      }
      reduce sum [k0:10] b9[0] = add b8[k0]
      map norm [d1:10v] b10[r, d1] {
        e0 = b8[d1]
        e1 = b9[0]
        e2 = div e0, e1
      }
    }
  }
  kernel recurrence {
    loop t 6 {
      map step [d0:10v] b11[t, d0] {
        e0 = b11[t - 1, d0] else f32 1.0
        e1 = mul e0, e0
      }
    }
    map quantize [d0:8] b12[d0] {
      e0 = b11[((d0 + 1) / 2), 3]
      e1 = cast i8 e0
    }
    map q_zero [] b13[0] {
      e0 = i32 0
    }
    mma q_mma [k0:8] b13[0] += b12[k0] * b12[7 - k0]
    copy window [d0:2, d1:2] b14[d0, d1] = b11[d0, d1]
    loop s 4 {
      copy roll [d1:2] b14[s + 2, d1] = b14[s, d1]
    }
  }
}
"#;

fn program() -> Program {
    let values: Vec<f32> = (0..70).map(|i| i as f32 / 70.0).collect();
    let tensor = crate::types::Tensor::from_f32([7, 10], &values).unwrap();
    let hash = crate::text::constant::ContentHash::of(tensor.bytes());
    let mut side = crate::text::constant::SideConsts::new();
    side.add(&tensor);
    Program::parse(&TEXT.replace("#77", &hash.to_string()).replace("7 - k0", "-k0 + 7"), Some(&side)).unwrap()
}

/// The program with one piece of its text replaced.
fn edited(from: &str, to: &str) -> Program {
    let program = program();
    let text = program.to_string();
    assert!(text.contains(from), "{from} in\n{text}");
    let changed = text.replacen(from, to, 1);
    Program::parse(&changed, Some(&program.side_consts())).unwrap_or_else(|e| panic!("{to}: {e}"))
}

#[test]
fn a_right_program_passes_and_runs() {
    let program = program();
    let info = verify(&program).unwrap_or_else(|e| panic!("{e}"));
    let x = crate::types::Tensor::from_f32([4, 10], &[0.5; 40]).unwrap();
    let ids = crate::types::Tensor::from_i64([3], &[0, -7, 6]).unwrap();
    interp::run(&program, &[x, ids]).unwrap();
    let product = info.kernels.values().next().unwrap();
    let names: Vec<&str> = product.params.iter().map(|&b| program.buffers[b].name.as_str()).collect();
    assert_eq!(names, ["x", "table", "y"]);
    // init 2*2*8, mma 2*2*10*8, store 2*2*8, init_t 2*4, store_t 2*4
    assert_eq!(product.points, 32 + 320 + 32 + 8 + 8);
    assert_eq!(product.flops, 640);
    assert_eq!(product.bytes_written, 160);
    // All of x, and four rows of eight columns of the table.
    assert_eq!(product.bytes_read, 160 + 4 * 8 * 4);
    assert_eq!(product.register_bytes, 32);
}

#[test]
fn broken_rules_are_named() {
    let cases = [
        // Entities.
        ("\"rows\": f32", "\"x\": f32", "b7 \"x\": the name `x` is used twice"),
        ("kernel embed", "kernel rows", "kernel rows: k2: the name `rows` is used twice"),
        ("map init_t", "map init", "kernel product: s3 \"init\": the name `init` is used twice"),
        (
            "loop s 4 {\n      copy roll [d1:2] b14[s + 2, d1] = b14[s, d1]",
            "loop t 4 {\n      copy roll [d1:2] b14[t + 2, d1] = b14[t, d1]",
            "kernel recurrence: l1 \"t\": the name `t` is used twice",
        ),
        (
            "gather [d0:3, d1:10v]",
            "gather [d0:3, d1:10v, d0:1]",
            "kernel embed: s0 \"gather\": the name `d0` is used twice",
        ),
        (
            "reduce sum [k0:10] b9[0] = add b8[k0]",
            "reduce sum [r:10] b9[0] = add b8[r]",
            "kernel rows: s3 \"sum\": the dimension `r` has the name of a loop around it",
        ),
        ("loop p 10 {", "loop p 0 {", "kernel product: l2 \"p\": an extent is 0"),
        ("loop p 10 {", "loop p 9223372036854775807 {", "kernel product: s1 \"mma\": more than 2^60 points"),
        (
            "\"rows\": f32[3, 10] =",
            "\"rows\": f32[3, 10] (1:10) =",
            "b7 \"rows\": axis 0 is not stored whole: the layout is a ring there, or its blocks do not nest",
        ),
        (
            "\"rows\": f32[3, 10] =",
            "\"rows\": f32[3, 10] (0:3)(1:9) =",
            "b7 \"rows\": storage dimension 1 has extent 9, but holds 10 positions",
        ),
        (
            "\"rows\": f32[3, 10] =",
            "\"rows\": f32[3, 10] (0:3)(1:99999999) =",
            "b7 \"rows\": the padding of the layout multiplies its size: 299999997 elements for 30",
        ),
        ("\"x\": f32[4, 10] =", "\"x\": f32[4, 10] (1:10)(0:4) =", "b0 \"x\": the caller's buffers are row-major"),
        (
            "= const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]",
            "= const f32[1] [1.0]",
            "b3 \"w\": the constant is f32[1], of another element type or size",
        ),
        ("inputs [b0, b1]", "inputs [b1, b0]", "b1 \"ids\": input 0 is a buffer of another storage or number"),
        ("outputs [b6, b10]", "outputs [b6]", "b10 \"z\": output 1 of the interface is not this buffer"),
        ("check b1 < 7", "check b0 < 7", "b0 \"x\": an index is f32, but must be i32 or i64"),
        ("check b1 < 7", "check b1 < 0", "b1 \"ids\": a check has the bound 0"),
        // Accesses.
        (
            "= b4[d0, d1]",
            "= b4[d0]",
            "kernel product: s2 \"store\": b4 has 2 dimensions, but the access has 1 coordinates",
        ),
        (
            "b6[2*i + d0, 4*j + d1]",
            "b6[2*i + d0, 4*j + d1 + 3]",
            "kernel product: s2 \"store\": coordinate 1 of b6 takes 3 to 10, which is outside 0 to 10, exclusive",
        ),
        (
            "b11[((d0 + 1) / 2), 3]",
            "b11[((d0 + 1) / 2) - 1, 3]",
            "kernel recurrence: s1 \"quantize\": coordinate 0 of b11 takes -1 to 3, which is outside 0 to 6, exclusive",
        ),
        (
            "b7[d0, d1] = b2",
            "b0[d0, d1] = b2",
            "kernel embed: s0 \"gather\": b0 is written, but is an input or a constant",
        ),
        ("else f32 1.0", "else i32 1", "kernel recurrence: s0 \"step\": the fill value is a i32, the buffer holds f32"),
        (
            "reduce sum [k0:10] b9[0] =",
            "reduce sum [k0:10] b9[0] else f32 0.0 =",
            "kernel rows: s3 \"sum\": a write has no fill value",
        ),
        (
            "b5[d0, d1] {",
            "b5[i, d1] {",
            "kernel product: s3 \"init_t\": b5 lies in registers, but is indexed by the loop \"i\"",
        ),
        // Types.
        ("e1 = cast i8 e0", "e1 = cast i16 e0", "kernel recurrence: s1 \"quantize\": the value is i16, but must be i8"),
        ("e1 = mul e0, e0", "e1 = xor e0, e0", "kernel recurrence: s0 \"step\": e1 (xor) does not take f32, f32"),
        (
            "\"q_sum\": i32",
            "\"q_sum\": u32",
            "kernel recurrence: s2 \"q_zero\": the value is i32, but must be u32\nkernel recurrence: s3 \"q_mma\": the accumulator is u32, but must be a type that holds sums of i8",
        ),
        ("* b12[-k0 + 7]", "* b11[0, k0]", "kernel recurrence: s3 \"q_mma\": the right operand is f32, but must be i8"),
        (
            "axis 0 at b1[d0]",
            "axis 0 at b0[d0, 0]",
            "kernel embed: s0 \"gather\": the index is f32, but must be i32 or i64",
        ),
        ("axis 0 at", "axis 2 at", "kernel embed: s0 \"gather\": b2 has no axis 2 that data could index"),
        (
            "= b2[0, d1] axis",
            "= b2[1, d1] axis",
            "kernel embed: s0 \"gather\": the coordinate that data replaces must be written as 0",
        ),
        (
            "check b1 < 7",
            "check b1 < 8",
            "kernel embed: s0 \"gather\": the indices in b1 are not proved to be below 7: no check, or it comes too early",
        ),
        // Order.
        (
            "init [d0:2, d1:4v]",
            "init [d0:2v, d1:4v]",
            "kernel product: s0 \"init\": more than one dimension is executed in vectors",
        ),
        (
            "q_mma [k0:8]",
            "q_mma [k0:8v]",
            "kernel recurrence: s3 \"q_mma\": lanes of `k0` write the same element of b13",
        ),
        (
            "e0 = b11[t - 1, d0] else",
            "e0 = b11[t, d0 - 1] else",
            "kernel recurrence: s0 \"step\": lanes of `d0` read what others write in b11",
        ),
        (
            "    loop t 6 {",
            "    parallel t 6 {",
            "kernel recurrence: l0 \"t\": iterations may touch the same elements of b11",
        ),
        (
            "parallel r 3 {\n      map zero [] b9[0] {\n        e0 = f32 0.0\n      }",
            "parallel r 3 {",
            "kernel rows: l0 \"r\": iterations may touch the same elements of b9",
        ),
        ("map exp [d1:8v]", "map exp [d1:7v]", "kernel rows: l0 \"r\": iterations may touch the same elements of b8"),
        (
            "b6[2*i + d0, d1 + 8]",
            "b6[-2*i + d0 + 2, d1 + 8]",
            "kernel product: l0 \"i\": iterations may touch the same elements of b6",
        ),
        ("b7[r, d1]", "b8[d1]", "kernel rows: l0 \"r\": iterations may touch the same elements of b8"),
        (
            "copy window [d0:2, d1:2] b14[d0, d1] = b11[d0, d1]",
            "copy window [d0:2, d1:2] b8[d1] = b11[d0, d1]",
            "kernel recurrence: k3: b8 is private to a kernel, but another one uses it too",
        ),
        // Coverage.
        (
            "copy store_t [d0:2, d1:2] b6[2*i + d0, d1 + 8] = b5[d0, d1]\n",
            "",
            "b6 \"y\": not every element is proved to be written",
        ),
        (
            "gather gather [d0:3",
            "gather gather [d0:2",
            "kernel rows: s1 \"exp\": b7 is read where it may not have been written",
        ),
        (
            "map q_zero [] b13[0] {\n      e0 = i32 0\n    }\n",
            "",
            "kernel recurrence: s2 \"q_mma\": b13 is read where it may not have been written",
        ),
    ];
    let mut failures = Vec::new();
    for (from, to, expected) in cases {
        let errors = verify(&edited(from, to)).map(|_| "no error".to_owned()).unwrap_or_else(|e| e.to_string());
        if !errors.starts_with(expected) {
            failures.push(format!("{to}:\n{errors}\nexpected:\n{expected}\n"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn steps_are_checked() {
    let mut p = program();
    let run = p.steps[1];
    p.steps.push(run);
    let check = p.steps.remove(0);
    p.steps.insert(1, check);
    let errors = verify(&p).unwrap_err();
    let rules: Vec<Rule> = errors.0.into_iter().map(|e| e.rule).collect();
    assert_eq!(rules, [Rule::LateCheck, Rule::RunsTwice]);
}

#[test]
fn wrong_handles_are_reported() {
    use cranelift_entity::EntityRef;
    let mut p = program();
    let k = p.kernels.keys().next().unwrap();
    p.kernels[k].body.push(Item::Stmt(Stmt::new(99)));
    p.kernels[k].body.push(Item::Stmt(Stmt::new(0)));
    p.kernels[k].body.push(Item::Loop(Loop::new(99), vec![]));
    p.inputs.push(Buffer::new(99));
    p.steps.push(Step::Run(Kernel::new(99)));
    let rules: Vec<Rule> = verify(&p).unwrap_err().0.into_iter().map(|e| e.rule).collect();
    let b = Rule::NoBuffer(Buffer::new(99));
    let (s, l) = (Rule::NoStmt(Stmt::new(99)), Rule::NoLoop(Loop::new(99)));
    assert_eq!(rules, [b, Rule::NoKernel(Kernel::new(99)), s, Rule::Twice, l]);
    let mut p = program();
    let access = |b: usize, index: Affine| Access::new(Buffer::new(b), vec![index]);
    let op = StmtOp::Copy { dst: access(8, Affine::dim(7)), src: access(98, Affine::of_loop(Loop::new(5))) };
    let stmt = p.kernels[k].stmts.push(StmtData { name: "bad".into(), dims: vec![], op, intrinsic: None });
    p.kernels[k].body.push(Item::Stmt(stmt));
    let rules: Vec<Rule> = verify(&p).unwrap_err().0.into_iter().map(|e| e.rule).collect();
    assert!(rules.contains(&Rule::DimScope(7)) && rules.contains(&Rule::NoBuffer(Buffer::new(98))), "{rules:?}");
}

#[test]
fn registers_are_counted_for_a_machine() {
    let machine = builtin("x86-64-v3").unwrap();
    assert!(verify_for(&program(), &machine).is_ok());
    let large = edited("\"rest\": f32[2, 2] = reg", "\"rest\": f32[2, 200] = reg");
    assert!(verify(&large).is_ok());
    let rule = verify_for(&large, &machine).unwrap_err().0.remove(0).rule;
    assert_eq!(rule, Rule::Registers { bytes: 1600, limit: machine.vector_registers * machine.vector_bytes });
}

/// What lowering and scheduling make is right.
#[test]
fn programs_of_random_graphs_pass() {
    let target = Cpu(builtin("x86-64-v3").unwrap());
    for seed in 0..40 {
        let (graph, _) = random_graph(seed, 6);
        let naive = lower(&graph).unwrap();
        verify(&naive).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{naive}"));
        for level in [Level::Tiled, Level::Small, Level::Full] {
            if let Ok(scheduled) = schedule(&naive, &target, &Options { level }) {
                let program = scheduled.program;
                verify(&program).unwrap_or_else(|e| panic!("seed {seed}, {level:?}: {e}\n{program}"));
            }
        }
    }
}

/// Damaged texts give errors or verified programs, never a panic; what is verified and runs, does so without complaint
/// about memory.
#[test]
fn damaged_programs_do_not_panic() {
    let text = program().to_string();
    let side = program().side_consts();
    let mut random = crate::testing::Rng::new(3);
    let mut passed = 0;
    for _ in 0..2000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=random.below(2) {
            let at = random.below(bytes.len() as u64) as usize;
            if bytes[at].is_ascii_digit() {
                bytes[at] = *random.pick(b"0123456789");
            } else {
                bytes[at] = *random.pick(b"+-*/%vbdijptkr ");
            }
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let Ok(program) = Program::parse(&text, Some(&side)) else { continue };
        if verify(&program).is_err() {
            continue;
        }
        passed += 1;
        let inputs: Vec<_> = program
            .inputs
            .iter()
            .map(|&b| {
                let data = &program.buffers[b];
                let ty = crate::types::TensorType::new(data.dtype, data.shape.clone()).unwrap();
                let bytes = vec![0u8; ty.bytes() as usize];
                crate::types::Tensor::new(ty, bytes.into()).unwrap()
            })
            .collect();
        if let Err(e) = interp::run(&program, &inputs) {
            // Values of earlier iterations are not followed.
            assert!(matches!(e.kind, interp::InterpErrorKind::Unwritten { .. }), "{e}\n{program}");
        }
    }
    assert!(passed > 100, "{passed}");
}

/// A copy and a scatter of rows to it.
const SCATTER: &str = r#"program "scatter" {
  b0 "x": f32[4, 8] = input 0
  b1 "ids": i64[3] = input 1
  b2 "u": f32[3, 8] = input 2
  b3 "y": f32[4, 8] = output 0
  inputs [b0, b1, b2]
  outputs [b3]
  check b1 < 4
  kernel k {
    copy copy [d0:4, d1:8] b3[d0, d1] = b0[d0, d1]
    scatter scatter [k0:3, k1:8v] b3[0, k1] axis 0 at b1[k0] = add b2[k0, k1]
  }
}
"#;

#[test]
fn scatters_need_what_they_could_write() {
    let check = |from: &str, to: &str| {
        assert!(SCATTER.contains(from), "{from}");
        let program = Program::parse(&SCATTER.replacen(from, to, 1), None).unwrap_or_else(|e| panic!("{to}: {e}"));
        verify(&program).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
    };
    assert_eq!(check("add b2", "add b2"), "");
    assert_eq!(check("add b2", "b2"), "");
    let scatter = |rule: &str| format!("kernel k: s1 \"scatter\": {rule}");
    let unwritten = scatter("b3 is read where it may not have been written");
    assert_eq!(
        check("copy copy [d0:4", "copy copy [d0:3"),
        format!("{unwritten}\nb3 \"y\": not every element is proved to be written")
    );
    assert_eq!(
        check("check b1 < 4", "check b1 < 5"),
        scatter("the indices in b1 are not proved to be below 4: no check, or it comes too early")
    );
    assert_eq!(
        check("b3[0, k1] axis", "b3[1, k1] axis"),
        scatter("the coordinate that data replaces must be written as 0")
    );
    assert_eq!(check("axis 0 at", "axis 2 at"), scatter("b3 has no axis 2 that data could index"));
    assert_eq!(check("k0:3, k1:8v", "k0:3v, k1:8"), scatter("lanes of `k0` write the same element of b3"));
    let in_loop = |kind: &str, var: &str| {
        let body = format!(
            "{kind} r 4 {{\n      scatter scatter [k0:3, k1:2] b3[0, {var}] axis 0 at b1[k0] = b2[k0, {var}]\n    }}"
        );
        check("scatter scatter [k0:3, k1:8v] b3[0, k1] axis 0 at b1[k0] = add b2[k0, k1]", &body)
    };
    assert_eq!(in_loop("parallel", "2*r + k1"), "");
    assert_eq!(in_loop("parallel", "k1"), "kernel k: l0 \"r\": iterations may touch the same elements of b3");
}
