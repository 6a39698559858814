//! Planner against checker against execution: random small programs whose every byte is tagged with its element.

use proptest::prelude::*;

use super::*;
use crate::tile::{
    Access, Affine, BufferData, Dim, Exec, Expr, Inst, Item, Kernel, KernelData, Loop, LoopData, LoopKind, Program,
    Scalar, ScalarBinary, Space, Step, Stmt, StmtData, StmtOp, Storage, Var,
};
use crate::types::{DType, Tensor};

/// Side of the square buffers of the random programs.
const N: u64 = 16;

/// How a statement reads an operand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pattern {
    /// Where it writes.
    Same,
    /// Rows for columns.
    Transposed,
    /// The row's first element.
    RowStart,
}

/// One kernel of a random program.
#[derive(Clone, Debug)]
struct Op {
    /// Earlier values, counted back from the newest.
    operands: Vec<(usize, Pattern)>,
    /// Whether the value goes through a scratch buffer.
    scratch: bool,
    /// Whether the written rows are in a loop.
    looped: bool,
    /// Whether the whole kernel is repeated by an outer loop.
    repeated: bool,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let pattern = prop_oneof![3 => Just(Pattern::Same), 1 => Just(Pattern::Transposed), 1 => Just(Pattern::RowStart)];
    let operands = proptest::collection::vec((0usize..4, pattern), 1..3);
    let op = (operands, proptest::bool::weighted(0.3), any::<bool>(), proptest::bool::weighted(0.2))
        .prop_map(|(operands, scratch, looped, repeated)| Op { operands, scratch, looped, repeated });
    proptest::collection::vec(op, 2..9)
}

struct Builder {
    program: Program,
}

impl Builder {
    fn buffer(&mut self, name: String, storage: Storage) -> Buffer {
        self.program.buffers.push(BufferData::dense(name, DType::F32, &[N, N], storage))
    }

    /// `dst[i, j] = Σ src` in a loop over rows, or as one tile.
    fn map(&self, kernel: &mut KernelData, dst: Buffer, sources: &[(Buffer, Pattern)], looped: bool) -> Item {
        let name = format!("s{}", kernel.stmts.len());
        let row = looped
            .then(|| kernel.loops.push(LoopData { name: format!("i_{name}"), extent: N, kind: LoopKind::Sequential }));
        let (i, j) = match row {
            Some(l) => (Affine::of_loop(l), Affine::dim(0)),
            None => (Affine::dim(0), Affine::dim(1)),
        };
        let mut value = Expr::default();
        let mut sum = value.push(Inst::Const(Scalar::f32(0.0)));
        for &(buffer, pattern) in sources {
            let index = match pattern {
                Pattern::Same => vec![i.clone(), j.clone()],
                Pattern::Transposed => vec![j.clone(), i.clone()],
                Pattern::RowStart => vec![i.clone(), Affine::constant(0)],
            };
            let x = value.push(Inst::Load(Access::new(buffer, index)));
            sum = value.push(Inst::Binary(ScalarBinary::Add, sum, x));
        }
        let dims = (0..if looped { 1 } else { 2 })
            .map(|d| Dim { name: format!("d{d}"), extent: N, exec: Exec::Unroll })
            .collect();
        let op = StmtOp::Map { dst: Access::new(dst, vec![i, j]), value };
        let stmt = Item::Stmt(kernel.stmts.push(StmtData { name, dims, op, intrinsic: None }));
        match row {
            Some(l) => Item::Loop(l, vec![stmt]),
            None => stmt,
        }
    }

    fn kernel(&mut self, kernel: KernelData) {
        let kernel = self.program.kernels.push(kernel);
        self.program.steps.push(Step::Run(kernel));
    }
}

fn build(ops: &[Op]) -> Program {
    let mut b = Builder { program: Program { name: "random".into(), ..Program::default() } };
    let input = b.buffer("x".into(), Storage::Input(0));
    b.program.inputs.push(input);
    let mut values = vec![input];
    for (n, op) in ops.iter().enumerate() {
        let is_last = n + 1 == ops.len();
        let storage = if is_last { Storage::Output(0) } else { Storage::Temp };
        let dst = b.buffer(format!("t{n}"), storage);
        let mut kernel = KernelData { name: format!("k{n}"), ..KernelData::default() };
        let sources: Vec<(Buffer, Pattern)> =
            op.operands.iter().map(|&(back, p)| (values[values.len().saturating_sub(back + 1)], p)).collect();
        let mut body = Vec::new();
        if op.scratch {
            let scratch = b.buffer(format!("scratch{n}"), Storage::Local(Space::Scratch));
            body.push(b.map(&mut kernel, scratch, &sources, op.looped));
            body.push(b.map(&mut kernel, dst, &[(scratch, Pattern::Same)], op.looped));
        } else {
            body.push(b.map(&mut kernel, dst, &sources, op.looped));
        }
        if op.repeated {
            let l = kernel.loops.push(LoopData { name: "again".into(), extent: 2, kind: LoopKind::Sequential });
            body = vec![Item::Loop(l, body)];
        }
        kernel.body = body;
        b.kernel(kernel);
        values.push(dst);
        if is_last {
            b.program.outputs.push(dst);
        }
    }
    b.program
}

