//! The functions of the C interface as Cranelift IR.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{
    AbiParam, Block, ExtFuncData, ExternalName, Function, GlobalValueData, InstBuilder, MemFlagsData, Signature,
    StackSlot, StackSlotData, StackSlotKind, Type, UserExternalName, UserFuncName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use aic_ir::plan::ALIGN_BYTES;

use super::compile::name_index;
use super::{Referent, Wrapper, io};
use crate::artifact::interface::{ABI_VERSION, Interface, TensorInfo, WeightsMode};
use crate::artifact::weights::{Checksum, HEADER_BYTES, Header};
use crate::status::Status;
use crate::target::INTERNAL_CONVENTION;

/// What the functions are made for.
pub struct Wrappers<'a> {
    pub interface: &'a Interface,
    /// Inputs of the program, states included.
    pub input_count: usize,
    /// Outputs of the program, states included.
    pub output_count: usize,
    /// Header of external weights.
    pub header: Option<&'a Header>,
    /// Whether there is a function `cpu` to be asked.
    pub checks_cpu: bool,
    pub isa: &'a dyn TargetIsa,
    /// The calling convention of the platform's C compilers.
    pub convention: CallConv,
}

impl Wrappers<'_> {
    /// `guard(inputs, outputs, arena, state, weights)`.
    pub fn guard(&self) -> Function {
        let Interface { inputs, outputs, states, .. } = self.interface;
        self.function(&self.signature(5), |code, parameters| {
            let &[ins, outs, arena, state, weights] = parameters else { return };
            let mut ins_loaded = Vec::new();
            let mut outs_loaded = Vec::new();
            for (list, tensors, loaded) in [(ins, inputs, &mut ins_loaded), (outs, outputs, &mut outs_loaded)] {
                if !tensors.is_empty() {
                    code.require_some(list);
                }
                for (i, tensor) in tensors.iter().enumerate() {
                    let pointer = code.load(code.pointer, list, i as i32 * code.pointer.bytes() as i32);
                    code.require_tensor(pointer, tensor);
                    loaded.push(pointer);
                }
            }
            if self.interface.arena_bytes > 0 {
                code.require_block(arena);
            }
            if self.interface.state_bytes > 0 {
                code.require_block(state);
            }
            if states.is_empty() {
                let status = code.call(Referent::Entry, &self.entry_signature(), &[ins, outs, arena, weights]);
                return code.ret(status);
            }
            let mut all_ins = ins_loaded.into_iter();
            let mut all_outs = outs_loaded.into_iter();
            let in_slot = code.array(self.input_count);
            let out_slot = code.array(self.output_count);
            for i in 0..self.input_count {
                let pointer = match states.iter().find(|s| s.input_index == i) {
                    Some(s) => Some(code.add(state, s.offset)),
                    None => all_ins.next(),
                };
                code.set_element(in_slot, i, pointer);
            }
            let staging = code.add(arena, self.interface.staging_offset);
            for i in 0..self.output_count {
                let pointer = match states.iter().find(|s| s.output_index == i) {
                    Some(s) => Some(code.add(staging, s.offset)),
                    None => all_outs.next(),
                };
                code.set_element(out_slot, i, pointer);
            }
            let (ins, outs) = (code.address(in_slot), code.address(out_slot));
            let status = code.call(Referent::Entry, &self.entry_signature(), &[ins, outs, arena, weights]);
            // A run that failed leaves the state as it was.
            let failed = code.compare(IntCC::NotEqual, status, 0);
            code.return_if(failed, status);
            for s in states {
                let (to, from) = (code.add(state, s.offset), code.add(staging, s.offset));
                code.copy(to, from, s.bytes);
            }
            code.ret(status);
        })
    }

    /// `NAME_run(inputs, outputs, arena)`.
    pub fn run(&self) -> Function {
        self.function(&self.signature(3), |code, parameters| {
            let &[ins, outs, arena] = parameters else { return };
            if self.checks_cpu {
                self.require_cpu(code);
            }
            let state = code.number(code.pointer, 0);
            let weights = self.embedded_weights(code);
            let status =
                code.call(Referent::Wrapper(Wrapper::Guard), &self.signature(5), &[ins, outs, arena, state, weights]);
            code.ret(status);
        })
    }

    /// `NAME_run_ex(io)`.
    pub fn run_ex(&self) -> Function {
        self.function(&self.signature(1), |code, parameters| {
            let &[io] = parameters else { return };
            code.require_some(io);
            let abi = code.load(I32, io, io::ABI);
            let same_abi = code.compare(IntCC::Equal, abi, i64::from(ABI_VERSION));
            code.require(same_abi, Status::AbiVersion);
            let size = code.load(I32, io, io::SIZE);
            let large_enough = code.compare(IntCC::UnsignedGreaterThanOrEqual, size, io::BYTES);
            code.require(large_enough, Status::AbiVersion);
            let flags = code.load(I64, io, io::FLAGS);
            let known = code.compare(IntCC::UnsignedLessThanOrEqual, flags, io::FLAG_CPU_CHECKED);
            code.require(known, Status::AbiVersion);
            if self.checks_cpu {
                let unchecked = code.compare(IntCC::Equal, flags, 0);
                let (ask, go_on) = (code.b.create_block(), code.b.create_block());
                code.b.ins().brif(unchecked, ask, &[], go_on, &[]);
                code.b.switch_to_block(ask);
                self.require_cpu(code);
                code.b.ins().jump(go_on, &[]);
                code.b.switch_to_block(go_on);
            }
            let weights = match (self.interface.weights, self.header) {
                (WeightsMode::External, Some(header)) => {
                    let block = code.load(code.pointer, io, io::WEIGHTS);
                    code.require_block(block);
                    code.require_header(block, header);
                    code.add(block, HEADER_BYTES)
                }
                _ => self.embedded_weights(code),
            };
            let fields = [io::INPUTS, io::OUTPUTS, io::ARENA, io::STATE];
            let mut arguments: Vec<Value> = fields.map(|f| code.load(code.pointer, io, f)).to_vec();
            arguments.push(weights);
            let status = code.call(Referent::Wrapper(Wrapper::Guard), &self.signature(5), &arguments);
            code.ret(status);
        })
    }

    /// `NAME_reset(state)`.
    pub fn reset(&self) -> Function {
        self.function(&self.signature(1), |code, parameters| {
            let &[state] = parameters else { return };
            if self.interface.state_bytes > 0 {
                code.require_block(state);
                // The block is a multiple of the alignment, so of words.
                let zero = code.number(I64, 0);
                code.for_each_word(self.interface.state_bytes / 8, &[], |code, offset, _| {
                    let word = code.b.ins().iadd(state, offset);
                    code.b.ins().store(MemFlagsData::trusted(), zero, word, 0);
                    Vec::new()
                });
            }
            code.ret_status(Status::Ok);
        })
    }

    /// `NAME_check_weights(block, uint64_t bytes)`.
    pub fn check_weights(&self) -> Function {
        let mut signature = self.signature(1);
        signature.params.push(AbiParam::new(I64));
        self.function(&signature, |code, parameters| {
            let (&[block, bytes], Some(header)) = (parameters, self.header) else { return };
            code.require_block(block);
            let enough = code.compare(IntCC::UnsignedGreaterThanOrEqual, bytes, header.block_bytes() as i64);
            code.require(enough, Status::Weights);
            code.require_header(block, header);
            let weights = code.add(block, HEADER_BYTES);
            let start = code.number(I64, Checksum::START as i64);
            let prime = code.number(I64, Checksum::PRIME as i64);
            let shift = code.number(I64, i64::from(Checksum::SHIFT));
            let sum = code.for_each_word(header.weights_bytes / 8, &[start], |code, offset, carried| {
                let at = code.b.ins().iadd(weights, offset);
                let word = code.b.ins().load(I64, MemFlagsData::trusted(), at, 0);
                let mixed = code.b.ins().bxor(carried[0], word);
                let product = code.b.ins().imul(mixed, prime);
                let high = code.b.ins().ushr(product, shift);
                vec![code.b.ins().bxor(product, high)]
            });
            let expected = code.number(I64, header.checksum as i64);
            let same = code.b.ins().icmp(IntCC::Equal, sum[0], expected);
            code.require(same, Status::Weights);
            code.ret_status(Status::Ok);
        })
    }

    fn require_cpu(&self, code: &mut Code<'_>) {
        let has_all = code.call(Referent::Wrapper(Wrapper::Cpu), &self.signature(0), &[]);
        code.require(has_all, Status::CpuFeature);
    }

    fn embedded_weights(&self, code: &mut Code<'_>) -> Value {
        if self.interface.weights_bytes == 0 {
            return code.number(code.pointer, 0);
        }
        let name = code.name(Referent::Weights);
        let (offset, colocated, tls) = (0.into(), true, false);
        let weights = code.b.create_global_value(GlobalValueData::Symbol { name, offset, colocated, tls });
        code.b.ins().symbol_value(code.pointer, weights)
    }

    /// That of the program's entry.
    fn entry_signature(&self) -> Signature {
        Signature { call_conv: INTERNAL_CONVENTION, ..self.signature(4) }
    }

    /// `aic_status f(pointer, …)`.
    fn signature(&self, pointers: usize) -> Signature {
        let mut signature = Signature::new(self.convention);
        signature.params = vec![AbiParam::new(self.isa.pointer_type()); pointers];
        signature.returns.push(AbiParam::new(I32));
        signature
    }

    fn function(&self, signature: &Signature, body: impl FnOnce(&mut Code<'_>, &[Value])) -> Function {
        let mut function = Function::with_name_signature(UserFuncName::default(), signature.clone());
        let mut context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut function, &mut context);
        let start = b.create_block();
        b.append_block_params_for_function_params(start);
        b.switch_to_block(start);
        let parameters = b.block_params(start).to_vec();
        let mut code = Code { b, pointer: self.isa.pointer_type(), exits: Vec::new() };
        body(&mut code, &parameters);
        code.finish(self.isa);
        function
    }
}

