//! Assembled micro-kernels for x86-64: matrix-product tiles in 256- and 512-bit vectors.
//!
//! Cranelift's x86-64 values end at 128 bits. These functions take the place of the innermost `mma` tiles where the schedule
//! says so ([`aic_ir::machine::Intrinsic`]); everything around them, epilogues included, is emitted as ever.
//!
//! A function computes `acc[r, c] += Σ_k a[r, k] · b[k, c]` for one [`GemmTile`], with all sizes and strides as immediates:
//!
//! ```text
//! load rows × vectors accumulators
//! for each step k:  load one row of b; for each row: broadcast a[r, k], multiply-add into the row's accumulators
//! store the accumulators
//! ```
//!
//! It is the outer-product kernel of Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008).
//! Every element adds its products in ascending `k`, each rounded once, as the tile program says, so results equal those of
//! the interpreter bit for bit. The functions are leaves: they use no stack and no register that a caller keeps, and end in
//! `vzeroupper`, so that 128-bit code after them runs at full speed.

use aic_ir::machine::{Arch, GemmTile, Intrinsic, MacUnit, Machine};
use aic_ir::types::DType;
use iced_x86::code_asm::{CodeAssembler, ecx, rdx, rsi};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use crate::code::Function;

/// Steps of the reduced dimension between two updates of the pointers.
const UNROLL: u64 = 4;

/// Bytes of an element.
const ELEMENT: i64 = 4;

/// Bytes that a call takes of the stack: the return address.
pub(crate) const STACK_BYTES: u64 = 8;

/// Width of a micro-kernel's vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Width {
    /// AVX2 and FMA: 16 registers of 8 lanes.
    Ymm,
    /// AVX-512F: 32 registers of 16 lanes.
    Zmm,
}

const GEMM_AVX512: Intrinsic = Intrinsic {
    name: "f32_gemm_avx512",
    dtype: DType::F32,
    max_rows: 8,
    unit: MacUnit {
        lanes: 16,
        registers: 32,
        spare_registers: 1,
        scalars_per_load: 1,
        mac_per_cycle: 2.0,
        loads_per_cycle: 2.0,
    },
};

const GEMM_AVX2: Intrinsic = Intrinsic {
    name: "f32_gemm_avx2",
    dtype: DType::F32,
    max_rows: 8,
    unit: MacUnit {
        lanes: 8,
        registers: 16,
        spare_registers: 1,
        scalars_per_load: 1,
        mac_per_cycle: 2.0,
        loads_per_cycle: 2.0,
    },
};

/// The micro-kernels that a machine can run, best first.
pub(crate) fn intrinsics(machine: &Machine) -> Vec<Intrinsic> {
    let mut found = Vec::new();
    if machine.arch == Arch::X86_64 && machine.has("avx512f") {
        found.push(GEMM_AVX512);
    }
    if machine.arch == Arch::X86_64 && machine.has("avx2") && machine.has("fma") {
        found.push(GEMM_AVX2);
    }
    found
}

/// Vector width of an intrinsic of that name.
pub(crate) fn width(name: &str) -> Option<Width> {
    match name {
        n if n == GEMM_AVX512.name => Some(Width::Zmm),
        n if n == GEMM_AVX2.name => Some(Width::Ymm),
        _ => None,
    }
}

/// The instructions that differ by vector width.
struct Encoding {
    load: Code,
    store: Code,
    broadcast: Code,
    multiply_add: Code,
    first: Register,
    bytes: i64,
}

impl Width {
    fn encoding(self) -> Encoding {
        match self {
            Width::Ymm => Encoding {
                load: Code::VEX_Vmovups_ymm_ymmm256,
                store: Code::VEX_Vmovups_ymmm256_ymm,
                broadcast: Code::VEX_Vbroadcastss_ymm_m32,
                multiply_add: Code::VEX_Vfmadd231ps_ymm_ymm_ymmm256,
                first: Register::YMM0,
                bytes: 32,
            },
            Width::Zmm => Encoding {
                load: Code::EVEX_Vmovups_zmm_k1z_zmmm512,
                store: Code::EVEX_Vmovups_zmmm512_k1z_zmm,
                broadcast: Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32,
                multiply_add: Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
                first: Register::ZMM0,
                bytes: 64,
            },
        }
    }
}

/// Assembles the function of a tile. The tile fits the registers ([`Intrinsic::tile`] has checked it).
///
/// # Errors
/// When an instruction cannot be encoded, which is a defect.
pub(crate) fn assemble(width: Width, tile: &GemmTile, symbol: String, asm: bool) -> Result<Function, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let e = width.encoding();
    // System V passes the pointers in these.
    let (acc, left, right) = (Register::RDI, Register::RSI, Register::RDX);
    let vectors = (tile.columns * ELEMENT as u64) as i64 / e.bytes;
    let rows = tile.rows as i64;
    let register = |i: i64| e.first + i as u32;
    let accumulator = |r: i64, v: i64| register(r * vectors + v);
    let row_of_b = |v: i64| register(rows * vectors + v);
    let spread = register(rows * vectors + vectors);
    let at = MemoryOperand::with_base_displ;

    let results = || (0..rows).flat_map(|r| (0..vectors).map(move |v| (r, v)));
    for (r, v) in results() {
        let from = at(acc, r * tile.acc_row * ELEMENT + v * e.bytes);
        a.add_instruction(Instruction::with2(e.load, accumulator(r, v), from)?)?;
    }
    let steps = |a: &mut CodeAssembler, count: u64| -> Result<(), IcedError> {
        for k in 0..count as i64 {
            for v in 0..vectors {
                let from = at(right, k * tile.b_step * ELEMENT + v * e.bytes);
                a.add_instruction(Instruction::with2(e.load, row_of_b(v), from)?)?;
            }
            for r in 0..rows {
                let from = at(left, (r * tile.a_row + k * tile.a_step) * ELEMENT);
                a.add_instruction(Instruction::with2(e.broadcast, spread, from)?)?;
                for v in 0..vectors {
                    a.add_instruction(Instruction::with3(e.multiply_add, accumulator(r, v), spread, row_of_b(v))?)?;
                }
            }
        }
        Ok(())
    };
    let rounds = tile.depth / UNROLL;
    if rounds > 0 {
        a.mov(ecx, rounds as i32)?;
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        steps(&mut a, UNROLL)?;
        a.add(rsi, (UNROLL as i64 * tile.a_step * ELEMENT) as i32)?;
        a.add(rdx, (UNROLL as i64 * tile.b_step * ELEMENT) as i32)?;
        a.dec(ecx)?;
        a.jnz(top)?;
    }
    steps(&mut a, tile.depth % UNROLL)?;
    for (r, v) in results() {
        let to = at(acc, r * tile.acc_row * ELEMENT + v * e.bytes);
        a.add_instruction(Instruction::with2(e.store, to, accumulator(r, v))?)?;
    }
    a.vzeroupper()?;
    a.ret()?;
    let text = asm.then(|| a.instructions().iter().map(|i| format!("  {i}\n")).collect());
    let code = a.assemble(0)?;
    Ok(Function { symbol, code, align: 32, calls: Vec::new(), stack_bytes: STACK_BYTES, clif: None, asm: text })
}
