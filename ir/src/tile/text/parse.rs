//! Reading of tile programs: by the grammar only. What a program must obey beyond it is the verifier's to say.

use cranelift_entity::EntityRef;

use super::MAX_DEPTH;
use crate::text::constant::SideConsts;
use crate::text::{Cursor, ParseError, Token};
use crate::tile::{
    Access, Affine, Atom, Buffer, BufferData, Combine, Dim, Exec, Expr, ExprRef, Inst, Item, KernelData, Layout,
    LayoutDim, Loop, LoopData, LoopKind, MathFn, Program, Scalar, ScalarBinary, ScalarUnary, Space, Step, StmtData,
    StmtOp, Storage, Var,
};
use crate::types::DType;

impl Program {
    /// Reads a program in the [text form](super). `side` holds the constants that the text names by hash.
    ///
    /// # Errors
    /// At the first place that is not accepted.
    pub fn parse(text: &str, side: Option<&SideConsts>) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(text)?;
        cursor.expect("program")?;
        let program = Self { name: cursor.string()?, ..Self::default() };
        let mut parser = Parser { cursor, side, program };
        parser.program()?;
        if *parser.cursor.peek() != Token::End {
            return Err(parser.cursor.expected("the end"));
        }
        Ok(parser.program)
    }
}

impl Layout {
    /// Takes storage dimensions as `Display` prints them.
    ///
    /// # Errors
    /// When other tokens are at hand; divisors, moduli and extents of 0 are refused.
    pub fn read(c: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let positive = |c: &mut Cursor<'_>| {
            let start = c.offset();
            c.u64().and_then(|n| if n == 0 { Err(c.error_at(start, "must not be 0")) } else { Ok(n) })
        };
        c.expect("(")?;
        let mut dims = Vec::new();
        if c.eat(")")? {
            return Ok(Self { dims });
        }
        loop {
            let axis = c.usize()?;
            let div = if c.eat("/")? { positive(c)? } else { 1 };
            let modulo = if c.eat("%")? { Some(positive(c)?) } else { None };
            c.expect(":")?;
            let extent = positive(c)?;
            c.expect(")")?;
            dims.push(LayoutDim { axis, div, modulo, extent });
            if !c.eat("(")? {
                return Ok(Self { dims });
            }
        }
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    side: Option<&'a SideConsts>,
    program: Program,
}

/// What names mean at a statement.
struct Scope<'a> {
    loops: &'a [(String, Loop)],
    dims: &'a [Dim],
}

