//! External weights.

use aic_cpu::artifact::read::{self, Kind, ReadError};

use crate::PRELUDE;
use crate::c::{C99, Folder, MACHINES};
use crate::fixture::{Body, Model, model};

fn external(machine: &str) -> Model {
    let mut m = model("kws", Body::AddWeights, machine);
    m.spec.external_weights = true;
    m
}

#[test]
fn external_weights_are_passed_and_checked() {
    for machine in MACHINES {
        let m = external(machine);
        let folder = Folder::new(&[&m]);
        let source = format!(
            "{PRELUDE}#include \"kws.h\"\n{}",
            "
int main(void) {
    float x[5] = {1, 2, 3, 4, 5}, y[5] = {0};
    const void *in[1]; void *out[1];
    aic_io io = AIC_IO_INIT;
    unsigned char *weights = (unsigned char *)block(KWS_WEIGHTS_BYTES);
    size_t i;
    FILE *file = fopen(\"kws.weights\", \"rb\");
    CHECK(file != 0);
    CHECK(fread(weights, 1, KWS_WEIGHTS_BYTES, file) == KWS_WEIGHTS_BYTES && fgetc(file) == EOF);
    fclose(file);
    in[0] = x; out[0] = y;
    io.inputs = in; io.outputs = out; io.arena = block(KWS_ARENA_BYTES);
    CHECK(kws_run_ex(&io) == AIC_ERR_NULL_BLOCK);
    io.weights = weights + 8;
    CHECK(kws_run_ex(&io) == AIC_ERR_MISALIGNED_BLOCK);
    io.weights = weights;
    CHECK(kws_run_ex(&io) == AIC_OK);
    CHECK(y[0] == 1.5f && y[4] == 9.5f);

    CHECK(kws_check_weights(weights, KWS_WEIGHTS_BYTES) == AIC_OK);
    CHECK(kws_check_weights(weights, KWS_WEIGHTS_BYTES + 1) == AIC_OK);
    CHECK(kws_check_weights(weights, KWS_WEIGHTS_BYTES - 1) == AIC_ERR_WEIGHTS);
    CHECK(kws_check_weights(weights, 3) == AIC_ERR_WEIGHTS);
    CHECK(kws_check_weights(0, KWS_WEIGHTS_BYTES) == AIC_ERR_NULL_BLOCK);
    CHECK(kws_check_weights(weights + 8, KWS_WEIGHTS_BYTES) == AIC_ERR_MISALIGNED_BLOCK);
    for (i = 0; i < KWS_WEIGHTS_BYTES; i++) {
        weights[i] ^= 0x80;
        CHECK(kws_check_weights(weights, KWS_WEIGHTS_BYTES) == AIC_ERR_WEIGHTS);
        /* Runs check the header. */
        CHECK(kws_run_ex(&io) == (i < 64 ? AIC_ERR_WEIGHTS : AIC_OK));
        weights[i] ^= 0x80;
    }
    CHECK(kws_run_ex(&io) == AIC_OK);
    return 0;
}
"
        );
        folder.must_build(C99, &source, &["kws.o"]);
        folder.must_run_checked();
    }
}

#[test]
fn weights_are_not_in_the_code_and_the_short_form_is_gone() {
    let m = external(MACHINES[0]);
    let contents = read::read(&m.object()).unwrap();
    assert!(!contents.sections.iter().any(|s| s.name.contains("weights") && s.name.starts_with(".rodata")));
    let interface = &contents.models[0].interface;
    assert!(contents.exported.contains(&interface.symbol("check_weights")));
    assert!(!contents.exported.contains(&interface.symbol("run")));
    assert!(!m.artifact().header().contains("kws_run("));
}

#[test]
fn blocks_of_weights_are_read_back() {
    let m = external(MACHINES[0]);
    let mut block = Vec::new();
    m.artifact().write_weights(m.weights(), &mut block).unwrap();
    assert_eq!(&block[64..], m.weights().to_vec().unwrap());
    let Kind::Weights(header) = read::read(&block).unwrap().kind else { panic!("a block of weights") };
    assert_eq!(header.block_bytes(), block.len() as u64);
    block[70] ^= 1;
    assert!(matches!(read::read(&block), Err(ReadError::Damaged(_))));
}
