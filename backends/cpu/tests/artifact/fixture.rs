//! Small compiled programs whose entries are written by hand, so that these tests say something about artifacts only.

use aic_cpu::CpuTarget;
use aic_cpu::artifact::{Artifact, Spec, TensorSpec, Weights};
use aic_cpu::code::{Call, CallKind, Compiled, Function};
use aic_cpu::status::Status;
use aic_ir::machine::builtin;
use aic_ir::plan::{Plan, plan};
use aic_ir::tile::{
    Access, Affine, BufferData, Dim, Exec, Expr, Inst, Item, KernelData, Program, ScalarBinary, Step, StmtData, StmtOp,
    Storage,
};
use aic_ir::types::{DType, Tensor, TensorType};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, Function as Clif, InstBuilder, MemFlagsData, Signature, StackSlotData,
    StackSlotKind, UserExternalName, UserFuncName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::{Context, FinalizedRelocTarget};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

/// Elements of every vector of these programs, not a multiple of a word.
pub const N: u64 = 5;

/// Bytes of the arena that the programs ask for.
pub const ARENA_BYTES: u64 = 128;

/// A compiled program, its weights and how its interface is described.
pub struct Model {
    pub spec: Spec,
    pub compiled: Compiled,
    pub program: Program,
    pub plan: Plan,
    pub target: CpuTarget,
}

impl Model {
    pub fn weights(&self) -> Weights<'_> {
        Weights::new(&self.program, &self.plan)
    }

    pub fn artifact(&self) -> Artifact {
        Artifact::new(&self.compiled, &self.spec, self.weights(), &self.target).unwrap()
    }

    pub fn object(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.artifact().write_object(self.weights(), &mut out).unwrap();
        out
    }
}

/// Bytes on the stack that [`Body::AddWeights`] takes at least.
pub const FRAME_BYTES: u32 = 4096;

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body {
    /// `y[i] = x[i] + w[i]`; inputs `x`, outputs `y`.
    AddWeights,
    /// `y[i] = x[i] + h[i] + w[i]; hn[i] = y[i]`; inputs `h`, `x`, outputs `y`, `hn`.
    Accumulate,
    /// `y[0] = w[x[0]]`, after a check; inputs `x: i64[1]`, outputs `y: f32[1]`.
    Select,
}

/// Weights of all programs.
pub const WEIGHTS: [f32; N as usize] = [0.5, 1.5, 2.5, 3.5, 4.5];

/// A built-in machine under Linux.
pub fn target(machine: &str) -> CpuTarget {
    let machine = builtin(machine).unwrap();
    let triple = match machine.arch {
        aic_ir::machine::Arch::X86_64 => "x86_64-unknown-linux-gnu",
        aic_ir::machine::Arch::Aarch64 => "aarch64-unknown-linux-gnu",
    };
    CpuTarget::new(machine, triple.parse().unwrap()).unwrap()
}

/// A model of that name and entry, for a built-in machine.
pub fn model(name: &str, body: Body, machine: &str) -> Model {
    model_for(name, body, target(machine))
}

