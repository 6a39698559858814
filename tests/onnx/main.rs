//! ONNX operators: what is declared, and whether it holds.
//!
//! | module | holds |
//! |---|---|
//! | [`support`] | the page of supported operators, from the importer's table |
//! | [`node`] | the official node tests |
//! | [`table`] | every declared operator with every declared element type, against onnxruntime |
//! | [`case`], [`execute`], [`error`] | reading a case, running it, judging what it gives |
//! | [`parallel`] | cases on all processors |
//! | [`page`] | keeping generated pages current |

#[path = "../common/asset.rs"]
mod asset;
mod case;
mod error;
mod execute;
mod node;
mod page;
mod parallel;
mod support;
mod table;
