//! Printing of tile programs, and of single kernels with other names for buffers (for [structural keys](crate::tile::hash)).

use std::fmt;

use cranelift_entity::{EntityRef, SecondaryMap};

use crate::text::constant::{Constant, Element};
use crate::text::{Name, Quoted};
use crate::tile::{
    Access, Affine, Atom, Buffer, BufferData, Combine, Dim, Exec, Expr, Inst, Item, KernelData, Layout, Loop, LoopKind,
    Program, Scalar, Space, Step, StmtData, StmtOp, Storage, Var,
};
use crate::types::DType;

/// Writes items with `separator` between them.
fn separated<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    separator: &str,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_program(f, self, true)
    }
}

/// A program as text, without its name and the elements of its constants: what a schedule can depend on.
pub(in crate::tile) struct WithoutElements<'a>(pub(in crate::tile) &'a Program);

impl fmt::Display for WithoutElements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_program(f, self.0, false)
    }
}

fn print_program(f: &mut fmt::Formatter<'_>, program: &Program, elements: bool) -> fmt::Result {
    let Program { name, buffers, kernels, steps, inputs, outputs } = program;
    // Without elements this is what a schedule is tied to, and a model that is named otherwise is still the same program.
    let name = if elements { name.as_str() } else { "" };
    writeln!(f, "program {} {{", Quoted(name))?;
    for (b, data) in buffers {
        print_buffer(f, b, data, elements)?;
    }
    for (what, list) in [("inputs", inputs), ("outputs", outputs)] {
        write!(f, "  {what} [")?;
        separated(f, ", ", list)?;
        f.write_str("]\n")?;
    }
    for step in steps {
        match step {
            Step::Repeat { trips } => writeln!(f, "  repeat {trips} {{")?,
            Step::End => f.write_str("  }\n")?,
            Step::Check { buffer, bound } => writeln!(f, "  check {buffer} < {bound}")?,
            Step::Run(k) => {
                if let Some(kernel) = kernels.get(*k) {
                    KernelPrinter { kernel, buffer: &|b| b.to_string() }.fmt(f)?;
                }
            }
        }
    }
    f.write_str("}\n")
}

fn print_buffer(f: &mut fmt::Formatter<'_>, b: Buffer, data: &BufferData, elements: bool) -> fmt::Result {
    let BufferData { name, dtype, shape, layout, storage } = data;
    write!(f, "  {b} {}: ", Quoted(name))?;
    print_type(f, *dtype, shape)?;
    if !layout.is_row_major(shape) {
        write!(f, " {layout}")?;
    }
    f.write_str(" = ")?;
    match storage {
        Storage::Input(i) => write!(f, "input {i}")?,
        Storage::Output(i) => write!(f, "output {i}")?,
        Storage::Const(tensor) => {
            f.write_str("const ")?;
            if !elements {
                return f.write_str("\n");
            }
            if tensor.ty().dtype() != *dtype || tensor.ty().shape() != shape {
                write!(f, "{} ", tensor.ty())?;
            }
            write!(f, "{}", Constant(tensor))?;
        }
        Storage::Temp => f.write_str("temp")?,
        Storage::Local(Space::Scratch) => f.write_str("scratch")?,
        Storage::Local(Space::Reg) => f.write_str("reg")?,
    }
    f.write_str("\n")
}

pub(in crate::tile) fn print_type(f: &mut fmt::Formatter<'_>, dtype: DType, shape: &[u64]) -> fmt::Result {
    write!(f, "{dtype}[")?;
    separated(f, ", ", shape)?;
    f.write_str("]")
}

impl fmt::Display for Layout {
    /// `(0/8:4)(1:384)(0%8:8)`; `()` without dimensions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dims.is_empty() {
            return f.write_str("()");
        }
        for d in &self.dims {
            write!(f, "({}", d.axis)?;
            if d.div != 1 {
                write!(f, "/{}", d.div)?;
            }
            if let Some(m) = d.modulo {
                write!(f, "%{m}")?;
            }
            write!(f, ":{})", d.extent)?;
        }
        Ok(())
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dtype, Element(self.dtype, self.bits))
    }
}

impl Combine {
    /// Every combination.
    pub const ALL: [Combine; 4] = [Combine::Add, Combine::Mul, Combine::Max, Combine::Min];