/// A model of that name and entry, for any target.
pub fn model_for(name: &str, body: Body, target: CpuTarget) -> Model {
    let (program, plan) = weights();
    let (inputs, outputs) = match body {
        Body::AddWeights => (vec![("x", DType::F32, N)], vec![("y", DType::F32, N)]),
        Body::Accumulate => {
            (vec![("h", DType::F32, N), ("x", DType::F32, N)], vec![("y", DType::F32, N), ("hn", DType::F32, N)])
        }
        Body::Select => (vec![("x", DType::I64, 1)], vec![("y", DType::F32, 1)]),
    };
    let tensors = |list: Vec<(&str, DType, u64)>| -> Vec<TensorSpec> {
        list.into_iter()
            .map(|(name, dtype, n)| TensorSpec {
                name: name.to_owned(),
                ty: TensorType::new(dtype, [n]).unwrap(),
                quantization: None,
            })
            .collect()
    };
    let spec = Spec {
        name: name.to_owned(),
        inputs: tensors(inputs),
        outputs: tensors(outputs),
        states: Vec::new(),
        external_weights: false,
        model_sha256: "5f".repeat(32),
    };
    let kernel = compile("kernel", kernel(body, &*target.isa), &*target.isa, 0);
    let entry = compile("entry", entry(&*target.isa), &*target.isa, kernel.stack_bytes);
    let bytes = |list: &[TensorSpec]| list.iter().map(|t| t.ty.bytes()).collect();
    let compiled = Compiled {
        functions: vec![kernel, entry],
        entry: 1,
        steps: Vec::new(),
        input_bytes: bytes(&spec.inputs),
        output_bytes: bytes(&spec.outputs),
        arena_bytes: ARENA_BYTES,
        weights_bytes: plan.weights_bytes,
        arch: target.machine.arch,
        features: target.machine.features.clone(),
    };
    Model { spec, compiled, program, plan, target }
}

/// A program that reads the weights, and its plan.
fn weights() -> (Program, Plan) {
    let mut program = Program { name: "weights".into(), ..Program::default() };
    let dense = |name: &str, storage| BufferData::dense(name, DType::F32, &[N], storage);
    let x = program.buffers.push(dense("x", Storage::Input(0)));
    let y = program.buffers.push(dense("y", Storage::Output(0)));
    let w = program.buffers.push(dense("w", Storage::Const(Tensor::from_f32([N], &WEIGHTS).unwrap())));
    let mut value = Expr::default();
    let a = value.push(Inst::Load(Access::new(x, vec![Affine::dim(0)])));
    let b = value.push(Inst::Load(Access::new(w, vec![Affine::dim(0)])));
    value.push(Inst::Binary(ScalarBinary::Add, a, b));
    let mut kernel = KernelData { name: "add".into(), ..KernelData::default() };
    let stmt = kernel.stmts.push(StmtData {
        name: "add".into(),
        dims: vec![Dim { name: "d0".into(), extent: N, exec: Exec::Unroll }],
        op: StmtOp::Map { dst: Access::new(y, vec![Affine::dim(0)]), value },
        intrinsic: None,
    });
    kernel.body = vec![Item::Stmt(stmt)];
    let kernel = program.kernels.push(kernel);
    program.steps.push(Step::Run(kernel));
    program.inputs.push(x);
    program.outputs.push(y);
    let plan = plan(&program).unwrap();
    (program, plan)
}

/// Functions of programs call each other in one convention on every platform.
fn signature() -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(I64); 4];
    signature.returns.push(AbiParam::new(I32));
    signature
}

fn function(isa: &dyn TargetIsa, body: impl FnOnce(&mut FunctionBuilder<'_>, &[Value])) -> Clif {
    let mut clif = Clif::with_name_signature(UserFuncName::default(), signature());
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut clif, &mut context);
    let start = b.create_block();
    b.append_block_params_for_function_params(start);
    b.switch_to_block(start);
    let parameters = b.block_params(start).to_vec();
    body(&mut b, &parameters);
    b.seal_all_blocks();
    b.finalize(isa.frontend_config());
    clif
}

/// The entry calls the one kernel.
fn entry(isa: &dyn TargetIsa) -> Clif {
    function(isa, |b, parameters| {
        let name = b.func.declare_imported_user_function(UserExternalName::new(0, 0));
        let signature = b.import_signature(signature());
        let name = ExternalName::user(name);
        let kernel = b.import_function(ExtFuncData { name, signature, colocated: true, patchable: false });
        let call = b.ins().call(kernel, parameters);
        let status = b.inst_results(call)[0];
        b.ins().return_(&[status]);
    })
}

