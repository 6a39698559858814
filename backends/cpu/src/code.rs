//! Compiled functions, before they are mapped for execution or written to a file.
//!
//! The only references that code may hold are calls among these functions: data is reached through pointers that the entry
//! receives, and constants of instructions lie behind the code of the function that uses them.

use aic_ir::machine::Arch;

/// How the distance of a call is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// x86-64: 32-bit displacement, `target + addend - place` (`R_X86_64_PLT32`, or `R_X86_64_PC32`).
    X86PcRel32,
    /// AArch64: 26-bit word displacement of `bl` (`R_AARCH64_CALL26`).
    Aarch64Call26,
}

/// A call from one function to another, to be resolved when both have addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Byte offset of the field in the caller's code.
    pub offset: u32,
    /// Encoding of the field.
    pub kind: CallKind,
    /// Position of the callee in [`Compiled::functions`].
    pub target: usize,
    /// Added to the callee's address.
    pub addend: i64,
}

/// A compiled function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Local symbol: the kernel's name made safe for assemblers; unique in the program.
    pub symbol: String,
    /// Machine code, with constants behind it.
    pub code: Vec<u8>,
    /// Required alignment in bytes, a power of two.
    pub align: u64,
    /// Calls to resolve.
    pub calls: Vec<Call>,
    /// Bound of the stack that the function takes, with everything it calls, in bytes: frame, saved registers, return address.
    pub stack_bytes: u64,
    /// Cranelift IR as text, if it was asked for.
    pub clif: Option<String>,
    /// Assembly as text, in the code generator's notation, if it was asked for.
    pub asm: Option<String>,
}

/// What a step of the program became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepCode {
    /// The kernel's name, `check NAME` for the check of an index buffer, or `repeat TRIPS` and `end`.
    pub name: String,
    /// The kernel's function, shared by kernels of equal structure; `None` for checks, which are part of the entry.
    pub function: Option<usize>,
    /// A function of the entry's signature that runs only this step, in all rounds of the repeats around it, if it was asked
    /// for.
    pub entry: Option<usize>,
}

/// A compiled program.
///
/// The entry is `i32 entry(const void *const *inputs, void *const *outputs, void *arena, const void *weights)`, in the
/// System V calling convention of the architecture, whatever the platform's is. It runs all steps and returns a [`Status`](crate::status::Status). Blocks must have the
/// alignment [`aic_ir::plan::ALIGN_BYTES`], inputs and outputs that of their element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// All functions; callees before callers.
    pub functions: Vec<Function>,
    /// Position of the entry.
    pub entry: usize,
    /// The steps, in the program's order.
    pub steps: Vec<StepCode>,
    /// Sizes of the inputs in bytes.
    pub input_bytes: Vec<u64>,
    /// Sizes of the outputs in bytes.
    pub output_bytes: Vec<u64>,
    /// Size of the arena in bytes.
    pub arena_bytes: u64,
    /// Size of the weight block in bytes.
    pub weights_bytes: u64,
    /// Architecture of the code.
    pub arch: Arch,
    /// Instruction-set features that the code may use, by their names in machine files.
    pub features: Vec<String>,
}

impl Compiled {
    /// Bound of the stack that a run takes, in bytes.
    pub fn stack_bytes(&self) -> u64 {
        self.functions[self.entry].stack_bytes
    }

    /// Lays the functions out one after the other and resolves their calls: bytes that run wherever they are mapped to the
    /// start of a page.
    ///
    /// # Errors
    /// For calls of functions that do not exist or are too far away, which is a defect.
    pub fn image(&self) -> Result<Image, &'static str> {
        let mut offsets = Vec::with_capacity(self.functions.len());
        let mut bytes = Vec::new();
        for f in &self.functions {
            bytes.resize(bytes.len().next_multiple_of((f.align as usize).max(64)), 0);
            offsets.push(bytes.len());
            bytes.extend_from_slice(&f.code);
        }
        for (f, &offset) in self.functions.iter().zip(&offsets) {
            for call in &f.calls {
                let place = offset + call.offset as usize;
                let target = *offsets.get(call.target).ok_or("a call of no function")?;
                let distance = (target as i64 + call.addend) - place as i64;
                let far = |_| "a call that does not reach";
                let field: &mut [u8] = bytes.get_mut(place..place + 4).ok_or("a call outside its function")?;
                match call.kind {
                    CallKind::X86PcRel32 => {
                        field.copy_from_slice(&i32::try_from(distance).map_err(far)?.to_le_bytes());
                    }
                    CallKind::Aarch64Call26 => {
                        let words = i32::try_from(distance >> 2).map_err(far)?;
                        let old = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
                        field.copy_from_slice(&((old & !0x03ff_ffff) | (words as u32 & 0x03ff_ffff)).to_le_bytes());
                    }
                }
            }
        }
        Ok(Image { bytes, offsets })
    }
}

/// All functions of a program as one piece of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The code; position-independent.
    pub bytes: Vec<u8>,
    /// Where each of [`Compiled::functions`] starts.
    pub offsets: Vec<usize>,
}