impl Parser<'_> {
    fn program(&mut self) -> Result<(), ParseError> {
        self.cursor.expect("{")?;
        while !self.cursor.at("inputs") {
            self.buffer_def()?;
        }
        self.cursor.expect("inputs")?;
        self.program.inputs = self.buffers()?;
        self.cursor.expect("outputs")?;
        self.program.outputs = self.buffers()?;
        let mut open = 0u32;
        loop {
            if self.cursor.eat("}")? {
                let Some(outer) = open.checked_sub(1) else { break };
                open = outer;
                self.program.steps.push(Step::End);
            } else if self.cursor.eat("repeat")? {
                let trips = self.cursor.u64()?;
                self.cursor.expect("{")?;
                open += 1;
                self.program.steps.push(Step::Repeat { trips });
            } else if self.cursor.eat("check")? {
                let buffer = self.buffer()?;
                self.cursor.expect("<")?;
                let bound = self.cursor.u64()?;
                self.program.steps.push(Step::Check { buffer, bound });
            } else {
                self.cursor.expect("kernel")?;
                self.kernel()?;
            }
        }
        Ok(())
    }

    fn buffers(&mut self) -> Result<Vec<Buffer>, ParseError> {
        let count = self.program.buffers.len();
        self.cursor.list("[", "]", |c| read_buffer(c, count))
    }

    fn buffer(&mut self) -> Result<Buffer, ParseError> {
        read_buffer(&mut self.cursor, self.program.buffers.len())
    }

    fn buffer_def(&mut self) -> Result<(), ParseError> {
        let c = &mut self.cursor;
        let start = c.offset();
        let next = self.program.buffers.len();
        if c.handle("b")? as usize != next {
            return Err(c.error_at(start, format!("expected `b{next}`: buffers are numbered in order")));
        }
        let name = c.string()?;
        c.expect(":")?;
        let ty = c.tensor_type()?;
        let layout = if c.at("(") { Layout::read(c)? } else { Layout::row_major(ty.shape()) };
        c.expect("=")?;
        let index = |c: &mut Cursor<'_>| {
            let start = c.offset();
            c.u64().and_then(|n| u32::try_from(n).map_err(|_| c.error_at(start, format!("{n} is too large"))))
        };
        let start = c.offset();
        let storage = match c.word()? {
            "input" => Storage::Input(index(c)?),
            "output" => Storage::Output(index(c)?),
            "const" => {
                let inline = matches!(c.peek(), Token::Hash(_) | Token::Punct(_));
                let own = if inline { ty.clone() } else { c.tensor_type()? };
                Storage::Const(c.constant(own, self.side)?)
            }
            "temp" => Storage::Temp,
            "scratch" => Storage::Local(Space::Scratch),
            "reg" => Storage::Local(Space::Reg),
            other => return Err(c.error_at(start, format!("`{other}` is not a storage"))),
        };
        let (dtype, shape) = (ty.dtype(), ty.shape().to_vec());
        self.program.buffers.push(BufferData { name, dtype, shape, layout, storage });
        Ok(())
    }

    fn kernel(&mut self) -> Result<(), ParseError> {
        let mut kernel = KernelData { name: self.cursor.name()?, ..KernelData::default() };
        if self.cursor.eat("from")? {
            kernel.sources.push(self.cursor.string()?);
            while self.cursor.eat(",")? {
                kernel.sources.push(self.cursor.string()?);
            }
        }
        kernel.body = self.body(&mut kernel, &mut Vec::new())?;
        let kernel = self.program.kernels.push(kernel);
        self.program.steps.push(Step::Run(kernel));
        Ok(())
    }

    /// A body in braces. Recursion is bounded by [`MAX_DEPTH`].
    fn body(&mut self, kernel: &mut KernelData, around: &mut Vec<(String, Loop)>) -> Result<Vec<Item>, ParseError> {
        if around.len() > MAX_DEPTH {
            return Err(self.cursor.error(format!("loops nest deeper than {MAX_DEPTH}")));
        }
        self.cursor.expect("{")?;
        let mut items = Vec::new();
        while !self.cursor.eat("}")? {
            let start = self.cursor.offset();
            let verb = self.cursor.word()?;
            let kind = match verb {
                "loop" => Some(LoopKind::Sequential),
                "parallel" => Some(LoopKind::Parallel),
                "unroll" => Some(LoopKind::Unrolled),
                "repeat" => Some(LoopKind::Repeat),
                _ => None,
            };
            let name = self.cursor.name()?;
            let Some(kind) = kind else {
                let stmt = self.stmt(verb, start, name, around)?;
                items.push(Item::Stmt(kernel.stmts.push(stmt)));
                continue;
            };
            let extent = self.cursor.u64()?;
            let l = kernel.loops.push(LoopData { name: name.clone(), extent, kind });
            around.push((name, l));
            let inner = self.body(kernel, around)?;
            around.pop();
            items.push(Item::Loop(l, inner));
        }
        Ok(items)
    }

    fn stmt(
        &mut self,
        verb: &str,
        start: usize,
        name: String,
        loops: &[(String, Loop)],
    ) -> Result<StmtData, ParseError> {
        if !["copy", "map", "mma", "reduce", "gather", "scatter"].contains(&verb) {
            return Err(self.cursor.error_at(start, format!("`{verb}` is neither a loop nor a statement")));
        }
        let dims = self.cursor.list("[", "]", |c| {
            let name = c.name()?;
            c.expect(":")?;
            let extent = c.u64()?;
            let exec = if c.eat("v")? { Exec::Vector } else { Exec::Unroll };
            Ok(Dim { name, extent, exec })
        })?;
        let scope = Scope { loops, dims: &dims };
        let dst = self.access(&scope)?;
        let op = match verb {
            "copy" => {
                self.cursor.expect("=")?;
                StmtOp::Copy { dst, src: self.access(&scope)? }
            }
            "map" => StmtOp::Map { dst, value: self.value(&scope)? },
            "mma" => {
                self.cursor.expect("+")?;
                self.cursor.expect("=")?;
                let a = self.access(&scope)?;
                self.cursor.expect("*")?;
                let b = self.access(&scope)?;
                StmtOp::Mma { acc: dst, a, b, fused: self.cursor.eat("fused")? }
            }
            "reduce" => {
                self.cursor.expect("=")?;
                let start = self.cursor.offset();
                let word = self.cursor.word()?;
                let op = Combine::ALL.into_iter().find(|c| c.name() == word);
                let op = op.ok_or_else(|| self.cursor.error_at(start, format!("`{word}` does not combine")))?;
                StmtOp::Reduce { dst, op, src: self.access(&scope)? }
            }
            "scatter" => {
                self.cursor.expect("axis")?;
                let axis = self.cursor.usize()?;
                self.cursor.expect("at")?;
                let index = self.access(&scope)?;
                self.cursor.expect("=")?;
                let op = match *self.cursor.peek() {
                    Token::Word(word) => Combine::ALL.into_iter().find(|c| c.name() == word),
                    _ => None,
                };
                if let Some(op) = op {
                    self.cursor.expect(op.name())?;
                }
                StmtOp::Scatter { dst, op, src: self.access(&scope)?, index, axis }
            }
            _ => {
                self.cursor.expect("=")?;
                let src = self.access(&scope)?;
                self.cursor.expect("axis")?;
                let axis = self.cursor.usize()?;
                self.cursor.expect("at")?;
                StmtOp::Gather { dst, src, index: self.access(&scope)?, axis }
            }
        };
        let intrinsic = if self.cursor.eat("by")? { Some(self.cursor.name()?) } else { None };
        Ok(StmtData { name, dims, op, intrinsic })
    }

    fn access(&mut self, scope: &Scope<'_>) -> Result<Access, ParseError> {
        let buffer = self.buffer()?;
        let index = self.cursor.list("[", "]", |c| affine(c, scope, 0))?;
        let fill = if self.cursor.eat("else")? {
            let dtype = self.cursor.dtype()?;
            Some(Scalar { dtype, bits: self.cursor.element(dtype)? })
        } else {
            None
        };
        Ok(Access { buffer, index, fill })
    }

    fn value(&mut self, scope: &Scope<'_>) -> Result<Expr, ParseError> {
        self.cursor.expect("{")?;
        let mut value = Expr::default();
        while !self.cursor.eat("}")? {
            let start = self.cursor.offset();
            let next = value.insts.len();
            if self.cursor.handle("e")? as usize != next {
                return Err(self.cursor.error_at(start, format!("expected `e{next}`: values are numbered in order")));
            }
            self.cursor.expect("=")?;
            let inst = self.inst(scope)?;
            value.push(inst);
        }
        Ok(value)
    }

    fn inst(&mut self, scope: &Scope<'_>) -> Result<Inst, ParseError> {
        let c = &mut self.cursor;
        let Token::Word(word) = *c.peek() else { return Err(c.expected("an instruction")) };
        if let Some(dtype) = DType::from_name(word) {
            c.take()?;
            return Ok(Inst::Const(Scalar { dtype, bits: c.element(dtype)? }));
        }
        let one = |c: &mut Cursor<'_>| c.handle("e").map(ExprRef);
        let next = |c: &mut Cursor<'_>| c.expect(",").and_then(|()| one(c));
        // `b1` would be a name too, but no instruction is called like a buffer.
        let unary = ScalarUnary::ALL.into_iter().find(|op| op.name() == word);
        let binary = ScalarBinary::ALL.into_iter().find(|op| op.name() == word);
        let math = MathFn::ALL.into_iter().find(|op| op.name() == word);
        if let Some(op) = unary {
            c.take()?;
            return Ok(Inst::Unary(op, one(c)?));
        }
        if let Some(op) = binary {
            c.take()?;
            return Ok(Inst::Binary(op, one(c)?, next(c)?));
        }
        if let Some(f) = math {
            c.take()?;
            return Ok(Inst::Math(f, one(c)?));
        }
        match word {
            "fma" | "select" | "pow" | "cast" | "bitcast" => {
                c.take()?;
            }
            _ => return self.access(scope).map(Inst::Load),
        }
        Ok(match word {
            "fma" => Inst::Fma(one(c)?, next(c)?, next(c)?),
            "select" => Inst::Select(one(c)?, next(c)?, next(c)?),
            "pow" => Inst::Pow(one(c)?, next(c)?),
            "cast" => Inst::Cast(c.dtype()?, one(c)?),
            _ => Inst::Bitcast(c.dtype()?, one(c)?),
        })
    }
}

