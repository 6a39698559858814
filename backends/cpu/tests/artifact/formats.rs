//! Mach-O and COFF objects: read back, linked by a foreign linker (`lld`), and what it made of them executed here or in the emulator,
//! in the platform's calling convention.

use aic_cpu::CpuTarget;
use aic_cpu::artifact::read::{self, Kind};
use aic_cpu::artifact::{Format, header};
use aic_ir::machine::{Arch, builtin};
use aic_ir::types::Tensor;
use object::{
    ExportTarget, NameOrOrdinal, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind,
};
use tempfile::TempDir;

use crate::aarch64::Machine;
use crate::c::must;
use crate::compiled::{assert_same_bits, random_model};
use crate::fixture::{Body, Model, model_for};
use crate::native::{self, Convention};

/// Machine and triple of every platform of the two formats.
const PLATFORMS: [(&str, &str); 5] = [
    ("x86-64-v3", "x86_64-apple-darwin"),
    ("aarch64", "aarch64-apple-darwin"),
    ("x86-64-v3", "x86_64-pc-windows-msvc"),
    ("x86-64-v2", "x86_64-pc-windows-gnu"),
    ("aarch64", "aarch64-pc-windows-msvc"),
];

fn target(machine: &str, triple: &str) -> CpuTarget {
    CpuTarget::new(builtin(machine).unwrap(), triple.parse().unwrap()).unwrap()
}

#[test]
fn objects_read_back_and_refer_to_nothing_outside() {
    for (machine, triple) in PLATFORMS {
        let mut m = model_for("kws", Body::Accumulate, target(machine, triple));
        m.spec.states = vec![("h".into(), "hn".into())];
        let bytes = m.object();
        let contents = read::read(&bytes).unwrap();
        let interface = &contents.models[0].interface;
        assert_eq!((contents.kind, interface), (Kind::Object, &m.artifact().interface), "{triple}");
        assert_eq!(contents.undefined, [""; 0], "{triple}");
        let expected: Vec<String> = ["inputs", "outputs", "reset", "run_ex"].map(|w| interface.symbol(w)).into();
        assert_eq!(contents.exported, expected, "{triple}");
        assert!(contents.sections.iter().all(|s| !s.writable && s.bytes > 0), "{triple}: {:?}", contents.sections);

        let file = object::File::parse(&*bytes).unwrap();
        for symbol in file.symbols().filter(|s| s.kind() != SymbolKind::Section) {
            let name = symbol.name().unwrap();
            assert!(
                name.starts_with(if m.target.format == Format::MachO { "_kws" } else { "kws" }),
                "{triple}: {name}"
            );
        }
        let weights = file.symbols().find(|s| s.name().unwrap().ends_with("kws.weights")).unwrap();
        let section = file.section_by_index(weights.section_index().unwrap()).unwrap();
        assert_eq!((section.align(), weights.address() % 64), (64, 0), "{triple}");
        let start = (weights.address() - section.address()) as usize;
        let block = m.weights().to_vec().unwrap();
        assert_eq!(section.data().unwrap()[start..start + block.len()], block, "{triple}");
        let mut references = 0;
        for section in file.sections() {
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else { panic!("{triple}: {relocation:?}") };
                assert!(file.symbol_by_index(symbol).unwrap().is_definition() && offset + 4 <= section.size());
                references += 1;
            }
        }
        assert!(references >= 4, "{triple}: {references}");
    }
}

#[test]
fn equal_models_give_equal_bytes_and_damaged_files_are_errors() {
    for (machine, triple) in PLATFORMS {
        let make = || {
            let m = model_for("kws", Body::AddWeights, target(machine, triple));
            let mut library = Vec::new();
            m.artifact().write_static_library(m.weights(), &mut library).unwrap();
            (m.object(), library)
        };
        assert_eq!(make(), make());
        for bytes in <[Vec<u8>; 2]>::from(make()) {
            assert!(read::looks_like_artifact(&bytes));
            for length in (0..bytes.len() - 16).step_by(13) {
                // Cut behind everything that is looked at, a file may still tell what is in it.
                let _ = read::read(&bytes[..length]);
            }
            for i in 0..bytes.len().min(4096) {
                let mut bad = bytes.clone();
                bad[i] ^= 0xff;
                let _ = read::read(&bad);
            }
        }
    }
}

