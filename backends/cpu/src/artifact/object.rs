//! An object file before it is written: sections, symbols and relocations, in no file format yet.
//!
//! One section for each symbol, so that linkers can drop what is not called. There is no section for data that is written:
//! generated code has no state of its own. Only [`Binding::Global`] symbols are seen by other objects, and every symbol is
//! defined here; so a link needs nothing else.

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name, as ELF spells it: `.text.kws.matmul_3`.
    pub name: String,
    /// What it holds.
    pub kind: SectionKind,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Contents.
    pub data: Data,
    /// References to symbols.
    pub relocations: Vec<Relocation>,
}

/// Kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Machine code.
    Text,
    /// Constants.
    ReadOnly,
    /// A note for tools; not loaded.
    Note,
    /// In ELF, marks the object as one that needs no executable stack.
    StackNote,
}

/// Contents of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The weight block, which is written when the file is.
    Weights {
        /// Its size.
        bytes: u64,
    },
}

impl Data {
    /// Size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Data::Bytes(bytes) => bytes.len() as u64,
            Data::Weights { bytes } => *bytes,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Who can see a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binding {
    /// This object only.
    Local,
    /// Everyone: part of the C interface.
    Global,
}

/// A symbol at the start of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Name.
    pub name: String,
    /// Who can see it.
    pub binding: Binding,
    /// Position of its section in [`Object::sections`].
    pub section: usize,
}

/// How a reference is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocationKind {
    /// x86-64: 32-bit displacement to a function.
    X86Call,
    /// x86-64: 32-bit displacement to data.
    X86PcRel,
    /// AArch64: 26-bit word displacement of `bl`.
    Aarch64Call,
    /// AArch64: page of an address, in `adrp`.
    Aarch64Page,
    /// AArch64: low 12 bits of an address, in `add`.
    Aarch64PageOffset,
}

/// A reference to a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset of the field in the section.
    pub offset: u64,
    /// Encoding of the field.
    pub kind: RelocationKind,
    /// Position of the symbol in [`Object::symbols`].
    pub symbol: usize,
    /// Added to the symbol's address.
    pub addend: i64,
}

/// An object file. See the [module documentation](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Sections in order.
    pub sections: Vec<Section>,
    /// Symbols in order.
    pub symbols: Vec<Symbol>,
}

impl Object {
    /// Adds a section with one symbol at its start, and returns the position of the symbol.
    pub fn define(&mut self, section: Section, name: String, binding: Binding) -> usize {
        self.sections.push(section);
        self.symbols.push(Symbol { name, binding, section: self.sections.len() - 1 });
        self.symbols.len() - 1
    }

    /// Names of the symbols that other objects can see, in order.
    pub fn public_symbols(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().filter(|s| s.binding == Binding::Global).map(|s| s.name.as_str())
    }

    /// Size of all sections of a kind.
    pub fn bytes_of(&self, kind: SectionKind) -> u64 {
        self.sections.iter().filter(|s| s.kind == kind).map(|s| s.data.len()).sum()
    }
}