fn read_buffer(c: &mut Cursor<'_>, count: usize) -> Result<Buffer, ParseError> {
    let start = c.offset();
    let number = c.handle("b")? as usize;
    if number < count { Ok(Buffer::new(number)) } else { Err(c.error_at(start, format!("there is no b{number}"))) }
}

/// A sum of terms. Recursion is bounded by [`MAX_DEPTH`].
fn affine(c: &mut Cursor<'_>, scope: &Scope<'_>, depth: usize) -> Result<Affine, ParseError> {
    if depth > MAX_DEPTH {
        return Err(c.error(format!("divisions nest deeper than {MAX_DEPTH}")));
    }
    let mut terms: Vec<(Atom, i64)> = Vec::new();
    let mut constant: i64 = 0;
    let mut negative = c.eat("-")?;
    loop {
        let start = c.offset();
        let too_large = |c: &Cursor<'_>| c.error_at(start, "the number does not fit 64 bits");
        let signed = |c: &Cursor<'_>, n: u64| {
            let value = if negative { -i128::from(n) } else { i128::from(n) };
            i64::try_from(value).map_err(|_| too_large(c))
        };
        if let Token::Number(_) = c.peek() {
            let factor = c.u64()?;
            let factor = signed(c, factor)?;
            if c.eat("*")? {
                terms.push((atom(c, scope, depth)?, factor));
            } else {
                constant = constant.checked_add(factor).ok_or_else(|| too_large(c))?;
            }
        } else {
            terms.push((atom(c, scope, depth)?, if negative { -1 } else { 1 }));
        }
        negative = if c.eat("-")? {
            true
        } else if c.eat("+")? {
            false
        } else {
            return Ok(Affine::from_terms(terms, constant));
        };
    }
}

fn atom(c: &mut Cursor<'_>, scope: &Scope<'_>, depth: usize) -> Result<Atom, ParseError> {
    let start = c.offset();
    if !c.eat("(")? {
        let name = c.name()?;
        if let Some(d) = scope.dims.iter().position(|d| d.name == name) {
            return Ok(Atom::Var(Var::Dim(d as u32)));
        }
        let l = scope.loops.iter().rev().find(|(n, _)| *n == name);
        let l = l.ok_or_else(|| c.error_at(start, format!("`{name}` is neither a dimension nor a loop around")))?;
        return Ok(Atom::Var(Var::Loop(l.1)));
    }
    c.expect("(")?;
    let inner = Box::new(affine(c, scope, depth + 1)?);
    c.expect(")")?;
    let division = c.eat("/")?;
    if !division {
        c.expect("%")?;
    }
    let start = c.offset();
    let by = c.i64()?;
    if by < 2 {
        return Err(c.error_at(start, "a divisor must be at least 2"));
    }
    c.expect(")")?;
    Ok(if division { Atom::FloorDiv(inner, by) } else { Atom::Mod(inner, by) })
}
