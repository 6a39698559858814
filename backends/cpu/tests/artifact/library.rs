//! Static archives and shared libraries.

use aic_cpu::artifact::cdylib;
use aic_cpu::artifact::read::{self, Kind};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Endianness, elf};

use crate::PRELUDE;
use crate::c::{C99, Folder, MACHINES, must};
use crate::fixture::{Body, model};

const MAIN: &str = "
int main(void) {
    float x[5] = {1, 2, 3, 4, 5}, y[5];
    const void *in[1]; void *out[1];
    in[0] = x; out[0] = y;
    CHECK(RUN(in, out, block(ARENA_BYTES)) == AIC_OK);
    CHECK(y[0] == 1.5f && y[4] == 9.5f);
    return 0;
}
";

#[test]
fn archives_link_whatever_the_length_of_their_names() {
    for machine in MACHINES {
        for name in ["m", "a_model_with_a_name_that_is_longer_than_a_header_of_an_archive"] {
            let m = model(name, Body::AddWeights, machine);
            let folder = Folder::new(&[&m]);
            let mut library = Vec::new();
            m.artifact().write_static_library(m.weights(), &mut library).unwrap();
            let contents = read::read(&library).unwrap();
            assert_eq!((contents.kind, &contents.models[0].interface.ident[..]), (Kind::StaticLibrary, name));
            folder.write("libmodel.a", library);
            let upper = name.to_ascii_uppercase();
            let source = format!(
                "{PRELUDE}#include \"{name}.h\"\n#define RUN {name}_run\n#define ARENA_BYTES {upper}_ARENA_BYTES\n{MAIN}"
            );
            folder.must_build(C99, &source, &["-L.", "-lmodel"]);
            folder.must_run();
            assert_eq!(must("ar", &["t", "libmodel.a"], folder.path()), format!("{name}.o\n"));
            must("ar", &["x", "libmodel.a"], folder.path());
            assert_eq!(std::fs::read(folder.file(&format!("{name}.o"))).unwrap(), m.object());
        }
    }
}

#[test]
fn shared_libraries_export_the_interface_and_need_nothing() {
    for machine in MACHINES {
        let m = model("kws", Body::AddWeights, machine);
        let artifact = m.artifact();
        let folder = Folder::new(&[&m]);
        folder.write("kws.map", cdylib::version_script(&artifact));
        let arguments = cdylib::link_arguments("kws.o", "kws.map", "libkws.so", "libkws.so");
        must(folder.cc(), &arguments.iter().map(String::as_str).collect::<Vec<_>>(), folder.path());

        let bytes = std::fs::read(folder.file("libkws.so")).unwrap();
        let contents = read::read(&bytes).unwrap();
        assert_eq!(contents.kind, Kind::SharedLibrary);
        assert_eq!(contents.undefined, [""; 0]);
        let expected: Vec<String> = ["inputs", "outputs", "run", "run_ex"].map(|w| artifact.interface.symbol(w)).into();
        assert_eq!(contents.exported, expected);
        for section in &contents.sections {
            assert!(![".data", ".bss", ".got.plt", ".rela.dyn"].contains(&&section.name[..]), "{}", section.name);
        }
        let file: ElfFile64<'_, Endianness> = ElfFile64::parse(&*bytes).unwrap();
        let endian = Endianness::Little;
        let stack = file.elf_program_headers().iter().find(|p| p.p_type(endian) == elf::PT_GNU_STACK).unwrap();
        assert_eq!(stack.p_flags(endian).0 & elf::PF_X.0, 0);

        // Linked at build time.
        let source =
            format!("{PRELUDE}#include \"kws.h\"\n#define RUN kws_run\n#define ARENA_BYTES KWS_ARENA_BYTES\n{MAIN}");
        folder.must_build(C99, &source, &["-L.", "-lkws", "-Wl,-rpath,$ORIGIN"]);
        folder.must_run_checked();

        // Opened at run time.
        let run = artifact.interface.symbol("run");
        let source = format!(
            "{PRELUDE}#include <dlfcn.h>\n#include \"kws.h\"\n{}{MAIN}",
            "
typedef aic_status (*run_type)(const void *const *, void *const *, void *);
static aic_status open_and_run(const void *const *in, void *const *out, void *arena) {
    union { void *object; run_type function; } run;
    void *library = dlopen(\"./libkws.so\", RTLD_NOW);
    CHECK(library != 0);
    run.object = dlsym(library, SYMBOL);
    CHECK(run.object != 0);
    CHECK(dlsym(library, \"kws.kernel\") == 0);
    return run.function(in, out, arena);
}
#define RUN open_and_run
#define ARENA_BYTES KWS_ARENA_BYTES
"
            .replace("SYMBOL", &format!("\"{run}\""))
        );
        folder.must_build(C99, &source, &["-ldl"]);
        folder.must_run();
    }
}
