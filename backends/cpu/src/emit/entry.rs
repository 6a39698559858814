//! The entry: checks indices and calls the kernels with pointers from the plan.

use std::ops::Range;

use aic_ir::plan::{Place, Plan};
use aic_ir::tile::{Buffer, Kernel, Program, Step};
use aic_ir::types::DType;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{
    AbiParam, Block, ExtFuncData, ExternalName, FuncRef, Function, InstBuilder, MemFlagsData, Signature,
    UserExternalName, UserFuncName, Value,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use rustc_hash::FxHashMap;

use super::kernel::params;
use crate::status::Status;
use crate::target::INTERNAL_CONVENTION;
use crate::{CpuError, CpuTarget};

/// The parameters of an entry.
struct Blocks {
    inputs: Value,
    outputs: Value,
    arena: Value,
    weights: Value,
}

/// Builds a function of the entry's signature that runs some steps of the program, repeated as what is around them says.
///
/// # Errors
/// When the plan does not place a buffer that a step reaches.
pub(super) fn build(
    program: &Program,
    plan: &Plan,
    target: &CpuTarget,
    steps: Range<usize>,
    functions: &FxHashMap<Kernel, usize>,
    context: &mut FunctionBuilderContext,
) -> Result<Function, CpuError> {
    let mut sig = Signature::new(INTERNAL_CONVENTION);
    sig.params.extend([AbiParam::new(I64); 4]);
    sig.returns.push(AbiParam::new(I32));
    let mut function = Function::with_name_signature(UserFuncName::default(), sig);
    let mut b = FunctionBuilder::new(&mut function, context);
    let start = b.create_block();
    b.append_block_params_for_function_params(start);
    b.switch_to_block(start);
    b.seal_block(start);
    let p = b.block_params(start);
    let blocks = Blocks { inputs: p[0], outputs: p[1], arena: p[2], weights: p[3] };
    let mut imported: FxHashMap<usize, FuncRef> = FxHashMap::default();
    let around = program.repeats_around(steps.start);
    let mut repeats: Vec<Repeat> = around.iter().map(|&trips| Repeat::begin(&mut b, trips)).collect();
    for step in &program.steps[steps] {
        match step {
            Step::Repeat { trips } => repeats.push(Repeat::begin(&mut b, *trips)),
            Step::End => {
                if let Some(repeat) = repeats.pop() {
                    repeat.end(&mut b);
                }
            }
            Step::Check { buffer, bound } => {
                let data = &program.buffers[*buffer];
                let pointer = address(&mut b, &blocks, program, plan, *buffer)?;
                check(&mut b, pointer, data.dtype, data.layout.elems(), *bound);
            }
            Step::Run(k) => {
                let buffers = params(program, &program.kernels[*k]);
                let mut arguments = Vec::with_capacity(buffers.len());
                for buffer in buffers {
                    arguments.push(address(&mut b, &blocks, program, plan, buffer)?);
                }
                arguments.extend(repeats.iter().map(|r| r.round));
                let Some(&index) = functions.get(k) else { continue };
                let callee = *imported.entry(index).or_insert_with(|| {
                    let mut sig = Signature::new(INTERNAL_CONVENTION);
                    sig.params.extend(arguments.iter().map(|_| AbiParam::new(I64)));
                    let signature = b.import_signature(sig);
                    let name = UserExternalName { namespace: 0, index: index as u32 };
                    let name = ExternalName::user(b.func.declare_imported_user_function(name));
                    b.import_function(ExtFuncData { name, signature, colocated: true, patchable: false })
                });
                b.ins().call(callee, &arguments);
            }
        }
    }
    while let Some(repeat) = repeats.pop() {
        repeat.end(&mut b);
    }
    let ok = b.ins().iconst(I32, i64::from(Status::Ok.code()));
    b.ins().return_(&[ok]);
    b.finalize(target.isa.frontend_config());
    Ok(function)
}

/// A loop of the entry, open for the steps that it repeats.
struct Repeat {
    header: Block,
    trips: u64,
    /// The round under way.
    round: Value,
}

impl Repeat {
    fn begin(b: &mut FunctionBuilder<'_>, trips: u64) -> Self {
        let header = b.create_block();
        let round = b.append_block_param(header, I64);
        let zero = b.ins().iconst(I64, 0);
        b.ins().jump(header, &[zero.into()]);
        b.switch_to_block(header);
        Self { header, trips, round }
    }

    fn end(self, b: &mut FunctionBuilder<'_>) {
        let exit = b.create_block();
        let next = b.ins().iadd_imm_s(self.round, 1);
        let more = b.ins().icmp_imm_u(IntCC::UnsignedLessThan, next, self.trips as i64);
        b.ins().brif(more, self.header, &[next.into()], exit, &[]);
        b.seal_block(self.header);
        b.seal_block(exit);
        b.switch_to_block(exit);
    }
}

fn address(
    b: &mut FunctionBuilder<'_>,
    blocks: &Blocks,
    program: &Program,
    plan: &Plan,
    buffer: Buffer,
) -> Result<Value, CpuError> {
    let unplaced = || CpuError::Unplaced { buffer: program.buffers[buffer].name.clone() };
    let entry = |b: &mut FunctionBuilder<'_>, list: Value, i: u32| {
        let flags = MemFlagsData::new().with_notrap().with_readonly().with_can_move();
        let offset = i32::try_from(i).ok().and_then(|i| i.checked_mul(8))?;
        Some(b.ins().load(I64, flags, list, offset))
    };
    let at = |b: &mut FunctionBuilder<'_>, block: Value, offset: u64| {
        if offset == 0 { block } else { b.ins().iadd_imm_s(block, offset as i64) }
    };
    match plan.places[buffer] {
        Place::None => None,
        Place::Input(i) => entry(b, blocks.inputs, i),
        Place::Output(i) => entry(b, blocks.outputs, i),
        Place::Arena(offset) => Some(at(b, blocks.arena, offset)),
        Place::Weights(offset) => Some(at(b, blocks.weights, offset)),
    }
    .ok_or_else(unplaced)
}

