//! Text form of plans.
//!
//! ```text
//! plan {
//!   arena 41984 live 41984
//!   weights 128
//!   b0 input 0          // "audio" 16000 bytes
//!   b1 arena 64         // "t1" 512 bytes
//!   b2 weights 0
//!   b3 output 0
//! }
//! ```
//!
//! One line for each buffer that has a place. Names and sizes are comments: they belong to the program.

use std::fmt::Write as _;

use cranelift_entity::EntityRef;

use super::{Place, Plan};
use crate::text::{Cursor, ParseError, Quoted};
use crate::tile::Program;

/// Prints a plan of a program.
pub fn print(program: &Program, plan: &Plan) -> String {
    let mut out = String::from("plan {\n");
    let Plan { places, arena_bytes, live_bytes, weights_bytes } = plan;
    let _ = writeln!(out, "  arena {arena_bytes} live {live_bytes}\n  weights {weights_bytes}");
    for (buffer, data) in program.buffers.iter() {
        let place = match places[buffer] {
            Place::None => continue,
            Place::Input(i) => format!("input {i}"),
            Place::Output(i) => format!("output {i}"),
            Place::Arena(offset) => format!("arena {offset}"),
            Place::Weights(offset) => format!("weights {offset}"),
        };
        let _ = writeln!(out, "  {:<20} // {} {} bytes", format!("{buffer} {place}"), Quoted(&data.name), data.bytes());
    }
    out.push_str("}\n");
    out
}

/// Largest number of a buffer that a text may name; the map of places is as long as the largest.
const MAX_BUFFERS: usize = 1 << 20;

/// Parses a plan.
///
/// # Errors
/// When the text is not a plan; says where.
pub fn parse(text: &str) -> Result<Plan, ParseError> {
    let mut cursor = Cursor::new(text)?;
    let mut plan = Plan::default();
    cursor.expect("plan")?;
    cursor.expect("{")?;
    cursor.expect("arena")?;
    plan.arena_bytes = cursor.u64()?;
    cursor.expect("live")?;
    plan.live_bytes = cursor.u64()?;
    cursor.expect("weights")?;
    plan.weights_bytes = cursor.u64()?;
    while !cursor.eat("}")? {
        let start = cursor.offset();
        let buffer: crate::tile::Buffer = cursor.entity("b")?;
        if buffer.index() >= MAX_BUFFERS {
            return Err(cursor.error_at(start, format!("there are at most {MAX_BUFFERS} buffers")));
        }
        if plan.places[buffer] != Place::None {
            return Err(cursor.error_at(start, format!("{buffer} has a place already")));
        }
        let kind = cursor.word()?;
        let argument = |cursor: &mut Cursor<'_>| {
            let start = cursor.offset();
            let value = cursor.u64()?;
            u32::try_from(value).map_err(|_| cursor.error_at(start, format!("{value} is too large")))
        };
        plan.places[buffer] = match kind {
            "input" => Place::Input(argument(&mut cursor)?),
            "output" => Place::Output(argument(&mut cursor)?),
            "arena" => Place::Arena(cursor.u64()?),
            "weights" => Place::Weights(cursor.u64()?),
            _ => return Err(cursor.error_at(start, format!("`{kind}` is no place"))),
        };
    }
    if *cursor.peek() != crate::text::Token::End {
        return Err(cursor.expected("the end"));
    }
    Ok(plan)
}
