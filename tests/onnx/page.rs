//! Pages that are generated from what the code knows or does, and kept in the repository for readers.

use std::fs;
use std::path::Path;

/// Fails unless the page at that path of the repository has this text; with `AIC_BLESS=1` writes it.
pub fn check(path: &str, text: &str) {
    compare(path, text, |kept, new| kept == new);
}

fn compare(path: &str, text: &str, same: impl Fn(&str, &str) -> bool) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("AIC_BLESS").is_some() {
        fs::write(&file, text).unwrap_or_else(|e| panic!("{path}: {e}"));
        return;
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).find(|(kept, new)| !same(kept, new));
    let (kept, new) = (kept.lines().count(), text.lines().count());
    assert!(
        differs.is_none() && kept == new,
        "{path} is not current (AIC_BLESS=1 writes it); first difference: {differs:?}, {kept} and {new} lines"
    );
}