/// Returns "index out of range" unless `-bound <= v < bound` for every element.
fn check(b: &mut FunctionBuilder<'_>, pointer: Value, dtype: DType, elems: u64, bound: u64) {
    let [header, body, bad, next, exit] = [(); 5].map(|()| b.create_block());
    let i = b.append_block_param(header, I64);
    let zero = b.ins().iconst(I64, 0);
    b.ins().jump(header, &[zero.into()]);
    b.switch_to_block(header);
    let done = b.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, i, elems as i64);
    b.ins().brif(done, exit, &[], body, &[]);
    b.switch_to_block(body);
    b.seal_block(body);
    let bytes = dtype.bytes();
    let offset = b.ins().ishl_imm_u(i, i64::from(bytes.trailing_zeros()));
    let place = b.ins().iadd(pointer, offset);
    let flags = MemFlagsData::new().with_notrap().with_readonly();
    let v = if bytes == 8 {
        b.ins().load(I64, flags, place, 0)
    } else {
        let narrow = b.ins().load(I32, flags, place, 0);
        b.ins().sextend(I64, narrow)
    };
    // Shifted by the bound, valid indices are exactly the unsigned numbers below twice the bound.
    let shifted = b.ins().iadd_imm_s(v, bound as i64);
    let ok = b.ins().icmp_imm_u(IntCC::UnsignedLessThan, shifted, (bound as i64).saturating_mul(2));
    b.ins().brif(ok, next, &[], bad, &[]);
    b.switch_to_block(bad);
    b.seal_block(bad);
    let status = b.ins().iconst(I32, i64::from(Status::IndexOutOfRange.code()));
    b.ins().return_(&[status]);
    b.switch_to_block(next);
    b.seal_block(next);
    let following = b.ins().iadd_imm_s(i, 1);
    b.ins().jump(header, &[following.into()]);
    b.seal_block(header);
    b.seal_block(exit);
    b.switch_to_block(exit);
}
