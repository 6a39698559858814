//! Hashes of programs and structural keys of kernels, both over the canonical text.
//!
//! A schedule is tied to a program by [`program_hash`]. Kernels with equal [keys](kernel_key) are the same function of their
//! parameters, so that six equal layers share one piece of code.

use std::fmt::{self, Write};

use rustc_hash::FxHashMap;

use super::text::{KernelPrinter, WithoutElements, print_type};
use super::{Buffer, Item, KernelData, Program, Space, Storage};

/// FNV-1a, 64 bits (Fowler, Noll, Vo), fed by formatting.
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for &b in s.as_bytes() {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

/// Hash of what runs: buffers, interface, steps and kernels. The program's name and the elements of constants do not enter
/// it, since no schedule depends on them; so renaming or retraining a model keeps its schedules valid.
pub fn program_hash(program: &Program) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    // Writing to a hash cannot fail.
    let _ok = write!(fnv, "{}", WithoutElements(program));
    fnv.0
}

/// A kernel as a function: what distinguishes its code, and what it is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelKey {
    /// Canonical text: equal for kernels that are the same function of their parameters.
    pub text: String,
    /// The buffers that are passed, in order of first use. Registers are not among them; scratch memory is, as it
    /// lies in the arena.
    pub params: Vec<Buffer>,
}

/// The structural key of a kernel. Names do not enter it; element types, shapes and layouts of buffers do, and whether a
/// buffer is private, the caller's (which may be aligned to its elements only), or the program's.
///
/// Buffers that the program does not have are left out, for the verifier to report.
pub fn kernel_key(program: &Program, kernel: &KernelData) -> KernelKey {
    let mut names: FxHashMap<Buffer, String> = FxHashMap::default();
    let mut params = Vec::new();
    let mut registers = 0;
    let mut text = String::new();
    for b in kernel.buffers() {
        let Some(data) = program.buffers.get(b) else { continue };
        let (name, place) = match data.storage {
            Storage::Local(Space::Reg) => (format!("r{registers}"), "reg"),
            Storage::Local(Space::Scratch) => (format!("p{}", params.len()), "scratch"),
            Storage::Input(_) | Storage::Output(_) => (format!("p{}", params.len()), "caller"),
            Storage::Const(_) | Storage::Temp => (format!("p{}", params.len()), "own"),
        };
        if place == "reg" {
            registers += 1;
        } else {
            params.push(b);
        }
        let ty = fmt::from_fn(|f| print_type(f, data.dtype, &data.shape));
        // Writing to a string cannot fail.
        let _ok = writeln!(text, "{name}: {ty} {} {place}", data.layout);
        names.insert(b, name);
    }
    let anonymous = anonymous(kernel);
    let buffer = |b: Buffer| names.get(&b).cloned().unwrap_or_default();
    let printer = KernelPrinter { kernel: &anonymous, buffer: &buffer };
    let _ok = write!(text, "{}", fmt::from_fn(|f| printer.fmt(f)));
    KernelKey { text, params }
}

/// The kernel with names that follow from the structure alone.
fn anonymous(kernel: &KernelData) -> KernelData {
    let mut out = KernelData { name: "k".into(), sources: Vec::new(), ..kernel.clone() };
    let mut next = 0;
    name_loops(&mut out, &kernel.body, &mut next);
    for stmt in out.stmts.values_mut() {
        stmt.name = "s".into();
        for (i, d) in stmt.dims.iter_mut().enumerate() {
            d.name = format!("d{i}");
        }
    }
    out
}

