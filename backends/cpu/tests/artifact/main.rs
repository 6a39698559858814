//! The C interface as C programs see it. Needs `cc`, `c++`, `valgrind`, `aarch64-linux-gnu-gcc`,
//! `qemu-aarch64-static` and `lld`.

#[path = "../common/aarch64.rs"]
mod aarch64;
mod c;
mod compiled;
mod fixture;
mod formats;
mod library;
#[cfg(target_arch = "x86_64")]
mod native;
mod object;
mod weights;

use c::{C99, CXX, Folder, MACHINES, must};
use fixture::{Body, Model, model};

/// What every test program starts with. `CHECK` fails with the line.
pub const PRELUDE: &str = "
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define CHECK(x) do { if (!(x)) { printf(\"line %d: %s\\n\", __LINE__, #x); exit(1); } } while (0)
/* A block of exactly that size, so that valgrind sees every byte behind it. */
static inline void *block(size_t bytes) {
    void *p;
    CHECK(posix_memalign(&p, 64, bytes) == 0);
    return p;
}
";

/// Compilers of the headers; of one kind, C++ suffices once.
fn compilers(machine: &str) -> &'static [&'static [&'static str]] {
    if machine == MACHINES[0] { &[C99, CXX] } else { &[C99] }
}

/// A model that keeps `h` from run to run.
fn accumulator(name: &str, machine: &str) -> Model {
    let mut m = model(name, Body::Accumulate, machine);
    m.spec.states = vec![("h".into(), "hn".into())];
    m
}

const TWO_MODELS: &str = "
int main(void) {
    float x[5] = {1, 2, 3, 4, 5}, y[5], z[5];
    const void *inputs[KWS_NUM_INPUTS];
    void *outputs[KWS_NUM_OUTPUTS];
    const void *acc_inputs[ACC_NUM_INPUTS];
    void *acc_outputs[ACC_NUM_OUTPUTS];
    void *arena = block(KWS_ARENA_BYTES > ACC_ARENA_BYTES ? KWS_ARENA_BYTES : ACC_ARENA_BYTES);
    void *state = block(ACC_STATE_BYTES);
    aic_io io = AIC_IO_INIT;
    int run, i;
    inputs[KWS_INPUT_X] = x;
    outputs[KWS_OUTPUT_Y] = y;
    acc_inputs[ACC_INPUT_X] = x;
    acc_outputs[ACC_OUTPUT_Y] = z;
    io.inputs = acc_inputs;
    io.outputs = acc_outputs;
    io.arena = arena;
    io.state = state;
    CHECK(sizeof x == KWS_INPUT_X_BYTES && sizeof y == KWS_OUTPUT_Y_BYTES);
    CHECK(acc_reset(state) == AIC_OK);
    for (run = 1; run <= 3; run++) {
        /* Both models work in one arena. */
        CHECK(kws_run(inputs, outputs, arena) == AIC_OK);
        CHECK(acc_run_ex(&io) == AIC_OK);
        for (i = 0; i < 5; i++) {
            CHECK(y[i] == x[i] + (float)i + 0.5f);
            CHECK(z[i] == (float)run * y[i]);
        }
    }
    CHECK(acc_reset(state) == AIC_OK);
    CHECK(acc_run_ex(&io) == AIC_OK);
    CHECK(z[0] == y[0]);
    CHECK(strcmp(kws_inputs[KWS_INPUT_X].name, \"x\") == 0);
    CHECK(kws_inputs[0].bytes == 20 && kws_inputs[0].rank == 1 && kws_inputs[0].shape[0] == 5);
    CHECK(kws_inputs[0].dtype == AIC_F32 && kws_inputs[0].align == KWS_INPUT_X_ALIGN);
    CHECK(kws_inputs[0].scale == KWS_INPUT_X_SCALE && kws_inputs[0].zero_point == KWS_INPUT_X_ZERO_POINT);
    CHECK(kws_inputs[0].shape[1] == 0 && kws_inputs[0].shape[15] == 0 && kws_inputs[0].reserved == 0);
    CHECK(sizeof(aic_io) == 80 && sizeof(aic_tensor_info) == 224);
    CHECK(strcmp(acc_outputs_of()[0].name, \"y\") == 0);
    CHECK(strlen(KWS_MODEL_SHA256) == 64 && KWS_STACK_BYTES > 0);
    puts(\"done\");
    return 0;
}
";

#[test]
fn two_models_run_in_one_program_in_c_and_cxx() {
    for machine in MACHINES {
        let (kws, acc) = (model("kws", Body::AddWeights, machine), accumulator("acc", machine));
        let folder = Folder::new(&[&kws, &acc]);
        // A second inclusion must do nothing; the local array of that name hides the table.
        let includes = "#include \"kws.h\"\n#include \"acc.h\"\n#include \"kws.h\"\n#include \"aic.h\"\n
        static const aic_tensor_info *acc_outputs_of(void) { return acc_outputs; }\n";
        let source = TWO_MODELS.replace("acc_inputs[", "ins[").replace("acc_outputs[", "outs[");
        let source = source.replace("= acc_inputs;", "= ins;").replace("= acc_outputs;", "= outs;");
        let source = format!("{PRELUDE}{includes}{source}");
        for &compiler in compilers(machine) {
            folder.must_build(compiler, &source, &["kws.o", "acc.o"]);
            assert_eq!(folder.must_run(), "done\n");
            assert_eq!(folder.must_run_checked(), "done\n");
        }
    }
}

#[test]
fn every_misuse_has_its_status() {
    for machine in MACHINES {
        let (kws, acc) = (model("kws", Body::AddWeights, machine), accumulator("acc", machine));
        let pick = model("pick", Body::Select, machine);
        let folder = Folder::new(&[&kws, &acc, &pick]);
        let source = format!(
            "{PRELUDE}#include \"kws.h\"\n#include \"acc.h\"\n#include \"pick.h\"\n{}",
            "
static aic_status ex(aic_io io) { return kws_run_ex(&io); }
static aic_status acc(aic_io io) { return acc_run_ex(&io); }
int main(void) {
    float x[6] = {1, 2, 3, 4, 5, 6}, y[6] = {0};
    int64_t index = 3;
    const void *in[1], *in_bad[1], *in_null[1] = {0}, *in_index[1];
    void *out[1], *out_bad[1], *out_null[1] = {0};
    char *arena = (char *)block(KWS_ARENA_BYTES > ACC_ARENA_BYTES ? KWS_ARENA_BYTES : ACC_ARENA_BYTES);
    char *state = (char *)block(ACC_STATE_BYTES);
    aic_io io = AIC_IO_INIT, other;
    in[0] = x; out[0] = y;
    in_bad[0] = (char *)x + 2; out_bad[0] = (char *)y + 1;
    in_index[0] = &index;

    CHECK(kws_run(in, out, arena) == AIC_OK);
    CHECK(kws_run(0, out, arena) == AIC_ERR_NULL_BLOCK);
    CHECK(kws_run(in, 0, arena) == AIC_ERR_NULL_BLOCK);
    CHECK(kws_run(in, out, 0) == AIC_ERR_NULL_BLOCK);
    CHECK(kws_run(in_null, out, arena) == AIC_ERR_NULL_BLOCK);
    CHECK(kws_run(in, out_null, arena) == AIC_ERR_NULL_BLOCK);
    CHECK(kws_run(in_bad, out, arena) == AIC_ERR_MISALIGNED_BLOCK);
    CHECK(kws_run(in, out_bad, arena) == AIC_ERR_MISALIGNED_BLOCK);
    CHECK(kws_run(in, out, arena + 32) == AIC_ERR_MISALIGNED_BLOCK);

    io.inputs = in; io.outputs = out; io.arena = arena;
    CHECK(ex(io) == AIC_OK);
    CHECK(kws_run_ex(0) == AIC_ERR_NULL_BLOCK);
    other = io; other.abi = 2;
    CHECK(ex(other) == AIC_ERR_ABI_VERSION);
    other = io; other.size = 72;
    CHECK(ex(other) == AIC_ERR_ABI_VERSION);
    other = io; other.size = 96;
    CHECK(ex(other) == AIC_OK);
    other = io; other.flags = 2;
    CHECK(ex(other) == AIC_ERR_ABI_VERSION);
    other = io; other.flags = AIC_CPU_CHECKED;
    CHECK(ex(other) == AIC_OK);
    other = io; other.arena = 0;
    CHECK(ex(other) == AIC_ERR_NULL_BLOCK);

    CHECK(acc(io) == AIC_ERR_NULL_BLOCK);
    io.state = state + 8;
    CHECK(acc(io) == AIC_ERR_MISALIGNED_BLOCK);
    io.state = state;
    CHECK(acc_reset(0) == AIC_ERR_NULL_BLOCK);
    CHECK(acc_reset(state + 8) == AIC_ERR_MISALIGNED_BLOCK);
    CHECK(acc_reset(state) == AIC_OK);
    CHECK(acc(io) == AIC_OK);

    CHECK(pick_run(in_index, out, arena) == AIC_OK && y[0] == 3.5f);
    index = 5;
    CHECK(pick_run(in_index, out, arena) == AIC_ERR_INDEX);
    index = -6;
    CHECK(pick_run(in_index, out, arena) == AIC_ERR_INDEX);
    puts(\"done\");
    return 0;
}
"
        );
        folder.must_build(C99, &source, &["kws.o", "acc.o", "pick.o"]);
        assert_eq!(folder.must_run_checked(), "done\n");
    }
}

#[test]
fn missing_processor_features_are_a_status() {
    // Valgrind's processor has no AVX-512, whatever runs it.
    let m = model("wide", Body::AddWeights, "x86-64-v4");
    let folder = Folder::new(&[&m]);
    let source = format!(
        "{PRELUDE}#include \"wide.h\"\n{}",
        "
int main(void) {
    float x[5] = {0}, y[5] = {7, 7, 7, 7, 7};
    const void *in[1]; void *out[1];
    aic_io io = AIC_IO_INIT;
    in[0] = x; out[0] = y;
    io.inputs = in; io.outputs = out; io.arena = block(WIDE_ARENA_BYTES);
    printf(\"%d %d %g\\n\", (int)wide_run(in, out, io.arena), (int)wide_run_ex(&io), y[0]);
    return 0;
}
"
    );
    folder.must_build(C99, &source, &["wide.o"]);
    assert_eq!(folder.must_run_checked(), "5 5 7\n");
}

/// Processors of the emulator, each with one level of x86-64 and not the next.
#[test]
fn every_level_is_missed_by_the_processor_below_it() {
    const PROCESSORS: [&str; 3] = ["core2duo", "Nehalem", "Haswell"];
    for (machine, level) in [("x86-64", 0), ("x86-64-v2", 1), ("x86-64-v3", 2), ("x86-64-v4", 3)] {
        let m = model("m", Body::AddWeights, machine);
        let folder = Folder::new(&[&m]);
        let source = format!(
            "{PRELUDE}#include \"m.h\"\n{}",
            "
int main(void) {
    float x[5] = {0}, y[5] = {7, 7, 7, 7, 7};
    const void *in[1]; void *out[1];
    int status;
    in[0] = x; out[0] = y;
    status = (int)m_run(in, out, block(M_ARENA_BYTES));
    printf(\"%d %g\\n\", status, y[4]);
    return 0;
}
"
        );
        folder.must_build(C99, &source, &["m.o"]);
        for (has, processor) in PROCESSORS.iter().enumerate() {
            let expected = if has >= level { "0 4.5\n" } else { "5 7\n" };
            let output = must("qemu-x86_64-static", &["-cpu", processor, "./main"], folder.path());
            assert_eq!(output, expected, "{machine} on {processor}");
        }
    }
}

#[test]
fn features_of_aarch64_are_found_or_a_status() {
    // Cortex-A53 has none of these, Cortex-A76 all but `i8mm`, and `max` all.
    let answers =
        [("lse", ["5", "0", "0"]), ("dotprod", ["5", "0", "0"]), ("fp16", ["5", "0", "0"]), ("i8mm", ["5", "5", "0"])];
    for (feature, expected) in answers {
        let mut target = fixture::target("aarch64");
        target.machine.features.push(feature.to_owned());
        let m = fixture::model_for("m", Body::AddWeights, target);
        let folder = Folder::new(&[&m]);
        let source = format!(
            "{PRELUDE}#include \"m.h\"\n{}",
            "
int main(void) {
    float x[5] = {0}, y[5] = {7, 7, 7, 7, 7};
    const void *in[1]; void *out[1];
    aic_status status;
    in[0] = x; out[0] = y;
    status = m_run(in, out, block(M_ARENA_BYTES));
    CHECK(y[4] == (status ? 7.0f : 4.5f));
    printf(\"%d\", (int)status);
    return 0;
}
"
        );
        let compiler: Vec<&str> = C99.iter().copied().chain(["-static"]).collect();
        folder.must_build(&compiler, &source, &["m.o"]);
        let run = |cpu| must("qemu-aarch64-static", &["-cpu", cpu, "./main"], folder.path());
        assert_eq!(["cortex-a53", "cortex-a76", "max"].map(run), expected, "{feature}");
    }
}

#[test]
fn features_that_are_there_are_found() {
    // Valgrind's processor is an x86-64-v2 at least.
    for machine in ["x86-64", "x86-64-v2", "aarch64"] {
        let m = model("m", Body::AddWeights, machine);
        let folder = Folder::new(&[&m]);
        let source = format!(
            "{PRELUDE}#include \"m.h\"\n{}",
            "
int main(void) {
    float x[5] = {0}, y[5];
    const void *in[1]; void *out[1];
    in[0] = x; out[0] = y;
    CHECK(m_run(in, out, block(M_ARENA_BYTES)) == AIC_OK);
    CHECK(y[4] == 4.5f);
    return 0;
}
"
        );
        folder.must_build(C99, &source, &["m.o"]);
        folder.must_run_checked();
    }
}

#[test]
fn two_threads_run_at_once_in_two_arenas() {
    for machine in MACHINES {
        let acc = accumulator("acc", machine);
        let folder = Folder::new(&[&acc]);
        let source = format!(
            "{PRELUDE}#include <pthread.h>\n#include \"acc.h\"\n{}",
            "
static void *work(void *argument) {
    float first = *(float *)argument, x[5] = {0}, y[5];
    const void *in[1]; void *out[1];
    aic_io io = AIC_IO_INIT;
    int run;
    in[0] = x; out[0] = y;
    x[0] = first;
    io.inputs = in; io.outputs = out;
    io.arena = block(ACC_ARENA_BYTES); io.state = block(ACC_STATE_BYTES);
    CHECK(acc_reset(io.state) == AIC_OK);
    for (run = 1; run <= 20000; run++) {
        CHECK(acc_run_ex(&io) == AIC_OK);
        CHECK(y[0] == (float)run * (first + 0.5f) && y[4] == (float)run * 4.5f);
    }
    return 0;
}
int main(void) {
    pthread_t one, two;
    float a = 1, b = 2;
    CHECK(pthread_create(&one, 0, work, &a) == 0);
    CHECK(pthread_create(&two, 0, work, &b) == 0);
    pthread_join(one, 0);
    pthread_join(two, 0);
    return 0;
}
"
        );
        let compiler: Vec<&str> = C99.iter().copied().chain(["-pthread"]).collect();
        folder.must_build(&compiler, &source, &["acc.o"]);
        folder.must_run();
    }
}

#[test]
fn the_bound_of_the_stack_holds_and_is_close() {
    for machine in MACHINES {
        let m = model("kws", Body::AddWeights, machine);
        let bound = m.artifact().interface.stack_bytes;
        assert!(bound > u64::from(fixture::FRAME_BYTES) && bound < u64::from(fixture::FRAME_BYTES) + 256, "{bound}");
        let folder = Folder::new(&[&m]);
        // A thread on a painted stack; what starting and ending a thread takes is measured first, with a run of nothing.
        let source = format!(
            "{PRELUDE}#include <pthread.h>\n#include \"kws.h\"\n{}",
            "
enum { STACK = 1 << 18 };
static unsigned char *stack;
static float x[5], y[5];
static void *arena;
static const void *frame;
static aic_status nothing(const void *const *in, void *const *out, void *a) { (void)in; (void)out; (void)a; return 0; }
static aic_status (*volatile run)(const void *const *, void *const *, void *);
static void *work(void *argument) {
    const void *in[1]; void *out[1];
    in[0] = x; out[0] = y;
    frame = in;
    CHECK(run(in, out, arena) == AIC_OK);
    return argument;
}
static size_t used(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    size_t i = 0;
    memset(stack, 0xa5, STACK);
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstack(&attributes, stack, STACK) == 0);
    CHECK(pthread_create(&thread, &attributes, work, 0) == 0);
    CHECK(pthread_join(thread, 0) == 0);
    while (stack[i] == 0xa5) i++;
    return (size_t)((const unsigned char *)frame - (stack + i));
}
int main(void) {
    size_t taken;
    CHECK(posix_memalign((void **)&stack, 4096, STACK) == 0);
    arena = block(KWS_ARENA_BYTES);
    run = nothing;
    CHECK(used() < 4096);
    run = kws_run;
    taken = used();
    /* The caller's own frame lies between. */
    CHECK(taken > 4096 && taken <= KWS_STACK_BYTES + 64);
    return 0;
}
"
        );
        let compiler: Vec<&str> = C99.iter().copied().chain(["-pthread"]).collect();
        folder.must_build(&compiler, &source, &["kws.o"]);
        folder.must_run();
    }
}

#[test]
fn a_stale_header_fails_at_link() {
    for machine in MACHINES {
        let old = model("kws", Body::AddWeights, machine);
        let mut new = model("kws", Body::AddWeights, machine);
        new.compiled.arena_bytes += 64;
        let folder = Folder::new(&[&new]);
        folder.write("kws.h", old.artifact().header());
        let source = "#include \"kws.h\"\nint main(void) { return (int)kws_run(0, 0, 0); }\n";
        let output = folder.build(C99, source, &["kws.o"]);
        assert!(!output.status.success());
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            message.contains(&format!("undefined reference to `{}'", old.artifact().interface.symbol("run"))),
            "{message}"
        );
        folder.write("kws.h", new.artifact().header());
        folder.must_build(C99, source, &["kws.o"]);
    }
}

#[test]
fn names_that_collide_or_are_keywords_compile() {
    for machine in MACHINES {
        let mut m = model("int", Body::Accumulate, machine);
        m.spec.inputs[0].name = "a.b */ /* ??/".into();
        m.spec.inputs[1].name = "a_b".into();
        m.spec.outputs[0].name = "für".into();
        m.spec.outputs[1].name = "double".into();
        m.spec.outputs[1].quantization = Some((1e-9, i32::MIN));
        let folder = Folder::new(&[&m]);
        let source = format!(
            "{PRELUDE}#include \"int.h\"\n{}",
            "
int main(void) {
    int zero = INT_OUTPUT_DOUBLE_ZERO_POINT;
    CHECK(INT_INPUT_A_B == 0u && INT_INPUT_A_B_2 == 1u && INT_OUTPUT_F_R == 0u);
    CHECK(int_outputs[INT_OUTPUT_DOUBLE].scale == INT_OUTPUT_DOUBLE_SCALE);
    CHECK(int_outputs[1].zero_point == zero);
    CHECK(strcmp(int_outputs[0].name, \"f\\xc3\\xbcr\") == 0);
    return 0;
}
"
        );
        for &compiler in compilers(machine) {
            folder.must_build(compiler, &source, &["int.o"]);
            folder.must_run();
        }
    }
}
