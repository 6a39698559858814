//! Text form of schedules: one directive a line. Printed by `Display`, read by [`Schedule::parse`].
//!
//! ```text
//! schedule   := "schedule" "for" #HASH directive*
//! directive  := "fuse" NAME NAME
//!             | "split" NAME NAME.NAME ("," NAME.NAME)* "by" N "->" NAME
//!             | "reorder" NAME NAME NAME
//!             | "cache" NAME NAME ("a" | "b") ("at" NAME)? "->" NAME "(" N* ")"
//!             | "stage" NAME NAME ("," NAME)* ":" NAME "->" NAME
//!             | "layout" NAME part*          part := "(" AXIS ("/" N)? ("%" N)? ":" EXTENT ")"
//!             | "pad" NAME ("(" N N ")")* "with" SCALAR      elements before and after, for each axis
//!             | "place" NAME NAME ("reg" | "scratch")
//!             | "rfactor" NAME NAME "by" N
//!             | "vectorize" NAME NAME.NAME
//!             | "unroll" NAME NAME | "parallel" NAME NAME
//!             | "intrinsic" NAME NAME NAME
//! ```
//!
//! A name is a word, or a quoted string where it is not one (buffers carry the user's tensor names).

use std::fmt;

use super::{DimRef, Directive, Operand, Schedule, ScheduleError};
use crate::text::{Cursor, Name, ParseError, Token};
use crate::tile::{Layout, Scalar, Space};

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "schedule for #{:016x}", self.program_hash)?;
        self.directives.iter().try_for_each(|d| writeln!(f, "{d}"))
    }
}

impl fmt::Display for DimRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", Name(&self.stmt), Name(&self.dim))
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Directive::Fuse { kernel, consumer } => write!(f, "fuse {} {}", Name(kernel), Name(consumer)),
            Directive::Split { kernel, dims, factor, into } => {
                write!(f, "split {} ", Name(kernel))?;
                separated(f, dims, |f, d| write!(f, "{d}"))?;
                write!(f, " by {factor} -> {}", Name(into))
            }
            Directive::Reorder { kernel, outer, inner } => {
                write!(f, "reorder {} {} {}", Name(kernel), Name(outer), Name(inner))
            }
            Directive::Cache { kernel, stmt, operand, at, into, order } => {
                let operand = match operand {
                    Operand::A => "a",
                    Operand::B => "b",
                };
                write!(f, "cache {} {} {operand}", Name(kernel), Name(stmt))?;
                if let Some(at) = at {
                    write!(f, " at {}", Name(at))?;
                }
                write!(f, " -> {} (", Name(into))?;
                for (i, axis) in order.iter().enumerate() {
                    write!(f, "{}{axis}", if i > 0 { " " } else { "" })?;
                }
                f.write_str(")")
            }
            Directive::Stage { kernel, stmts, buffer, into } => {
                write!(f, "stage {} ", Name(kernel))?;
                separated(f, stmts, |f, s| write!(f, "{}", Name(s)))?;
                write!(f, ": {} -> {}", Name(buffer), Name(into))
            }
            Directive::Layout { buffer, layout } => {
                write!(f, "layout {} {layout}", Name(buffer))
            }
            Directive::Pad { buffer, border, value } => {
                write!(f, "pad {} ", Name(buffer))?;
                border.iter().try_for_each(|(before, after)| write!(f, "({before} {after})"))?;
                write!(f, " with {value}")
            }
            Directive::Place { kernel, buffer, space } => {
                let space = match space {
                    Space::Scratch => "scratch",
                    Space::Reg => "reg",
                };
                write!(f, "place {} {} {space}", Name(kernel), Name(buffer))
            }
            Directive::Rfactor { kernel, stmt, lanes } => {
                write!(f, "rfactor {} {} by {lanes}", Name(kernel), Name(stmt))
            }
            Directive::Vectorize { kernel, dim } => write!(f, "vectorize {} {dim}", Name(kernel)),
            Directive::Unroll { kernel, loop_name } => write!(f, "unroll {} {}", Name(kernel), Name(loop_name)),
            Directive::Parallel { kernel, loop_name } => write!(f, "parallel {} {}", Name(kernel), Name(loop_name)),
            Directive::Intrinsic { kernel, stmt, name } => {
                write!(f, "intrinsic {} {} {}", Name(kernel), Name(stmt), Name(name))
            }
        }
    }
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    each: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

impl Schedule {
    /// Reads the text form.
    ///
    /// # Errors
    /// With line and column, where the text is not a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let mut c = Cursor::new(text)?;
        c.expect("schedule")?;
        c.expect("for")?;
        let program_hash = match c.peek() {
            Token::Hash(digits) => u64::from_str_radix(digits, 16).map_err(|_| c.error("not a 64-bit hash"))?,
            other => return Err(c.error(format!("expected a hash, found {other}")).into()),
        };
        c.take()?;
        let mut directives = Vec::new();
        while *c.peek() != Token::End {
            directives.push(directive(&mut c)?);
        }
        Ok(Self { program_hash, directives })
    }
}