fn kernel(body: Body, isa: &dyn TargetIsa) -> Clif {
    function(isa, |b, parameters| {
        let &[inputs, outputs, arena, weights] = parameters else { panic!("four parameters") };
        let flags = MemFlagsData::trusted();
        let at = |b: &mut FunctionBuilder<'_>, list, i: i32| b.ins().load(I64, flags, list, 8 * i);
        let ok = b.ins().iconst(I32, i64::from(Status::Ok.code()));
        // The last byte of the arena is the program's to write.
        b.ins().istore8(flags, ok, arena, ARENA_BYTES as i32 - 1);
        match body {
            Body::AddWeights => {
                // Touches the far end of a large frame.
                let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, FRAME_BYTES, 3);
                let slot = b.create_sized_stack_slot(slot);
                b.ins().stack_store(I64, arena, slot, 0);
                let (x, y) = (at(b, inputs, 0), at(b, outputs, 0));
                for i in 0..N as i32 {
                    let (v, w) = (b.ins().load(F32, flags, x, 4 * i), b.ins().load(F32, flags, weights, 4 * i));
                    let sum = b.ins().fadd(v, w);
                    b.ins().store(flags, sum, y, 4 * i);
                }
            }
            Body::Accumulate => {
                let (h, x) = (at(b, inputs, 0), at(b, inputs, 1));
                let (y, hn) = (at(b, outputs, 0), at(b, outputs, 1));
                for i in 0..N as i32 {
                    let (v, s) = (b.ins().load(F32, flags, x, 4 * i), b.ins().load(F32, flags, h, 4 * i));
                    let w = b.ins().load(F32, flags, weights, 4 * i);
                    let sum = b.ins().fadd(v, s);
                    let sum = b.ins().fadd(sum, w);
                    b.ins().store(flags, sum, y, 4 * i);
                    b.ins().store(flags, sum, hn, 4 * i);
                }
            }
            Body::Select => {
                let (x, y) = (at(b, inputs, 0), at(b, outputs, 0));
                let index = b.ins().load(I64, flags, x, 0);
                let bound = b.ins().iconst(I64, N as i64);
                let inside = b.ins().icmp(IntCC::UnsignedLessThan, index, bound);
                let (go_on, leave) = (b.create_block(), b.create_block());
                b.ins().brif(inside, go_on, &[], leave, &[]);
                b.switch_to_block(leave);
                let status = b.ins().iconst(I32, i64::from(Status::IndexOutOfRange.code()));
                b.ins().return_(&[status]);
                b.switch_to_block(go_on);
                let four = b.ins().iconst(I64, 4);
                let offset = b.ins().imul(index, four);
                let from = b.ins().iadd(weights, offset);
                let w = b.ins().load(F32, flags, from, 0);
                b.ins().store(flags, w, y, 0);
            }
        }
        b.ins().return_(&[ok]);
    })
}

fn compile(symbol: &str, clif: Clif, isa: &dyn TargetIsa, below_bytes: u64) -> Function {
    let mut context = Context::for_function(clif);
    let code = context.compile(isa, &mut ControlPlane::default()).unwrap().clone();
    let calls = code.buffer.relocs().iter().map(|r| {
        assert!(matches!(r.target, FinalizedRelocTarget::ExternalName(ExternalName::User(_))), "{:?}", r.target);
        let kind = match isa.triple().architecture {
            target_lexicon::Architecture::X86_64 => CallKind::X86PcRel32,
            _ => CallKind::Aarch64Call26,
        };
        Call { offset: r.offset, kind, target: 0, addend: r.addend }
    });
    let frame = code.buffer.frame_layout().map_or(0, |l| u64::from(l.frame_to_fp_offset));
    Function {
        symbol: symbol.to_owned(),
        calls: calls.collect(),
        code: code.buffer.data().to_vec(),
        align: 32,
        stack_bytes: frame + 16 + below_bytes,
        clif: None,
        asm: None,
    }
}
