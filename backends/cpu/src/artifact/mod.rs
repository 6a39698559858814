//! From compiled functions to files: objects, archives, headers, and reading them back.
//!
//! ```text
//! Compiled ─┐                    ┌─ format ──▶ .o ─(cc -shared, with cdylib's arguments)─▶ .so
//! Spec ─────┼─▶ Artifact ────────┼─ archive ─▶ .a          weights ─▶ external block
//! Weights ──┘   interface, object└─ header ──▶ .h          manifest ─▶ .json
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`interface`] | what callers see: tensors, blocks, hash |
//! | `names` | C identifiers |
//! | `abi` | the interface's functions: checks, then the program's entry |
//! | [`object`] | sections, symbols and relocations, in no file format yet |
//! | [`mod@format`] | the formats of object files; `elf`, `macho`, `coff` write them |
//! | `archive` | libraries of one object, in the flavor of each format |
//! | [`cdylib`] | what to tell the system's linker |
//! | [`weights`] | the weight block, streamed; its external form |
//! | [`header`] | the generated header and the common `aic.h` |
//! | [`note`] | what an object says of itself |
//! | [`manifest`] | the list of a compile's results |
//! | [`read`] | reading artifacts back |
//!
//! Nothing here opens a file: what is large is written to an [`io::Write`] of the caller's.

mod abi;
mod archive;
pub mod cdylib;
mod coff;
mod elf;
pub mod format;
pub mod header;
pub mod interface;
mod macho;
pub mod manifest;
mod names;
pub mod note;
pub mod object;
pub mod read;
pub mod weights;

use std::io;

use aic_ir::machine::Arch;

use crate::code::{CallKind, Compiled, Function};
use crate::{CpuError, CpuTarget};
use abi::{Referent, Wrapper};
pub use format::Format;
pub use interface::{Interface, InterfaceError, Spec, TensorSpec};
use interface::{TensorInfo, WeightsMode};
use note::Note;
use object::{Binding, Data, Object, Relocation, RelocationKind, Section, SectionKind};
pub use weights::Weights;

/// Why an artifact cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The interface asked for is impossible.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The code generator refuses the interface's own functions.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// A feature that code could use, but not ask for first.
    #[error("code for the feature `{0}` could not check that the processor has it")]
    UncheckedFeature(String),
    /// A constant is not where the plan says, or cannot be stored in its layout.
    #[error("constant `{0}` does not fit the plan")]
    Weights(String),
    /// The embedded weights are farther away than code can reach.
    #[error("{0} bytes of weights are too many to embed; external weights have no limit")]
    WeightsTooLarge(u64),
    /// An object that its format has no numbers for.
    #[error("the object is too large for {0}")]
    TooLarge(&'static str),
    /// A defect of the compiler.
    #[error("internal error: {0}")]
    Internal(String),
    /// The output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Embedded weights end below this, so that 32-bit displacements reach all of them with room for other code.
const MAX_EMBEDDED_BYTES: u64 = 0x7000_0000;

/// A compiled model with its C interface, ready to be written.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What callers see.
    pub interface: Interface,
    /// Sections, symbols and relocations.
    pub object: Object,
    /// What the object says of itself.
    pub note: Note,
    /// Header of the external weights, if they are external.
    pub weights_header: Option<weights::Header>,
    /// Cranelift IR of the interface's functions, as text.
    pub clif: String,
    arch: Arch,
    format: Format,
}

