//! ONNX operators: what is declared, and whether it holds.
//!
//! | module | holds |
//! |---|---|
//! | [`support`] | the page of supported operators, from the importer's table |
//! | [`node`] | the official node tests |
//! | [`case`], [`execute`], [`error`] | reading a case, running it, judging what it gives |
//! | [`page`] | keeping generated pages current |

#[path = "../common/asset.rs"]
mod asset;
mod case;
mod error;
mod execute;
mod node;
mod page;
mod support;