fn directive(c: &mut Cursor<'_>) -> Result<Directive, ParseError> {
    let start = c.offset();
    let verb = match c.take()? {
        Token::Word(w) => w,
        other => return Err(c.error_at(start, format!("expected a directive, found {other}"))),
    };
    if verb == "layout" {
        return Ok(Directive::Layout { buffer: c.name()?, layout: Layout::read(c)? });
    }
    if verb == "pad" {
        let buffer = c.name()?;
        let mut border = Vec::new();
        while c.eat("(")? {
            border.push((c.u64()?, c.u64()?));
            c.expect(")")?;
        }
        c.expect("with")?;
        let dtype = c.dtype()?;
        return Ok(Directive::Pad { buffer, border, value: Scalar { dtype, bits: c.element(dtype)? } });
    }
    let kernel = c.name()?;
    Ok(match verb {
        "fuse" => Directive::Fuse { kernel, consumer: c.name()? },
        "split" => {
            let dims = list(c, dim_ref)?;
            c.expect("by")?;
            let factor = c.u64()?;
            c.expect("->")?;
            Directive::Split { kernel, dims, factor, into: c.name()? }
        }
        "reorder" => Directive::Reorder { kernel, outer: c.name()?, inner: c.name()? },
        "cache" => {
            let stmt = c.name()?;
            let operand = if c.eat("a")? { Operand::A } else { c.expect("b").map(|()| Operand::B)? };
            let at = if c.eat("at")? { Some(c.name()?) } else { None };
            c.expect("->")?;
            let into = c.name()?;
            c.expect("(")?;
            let mut order = Vec::new();
            while !c.eat(")")? {
                order.push(c.usize()?);
            }
            Directive::Cache { kernel, stmt, operand, at, into, order }
        }
        "stage" => {
            let stmts = list(c, |c| c.name())?;
            c.expect(":")?;
            let buffer = c.name()?;
            c.expect("->")?;
            Directive::Stage { kernel, stmts, buffer, into: c.name()? }
        }
        "place" => {
            let buffer = c.name()?;
            let space = if c.eat("reg")? { Space::Reg } else { c.expect("scratch").map(|()| Space::Scratch)? };
            Directive::Place { kernel, buffer, space }
        }
        "rfactor" => {
            let stmt = c.name()?;
            c.expect("by")?;
            Directive::Rfactor { kernel, stmt, lanes: c.u64()? }
        }
        "vectorize" => Directive::Vectorize { kernel, dim: dim_ref(c)? },
        "unroll" => Directive::Unroll { kernel, loop_name: c.name()? },
        "parallel" => Directive::Parallel { kernel, loop_name: c.name()? },
        "intrinsic" => Directive::Intrinsic { kernel, stmt: c.name()?, name: c.name()? },
        other => return Err(c.error_at(start, format!("`{other}` is not a directive"))),
    })
}

fn dim_ref(c: &mut Cursor<'_>) -> Result<DimRef, ParseError> {
    let stmt = c.name()?;
    c.expect(".")?;
    Ok(DimRef { stmt, dim: c.name()? })
}

fn list<T>(c: &mut Cursor<'_>, one: impl Fn(&mut Cursor<'_>) -> Result<T, ParseError>) -> Result<Vec<T>, ParseError> {
    let mut items = vec![one(c)?];
    while c.eat(",")? {
        items.push(one(c)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_reads_back_as_written() {
        let text = r#"schedule for #00000000000000ff
fuse matmul_3 gelu_4
split matmul_3 init.d1, mma.d1 by 4 -> i
reorder matmul_3 i j
cache attention_1 mma b at h -> kt (1 0)
cache conv_1 mma a -> padded (0 1)
stage matmul_3 init, mma: "l0/ffn" -> acc
layout "l0.weight" (0/8:6)(1:384)(0%8:8)
pad t7 (0 0)(1 2) with f32 0.0
place matmul_3 acc reg
place matmul_3 "x y" scratch
rfactor softmax_1 sum by 16
vectorize matmul_3 mma.d1
unroll matmul_3 i
parallel matmul_3 j
intrinsic matmul_3 mma f32_gemm_4x8_avx
"#;
        let schedule = Schedule::parse(text).map(|s| s.to_string());
        assert_eq!(schedule, Ok(text.to_owned()));
    }

    #[test]
    fn errors_have_their_line() {
        let error = Schedule::parse("schedule for #1\nfuse a b\nsplice a b\n").map_err(|e| e.to_string());
        assert_eq!(error, Err("line 3, column 1: `splice` is not a directive".to_owned()));
    }
}
