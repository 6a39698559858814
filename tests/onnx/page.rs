//! Pages that are generated from what the code knows or does, and kept in the repository for readers.

use std::fs;
use std::path::Path;

/// Fails unless the page at that path of the repository has this text; with `AIC_BLESS=1` writes it.
pub fn check(path: &str, text: &str) {
    compare(path, text, |kept, new| kept == new);
}

/// Like [`check`], for a page with bounds as [`at_most`] writes them: measured ones may be smaller than those kept, as
/// results may differ by the last place from processor to processor.
pub fn check_with_bounds(path: &str, text: &str) {
    compare(path, text, |kept, new| {
        let (kept, new) = (kept.split(" | "), new.split(" | "));
        kept.clone().count() == new.clone().count()
            && kept.zip(new).all(|(k, n)| k == n || bound(k).zip(bound(n)).is_some_and(|(k, n)| n <= k))
    });
}

/// A bound in words: `≤ 4`, the next power of two.
pub fn at_most(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("≤ {}", 2f64.powf(value.log2().ceil().max(-1.0))) }
}

fn bound(cell: &str) -> Option<f64> {
    if cell == "0" { Some(0.0) } else { cell.strip_prefix("≤ ")?.parse().ok() }
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