/// Runs a program on tags: each element of the arena holds the buffer and the element that was written there last.
/// Says whether every read found its own.
fn tags_hold(program: &Program, plan: &Plan) -> bool {
    let mut memory = std::collections::BTreeMap::new();
    let mut ok = true;
    for step in &program.steps {
        let Step::Run(kernel) = step else { continue };
        let kernel = &program.kernels[*kernel];
        run_body(program, plan, kernel, &kernel.body, &mut Vec::new(), &mut memory, &mut ok);
    }
    ok
}

type Memory = std::collections::BTreeMap<u64, (Buffer, u64)>;

fn run_body(
    program: &Program,
    plan: &Plan,
    kernel: &KernelData,
    body: &[Item],
    around: &mut Vec<(Loop, i64)>,
    memory: &mut Memory,
    ok: &mut bool,
) {
    for item in body {
        match item {
            Item::Loop(l, inner) => {
                for i in 0..kernel.loops[*l].extent as i64 {
                    around.push((*l, i));
                    run_body(program, plan, kernel, inner, around, memory, ok);
                    around.pop();
                }
            }
            Item::Stmt(s) => {
                let stmt = &kernel.stmts[*s];
                for point in 0..stmt.points() as i64 {
                    let width = stmt.dims.last().map_or(1, |d| d.extent as i64);
                    let value = |v: Var| match v {
                        Var::Loop(l) => around.iter().find(|a| a.0 == l).map_or(0, |a| a.1),
                        Var::Dim(d) if d as usize + 1 == stmt.dims.len() => point % width,
                        Var::Dim(_) => point / width,
                    };
                    let place = |access: &Access| {
                        let Place::Arena(offset) = plan.places[access.buffer] else { return None };
                        let index: Vec<u64> = access.index.iter().map(|a| a.eval(&value) as u64).collect();
                        let element = program.buffers[access.buffer].layout.offset_of(&index);
                        Some((offset + 4 * element, (access.buffer, element)))
                    };
                    for read in stmt.reads() {
                        if let Some((address, tag)) = place(read) {
                            *ok &= memory.get(&address) == Some(&tag);
                        }
                    }
                    if let Some((address, tag)) = place(stmt.write()) {
                        memory.insert(address, tag);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn plans_hold_when_run(ops in ops()) {
        let program = build(&ops);
        let plan = plan(&program).unwrap();
        prop_assert_eq!(check(&program, &plan), Ok(()));
        prop_assert!(tags_hold(&program, &plan));
        prop_assert!(plan.arena_bytes >= plan.live_bytes);
        let printed = text::print(&program, &plan);
        prop_assert_eq!(text::parse(&printed).unwrap(), plan);
    }

    #[test]
    fn checker_finds_what_breaks_a_run(ops in ops(), moved in any::<usize>(), to in 0u64..6) {
        let program = build(&ops);
        let mut plan = plan(&program).unwrap();
        let arena: Vec<Buffer> =
            program.buffers.keys().filter(|&b| matches!(plan.places[b], Place::Arena(_))).collect();
        prop_assume!(!arena.is_empty());
        plan.places[arena[moved % arena.len()]] = Place::Arena(to * N * N * 2);
        plan.arena_bytes = 6 * N * N * 4;
        let verdict = check(&program, &plan);
        prop_assert!(verdict.is_err() || tags_hold(&program, &plan));
    }
}

/// `t = x; y = t` through one temporary.
fn small() -> (Program, Plan) {
    let op = Op { operands: vec![(0, Pattern::Same)], scratch: false, looped: true, repeated: false };
    let program = build(&[op.clone(), op.clone(), op]);
    let plan = plan(&program).unwrap();
    (program, plan)
}

#[test]
fn elementwise_results_replace_their_operand() {
    let (_, plan) = small();
    assert_eq!(plan.arena_bytes, N * N * 4);
    assert_eq!(plan.places.values().filter(|p| **p == Place::Arena(0)).count(), 2);
}

#[test]
fn operands_read_elsewhere_are_not_replaced() {
    for (pattern, repeated) in [(Pattern::Transposed, false), (Pattern::RowStart, false), (Pattern::Same, true)] {
        let same = Op { operands: vec![(0, Pattern::Same)], scratch: false, looped: true, repeated: false };
        let middle = Op { operands: vec![(0, pattern)], repeated, ..same.clone() };
        let program = build(&[same.clone(), middle, same]);
        let mut plan = plan(&program).unwrap();
        assert_eq!(plan.arena_bytes, 2 * N * N * 4, "{pattern:?}");
        // Forcing it is an error.
        for place in plan.places.values_mut().filter(|p| matches!(p, Place::Arena(_))) {
            *place = Place::Arena(0);
        }
        let errors = check(&program, &plan).unwrap_err();
        assert!(matches!(errors.0[..], [CheckError::Overwritten { step: 1, .. }]), "{errors}");
    }
}

#[test]
fn each_rule_of_places_is_checked() {
    let (program, plan) = small();
    let temp = Buffer::from_u32(1);
    let mutated = |place: Place, arena_bytes: u64| {
        let mut plan = plan.clone();
        plan.places[temp] = place;
        plan.arena_bytes = arena_bytes;
        check(&program, &plan).unwrap_err().0
    };
    assert!(matches!(mutated(Place::None, 4096)[..], [CheckError::WrongPlace { .. }]));
    assert!(matches!(mutated(Place::Weights(0), 4096)[..], [CheckError::WrongPlace { .. }]));
    assert!(matches!(mutated(Place::Arena(32), 4096)[..], [CheckError::Misaligned { .. }]));
    assert!(matches!(mutated(Place::Arena(3136), 4096)[..], [CheckError::OutOfBlock { .. }]));
    assert!(matches!(mutated(Place::Arena(u64::MAX - 63), 4096)[..], [CheckError::OutOfBlock { .. }]));
}

/// A program of one kernel that adds the constants to its input.
fn with_constants(constants: &[&[f32]]) -> (Program, Vec<Buffer>) {
    let mut program = Program::default();
    let n = constants.first().map_or(0, |c| c.len() as u64);
    let dense = |name: &str, storage| BufferData::dense(name, DType::F32, &[n], storage);
    let x = program.buffers.push(dense("x", Storage::Input(0)));
    let y = program.buffers.push(dense("y", Storage::Output(0)));
    let unused = Tensor::from_f32([n], &vec![9.0; n as usize]).unwrap();
    program.buffers.push(dense("unused", Storage::Const(unused)));
    let mut value = Expr::default();
    let mut sum = value.push(Inst::Load(Access::new(x, vec![Affine::dim(0)])));
    let mut buffers = Vec::new();
    for (i, values) in constants.iter().enumerate() {
        let tensor = Tensor::from_f32([n], values).unwrap();
        let buffer = program.buffers.push(dense(&format!("c{i}"), Storage::Const(tensor)));
        let c = value.push(Inst::Load(Access::new(buffer, vec![Affine::dim(0)])));
        sum = value.push(Inst::Binary(ScalarBinary::Add, sum, c));
        buffers.push(buffer);
    }
    let mut kernel = KernelData { name: "add".into(), ..KernelData::default() };
    let dims = vec![Dim { name: "d0".into(), extent: n, exec: Exec::Unroll }];
    let op = StmtOp::Map { dst: Access::new(y, vec![Affine::dim(0)]), value };
    let stmt: Stmt = kernel.stmts.push(StmtData { name: "add".into(), dims, op, intrinsic: None });
    kernel.body = vec![Item::Stmt(stmt)];
    let kernel: Kernel = program.kernels.push(kernel);
    program.steps.push(Step::Run(kernel));
    program.inputs.push(x);
    program.outputs.push(y);
    (program, buffers)
}

#[test]
fn equal_constants_are_stored_once_and_unused_ones_not_at_all() {
    let (program, c) = with_constants(&[&[1.0, 2.0], &[3.0, 4.0], &[1.0, 2.0]]);
    let mut plan = plan(&program).unwrap();
    assert_eq!(plan.weights_bytes, 128);
    assert_eq!([plan.places[c[0]], plan.places[c[1]], plan.places[c[2]]], [0, 64, 0].map(Place::Weights));
    assert_eq!(check(&program, &plan), Ok(()));
    plan.places[c[1]] = Place::Weights(0);
    let errors = check(&program, &plan).unwrap_err();
    assert!(errors.0.iter().any(|e| matches!(e, CheckError::ConstantsOverlap { .. })), "{errors}");
}

#[test]
fn huge_sizes_are_refused() {
    let (mut program, _) = small();
    let temp = Buffer::from_u32(1);
    program.buffers[temp].layout.dims[0].extent = u64::MAX / 2;
    assert_eq!(plan(&program), Err(PlanError::TooLarge { what: "arena" }));
}

#[test]
fn lists_that_contradict_buffers_are_refused() {
    let (mut program, _) = small();
    program.inputs.push(Buffer::from_u32(1));
    assert!(matches!(plan(&program), Err(PlanError::Inconsistent { what: "inputs", .. })));
}

#[test]
fn texts_that_are_no_plan_are_refused() {
    let good = "plan { arena 64 live 64 weights 0 b0 input 0 b2 arena 0 }";
    assert_eq!(text::parse(good).unwrap().places[Buffer::from_u32(2)], Place::Arena(0));
    for bad in [
        "",
        "plan",
        "plan { arena 64 live 64 weights 0",
        "plan { arena 64 live 64 weights 0 } }",
        "plan { arena 64 live 64 weights 0 b0 nowhere 0 }",
        "plan { arena 64 live 64 weights 0 b0 input 0 b0 input 1 }",
        "plan { arena 64 live 64 weights 0 b4294967294 input 0 }",
        "plan { arena 64 live 64 weights 0 b0 input 4294967296 }",
    ] {
        assert!(text::parse(bad).is_err(), "{bad}");
    }
}