impl Artifact {
    /// Puts a compiled program and its interface together.
    ///
    /// # Errors
    /// When the interface is impossible or does not describe the program, or a feature of the target cannot be checked.
    pub fn new(
        compiled: &Compiled,
        spec: &Spec,
        weights: Weights<'_>,
        target: &CpuTarget,
    ) -> Result<Self, ArtifactError> {
        same_program(compiled, spec, weights)?;
        let mut interface = Interface::new(spec, compiled.arena_bytes, compiled.weights_bytes)?;
        let external = interface.weights == WeightsMode::External;
        if !external && interface.weights_bytes > MAX_EMBEDDED_BYTES {
            return Err(ArtifactError::WeightsTooLarge(interface.weights_bytes));
        }
        let weights_header = external.then(|| weights.header()).transpose()?;
        let wrappers =
            abi::compile(&interface, spec.inputs.len(), spec.outputs.len(), weights_header.as_ref(), target)?;
        interface.stack_bytes = abi::stack_bytes(&wrappers, compiled.stack_bytes());

        let mut object = Object::default();
        let entry = add_functions(&mut object, &interface.ident, compiled)?;
        let embedded = (!external && interface.weights_bytes > 0).then(|| {
            let data = Data::Weights { bytes: interface.weights_bytes };
            add_constants(&mut object, format!("{}.weights", interface.ident), Binding::Local, data, 64)
        });
        add_wrappers(&mut object, &interface, &wrappers, entry, embedded)?;
        for (what, tensors) in [("inputs", &interface.inputs), ("outputs", &interface.outputs)] {
            if !tensors.is_empty() {
                let data = Data::Bytes(tensors.iter().flat_map(tensor_info).collect());
                add_constants(&mut object, interface.symbol(what), Binding::Global, data, 8);
            }
        }
        let note = Note::new(&interface, &object, target);
        object.sections.push(Section {
            name: note::SECTION.to_owned(),
            kind: SectionKind::Note,
            align: 4,
            data: Data::Bytes(note.to_bytes()),
            relocations: Vec::new(),
        });
        if target.format == Format::Elf {
            object.sections.push(Section {
                name: ".note.GNU-stack".to_owned(),
                kind: SectionKind::StackNote,
                align: 1,
                data: Data::Bytes(Vec::new()),
                relocations: Vec::new(),
            });
        }
        let clif = wrappers.iter().filter_map(|w| Some(format!("; {}\n{}", w.wrapper.name(), w.clif.as_ref()?)));
        let (clif, arch, format) = (clif.collect(), target.machine.arch, target.format);
        Ok(Self { clif, interface, object, note, weights_header, arch, format })
    }

    /// Writes an object file. `weights` are those that the artifact was made with.
    ///
    /// # Errors
    /// When `out` fails, or the weights do not fit their plan.
    pub fn write_object(&self, weights: Weights<'_>, out: &mut dyn io::Write) -> Result<(), ArtifactError> {
        self.format.write(&self.object, self.arch, weights, out)
    }

    /// Writes a static archive with the object in it.
    ///
    /// # Errors
    /// As [`Artifact::write_object`].
    pub fn write_static_library(&self, weights: Weights<'_>, out: &mut dyn io::Write) -> Result<(), ArtifactError> {
        let member = format!("{}.o", self.interface.ident);
        archive::write(&self.object, &member, self.format, self.arch, weights, out)
    }

    /// Writes the block of external weights: header and contents. Nothing if they are embedded.
    ///
    /// # Errors
    /// When `out` fails, or the weights do not fit their plan.
    pub fn write_weights(&self, weights: Weights<'_>, out: &mut dyn io::Write) -> Result<(), ArtifactError> {
        if let Some(header) = &self.weights_header {
            out.write_all(&header.to_bytes())?;
            weights.write(out)?;
        }
        Ok(())
    }

    /// The generated C header.
    pub fn header(&self) -> String {
        header::generate(&self.interface, self.weights_header.as_ref())
    }
}

fn same_program(compiled: &Compiled, spec: &Spec, weights: Weights<'_>) -> Result<(), InterfaceError> {
    let bytes = |tensors: &[TensorSpec]| tensors.iter().map(|t| t.ty.bytes()).collect::<Vec<_>>();
    let described = (bytes(&spec.inputs), bytes(&spec.outputs), weights.bytes());
    let actual = (compiled.input_bytes.clone(), compiled.output_bytes.clone(), compiled.weights_bytes);
    if described == actual {
        return Ok(());
    }
    let text = |(inputs, outputs, weights): &(Vec<u64>, Vec<u64>, u64)| {
        format!("inputs of {inputs:?}, outputs of {outputs:?} and weights of {weights} bytes")
    };
    Err(InterfaceError::Mismatch { described: text(&described), actual: text(&actual) })
}

