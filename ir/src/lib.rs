//! The intermediate representations of `aic`, from what a model computes to where every byte of it lies.
//!
//! A model goes one way through this crate, and nothing flows back:
//!
//! ```text
//! graph ─passes─▶ graph ─lower─▶ naive tile program ─schedule─▶ scheduled program ─plan─▶ planned program
//! what                           how, plainly                   how, on this machine      where
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`types`] | element types, shapes with checked arithmetic, constants as ranges of shared bytes |
//! | [`text`] | the lexer that the text forms of all levels share |
//! | `testing` | random graphs for tests, behind the feature of that name |
//! | [`graph`] | the graph: values, nodes, the closed set of operators; inference, verifier, text form, interpreter, passes |
//! | [`tile`] | tile programs: kernels as trees of loops and tile statements; accesses, layouts, verifier, text form, interpreter |
//! | [`lower`] | graph to naive tile program |
//! | [`machine`] | the machine a program is scheduled for, read from TOML, and the [`machine::Target`] that backends implement |
//! | [`schedule`] | schedules as values: checked primitives, their application, the scheduler and its cost model |
//! | [`plan`] | the exact memory plan and its independent checker |
//!
//! The crate does no input or output, prints nothing, and does not panic on any input: bytes in, bytes and a report out.

pub mod graph;
pub mod lower;
pub mod machine;
pub mod plan;
pub mod schedule;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod tile;
pub mod types;