/// A model's library, linked to a shared one; gives it as it lies in memory, and where its run function is.
fn linked(m: &Model) -> (Vec<u8>, usize) {
    let folder = TempDir::new().unwrap();
    let (artifact, dir) = (m.artifact(), folder.path());
    let mut library = Vec::new();
    artifact.write_static_library(m.weights(), &mut library).unwrap();
    std::fs::write(dir.join("model.a"), library).unwrap();
    std::fs::write(dir.join("aic.h"), header::common()).unwrap();
    let run = artifact.interface.symbol("run");
    let arch = m.target.machine.arch;
    match m.target.format {
        Format::MachO => {
            let name = if arch == Arch::X86_64 { "x86_64" } else { "arm64" };
            let symbol = format!("_{run}");
            let options = ["-dylib", "-arch", name, "-platform_version", "macos", "12.0", "12.0", "-dead_strip"];
            let symbols = ["-u", &symbol, "-exported_symbol", &symbol];
            must("lld", &[&["-flavor", "darwin"], &options[..], &symbols, &["model.a", "-o", "linked"]].concat(), dir);
        }
        Format::Coff => {
            let machine = if arch == Arch::X86_64 { "/machine:x64" } else { "/machine:arm64" };
            let export = format!("/export:{run}");
            let options = ["/dll", "/noentry", "/nodefaultlib", "/opt:ref", "/out:linked", "/brepro"];
            must("lld", &[&["-flavor", "link"], &options[..], &[machine, &export, "model.a"]].concat(), dir);
        }
        Format::Elf => unreachable!("not one of these platforms"),
    }
    let bytes = std::fs::read(dir.join("linked")).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    assert!(file.imports().unwrap().next().is_none(), "{}", m.target.triple);
    let base = file.relative_address_base();
    let symbol = format!("{}{run}", m.target.format.symbol_prefix());
    let mut exports = file.exports().unwrap().map(Result::unwrap);
    let export = exports.find(|e| matches!(e.name(), NameOrOrdinal::Name(n) if n == symbol.as_bytes())).unwrap();
    let ExportTarget::Address { address } = export.target() else { panic!("{export:?}") };
    let offset = (address - base) as usize;
    let mut image = Vec::new();
    for section in file.sections().filter(|s| s.address() >= base && s.size() > 0) {
        let start = (section.address() - base) as usize;
        let data = section.data().unwrap();
        image.resize(image.len().max(start + data.len()), 0);
        image[start..start + data.len()].copy_from_slice(data);
    }
    // What is not called is not there: the tables of tensors.
    let inputs = m.artifact().interface.symbol("inputs");
    assert!(!file.symbols().any(|s| s.name().is_ok_and(|n| n.contains(&inputs))));
    (image, offset)
}

/// Runs a linked model.
fn run(m: &Model, inputs: &[&[u8]]) -> (i32, Vec<Vec<u8>>) {
    let (image, offset) = linked(m);
    let compiled = &m.compiled;
    let arena_bytes = m.artifact().interface.arena_bytes;
    match (m.target.machine.arch, m.target.format) {
        (Arch::Aarch64, _) => {
            let mut machine = Machine::start();
            machine.run_image(&image, offset, arena_bytes, &[], inputs, &compiled.output_bytes)
        }
        (Arch::X86_64, Format::Coff) => {
            native::run(&image, offset, Convention::Windows, arena_bytes, inputs, &compiled.output_bytes)
        }
        (Arch::X86_64, _) => {
            native::run(&image, offset, Convention::SystemV, arena_bytes, inputs, &compiled.output_bytes)
        }
    }
}

#[test]
fn linked_models_run_in_the_platforms_calling_convention() {
    for (machine, triple) in PLATFORMS {
        // Its frame is larger than a page, so that Windows wants it touched.
        let m = model_for("kws", Body::AddWeights, target(machine, triple));
        let x: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let (status, outputs) = run(&m, &[&x]);
        let y: Vec<f32> = outputs[0].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!((status, &y[..]), (0, &[1.5, 3.5, 5.5, 7.5, 9.5][..]), "{triple}");
    }
}

#[test]
fn random_graphs_give_the_same_bits() {
    for (machine, triple) in PLATFORMS {
        let mut ran = 0;
        // Models of odd seeds have their weights outside, and no such function.
        for seed in (0..16).step_by(2) {
            let Some((m, inputs, expected)) = random_model(seed, target(machine, triple)) else { continue };
            let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes().as_ref()).collect();
            let (status, outputs) = run(&m, &bytes);
            assert_eq!(status, 0, "{triple}, seed {seed}");
            for (actual, expected) in outputs.into_iter().zip(&expected) {
                let actual = Tensor::new(expected.ty().clone(), actual.into()).unwrap();
                assert_same_bits(&actual, expected, &format!("{triple}, seed {seed}"));
            }
            ran += 1;
        }
        assert!(ran >= 3, "{triple}: {ran}");
    }
}
