//! Rules for source files that no lint knows: every one says what it holds, and none grows without bound.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines.
const MAX_LINES: usize = 800;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_file_has_a_header_and_a_bound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(root, &mut files);
    assert!(files.len() > 50, "only {} files found", files.len());
    let mut faults = String::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        if !text.starts_with("//! ") {
            faults += &format!("{name}: does not start with a `//!` header\n");
        }
        if text.lines().count() > MAX_LINES {
            faults += &format!("{name}: {} lines, {MAX_LINES} are allowed\n", text.lines().count());
        }
        for (i, line) in text.lines().enumerate() {
            // Spelled in two parts, or this file would be at fault.
            if ["TO DO", "FIX ME", "XX X"].iter().any(|word| line.contains(&word.replace(' ', ""))) {
                faults += &format!("{name}:{}: unfinished work belongs into the issue tracker\n", i + 1);
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}
