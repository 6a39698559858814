//! The plan: *where* every byte lies.
//!
//! The planner gives every temporary and every kernel's scratch buffer an offset in the one arena, from the steps at which
//! it is alive; constants get offsets in the weight block, in their stored layout. All sizes are exact compile-time
//! constants. The checker shares no code with the planner and replays the program against the plan.

mod checker;
mod lifetime;
mod pack;
mod planner;
#[cfg(test)]
mod tests;
pub mod text;

use cranelift_entity::SecondaryMap;

use crate::tile::Buffer;
pub use checker::{CheckError, CheckErrors, check};
pub use planner::{PlanError, plan};

/// Alignment of every buffer in the arena and in the weight block, in bytes: a cache line, and four vectors.
pub const ALIGN_BYTES: u64 = 64;

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: unused, or in registers.
    #[default]
    None,
    /// In the caller's input of that index.
    Input(u32),
    /// In the caller's output of that index.
    Output(u32),
    /// In the arena, at that byte offset.
    Arena(u64),
    /// In the weight block, at that byte offset.
    Weights(u64),
}

/// A memory plan of a scheduled program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Where each buffer lies.
    pub places: SecondaryMap<Buffer, Place>,
    /// Size of the arena in bytes.
    pub arena_bytes: u64,
    /// Most bytes that are alive at once, each buffer rounded up to [`ALIGN_BYTES`]: no packing of these lifetimes can be smaller.
    pub live_bytes: u64,
    /// Size of the weight block in bytes.
    pub weights_bytes: u64,
}
