//! Readers: one module per file format, each producing an `aic_ir::graph::Graph`.