    /// The name in text forms.
    pub fn name(self) -> &'static str {
        match self {
            Combine::Add => "add",
            Combine::Mul => "mul",
            Combine::Max => "max",
            Combine::Min => "min",
        }
    }
}

/// A kernel as text, with names for its buffers.
pub(in crate::tile) struct KernelPrinter<'a> {
    pub(in crate::tile) kernel: &'a KernelData,
    pub(in crate::tile) buffer: &'a dyn Fn(Buffer) -> String,
}

impl KernelPrinter<'_> {
    pub(in crate::tile) fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KernelData { name, sources, loops: _, stmts: _, body } = self.kernel;
        write!(f, "  kernel {}", Name(name))?;
        if !sources.is_empty() {
            f.write_str(" from ")?;
            separated(f, ", ", sources.iter().map(|s| Quoted(s)))?;
        }
        f.write_str(" {\n")?;
        // Loops in the order in which they are met, so that terms sort by it.
        let mut ranks = SecondaryMap::new();
        rank_loops(body, &mut 0, &mut ranks);
        self.body(f, body, 2, &ranks)?;
        f.write_str("  }\n")
    }

    fn body(
        &self,
        f: &mut fmt::Formatter<'_>,
        body: &[Item],
        depth: usize,
        ranks: &SecondaryMap<Loop, u32>,
    ) -> fmt::Result {
        for item in body {
            let indent = 2 * depth;
            write!(f, "{:indent$}", "")?;
            match item {
                Item::Loop(l, inner) => {
                    if let Some(data) = self.kernel.loops.get(*l) {
                        let kind = match data.kind {
                            LoopKind::Sequential => "loop",
                            LoopKind::Parallel => "parallel",
                            LoopKind::Unrolled => "unroll",
                            LoopKind::Repeat => "repeat",
                        };
                        writeln!(f, "{kind} {} {} {{", Name(&data.name), data.extent)?;
                    }
                    self.body(f, inner, depth + 1, ranks)?;
                    writeln!(f, "{:indent$}}}", "")?;
                }
                Item::Stmt(s) => {
                    if let Some(stmt) = self.kernel.stmts.get(*s) {
                        StmtPrinter { printer: self, stmt, ranks, indent }.fmt(f)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn rank_loops(body: &[Item], next: &mut u32, ranks: &mut SecondaryMap<Loop, u32>) {
    for item in body {
        if let Item::Loop(l, inner) = item {
            ranks[*l] = *next;
            *next += 1;
            rank_loops(inner, next, ranks);
        }
    }
}

struct StmtPrinter<'a> {
    printer: &'a KernelPrinter<'a>,
    stmt: &'a StmtData,
    ranks: &'a SecondaryMap<Loop, u32>,
    indent: usize,
}

impl StmtPrinter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StmtData { name, dims, op, intrinsic } = self.stmt;
        let verb = match op {
            StmtOp::Copy { .. } => "copy",
            StmtOp::Map { .. } => "map",
            StmtOp::Mma { .. } => "mma",
            StmtOp::Reduce { .. } => "reduce",
            StmtOp::Gather { .. } => "gather",
            StmtOp::Scatter { .. } => "scatter",
        };
        write!(f, "{verb} {} [", Name(name))?;
        separated(f, ", ", dims.iter().map(DimText))?;
        f.write_str("] ")?;
        match op {
            StmtOp::Copy { dst, src } => {
                self.access(f, dst)?;
                f.write_str(" = ")?;
                self.access(f, src)?;
            }
            StmtOp::Map { dst, value } => {
                self.access(f, dst)?;
                self.value(f, value)?;
            }
            StmtOp::Mma { acc, a, b, fused } => {
                self.access(f, acc)?;
                f.write_str(" += ")?;
                self.access(f, a)?;
                f.write_str(" * ")?;
                self.access(f, b)?;
                f.write_str(if *fused { " fused" } else { "" })?;
            }
            StmtOp::Reduce { dst, op, src } => {
                self.access(f, dst)?;
                write!(f, " = {} ", op.name())?;
                self.access(f, src)?;
            }
            StmtOp::Gather { dst, src, index, axis } => {
                self.access(f, dst)?;
                f.write_str(" = ")?;
                self.access(f, src)?;
                write!(f, " axis {axis} at ")?;
                self.access(f, index)?;
            }
            StmtOp::Scatter { dst, op, src, index, axis } => {
                self.access(f, dst)?;
                write!(f, " axis {axis} at ")?;
                self.access(f, index)?;
                f.write_str(" = ")?;
                if let Some(op) = op {
                    write!(f, "{} ", op.name())?;
                }
                self.access(f, src)?;
            }
        }
        if let Some(name) = intrinsic {
            write!(f, " by {}", Name(name))?;
        }
        f.write_str("\n")
    }

    fn value(&self, f: &mut fmt::Formatter<'_>, value: &Expr) -> fmt::Result {
        let indent = self.indent;
        f.write_str(" {\n")?;
        for (i, inst) in value.insts.iter().enumerate() {
            write!(f, "{:indent$}  e{i} = ", "")?;
            match inst {
                Inst::Load(access) => self.access(f, access)?,
                Inst::Const(s) => write!(f, "{s}")?,
                Inst::Unary(op, a) => write!(f, "{} {a}", op.name())?,
                Inst::Binary(op, a, b) => write!(f, "{} {a}, {b}", op.name())?,
                Inst::Fma(a, b, c) => write!(f, "fma {a}, {b}, {c}")?,
                Inst::Select(c, a, b) => write!(f, "select {c}, {a}, {b}")?,
                Inst::Cast(to, a) => write!(f, "cast {to} {a}")?,
                Inst::Bitcast(to, a) => write!(f, "bitcast {to} {a}")?,
                Inst::Math(function, a) => write!(f, "{} {a}", function.name())?,
                Inst::Pow(a, b) => write!(f, "pow {a}, {b}")?,
            }
            f.write_str("\n")?;
        }
        write!(f, "{:indent$}}}", "")
    }

    fn access(&self, f: &mut fmt::Formatter<'_>, access: &Access) -> fmt::Result {
        let Access { buffer, index, fill } = access;
        write!(f, "{}[", (self.printer.buffer)(*buffer))?;
        // Terms print sorted by the ranks of loops; then the ranks are written as names.
        let loops: Vec<Loop> = {
            let mut used = Vec::new();
            index
                .iter()
                .for_each(|i| i.for_each_var(&mut |v| used.extend(if let Var::Loop(l) = v { Some(l) } else { None })));
            used
        };
        let name = |v: Var| match v {
            Var::Loop(rank) => {
                let of_rank = loops.iter().find(|l| self.ranks[**l] == rank.as_u32());
                let data = of_rank.and_then(|l| self.printer.kernel.loops.get(*l));
                data.map_or_else(|| "?".to_owned(), |d| Name(&d.name).to_string())
            }
            Var::Dim(d) => {
                let data = self.stmt.dims.get(d as usize);
                data.map_or_else(|| "?".to_owned(), |d| Name(&d.name).to_string())
            }
        };
        for (i, index) in index.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            write!(f, "{}", ranked(index, self.ranks).display(&name))?;
        }
        f.write_str("]")?;
        match fill {
            Some(fill) => write!(f, " else {fill}"),
            None => Ok(()),
        }
    }
}

/// The same coordinate with loops numbered by rank.
fn ranked(affine: &Affine, ranks: &SecondaryMap<Loop, u32>) -> Affine {
    let terms = affine.terms().iter().map(|(atom, c)| {
        let atom = match atom {
            Atom::Var(Var::Loop(l)) => Atom::Var(Var::Loop(Loop::new(ranks[*l] as usize))),
            Atom::Var(Var::Dim(d)) => Atom::Var(Var::Dim(*d)),
            Atom::FloorDiv(e, d) => Atom::FloorDiv(Box::new(ranked(e, ranks)), *d),
            Atom::Mod(e, m) => Atom::Mod(Box::new(ranked(e, ranks)), *m),
        };
        (atom, *c)
    });
    Affine::from_terms(terms, affine.constant_part())
}

/// `d1:8v`.
struct DimText<'a>(&'a Dim);

impl fmt::Display for DimText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dim { name, extent, exec } = self.0;
        let vector = match exec {
            Exec::Unroll => "",
            Exec::Vector => "v",
        };
        write!(f, "{}:{extent}{vector}", Name(name))
    }
}
