//! What `tests/models/setup.py` made: models, and what onnxruntime computed for them.

mod asset;

use aic::inputs::read_archive;
use aic_ir::types::Tensor;
pub use asset::asset;

/// A reference's inputs and outputs.
pub struct Reference {
    /// By name.
    pub inputs: Vec<(String, Tensor)>,
    /// By name.
    pub outputs: Vec<(String, Tensor)>,
}

/// A reference by name.
pub fn reference(name: &str) -> Reference {
    let arrays = read_archive(&asset(&format!("reference/{name}.npz"))).expect("an archive");
    let part = |prefix: &str| {
        let with = |(n, t): &(String, Tensor)| Some((n.strip_prefix(prefix)?.to_owned(), t.clone()));
        arrays.iter().filter_map(with).collect()
    };
    Reference { inputs: part("in:"), outputs: part("out:") }
}
