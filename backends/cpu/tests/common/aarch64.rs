//! Running compiled programs on AArch64: a process under `qemu-aarch64-static` maps and runs what it is sent.
//!
//! Every block that it lends to a program ends where a page begins that may not be touched, so that an access behind a
//! block ends the process. One process serves all programs of a test.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use aic_cpu::Compiled;
use tempfile::TempDir;

/// Reads programs from stdin and answers with their status and outputs, until there are no more.
const SERVER: &str = r#"
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#define PAGE 4096u
#define MAX 64
static void get(void *to, size_t bytes) { if (bytes && fread(to, 1, bytes, stdin) != bytes) exit(feof(stdin) ? 0 : 2); }
static void put(const void *from, size_t bytes) { if (bytes && fwrite(from, 1, bytes, stdout) != bytes) exit(3); }
/* Pages that end with the block, before one without access. */
static uint8_t *pages(size_t bytes, uint8_t **whole, size_t *size) {
    size_t used = (bytes + PAGE - 1) / PAGE * PAGE;
    uint8_t *p = mmap(0, used + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + used, PAGE, PROT_NONE)) exit(4);
    *whole = p; *size = used + PAGE;
    return p + used - bytes;
}
typedef int32_t entry(const void *const *, void *const *, void *, const void *);
int main(void) {
    for (;;) {
        uint64_t head[6], in_bytes[MAX], out_bytes[MAX], status;
        uint8_t *whole[2 * MAX + 3], *in[MAX], *out[MAX], *code, *arena, *weights;
        size_t size[2 * MAX + 3], n = 0, i;
        get(head, sizeof head); /* bytes of code, offset of the entry, inputs, outputs, bytes of arena and weights */
        if (head[2] > MAX || head[3] > MAX) return 5;
        get(in_bytes, 8 * head[2]);
        get(out_bytes, 8 * head[3]);
        size[n] = (head[0] + PAGE - 1) / PAGE * PAGE + PAGE;
        code = whole[n] = mmap(0, size[n], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (code == MAP_FAILED) return 4;
        get(code, head[0]);
        if (mprotect(code, size[n++], PROT_READ | PROT_EXEC)) return 4;
        __builtin___clear_cache((char *)code, (char *)code + head[0]);
        weights = pages(head[5], &whole[n], &size[n]); n++;
        get(weights, head[5]);
        arena = pages(head[4], &whole[n], &size[n]); n++;
        for (i = 0; i < head[2]; i++) { in[i] = pages(in_bytes[i], &whole[n], &size[n]); n++; get(in[i], in_bytes[i]); }
        for (i = 0; i < head[3]; i++) { out[i] = pages(out_bytes[i], &whole[n], &size[n]); n++; }
        status = (uint64_t)(int64_t)((entry *)(uintptr_t)(code + head[1]))(
            (const void *const *)in, (void *const *)out, arena, weights);
        put(&status, 8);
        for (i = 0; i < head[3]; i++) put(out[i], out_bytes[i]);
        fflush(stdout);
        for (i = 0; i < n; i++) munmap(whole[i], size[i]);
    }
}
"#;

/// A process that runs programs. Ends with the value.
pub struct Machine {
    child: Child,
}

impl Machine {
    /// Starts the process.
    pub fn start() -> Self {
        let qemu = "qemu-aarch64-static";
        let child = Command::new(qemu).arg(server()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self { child: child.unwrap_or_else(|e| missing(qemu, "qemu-user-static", &e)) }
    }

    /// Runs a program; gives its status and outputs.
    #[allow(dead_code, reason = "one of two test programs has compiled programs, the other linked code")]
    pub fn run(&mut self, compiled: &Compiled, weights: &[u8], inputs: &[&[u8]]) -> (i32, Vec<Vec<u8>>) {
        assert_eq!(inputs.iter().map(|i| i.len() as u64).collect::<Vec<_>>(), compiled.input_bytes);
        let image = compiled.image().unwrap();
        let entry = image.offsets[compiled.entry];
        self.run_image(&image.bytes, entry, compiled.arena_bytes, weights, inputs, &compiled.output_bytes)
    }

    /// Runs the function `status f(inputs, outputs, arena, weights)` at `offset` of position-independent code.
    pub fn run_image(
        &mut self,
        code: &[u8],
        offset: usize,
        arena_bytes: u64,
        weights: &[u8],
        inputs: &[&[u8]],
        output_bytes: &[u64],
    ) -> (i32, Vec<Vec<u8>>) {
        let counts = [inputs.len(), output_bytes.len()];
        let head = [code.len(), offset, counts[0], counts[1], arena_bytes as usize, weights.len()];
        let input_bytes = inputs.iter().map(|i| i.len() as u64);
        let words = head.iter().map(|&n| n as u64).chain(input_bytes).chain(output_bytes.iter().copied());
        let mut request: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        request.extend(code);
        request.extend(weights);
        inputs.iter().for_each(|i| request.extend(*i));
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(&request).and_then(|()| stdin.flush()).unwrap();
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut take = |bytes: u64| {
            let mut buffer = vec![0; bytes as usize];
            stdout.read_exact(&mut buffer).expect("the program ended the process: it crashed, or left its blocks");
            buffer
        };
        let status = i64::from_le_bytes(take(8).try_into().unwrap());
        (status as i32, output_bytes.iter().map(|&n| take(n)).collect())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Path of the server, built once for each test program.
fn server() -> PathBuf {
    static BUILT: OnceLock<TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("server.c"), SERVER).unwrap();
        let gcc = "aarch64-linux-gnu-gcc";
        let args = ["-O1", "-Wall", "-Wextra", "-Werror", "-static", "server.c", "-o", "server"];
        let output = Command::new(gcc).args(args).current_dir(folder.path()).output();
        let output = output.unwrap_or_else(|e| missing(gcc, "gcc-aarch64-linux-gnu", &e));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        folder
    });
    folder.path().join("server")
}

fn missing(program: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("{program}: {error}; on Debian, `apt-get install {package}` installs it")
}