/// Adds what the entry reaches; returns the entry's symbol.
fn add_functions(object: &mut Object, ident: &str, compiled: &Compiled) -> Result<usize, ArtifactError> {
    let missing = || ArtifactError::Internal("a call to a function that is not there".to_owned());
    let mut reached = vec![false; compiled.functions.len()];
    let mut open = vec![compiled.entry];
    while let Some(f) = open.pop() {
        let function = compiled.functions.get(f).ok_or_else(missing)?;
        if !std::mem::replace(&mut reached[f], true) {
            open.extend(function.calls.iter().map(|c| c.target));
        }
    }
    // Symbols get numbers before sections get relocations: calls may go either way.
    let mut symbols = vec![None; compiled.functions.len()];
    let first = object.symbols.len();
    for (slot, _) in symbols.iter_mut().zip(&reached).filter(|(_, reached)| **reached) {
        *slot = Some(0);
    }
    for (i, slot) in symbols.iter_mut().flatten().enumerate() {
        *slot = first + i;
    }
    for (function, symbol) in compiled.functions.iter().zip(&symbols) {
        if symbol.is_some() {
            let Function { symbol: name, code, align, calls, stack_bytes: _, clif: _, asm: _ } = function;
            let name = format!("{ident}.{name}");
            let mut relocations = Vec::with_capacity(calls.len());
            for call in calls {
                let kind = match call.kind {
                    CallKind::X86PcRel32 => RelocationKind::X86Call,
                    CallKind::Aarch64Call26 => RelocationKind::Aarch64Call,
                };
                let symbol = symbols.get(call.target).copied().flatten().ok_or_else(missing)?;
                relocations.push(Relocation { offset: u64::from(call.offset), kind, symbol, addend: call.addend });
            }
            let data = Data::Bytes(code.clone());
            let section = text_section(&name, *align, data, relocations);
            object.define(section, name, Binding::Local);
        }
    }
    symbols.get(compiled.entry).copied().flatten().ok_or_else(missing)
}

fn text_section(name: &str, align: u64, data: Data, relocations: Vec<Relocation>) -> Section {
    Section { name: format!(".text.{name}"), kind: SectionKind::Text, align, data, relocations }
}

fn add_constants(object: &mut Object, name: String, binding: Binding, data: Data, align: u64) -> usize {
    let kind = SectionKind::ReadOnly;
    let section = Section { name: format!(".rodata.{name}"), kind, align, data, relocations: Vec::new() };
    object.define(section, name, binding)
}

fn add_wrappers(
    object: &mut Object,
    interface: &Interface,
    wrappers: &[abi::WrapperCode],
    entry: usize,
    weights: Option<usize>,
) -> Result<(), ArtifactError> {
    let mut symbols: Vec<(Wrapper, usize)> = Vec::new();
    for w in wrappers {
        let mut relocations = Vec::with_capacity(w.references.len());
        for reference in &w.references {
            let symbol = match reference.to {
                Referent::Entry => Some(entry),
                Referent::Weights => weights,
                Referent::Wrapper(to) => symbols.iter().find(|s| s.0 == to).map(|s| s.1),
            };
            let missing = || ArtifactError::Internal(format!("{} refers to what is not there", w.wrapper.name()));
            let symbol = symbol.ok_or_else(missing)?;
            let (offset, kind, addend) = (u64::from(reference.offset), reference.kind, reference.addend);
            relocations.push(Relocation { offset, kind, symbol, addend });
        }
        let (name, binding) = if w.wrapper.is_public() {
            (interface.symbol(w.wrapper.name()), Binding::Global)
        } else {
            // Symbols of kernels have no `.`.
            (format!("{}.aic.{}", interface.ident, w.wrapper.name()), Binding::Local)
        };
        let section = text_section(&name, w.align, Data::Bytes(w.code.clone()), relocations);
        symbols.push((w.wrapper, object.define(section, name, binding)));
    }
    Ok(())
}

/// One `aic_tensor_info`, as the common header declares it for 64-bit targets.
fn tensor_info(tensor: &TensorInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(header::TENSOR_INFO_BYTES);
    let mut name = header::short_name(&tensor.name).into_bytes();
    name.resize(interface::INFO_NAME_BYTES, 0);
    out.extend(name);
    out.extend(tensor.bytes.to_le_bytes());
    let mut shape = tensor.shape.clone();
    shape.resize(interface::INFO_MAX_RANK, 0);
    out.extend(shape.iter().flat_map(|d| d.to_le_bytes()));
    out.extend((tensor.shape.len() as u32).to_le_bytes());
    let dtype = aic_ir::types::DType::from_name(&tensor.dtype).map_or(0, interface::dtype_code);
    out.extend(dtype.to_le_bytes());
    out.extend((tensor.align as u32).to_le_bytes());
    out.extend(tensor.zero_point.to_le_bytes());
    out.extend(tensor.scale.to_le_bytes());
    out.extend([0; 4]);
    out
}
