//! What object files hold, and what they do not.

use aic_cpu::artifact::read::{self, Kind};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, SymbolScope, elf};

use crate::c::{C99, Folder, MACHINES};
use crate::fixture::{Body, model};

#[test]
fn objects_need_nothing_and_export_the_interface_only() {
    for machine in ["x86-64", "x86-64-v4", "aarch64"] {
        let mut m = model("kws", Body::Accumulate, machine);
        m.spec.states = vec![("h".into(), "hn".into())];
        let bytes = m.object();
        let contents = read::read(&bytes).unwrap();
        let interface = &contents.models[0].interface;
        assert_eq!(contents.kind, Kind::Object);
        assert_eq!(contents.undefined, [""; 0]);
        let expected: Vec<String> = ["inputs", "outputs", "reset", "run_ex"].map(|w| interface.symbol(w)).into();
        assert_eq!(contents.exported, expected);
        assert!(contents.sections.iter().all(|s| !s.writable && s.bytes > 0), "{:?}", contents.sections);
        assert_eq!(*interface, m.artifact().interface);

        let file = object::File::parse(&*bytes).unwrap();
        // One section for each symbol, which starts at its beginning and fills it.
        let mut sections = Vec::new();
        for symbol in file.symbols() {
            let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
            assert_eq!((symbol.address(), symbol.size()), (0, section.size()), "{symbol:?}");
            let public = symbol.name().unwrap().starts_with("kws_");
            assert_eq!(symbol.scope() != SymbolScope::Compilation, public, "{symbol:?}");
            sections.push(section.name().unwrap().to_owned());
        }
        let count = sections.len();
        sections.sort();
        sections.dedup();
        assert_eq!(sections.len(), count);
        assert!(
            sections.contains(&".text.kws.kernel".to_owned()) && sections.contains(&".rodata.kws.weights".to_owned())
        );
        let weights = file.section_by_name(".rodata.kws.weights").unwrap();
        assert_eq!((weights.align(), weights.data().unwrap()), (64, &m.weights().to_vec().unwrap()[..]));
        assert!(file.section_by_name(".note.GNU-stack").is_some());
        for section in file.sections() {
            for (_, relocation) in section.relocations() {
                let RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("ELF") };
                let known = if machine == "aarch64" {
                    [elf::R_AARCH64_CALL26, elf::R_AARCH64_ADR_PREL_PG_HI21, elf::R_AARCH64_ADD_ABS_LO12_NC]
                        .contains(&r_type)
                } else {
                    [elf::R_X86_64_PC32, elf::R_X86_64_PLT32].contains(&r_type)
                };
                assert!(known, "{relocation:?}");
            }
        }
    }
}

#[test]
fn equal_models_give_equal_bytes() {
    let make = || {
        let m = model("kws", Body::AddWeights, "x86-64-v3");
        let mut library = Vec::new();
        m.artifact().write_static_library(m.weights(), &mut library).unwrap();
        (m.object(), library, m.artifact().header())
    };
    assert_eq!(make(), make());
}

#[test]
fn linkers_drop_a_model_that_is_not_called() {
    for machine in MACHINES {
        let (used, unused) = (model("used", Body::AddWeights, machine), model("unused", Body::AddWeights, machine));
        let folder = Folder::new(&[&used, &unused]);
        let source =
            "#include \"used.h\"\n#include \"unused.h\"\nint main(void) { return used_run(0, 0, 0) == AIC_OK; }\n";
        folder.must_build(C99, source, &["used.o", "unused.o", "-Wl,--gc-sections"]);
        let bytes = std::fs::read(folder.file("main")).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let names: Vec<&str> = file.symbols().filter_map(|s| s.name().ok()).collect();
        for kept in ["used.kernel", "used.weights"] {
            assert!(names.contains(&kept), "{names:?}");
        }
        assert!(!names.iter().any(|n| n.starts_with("unused")), "{names:?}");
        // The tables of the used model were not referred to.
        assert!(!names.iter().any(|n| n.starts_with("used_inputs")), "{names:?}");
        assert_eq!(read::read(&bytes).unwrap().models.len(), 2);
    }
}

#[test]
fn features_that_cannot_be_checked_are_refused() {
    let mut m = model("kws", Body::AddWeights, "x86-64");
    m.target.machine.features.push("teleport".into());
    let error = aic_cpu::artifact::Artifact::new(&m.compiled, &m.spec, m.weights(), &m.target).unwrap_err();
    assert!(error.to_string().contains("`teleport`"), "{error}");
}

#[test]
fn a_description_of_another_program_is_refused() {
    let mut m = model("kws", Body::AddWeights, "x86-64");
    m.spec.inputs.clear();
    let error = aic_cpu::artifact::Artifact::new(&m.compiled, &m.spec, m.weights(), &m.target).unwrap_err();
    assert!(error.to_string().contains("inputs of []"), "{error}");
}

#[test]
fn damaged_files_are_errors() {
    let m = model("kws", Body::AddWeights, "x86-64");
    let mut library = Vec::new();
    m.artifact().write_static_library(m.weights(), &mut library).unwrap();
    for bytes in [m.object(), library] {
        assert!(read::looks_like_artifact(&bytes));
        for length in (0..bytes.len()).step_by(7) {
            assert!(read::read(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
        // Whatever a flipped byte does, it is not a panic.
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0xff;
            let _ = read::read(&bad);
        }
    }
    assert!(read::read(b"ONNX").is_err());
}