fn name_loops(out: &mut KernelData, body: &[Item], next: &mut usize) {
    for item in body {
        if let Item::Loop(l, inner) = item {
            if let Some(data) = out.loops.get_mut(*l) {
                data.name = format!("l{next}");
            }
            *next += 1;
            name_loops(out, inner, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::Step;

    const TEXT: &str = r#"program "p" {
  b0 "x": f32[4, 8] = input 0
  b1 "t": f32[4, 8] = temp
  b2 "u": f32[4, 8] = temp
  b3 "v": f32[4, 8] = temp
  b4 "y": f32[4, 8] = output 0
  b5 "acc": f32[8] = reg
  b6 "c": f32[4, 8] = const #00
  inputs [b0]
  outputs [b4]
  kernel one from "layer 1" {
    parallel i 4 {
      copy load [d0:8v] b5[d0] = b1[i, d0]
      copy store [d0:8v] b2[i, d0] = b5[d0]
    }
  }
  kernel two from "layer 2" {
    parallel row 4 {
      copy get [x:8v] b5[x] = b2[row, x]
      copy put [x:8v] b3[row, x] = b5[x]
    }
  }
  kernel three {
    parallel i 4 {
      copy load [d0:8v] b5[d0] = b1[i, d0]
      copy store [d0:8v] b4[i, d0] = b5[d0]
    }
  }
  kernel four {
    parallel i 4 {
      copy load [d0:8v] b5[d0] = b1[i, d0]
      copy store [d0:8v] b1[i, d0] = b5[d0]
    }
  }
}
"#;

    fn program(value: f32) -> Program {
        let tensor = crate::types::Tensor::from_f32([4, 8], &[value; 32]).unwrap();
        let hash = crate::text::constant::ContentHash::of(tensor.bytes());
        let mut side = crate::text::constant::SideConsts::new();
        side.add(&tensor);
        Program::parse(&TEXT.replace("#00", &hash.to_string()), Some(&side)).unwrap()
    }

    #[test]
    fn equal_layers_have_equal_keys() {
        let p = program(0.0);
        let keys: Vec<KernelKey> = p.kernels.values().map(|k| kernel_key(&p, k)).collect();
        let names = |k: &KernelKey| k.params.iter().map(|&b| p.buffers[b].name.clone()).collect::<Vec<_>>();
        assert_eq!(keys[0].text, keys[1].text);
        assert_eq!(names(&keys[0]), ["t", "u"]);
        assert_eq!(names(&keys[1]), ["u", "v"]);
        // The caller's memory, and a parameter that comes twice, are different functions.
        assert_ne!(keys[0].text, keys[2].text);
        assert_ne!(keys[0].text, keys[3].text);
        assert_eq!(names(&keys[3]), ["t"]);
    }

    #[test]
    fn keys_see_structure() {
        let base = program(0.0);
        let key = |p: &Program| kernel_key(p, p.kernels.values().next().unwrap()).text;
        for (from, to) in [
            ("b1 \"t\": f32[4, 8]", "b1 \"t\": f32[4, 9]"),
            ("b1 \"t\": f32[4, 8] =", "b1 \"t\": f32[4, 8] (0:4)(1:12) ="),
            ("parallel i 4", "loop i 4"),
            ("d0:8v] b5[d0] = b1[i, d0]", "d0:8] b5[d0] = b1[i, d0]"),
            ("b1[i, d0]", "b1[3 - i, d0]"),
        ] {
            let text = base.to_string();
            assert!(text.contains(from), "{from}");
            let changed = Program::parse(&text.replacen(from, to, 1), Some(&base.side_consts())).unwrap();
            assert_ne!(key(&changed), key(&base), "{to}");
            assert_ne!(program_hash(&changed), program_hash(&base), "{to}");
        }
    }

    #[test]
    fn the_name_does_not_enter_the_hash() {
        let mut renamed = program(0.0);
        renamed.name.push_str("_renamed");
        assert_eq!(program_hash(&renamed), program_hash(&program(0.0)));
    }

    #[test]
    fn constants_do_not_enter_the_hash() {
        assert_eq!(program_hash(&program(0.0)), program_hash(&program(1.0)));
        let mut p = program(0.0);
        p.steps.push(Step::Check { buffer: p.inputs[0], bound: 3 });
        assert_ne!(program_hash(&p), program_hash(&program(0.0)));
    }
}
