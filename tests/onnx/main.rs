//! ONNX operators: what is declared, and whether it holds.
//!
//! | module | holds |
//! |---|---|
//! | [`support`] | the page of supported operators, from the importer's table |
//! | [`page`] | keeping generated pages current |

mod page;
mod support;
