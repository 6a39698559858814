//! Where the files lie that `tests/models/setup.py` makes.

use std::path::{Path, PathBuf};

/// A file or folder that `tests/models/setup.py` makes.
pub fn asset(name: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-assets");
    let path = std::env::var_os("AIC_TEST_ASSETS").map_or_else(default, PathBuf::from).join(name);
    assert!(path.exists(), "{} is missing; to make it: python3 tests/models/setup.py", path.display());
    path
}
