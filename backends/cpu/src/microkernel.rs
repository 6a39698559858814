//! Assembled micro-kernels for x86-64: matrix-product tiles in 256- and 512-bit vectors.
//!
//! Cranelift's x86-64 values end at 128 bits. These functions take the place of the innermost `mma` tiles where the schedule
//! says so ([`aic_ir::machine::Intrinsic`]); everything around them, epilogues included, is emitted as ever.
//!
//! A function computes `acc[r, c] += Σ_k a[r, k] · b[k, c]` for one [`GemmTile`], with all sizes and strides as immediates:
//!
//! ```text
//! load rows × vectors accumulators, or set them to zero
//! for each step k:  load one row of b; for each row: broadcast a[r, k], multiply-add into the row's accumulators
//! store the accumulators
//! ```
//!
//! `k` may be several dimensions (the window of a convolution and its channels): one loop each, short inner ones unrolled. In a
//! lanewise tile (a depthwise convolution) `a[r, k, c]` is multiplied by `b[k, c]` vector by vector. With AVX-512, the last
//! vector of a row may be masked.
//!
//! It is the outer-product kernel of Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008).
//! Every element adds its products in ascending `k`, each rounded once, as the tile program says, so results equal those of
//! the interpreter bit for bit. The functions are leaves: they use no stack and no register that a caller keeps, and end in
//! `vzeroupper`, so that 128-bit code after them runs at full speed.

use aic_ir::machine::{Arch, GemmTile, Intrinsic, MacUnit, Machine, Steps};
use aic_ir::types::DType;
use iced_x86::code_asm::{AsmRegister32, CodeAssembler, eax, ecx, k1, r8d, r9d, rdx, rsi};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use crate::code::Function;

/// Steps of a long reduced dimension between two updates of the pointers.
const UNROLL: u64 = 4;

/// Most steps of short reduced dimensions in straight-line code.
const MAX_STRAIGHT: u64 = 12;

/// Counters of nested loops, outermost first.
const COUNTERS: [AsmRegister32; 4] = [ecx, eax, r8d, r9d];

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
        masked: true,
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
        masked: false,
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
    xor: Code,
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
                xor: Code::VEX_Vxorps_ymm_ymm_ymmm256,
                first: Register::YMM0,
                bytes: 32,
            },
            Width::Zmm => Encoding {
                load: Code::EVEX_Vmovups_zmm_k1z_zmmm512,
                store: Code::EVEX_Vmovups_zmmm512_k1z_zmm,
                broadcast: Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32,
                multiply_add: Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
                xor: Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
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
    let mut assembler = Assembler::new(width, tile)?;
    assembler.function()?;
    let a = &mut assembler.a;
    let text = asm.then(|| a.instructions().iter().map(|i| format!("  {i}\n")).collect());
    let code = a.assemble(0)?;
    Ok(Function { symbol, code, align: 32, calls: Vec::new(), stack_bytes: STACK_BYTES, clif: None, asm: text })
}

/// System V passes the pointers in these.
const ACC: Register = Register::RDI;
const LEFT: Register = Register::RSI;
const RIGHT: Register = Register::RDX;

/// A function in the making.
struct Assembler<'t> {
    a: CodeAssembler,
    e: Encoding,
    tile: &'t GemmTile,
    rows: i64,
    vectors: i64,
    /// Elements in the last vector of a row, where they do not fill it.
    rest: u64,
}

impl<'t> Assembler<'t> {
    fn new(width: Width, tile: &'t GemmTile) -> Result<Self, IcedError> {
        let e = width.encoding();
        let lanes = (e.bytes / ELEMENT) as u64;
        let (rows, vectors) = (tile.rows as i64, tile.columns.div_ceil(lanes) as i64);
        Ok(Self { a: CodeAssembler::new(64)?, e, tile, rows, vectors, rest: tile.columns % lanes })
    }

    fn function(&mut self) -> Result<(), IcedError> {
        if self.rest > 0 {
            self.a.mov(eax, (1 << self.rest) - 1)?;
            self.a.kmovw(k1, eax)?;
        }
        let results: Vec<_> = (0..self.rows).flat_map(|r| (0..self.vectors).map(move |v| (r, v))).collect();
        for &(r, v) in &results {
            let to = self.accumulator(r, v);
            if self.tile.from_zero {
                self.a.add_instruction(Instruction::with3(self.e.xor, to, to, to)?)?;
            } else {
                self.load(to, ACC, r * self.tile.acc_row, v)?;
            }
        }
        self.dimensions(0)?;
        for &(r, v) in &results {
            let to = self.at(ACC, r * self.tile.acc_row, v);
            let mut store = Instruction::with2(self.e.store, to, self.accumulator(r, v))?;
            self.mask(&mut store, v);
            self.a.add_instruction(store)?;
        }
        self.a.vzeroupper()?;
        self.a.ret()
    }

