//! The text form of tile programs: [`Program`] prints through `Display` and is read by [`Program::parse`].
//!
//! ```text
//! program "mlp" {
//!   b0 "x": f32[8, 384] = input 0
//!   b1 "l0.weight": f32[1536, 384] (0/8:192)(1:384)(0%8:8) = const #5f3c9a10...
//!   b2 "l0.bias": f32[2] = const [0.5, -1.0]
//!   b3 "y": f32[8, 1536] = output 0
//!   b4 "acc": f32[4, 8] = reg
//!   inputs [b0]
//!   outputs [b3]
//!   check b5 < 30522
//!   kernel matmul_3 from "/dense/MatMul" {
//!     parallel i 2 {
//!       loop j 192 {
//!         map init [d0:4, d1:8v] b4[d0, d1] {
//!           e0 = f32 0.0
//!         }
//!         loop p 384 {
//!           mma mma [d0:4, d1:8v] b4[d0, d1] += b0[4*i + d0, p] * b1[8*j + d1, p] fused
//!         }
//!         copy store [d0:4, d1:8v] b3[4*i + d0, 8*j + d1] = b4[d0, d1]
//!       }
//!     }
//!   }
//! }
//! ```
//!
//! The grammar; `NAME` is a word, or a quoted string where the name is not a word:
//!
//! ```text
//! program := "program" STRING "{" buffer* "inputs" "[" (B,)* "]" "outputs" "[" (B,)* "]" step* "}"
//! buffer  := B STRING ":" TYPE layout? "=" storage        B is b0, b1, ... in this order
//! layout  := "(" ")" | ("(" AXIS ("/" DIV)? ("%" MOD)? ":" EXTENT ")")+      row-major if left out
//! storage := "input" N | "output" N | "const" TYPE? elements | "temp" | "scratch" | "reg"
//!            elements is "[" (VALUE,)* "]" or #HASH; TYPE is given where its shape is not the buffer's
//! step    := "check" B "<" N | "kernel" NAME ("from" (STRING,)*)? "{" item* "}"
//! item    := ("loop" | "parallel" | "unroll") NAME N "{" item* "}" | stmt ("by" NAME)?       by: the intrinsic
//! stmt    := "copy" NAME dims access "=" access
//!          | "map" NAME dims access "{" (E "=" inst)* "}"           E is e0, e1, ... in this order
//!          | "mma" NAME dims access "+=" access "*" access "fused"?
//!          | "reduce" NAME dims access "=" ("add" | "mul" | "max" | "min") access
//!          | "gather" NAME dims access "=" access "axis" N "at" access
//! dims    := "[" (NAME ":" N "v"?,)* "]"                            v: executed in vectors
//! access  := B "[" (affine,)* "]" ("else" DTYPE VALUE)?             else: what lies outside the buffer
//! affine  := "-"? term (("+" | "-") term)*
//! term    := N | (N "*")? atom
//! atom    := NAME | "(" "(" affine ")" ("/" | "%") N ")"            a dimension, or a loop around
//! inst    := access | DTYPE VALUE | OP E ("," E)* | "cast" DTYPE E | "bitcast" DTYPE E
//! ```
//!
//! Printing is canonical: buffers all print, with their numbers; kernels print where they run; loops and statements print as
//! they stand in bodies, and the order of terms in coordinates follows the nesting, whatever their numbers are. What is
//! not in force does not print. So reading a printed program gives that program up to the numbers of kernels,
//! loops and statements, and printing it again gives the same text. Names of dimensions hide equal names of loops (the
//! verifier refuses both in one place).

mod parse;
mod print;

pub(super) use print::{KernelPrinter, WithoutElements, print_type};

use super::{Program, Storage};
use crate::text::constant::SideConsts;

/// Deepest nesting of loops, and of divisions in coordinates, that is read.
pub const MAX_DEPTH: usize = 64;

impl Program {
    /// The constants that the text form names by hash.
    pub fn side_consts(&self) -> SideConsts {
        let mut side = SideConsts::new();
        for data in self.buffers.values() {
            if let Storage::Const(tensor) = &data.storage {
                side.add(tensor);
            }
        }
        side
    }
}

#[cfg(test)]
mod tests;
