//! Compiled code keeps to the level of its machine: an independent disassembler names the processor feature that each
//! instruction needs.

use aic_cpu::Compiled;
use iced_x86::{CpuidFeature, Decoder, DecoderOptions};

/// Features of every processor with 64-bit mode.
const BASELINE: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::MULTIBYTENOP,
];

const V2: &[CpuidFeature] =
    &[CpuidFeature::SSE3, CpuidFeature::SSSE3, CpuidFeature::SSE4_1, CpuidFeature::SSE4_2, CpuidFeature::POPCNT];

const V3: &[CpuidFeature] = &[
    CpuidFeature::AVX,
    CpuidFeature::AVX2,
    CpuidFeature::FMA,
    CpuidFeature::BMI1,
    CpuidFeature::BMI2,
    CpuidFeature::LZCNT,
    CpuidFeature::F16C,
    CpuidFeature::MOVBE,
];

const V4: &[CpuidFeature] = &[
    CpuidFeature::AVX512F,
    CpuidFeature::AVX512BW,
    CpuidFeature::AVX512CD,
    CpuidFeature::AVX512DQ,
    CpuidFeature::AVX512VL,
];

/// Each level of x86-64 with what it adds to those before it.
pub const LEVELS: [(&str, &[CpuidFeature]); 4] =
    [("x86-64", BASELINE), ("x86-64-v2", V2), ("x86-64-v3", V3), ("x86-64-v4", V4)];

/// Features that the instructions of a program need.
pub fn features(compiled: &Compiled) -> Vec<(CpuidFeature, String)> {
    let mut found: Vec<(CpuidFeature, String)> = Vec::new();
    for function in &compiled.functions {
        for instruction in &mut Decoder::with_ip(64, &function.code, 0, DecoderOptions::NONE) {
            // What lies between instructions is padding or constants.
            if instruction.is_invalid() {
                continue;
            }
            for &feature in instruction.cpuid_features() {
                if !found.iter().any(|(f, _)| *f == feature) {
                    found.push((feature, format!("{}: {:?}", function.symbol, instruction.code())));
                }
            }
        }
    }
    found
}

/// Fails if an instruction is beyond the level of a machine.
pub fn assert_within(what: &str, compiled: &Compiled, machine: &str) {
    let level = LEVELS.iter().position(|(name, _)| *name == machine).expect("a level");
    let allowed: Vec<CpuidFeature> =
        LEVELS[..=level].iter().flat_map(|(_, features)| features.iter().copied()).collect();
    for (feature, example) in features(compiled) {
        assert!(allowed.contains(&feature), "{what}, {machine}: {feature:?} by {example}");
    }
}