/// A function being written.
struct Code<'f> {
    b: FunctionBuilder<'f>,
    pointer: Type,
    /// Blocks that return a status, one for each.
    exits: Vec<(Status, Block)>,
}

impl Code<'_> {
    fn number(&mut self, ty: Type, value: i64) -> Value {
        self.b.ins().iconst(ty, value)
    }

    fn load(&mut self, ty: Type, base: Value, offset: i32) -> Value {
        self.b.ins().load(ty, MemFlagsData::trusted(), base, offset)
    }

    fn add(&mut self, base: Value, offset: u64) -> Value {
        if offset == 0 {
            return base;
        }
        let offset = self.number(self.pointer, offset as i64);
        self.b.ins().iadd(base, offset)
    }

    fn compare(&mut self, condition: IntCC, value: Value, with: i64) -> Value {
        let ty = self.b.func.dfg.value_type(value);
        let with = self.number(ty, with);
        self.b.ins().icmp(condition, value, with)
    }

    /// Goes on if `holds` is not zero; else returns the status.
    fn require(&mut self, holds: Value, status: Status) {
        let known = self.exits.iter().find(|e| e.0 == status).map(|e| e.1);
        let exit = known.unwrap_or_else(|| {
            let block = self.b.create_block();
            self.b.set_cold_block(block);
            self.exits.push((status, block));
            block
        });
        let go_on = self.b.create_block();
        self.b.ins().brif(holds, go_on, &[], exit, &[]);
        self.b.switch_to_block(go_on);
    }

    fn require_some(&mut self, pointer: Value) {
        self.require(pointer, Status::NullBlock);
    }

    fn require_aligned(&mut self, pointer: Value, align: u64) {
        if align > 1 {
            let mask = self.number(self.pointer, align as i64 - 1);
            let rest = self.b.ins().band(pointer, mask);
            let aligned = self.compare(IntCC::Equal, rest, 0);
            self.require(aligned, Status::MisalignedBlock);
        }
    }

    /// A block of the caller: not null, on 64 bytes.
    fn require_block(&mut self, pointer: Value) {
        self.require_some(pointer);
        self.require_aligned(pointer, ALIGN_BYTES);
    }

    fn require_tensor(&mut self, pointer: Value, tensor: &TensorInfo) {
        // Tensors without elements are never touched.
        if tensor.bytes > 0 {
            self.require_some(pointer);
            self.require_aligned(pointer, tensor.align);
        }
    }

    /// The header of external weights is exactly this.
    fn require_header(&mut self, block: Value, header: &Header) {
        let bytes = header.to_bytes();
        for (i, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let found = self.load(I64, block, 8 * i as i32);
            let same = self.compare(IntCC::Equal, found, i64::from_le_bytes(*word));
            self.require(same, Status::Weights);
        }
    }

    fn ret(&mut self, status: Value) {
        self.b.ins().return_(&[status]);
    }

    fn ret_status(&mut self, status: Status) {
        let status = self.number(I32, i64::from(status.code()));
        self.ret(status);
    }

    fn return_if(&mut self, condition: Value, status: Value) {
        let (leave, go_on) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(condition, leave, &[], go_on, &[]);
        self.b.switch_to_block(leave);
        self.ret(status);
        self.b.switch_to_block(go_on);
    }

    fn name(&mut self, referent: Referent) -> ExternalName {
        let name = UserExternalName::new(0, name_index(referent));
        ExternalName::user(self.b.func.declare_imported_user_function(name))
    }

    fn call(&mut self, referent: Referent, signature: &Signature, arguments: &[Value]) -> Value {
        let name = self.name(referent);
        let signature = self.b.import_signature(signature.clone());
        let function = self.b.import_function(ExtFuncData { name, signature, colocated: true, patchable: false });
        let call = self.b.ins().call(function, arguments);
        self.b.inst_results(call)[0]
    }

    /// An array of pointers on the stack.
    fn array(&mut self, length: usize) -> StackSlot {
        let (bytes, align) = (length as u32 * self.pointer.bytes(), self.pointer.bytes().trailing_zeros() as u8);
        self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, align))
    }

    fn set_element(&mut self, array: StackSlot, index: usize, pointer: Option<Value>) {
        if let Some(pointer) = pointer {
            let offset = index as i32 * self.pointer.bytes() as i32;
            self.b.ins().stack_store(self.pointer, pointer, array, offset);
        }
    }

    fn address(&mut self, array: StackSlot) -> Value {
        self.b.ins().stack_addr(self.pointer, array, 0)
    }

    /// Copies bytes: whole words in a loop, then the rest.
    fn copy(&mut self, to: Value, from: Value, bytes: u64) {
        self.for_each_word(bytes / 8, &[], |code, offset, _| {
            let (to, from) = (code.b.ins().iadd(to, offset), code.b.ins().iadd(from, offset));
            let word = code.b.ins().load(I64, MemFlagsData::trusted(), from, 0);
            code.b.ins().store(MemFlagsData::trusted(), word, to, 0);
            Vec::new()
        });
        for offset in bytes / 8 * 8..bytes {
            let (to, from) = (self.add(to, offset), self.add(from, offset));
            let byte = self.load(I8, from, 0);
            self.b.ins().store(MemFlagsData::trusted(), byte, to, 0);
        }
    }

    /// A loop over byte offsets `0, 8, …` that carries 64-bit values; gives their last ones.
    fn for_each_word(
        &mut self,
        count: u64,
        first: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        if count == 0 {
            return first.to_vec();
        }
        let (head, done) = (self.b.create_block(), self.b.create_block());
        let offset = self.b.append_block_param(head, self.pointer);
        let carried: Vec<Value> = first.iter().map(|_| self.b.append_block_param(head, I64)).collect();
        let results: Vec<Value> = first.iter().map(|_| self.b.append_block_param(done, I64)).collect();
        let zero = self.number(self.pointer, 0);
        let start: Vec<_> = std::iter::once(zero).chain(first.iter().copied()).map(Into::into).collect();
        self.b.ins().jump(head, &start);
        self.b.switch_to_block(head);
        let next_carried = body(self, offset, &carried);
        let next = self.add(offset, 8);
        let again = self.compare(IntCC::UnsignedLessThan, next, (8 * count) as i64);
        let back: Vec<_> = std::iter::once(next).chain(next_carried.iter().copied()).map(Into::into).collect();
        let out: Vec<_> = next_carried.iter().copied().map(Into::into).collect();
        self.b.ins().brif(again, head, &back, done, &out);
        self.b.switch_to_block(done);
        results
    }

    fn finish(mut self, isa: &dyn TargetIsa) {
        for (status, block) in std::mem::take(&mut self.exits) {
            self.b.switch_to_block(block);
            self.ret_status(status);
        }
        self.b.seal_all_blocks();
        self.b.finalize(isa.frontend_config());
    }
}
