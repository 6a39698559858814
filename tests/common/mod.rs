//! What `tests/models/setup.py` made: models, and what onnxruntime computed for them.

use std::path::{Path, PathBuf};

use aic::inputs::read_archive;
use aic_ir::types::Tensor;

/// A file or folder that `tests/models/setup.py` makes.
pub fn asset(name: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-assets");
    let path = std::env::var_os("AIC_TEST_ASSETS").map_or_else(default, PathBuf::from).join(name);
    assert!(path.exists(), "{} is missing; to make it: python3 tests/models/setup.py", path.display());
    path
}

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
