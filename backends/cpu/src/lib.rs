//! CPU backend: scheduled tile programs to Cranelift IR, native objects and their C interface.
