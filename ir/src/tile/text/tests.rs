//! Tests of the text form of tile programs: round trips, and what does not parse.

use crate::lower::lower;
use crate::machine::{Machine, Target, builtin};
use crate::schedule::{Level, Options, schedule};
use crate::testing::{Rng, random_graph};
use crate::tile::{KernelData, Program, interp};

struct Cpu(Machine);

impl Target for Cpu {
    fn machine(&self) -> &Machine {
        &self.0
    }
    fn legal(&self, _: &Program, _: &KernelData) -> Result<(), String> {
        Ok(())
    }
}

/// Everything that the grammar has.
const EVERYTHING: &str = r#"program "all \"of\" it" {
  b0 "x": f32[4, 8] = input 0
  b1 "ids": i64[3] = input 1
  b2 "w": f32[8, 8] (0/4:2)(1:8)(0%4:4) = const #50
  b3 "bias": f32[2] = const [-0.5, nan #7fc00001]
  b4 "one": f16[] = const f16[1] [inf]
  b5 "y": f32[4, 8] = output 0
  b6 "t": i8[3, 5] (1:6)(0:3) = temp
  b7 "acc": f32[4, 4] = reg
  b8 "ring": f32[9, 8] (0%3:3)(1:8) = scratch
  b9 "none": bool[1] () = temp
  inputs [b0, b1]
  outputs [b5]
  check b1 < 30522
  kernel matmul_3 from "/dense/MatMul", "add \\ one" {
    parallel i 2 {
      unroll "j 1" 2 {
        map init [d0:4, d1:4v] b7[d0, d1] {
          e0 = f32 0.0
          e1 = f32 -1e-45
          e2 = b0[((i + d0) % 4), -"j 1" + 7] else f32 -inf
          e3 = add e0, e1
          e4 = lt e3, e2
          e5 = select e4, e0, e1
          e6 = fma e5, e5, e5
          e7 = cast i64 e6
          e8 = i64 -9223372036854775808
          e9 = xor e7, e8
          e10 = cast f32 e9
          e11 = bitcast i32 e10
          e12 = bitcast f32 e11
          e13 = erf e12
          e14 = pow e13, e0
          e15 = sqrt e14
          e16 = bool 1
          e17 = not e16
          e18 = select e17, e14, e15
        }
        loop p 8 {
          mma mma [d0:4, d1:4v] b7[d0, d1] += b0[2*i + d0 - 1, p] else f32 0.0 * b2[4*"j 1" + d1, p] fused by f32_gemm_4x4
        }
        copy store [d0:4, d1:4v] b5[d0, 4*"j 1" + d1] = b7[d0, d1]
        mma plain [] b7[0, 0] += b7[1, 1] * b7[2, 2]
      }
    }
  }
  kernel "max 1" {
    reduce r [d0:4, k0:8] b5[d0, 0] = max b5[d0, ((2*k0 + ((d0 - 3*k0) / 5)) / 3) - 9223372036854775808]
    gather g [d0:3, d1:8] b8[d0, d1] = b2[0, d1] axis 0 at b1[d0]
  }
}
"#;

fn side() -> crate::text::constant::SideConsts {
    let mut side = crate::text::constant::SideConsts::new();
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    side.add(&crate::types::Tensor::from_f32([8, 8], &values).unwrap());
    side
}

/// The text with the hash of the constant in [`side`] in place.
fn everything() -> String {
    let parts = side().file_parts();
    let hash = crate::text::constant::ContentHash::of(&parts[2]);
    EVERYTHING.replace("#50", &hash.to_string())
}

#[test]
fn everything_reads_back_as_written() {
    let text = everything();
    let program = Program::parse(&text, Some(&side())).unwrap();
    assert_eq!(program.to_string(), text);
    assert_eq!(program.side_consts(), side());
    assert_eq!(Program::parse(&program.to_string(), Some(&side())).unwrap(), program);
}

