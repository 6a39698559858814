//! Compiled code keeps to the level of its machine: an independent disassembler names the processor feature that each
//! instruction needs.

use aic_cpu::Compiled;
use iced_x86::{CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction};

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

/// Features that the instructions of a program need, each with an example.
pub fn features(compiled: &Compiled) -> Vec<(CpuidFeature, String)> {
    let mut found: Vec<(CpuidFeature, String)> = Vec::new();
    for function in &compiled.functions {
        for instruction in reachable(&function.code) {
            for &feature in instruction.cpuid_features() {
                if !found.iter().any(|(f, _)| *f == feature) {
                    found.push((feature, format!("{}: {:?}", function.symbol, instruction.code())));
                }
            }
        }
    }
    found
}

/// The instructions that control flow reaches from the start; constants stand behind them.
fn reachable(code: &[u8]) -> Vec<Instruction> {
    let mut found = Vec::new();
    let mut seen = vec![false; code.len()];
    let mut starts = vec![0];
    while let Some(start) = starts.pop() {
        let mut at: usize = start;
        while at < code.len() && !std::mem::replace(&mut seen[at], true) {
            let instruction = Decoder::with_ip(64, &code[at..], at as u64, DecoderOptions::NONE).decode();
            assert!(!instruction.is_invalid(), "not an instruction at {at:#x}");
            found.push(instruction);
            match instruction.flow_control() {
                FlowControl::Next | FlowControl::Call => {}
                FlowControl::ConditionalBranch => starts.push(instruction.near_branch_target() as usize),
                FlowControl::UnconditionalBranch => {
                    starts.push(instruction.near_branch_target() as usize);
                    break;
                }
                FlowControl::Return | FlowControl::Exception => break,
                other => panic!("{other:?} at {at:#x}"),
            }
            at += instruction.len();
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
