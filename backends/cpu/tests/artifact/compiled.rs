//! Random graphs, compiled and linked into C programs: the same bits as in the interpreter, and nothing touched beyond
//! the blocks.

use aic_cpu::artifact::{Spec, TensorSpec};
use aic_cpu::{CpuTarget, Options};
use aic_ir::lower::lower;
use aic_ir::machine::Target;
use aic_ir::plan::{check, plan};
use aic_ir::schedule::{self, schedule};
use aic_ir::testing::random_graph;
use aic_ir::tile::{Buffer, Program, interp, math};
use aic_ir::types::{DType, Tensor, TensorType};

use crate::PRELUDE;
use crate::c::{C99, Folder, MACHINES};
use crate::fixture::{Model, target};

/// A random graph as a model, every level of optimization in turn, with inputs and what the interpreter makes of them.
pub fn random_model(seed: u64, target: CpuTarget) -> Option<(Model, Vec<Tensor>, Vec<Tensor>)> {
    let (graph, inputs) = random_graph(seed, 8);
    let mut naive = lower(&graph).unwrap();
    math::expand(&mut naive, target.machine().fma);
    use schedule::Level::{Full, Naive, Small, Tiled};
    let level = [Full, Naive, Small, Tiled][seed as usize % 4];
    let options = schedule::Options { level };
    let program = schedule(&naive, &target, &options).ok()?.program;
    let expected = interp::run(&program, &inputs).unwrap();
    let plan = plan(&program).unwrap();
    check(&program, &plan).unwrap();
    let compiled = aic_cpu::compile(&program, &plan, &target, &Options::default()).unwrap();
    let spec = Spec {
        name: format!("g{seed}"),
        inputs: tensors(&program, &program.inputs),
        outputs: tensors(&program, &program.outputs),
        states: Vec::new(),
        external_weights: seed % 2 == 1,
        model_sha256: "0".repeat(64),
    };
    Some((Model { spec, compiled, program, plan, target }, inputs, expected))
}

fn tensors(program: &Program, buffers: &[Buffer]) -> Vec<TensorSpec> {
    let spec = |&b: &Buffer| {
        let data = &program.buffers[b];
        let ty = TensorType::new(data.dtype, data.shape.clone()).unwrap();
        TensorSpec { name: data.name.clone(), ty, quantization: None }
    };
    buffers.iter().map(spec).collect()
}

const HELPERS: &str = "
/* The control register of floating-point arithmetic, without the flags that arithmetic sets. */
#ifdef __aarch64__
static unsigned long control(void) {
    unsigned long fpcr;
    __asm__ volatile (\"mrs %0, fpcr\" : \"=r\"(fpcr));
    return fpcr;
}
#else
#include <xmmintrin.h>
static unsigned long control(void) { return _mm_getcsr() & ~0x3ful; }
#endif
static void *load(const char *name, size_t bytes) {
    void *p = block(bytes);
    FILE *file = fopen(name, \"rb\");
    CHECK(file != 0 && fread(p, 1, bytes, file) == bytes);
    fclose(file);
    return p;
}
static void save(const char *name, const void *p, size_t bytes) {
    FILE *file = fopen(name, \"wb\");
    CHECK(file != 0 && fwrite(p, 1, bytes, file) == bytes);
    fclose(file);
}
";

/// A function that runs one model on files and keeps its outputs in files.
fn runner(model: &Model) -> String {
    let interface = &model.artifact().interface;
    let (name, upper) = (&interface.ident, interface.ident.to_ascii_uppercase());
    let mut text =
        format!("static void run_{name}(void) {{\n    aic_io io = AIC_IO_INIT;\n    unsigned long before;\n");
    // Tensors of no elements have no memory; neither do models without inputs.
    text += &format!("    const void *in[{upper}_NUM_INPUTS + 1];\n    void *out[{upper}_NUM_OUTPUTS + 1];\n");
    for (i, t) in interface.inputs.iter().enumerate() {
        text += &format!("    in[{i}] = load(\"{name}.in{i}\", {upper}_INPUT_{}_BYTES);\n", t.ident);
    }
    for (i, t) in interface.outputs.iter().enumerate() {
        text += &format!("    out[{i}] = block({upper}_OUTPUT_{}_BYTES);\n", t.ident);
    }
    text += &format!("    io.inputs = in;\n    io.outputs = out;\n    io.arena = block({upper}_ARENA_BYTES);\n");
    if model.spec.external_weights {
        text += &format!("    io.weights = load(\"{name}.weights\", {upper}_WEIGHTS_BYTES);\n");
        text += &format!("    CHECK({name}_check_weights(io.weights, {upper}_WEIGHTS_BYTES) == AIC_OK);\n");
    }
    text += &format!("    before = control();\n    CHECK({name}_run_ex(&io) == AIC_OK);\n");
    text += "    CHECK(control() == before);\n";
    for (i, t) in interface.outputs.iter().enumerate() {
        text += &format!("    save(\"{name}.out{i}\", out[{i}], {upper}_OUTPUT_{}_BYTES);\n", t.ident);
    }
    text + "}\n"
}

#[test]
fn random_graphs_give_the_same_bits_in_a_c_program() {
    for machine in MACHINES {
        let models: Vec<_> = (0..12).filter_map(|seed| random_model(seed, target(machine))).collect();
        assert!(models.len() >= 6, "most random graphs have a schedule");
        let folder = Folder::new(&models.iter().map(|m| &m.0).collect::<Vec<_>>());
        let mut source = format!("{PRELUDE}{HELPERS}");
        let mut calls = String::new();
        let mut objects = Vec::new();
        for (model, inputs, _) in &models {
            let name = &model.spec.name;
            for (i, input) in inputs.iter().enumerate() {
                folder.write(&format!("{name}.in{i}"), input.bytes());
            }
            source += &format!("#include \"{name}.h\"\n{}", runner(model));
            calls += &format!("    run_{name}();\n");
            objects.push(format!("{name}.o"));
        }
        source += &format!("int main(void) {{\n{calls}    return 0;\n}}\n");
        folder.must_build(C99, &source, &objects.iter().map(String::as_str).collect::<Vec<_>>());
        folder.must_run_checked();
        for (model, _, expected) in &models {
            for (i, expected) in expected.iter().enumerate() {
                let bytes = std::fs::read(folder.file(&format!("{}.out{i}", model.spec.name))).unwrap();
                let actual = Tensor::new(expected.ty().clone(), bytes.into()).unwrap();
                assert_same_bits(&actual, expected, &model.spec.name);
            }
        }
    }
}

/// Equal bits, but for which NaN it is.
pub fn assert_same_bits(actual: &Tensor, expected: &Tensor, what: &str) {
    let is_float = matches!(expected.ty().dtype(), DType::F32 | DType::F64);
    let size = expected.ty().dtype().bytes() as usize;
    for (i, (a, e)) in actual.bytes().chunks(size).zip(expected.bytes().chunks(size)).enumerate() {
        let nan = |t: &Tensor| is_float && t.get_f64(i as u64).is_some_and(f64::is_nan);
        assert!(a == e || nan(actual) && nan(expected), "{what}: element {i}");
    }
}