#[test]
fn errors_have_their_place() {
    let text = everything();
    let cases = [
        ("fused by", "fused buy", 40, "`buy` is neither a loop nor a statement"),
        ("d0:4, d1:4v] b5", "d0:4, d1:4w] b5", 42, "expected `,` or `]`, found `w`"),
        ("b6 \"t\"", "b7 \"t\"", 8, "expected `b6`: buffers are numbered in order"),
        ("e1 = f32", "e2 = f32", 20, "expected `e1`: values are numbered in order"),
        ("b0[2*i", "b0[2*k", 40, "`k` is neither a dimension nor a loop around"),
        ("% 4)", "% 1)", 21, "a divisor must be at least 2"),
        ("= temp", "= tmp", 8, "`tmp` is not a storage"),
        ("axis 0 at b1", "axis 0 at b10", 49, "there is no b10"),
        ("= max b5", "= avg b5", 48, "`avg` does not combine"),
        ("check b1 <", "check b1 >", 14, "expected `<`, found `>`"),
        ("(0/4:2)", "(0/0:2)", 4, "must not be 0"),
        ("- 9223372036854775808", "- 9223372036854775809", 48, "the number does not fit 64 bits"),
    ];
    for (from, to, line, message) in cases {
        assert!(text.contains(from), "{from}");
        let error = Program::parse(&text.replacen(from, to, 1), Some(&side())).unwrap_err();
        assert_eq!((error.line, error.message.as_str()), (line, message), "{to}");
    }
    assert!(Program::parse(&text, None).is_err());
}

#[test]
fn damaged_texts_do_not_panic() {
    let text = everything();
    let side = side();
    let mut random = Rng::new(7);
    for _ in 0..3000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => {
                    bytes.remove(at);
                }
                2 => bytes[at] = *random.pick(b"0123456789{}[]()/%*+-\"#evbdx, \n"),
                _ => {
                    let end = (at + random.below(40) as usize).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = random.below(bytes.len() as u64) as usize;
                    bytes.splice(to..to, piece);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(program) = Program::parse(&text, Some(&side))
        {
            let printed = program.to_string();
            assert_eq!(Program::parse(&printed, Some(&side)).unwrap().to_string(), printed);
        }
    }
}

#[test]
fn deep_nests_are_refused() {
    let nest = |n: usize| {
        let (open, close) = ("loop i 2 { ".repeat(n), "}".repeat(n));
        Program::parse(&format!("program \"\" {{ inputs [] outputs [] kernel k {{ {open}{close} }} }}"), None)
    };
    assert!(nest(60).is_ok());
    assert!(nest(100_000).is_err());
    let division = |n: usize| {
        let (open, close) = ("((".repeat(n), ") / 2)".repeat(n));
        let copy = format!("copy c [d:2] b0[{open}d{close}] = b0[d]");
        Program::parse(
            &format!("program \"\" {{ b0 \"\": f32[2] = temp inputs [] outputs [] kernel k {{ {copy} }} }}"),
            None,
        )
    };
    assert!(division(60).is_ok());
    assert!(division(100_000).is_err());
}

/// Random programs, naive and scheduled: the text reads back, prints the same, and computes the same.
#[test]
fn programs_survive() {
    let target = Cpu(builtin("x86-64-v3").unwrap());
    for seed in 0..24 {
        let (graph, inputs) = random_graph(seed, 6);
        let naive = lower(&graph).unwrap();
        let scheduled = schedule(&naive, &target, &Options { level: Level::Full });
        for program in std::iter::once(naive).chain(scheduled.ok().map(|s| s.program)) {
            let text = program.to_string();
            let side = program.side_consts();
            let read = Program::parse(&text, Some(&side)).unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert_eq!(read.to_string(), text);
            assert_eq!(interp::run(&read, &inputs), interp::run(&program, &inputs), "{text}");
        }
    }
}
