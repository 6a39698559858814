//! Compiling, linking and running C programs against artifacts: on x86-64 in place, on AArch64 with a cross compiler and an
//! emulator.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aic_cpu::artifact::header;
use aic_ir::machine::Arch;
use tempfile::TempDir;

use crate::fixture::Model;

/// Machines whose code these tests run: under valgrind and under qemu.
pub const MACHINES: [&str; 2] = ["x86-64-v2", "aarch64"];

/// Where the libraries of AArch64 programs are that are not linked statically.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";

/// What compilers are asked to accept.
pub const C99: &[&str] = &["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g"];
/// The same for C++.
pub const CXX: &[&str] = &["c++", "-std=c++98", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g"];

/// Runs a program that the tests need.
pub fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let package = match program {
        "cc" => "gcc",
        "c++" => "g++",
        "aarch64-linux-gnu-gcc" => "gcc-aarch64-linux-gnu",
        "qemu-aarch64-static" | "qemu-x86_64-static" => "qemu-user-static",
        other => other,
    };
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; on Debian, `apt-get install {package}` installs it"))
}

/// Runs a program that must succeed; gives its standard output.
pub fn must(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = run(program, arguments, folder);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder with the files of some models: `NAME.o`, `NAME.h`, `NAME.weights` and `aic.h`.
pub struct Folder {
    folder: TempDir,
    arch: Arch,
}

impl Folder {
    pub fn new(models: &[&Model]) -> Self {
        let arch = models[0].target.machine.arch;
        assert!(models.iter().all(|m| m.target.machine.arch == arch), "models of one program");
        let folder = Self { folder: TempDir::new().unwrap(), arch };
        folder.write(header::COMMON_NAME, header::common());
        for model in models {
            let artifact = model.artifact();
            let name = &artifact.interface.ident;
            folder.write(&format!("{name}.h"), artifact.header());
            folder.write(&format!("{name}.o"), model.object());
            let mut weights = Vec::new();
            artifact.write_weights(model.weights(), &mut weights).unwrap();
            if !weights.is_empty() {
                folder.write(&format!("{name}.weights"), weights);
            }
        }
        folder
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), contents).unwrap();
    }

    /// The C compiler for the models' architecture.
    pub fn cc(&self) -> &'static str {
        match self.arch {
            Arch::X86_64 => "cc",
            Arch::Aarch64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// Compiles `source` and links it with `objects` to `./main`.
    pub fn build(&self, compiler: &[&str], source: &str, objects: &[&str]) -> Output {
        let (file, program) = if compiler[0] == "cc" { ("main.c", self.cc()) } else { ("main.cpp", compiler[0]) };
        self.write(file, source);
        let mut arguments = compiler[1..].to_vec();
        arguments.extend([file, "-o", "main"]);
        arguments.extend(objects);
        run(program, &arguments, self.path())
    }

    /// Compiles and links, which must succeed.
    pub fn must_build(&self, compiler: &[&str], source: &str, objects: &[&str]) {
        let output = self.build(compiler, source, objects);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `./main`, which must succeed.
    pub fn must_run(&self) -> String {
        match self.arch {
            Arch::X86_64 => must(self.file("main").to_str().unwrap(), &[], self.path()),
            Arch::Aarch64 => must("qemu-aarch64-static", &["-L", SYSROOT, "./main"], self.path()),
        }
    }

    /// Runs `./main`; on x86-64 under valgrind, which must find no access outside blocks.
    pub fn must_run_checked(&self) -> String {
        match self.arch {
            Arch::X86_64 => must("valgrind", &["-q", "--error-exitcode=99", "./main"], self.path()),
            Arch::Aarch64 => self.must_run(),
        }
    }
}