    /// Code for all steps of the reduced dimensions from `level` on. Returns how far the pointers are past their start.
    fn dimensions(&mut self, level: usize) -> Result<(i64, i64), IcedError> {
        let inner = &self.tile.depth[level..];
        let count: u64 = inner.iter().map(|d| d.extent).product();
        if count <= MAX_STRAIGHT {
            self.straight(inner, 0, 0)?;
            return Ok((0, 0));
        }
        let d = inner[0];
        // A long innermost dimension takes several steps at a time, and its rest after the loop.
        let at_once = if inner.len() == 1 { UNROLL } else { 1 };
        let counter = COUNTERS[level];
        self.a.mov(counter, (d.extent / at_once) as i32)?;
        let mut top = self.a.create_label();
        self.a.set_label(&mut top)?;
        let (a, b) = if at_once > 1 {
            self.straight(&[Steps { extent: at_once, ..d }], 0, 0)?;
            (0, 0)
        } else {
            self.dimensions(level + 1)?
        };
        let strides = (at_once as i64 * d.a, at_once as i64 * d.b);
        self.advance(strides.0 - a, strides.1 - b)?;
        self.a.dec(counter)?;
        self.a.jnz(top)?;
        let rounds = (d.extent / at_once) as i64;
        let (a, b) = (rounds * strides.0, rounds * strides.1);
        self.straight(&[Steps { extent: d.extent % at_once, ..d }], 0, 0)?;
        Ok((a, b))
    }

    fn advance(&mut self, a: i64, b: i64) -> Result<(), IcedError> {
        if a != 0 {
            self.a.add(rsi, (a * ELEMENT) as i32)?;
        }
        if b != 0 {
            self.a.add(rdx, (b * ELEMENT) as i32)?;
        }
        Ok(())
    }

    /// Steps without loops; `a` and `b` are offsets of the operands in elements.
    fn straight(&mut self, depth: &[Steps], a: i64, b: i64) -> Result<(), IcedError> {
        let Some((d, inner)) = depth.split_first() else { return self.step(a, b) };
        (0..d.extent as i64).try_for_each(|k| self.straight(inner, a + k * d.a, b + k * d.b))
    }

    /// One step: a row of the right operand times every row of the left one.
    fn step(&mut self, a: i64, b: i64) -> Result<(), IcedError> {
        let row_of_b = |s: &Self, v: i64| s.register(s.rows * s.vectors + v);
        let spread = self.register(self.rows * self.vectors + self.vectors);
        for v in 0..self.vectors {
            self.load(row_of_b(self, v), RIGHT, b, v)?;
        }
        for r in 0..self.rows {
            let from = a + r * self.tile.a_row;
            if !self.tile.lanewise {
                let from = self.at(LEFT, from, 0);
                self.a.add_instruction(Instruction::with2(self.e.broadcast, spread, from)?)?;
            }
            for v in 0..self.vectors {
                let (acc, right) = (self.accumulator(r, v), row_of_b(self, v));
                let mut add = if self.tile.lanewise {
                    let from = self.at(LEFT, from, v);
                    Instruction::with3(self.e.multiply_add, acc, right, from)?
                } else {
                    Instruction::with3(self.e.multiply_add, acc, spread, right)?
                };
                if self.tile.lanewise {
                    self.mask(&mut add, v);
                }
                self.a.add_instruction(add)?;
            }
        }
        Ok(())
    }

    fn load(&mut self, to: Register, base: Register, offset: i64, v: i64) -> Result<(), IcedError> {
        let mut load = Instruction::with2(self.e.load, to, self.at(base, offset, v))?;
        if self.mask(&mut load, v) {
            load.set_zeroing_masking(true);
        }
        self.a.add_instruction(load)
    }

    /// Masks an instruction that touches memory at vector `v` of a row, if that is a partial one.
    fn mask(&self, instruction: &mut Instruction, v: i64) -> bool {
        let partial = self.rest > 0 && v == self.vectors - 1;
        if partial {
            instruction.set_op_mask(Register::K1);
        }
        partial
    }

    /// Vector `v` of what starts `offset` elements after a pointer.
    fn at(&self, base: Register, offset: i64, v: i64) -> MemoryOperand {
        MemoryOperand::with_base_displ(base, offset * ELEMENT + v * self.e.bytes)
    }

    fn register(&self, i: i64) -> Register {
        self.e.first + i as u32
    }

    fn accumulator(&self, r: i64, v: i64) -> Register {
        self.register(r * self.vectors + v)
    }
}
