//! Every instruction, cast, reduction and access pattern that the backend emits, against the tile interpreter, on each level
//! of x86-64 and on AArch64. The programs are built by hand, so that a case does not depend on what the scheduler chooses.

mod common;

use aic_ir::tile::{
    Access, Affine, BufferData, Combine, Dim, Exec, Expr, ExprRef, Inst, Item, KernelData, LayoutDim, LoopData,
    LoopKind, Program, Scalar, ScalarBinary, ScalarUnary, Space, Step, StmtData, StmtOp, Storage,
};
use aic_ir::tile::{Buffer, Layout, Loop};
use aic_ir::types::{DType, Tensor, TensorType};

/// Types that instructions compute with; 16-bit floats are only converted.
const DTYPES: [DType; 11] = [
    DType::F32,
    DType::F64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
];

/// A program under construction, with one kernel.
#[derive(Default)]
struct Build {
    program: Program,
    kernel: KernelData,
    inputs: Vec<Tensor>,
}

impl Build {
    fn input(&mut self, tensor: Tensor) -> Buffer {
        let name = format!("in{}", self.inputs.len());
        let storage = Storage::Input(self.inputs.len() as u32);
        let b = self.program.buffers.push(BufferData::dense(name, tensor.ty().dtype(), tensor.ty().shape(), storage));
        self.program.inputs.push(b);
        self.inputs.push(tensor);
        b
    }

    fn output(&mut self, dtype: DType, shape: &[u64]) -> Buffer {
        let i = self.program.outputs.len();
        let b =
            self.program.buffers.push(BufferData::dense(format!("out{i}"), dtype, shape, Storage::Output(i as u32)));
        self.program.outputs.push(b);
        b
    }

    fn registers(&mut self, dtype: DType, shape: &[u64]) -> Buffer {
        let name = format!("r{}", self.program.buffers.len());
        self.program.buffers.push(BufferData::dense(name, dtype, shape, Storage::Local(Space::Reg)))
    }

    fn loop_(&mut self, extent: u64, kind: LoopKind) -> Loop {
        let name = format!("i{}", self.kernel.loops.len());
        self.kernel.loops.push(LoopData { name, extent, kind })
    }

    fn stmt(&mut self, dims: &[(u64, Exec)], op: StmtOp) -> Item {
        let dims = dims.iter().enumerate().map(|(i, &(extent, exec))| Dim { name: format!("d{i}"), extent, exec });
        let name = format!("s{}", self.kernel.stmts.len());
        Item::Stmt(self.kernel.stmts.push(StmtData { name, dims: dims.collect(), op, intrinsic: None }))
    }

    /// Runs on every machine; `fused` programs only where there is an instruction for it.
    fn check(mut self, what: &str, body: Vec<Item>, fused: bool) {
        self.kernel.body = body;
        self.kernel.name = "kernel".into();
        self.program.name = "test".into();
        let k = self.program.kernels.push(self.kernel);
        self.program.steps.push(Step::Run(k));
        aic_ir::tile::math::expand(&mut self.program, fused);
        for machine in common::MACHINES {
            if !fused || common::target(machine).machine.fma {
                common::check(what, &self.program, &self.inputs, machine);
            }
        }
        common::check(what, &self.program, &self.inputs, common::AARCH64);
    }
}

fn d(i: usize) -> Affine {
    Affine::dim(i)
}

/// Values at and around every boundary of a type, and some between; the number is a multiple of four.
fn values(dtype: DType, salt: u64) -> Tensor {
    let floats = [
        0.0,
        -0.0,
        0.5,
        -0.5,
        1.5,
        -1.5,
        2.5,
        0.3,
        -0.7,
        1.0,
        -1.0,
        3.0,
        7.9,
        -8.0,
        127.0,
        128.0,
        -129.0,
        255.0,
        256.7,
        32767.5,
        65536.0,
        8388607.5,
        8388608.0,
        -8388609.0,
        2147483520.0,
        2147483648.0,
        -2147483648.0,
        -2147483904.0,
        4294967040.0,
        4294967296.0,
        9.2e18,
        -9.3e18,
        1.8e19,
        1.9e19,
        1e-40,
        -1e-40,
        3.0e38,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let ints = [
        0i64,
        1,
        -1,
        2,
        3,
        5,
        7,
        -7,
        100,
        127,
        128,
        -128,
        -129,
        255,
        256,
        32767,
        32768,
        -32768,
        65535,
        65536,
        123_456,
        i64::from(i32::MAX),
        i64::from(i32::MIN),
        i64::from(u32::MAX),
        16_777_217,
        -16_777_217,
        i64::MAX,
        i64::MIN,
    ];
    let count = 40u64;
    let element = |i: u64| -> Vec<u8> {
        let at = ((i * 7 + salt * 11) % count) as usize;
        let int = ints[at % ints.len()];
        match dtype {
            DType::F32 => (floats[at] as f32).to_le_bytes().to_vec(),
            DType::F64 => floats[at].to_le_bytes().to_vec(),
            DType::F16 | DType::BF16 => Scalar::from_f64(dtype, floats[at]).bits.to_le_bytes()[..2].to_vec(),
            DType::Bool => vec![u8::from((i + salt).is_multiple_of(3))],
            _ => int.to_le_bytes()[..dtype.bytes() as usize].to_vec(),
        }
    };
    let bytes: Vec<u8> = (0..count).flat_map(element).collect();
    Tensor::new(TensorType::new(dtype, [count]).unwrap(), bytes.into()).unwrap()
}

/// `out = value(in0, in1, ...)` over one dimension, alone and, where there are such vectors, in vectors.
fn map_case(what: &str, inputs: &[Tensor], result: DType, fused: bool, insts: &dyn Fn(&mut Expr, &[ExprRef])) {
    let half = |t: DType| matches!(t, DType::F16 | DType::BF16);
    let by_vectors = |t: DType| matches!(t, DType::F32 | DType::I32 | DType::U32) || half(t);
    // 32-bit integers become 16-bit floats by way of `f64`.
    let through_f64 = |t: DType| half(result) && matches!(t, DType::I32 | DType::U32);
    let vectors = by_vectors(result) && inputs.iter().map(|t| t.ty().dtype()).all(|t| by_vectors(t) && !through_f64(t));
    for exec in if vectors { vec![Exec::Unroll, Exec::Vector] } else { vec![Exec::Unroll] } {
        let mut b = Build::default();
        let count = inputs[0].ty().elems();
        let buffers: Vec<Buffer> = inputs.iter().map(|t| b.input(t.clone())).collect();
        let out = b.output(result, &[count]);
        let mut value = Expr::default();
        let loads: Vec<ExprRef> = buffers.iter().map(|&x| value.push(Inst::Load(Access::new(x, vec![d(0)])))).collect();
        insts(&mut value, &loads);
        let dst = Access::new(out, vec![d(0)]);
        let body = b.stmt(&[(count, exec)], StmtOp::Map { dst, value });
        b.check(&format!("{what}, {exec:?}"), vec![body], fused);
    }
}

#[test]
fn instructions_of_one_operand() {
    for dtype in DTYPES {
        for op in ScalarUnary::ALL.into_iter().filter(|op| op.takes(dtype)) {
            map_case(&format!("{} {dtype}", op.name()), &[values(dtype, 0)], dtype, false, &|e, x| {
                e.push(Inst::Unary(op, x[0]));
            });
        }
    }
}

#[test]
fn instructions_of_two_operands() {
    for dtype in DTYPES {
        for op in ScalarBinary::ALL.into_iter().filter(|op| op.takes(dtype)) {
            for salt in 1..4 {
                let shift = matches!(op, ScalarBinary::Shl | ScalarBinary::Shr);
                let inputs = [values(dtype, 0), if shift { amounts(dtype) } else { values(dtype, salt) }];
                let what = format!("{} {dtype}", op.name());
                if op.is_comparison() {
                    // Alone as a truth value in memory; in vectors as the condition of a selection.
                    map_case(&what, &inputs, DType::Bool, false, &|e, x| {
                        e.push(Inst::Binary(op, x[0], x[1]));
                    });
                    map_case(&what, &inputs, dtype, false, &|e, x| {
                        let c = e.push(Inst::Binary(op, x[0], x[1]));
                        e.push(Inst::Select(c, x[1], x[0]));
                    });
                } else {
                    map_case(&what, &inputs, dtype, false, &|e, x| {
                        e.push(Inst::Binary(op, x[0], x[1]));
                    });
                }
                if shift {
                    map_case(&what, &inputs[..1], dtype, false, &|e, x| {
                        let by = e.push(Inst::Const(Scalar::from_f64(dtype, 3.0)));
                        e.push(Inst::Binary(op, x[0], by));
                    });
                }
            }
        }
    }
}

/// Shift amounts below the width of every type.
fn amounts(dtype: DType) -> Tensor {
    let size = dtype.bytes() as usize;
    let bytes: Vec<u8> = (0..40u64).flat_map(|i| (i % 8).to_le_bytes()[..size].to_vec()).collect();
    Tensor::new(TensorType::new(dtype, [40]).unwrap(), bytes.into()).unwrap()
}

#[test]
fn casts_between_all_types() {
    for from in DType::ALL {
        for to in DType::ALL {
            map_case(&format!("cast {from} to {to}"), &[values(from, 0)], to, false, &|e, x| {
                e.push(Inst::Cast(to, x[0]));
            });
            let half = |t: DType| matches!(t, DType::F16 | DType::BF16 | DType::U16);
            if from.bytes() == to.bytes() && from != DType::Bool && to != DType::Bool && half(from) == half(to) {
                map_case(&format!("bitcast {from} to {to}"), &[values(from, 0)], to, false, &|e, x| {
                    e.push(Inst::Bitcast(to, x[0]));
                });
            }
        }
    }
    // Truth values in vectors exist only between instructions.
    for to in [DType::F32, DType::I32] {
        map_case(&format!("f32 to bool to {to}"), &[values(DType::F32, 0)], to, false, &|e, x| {
            let truth = e.push(Inst::Cast(DType::Bool, x[0]));
            let not = e.push(Inst::Unary(ScalarUnary::Not, truth));
            e.push(Inst::Cast(to, not));
        });
    }
}

#[test]
fn fused_multiply_add_rounds_once() {
    for dtype in [DType::F32, DType::F64] {
        let inputs = [values(dtype, 0), values(dtype, 1), values(dtype, 2)];
        map_case(&format!("fma {dtype}"), &inputs, dtype, true, &|e, x| {
            e.push(Inst::Fma(x[0], x[1], x[2]));
        });
    }
}

/// Small numbers whose sums depend on the order of rounding.
fn noise(shape: &[u64], dtype: DType) -> Tensor {
    let n: u64 = shape.iter().product();
    let element = |i: u64| {
        let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        Scalar::from_f64(dtype, if dtype.is_float() { x as f64 / 1e5 - 80.0 } else { (x % 200) as f64 - 100.0 })
    };
    let bytes: Vec<u8> =
        (0..n).flat_map(|i| element(i).bits.to_le_bytes()[..dtype.bytes() as usize].to_vec()).collect();
    Tensor::new(TensorType::new(dtype, shape).unwrap(), bytes.into()).unwrap()
}

#[test]
fn reductions_follow_the_tree() {
    use Exec::{Unroll, Vector};
    for dtype in [DType::F32, DType::I32, DType::F64] {
        for op in [Combine::Add, Combine::Mul, Combine::Max, Combine::Min] {
            for n in (1..10).chain([12, 16, 20, 24, 32]) {
                for (rows, columns) in [(Unroll, Unroll), (Vector, Unroll), (Unroll, Vector)] {
                    if dtype != DType::F64 || rows == columns {
                        let mut b = Build::default();
                        let x = b.input(noise(&[4, n], dtype));
                        let out = b.output(dtype, &[4]);
                        let dst = Access::new(out, vec![d(0)]);
                        let start = Expr::constant(Scalar::from_f64(dtype, 2.0));
                        let init = b.stmt(&[(4, Unroll)], StmtOp::Map { dst: dst.clone(), value: start });
                        let src = Access::new(x, vec![d(0), d(1)]);
                        let reduce = b.stmt(&[(4, rows), (n, columns)], StmtOp::Reduce { dst, op, src });
                        b.check(&format!("{op:?} {dtype} of {n}, {rows:?} {columns:?}"), vec![init, reduce], false);
                    }
                }
            }
        }
    }
}

#[test]
fn contractions_in_registers_and_in_memory() {
    use Exec::{Unroll, Vector};
    for (dtype, fused) in [(DType::F32, false), (DType::F32, true), (DType::I32, false)] {
        for (m, n, k, exec) in [(1, 4, 3, Vector), (3, 8, 4, Vector), (2, 6, 5, Vector), (2, 3, 2, Unroll)] {
            for in_registers in [true, false] {
                let mut b = Build::default();
                let x = b.input(noise(&[m, 2 * k], dtype));
                let w = b.input(noise(&[2 * k, n], dtype));
                let out = b.output(dtype, &[m, n]);
                let acc = if in_registers { b.registers(dtype, &[m, n]) } else { out };
                let at = Access::new(acc, vec![d(0), d(1)]);
                let zero = Expr::constant(Scalar::from_f64(dtype, 0.0));
                let init = b.stmt(&[(m, Unroll), (n, exec)], StmtOp::Map { dst: at.clone(), value: zero });
                let p = b.loop_(2, LoopKind::Sequential);
                let depth = Affine::of_loop(p).scale(k as i64).add(&d(2));
                let mma = b.stmt(
                    &[(m, Unroll), (n, exec), (k, Unroll)],
                    StmtOp::Mma {
                        acc: at.clone(),
                        a: Access::new(x, vec![d(0), depth.clone()]),
                        b: Access::new(w, vec![depth, d(1)]),
                        fused,
                    },
                );
                let mut body = vec![init, Item::Loop(p, vec![mma])];
                if in_registers {
                    let dst = Access::new(out, vec![d(0), d(1)]);
                    body.push(b.stmt(&[(m, Unroll), (n, exec)], StmtOp::Copy { dst, src: at }));
                }
                b.check(&format!("{dtype} {m}x{n}x{k}, registers {in_registers}"), body, fused);
            }
        }
    }
}

#[test]
fn padding_reads_as_the_fill_value() {
    for (columns, exec) in [(9, Exec::Unroll), (12, Exec::Vector)] {
        for kind in [LoopKind::Sequential, LoopKind::Unrolled] {
            let mut b = Build::default();
            let x = b.input(noise(&[5, 7], DType::F32));
            let out = b.output(DType::F32, &[9, columns]);
            let i = b.loop_(9, kind);
            let row = Affine::of_loop(i);
            let mut src = Access::new(x, vec![row.add_constant(-2), d(0).add_constant(-1)]);
            src.fill = Some(Scalar::f32(-3.5));
            let dst = Access::new(out, vec![row, d(0)]);
            let copy = b.stmt(&[(columns, exec)], StmtOp::Copy { dst, src });
            b.check(&format!("padding, {exec:?}, {kind:?}"), vec![Item::Loop(i, vec![copy])], false);
        }
    }
}

#[test]
fn transposed_blocked_and_divided_coordinates() {
    for exec in [Exec::Unroll, Exec::Vector] {
        let mut b = Build::default();
        let x = b.input(noise(&[8, 21], DType::F32));
        let out = b.output(DType::F32, &[21, 8]);
        let t = b.output(DType::F32, &[168]);
        // Panels of 4 columns, whose last panel is padded.
        let blocked = b.program.buffers.push(BufferData {
            name: "blocked".into(),
            dtype: DType::F32,
            shape: vec![8, 21],
            layout: Layout {
                dims: vec![
                    LayoutDim { axis: 1, div: 4, modulo: None, extent: 6 },
                    LayoutDim { axis: 0, div: 1, modulo: None, extent: 8 },
                    LayoutDim { axis: 1, div: 1, modulo: Some(4), extent: 4 },
                ],
            },
            storage: Storage::Temp,
        });
        let i = b.loop_(21, LoopKind::Sequential);
        let pack = StmtOp::Copy {
            dst: Access::new(blocked, vec![d(0), Affine::of_loop(i)]),
            src: Access::new(x, vec![d(0), Affine::of_loop(i)]),
        };
        let pack = b.stmt(&[(8, exec)], pack);
        let j = b.loop_(21, LoopKind::Parallel);
        let transpose = StmtOp::Copy {
            dst: Access::new(out, vec![Affine::of_loop(j), d(0)]),
            src: Access::new(blocked, vec![d(0), Affine::of_loop(j)]),
        };
        let transpose = b.stmt(&[(8, exec)], transpose);
        // A flat walk whose coordinates are divisions by 21, starting below zero.
        let l = b.loop_(42, LoopKind::Sequential);
        let flat = Affine::of_loop(l).scale(4).add(&d(0)).add_constant(-30);
        let extents = |v| if v == aic_ir::tile::Var::Dim(0) { 4 } else { 42 };
        let (row, column) = (flat.floor_div(21, &extents), flat.modulo(21, &extents));
        let mut src = Access::new(x, vec![row, column]);
        src.fill = Some(Scalar::f32(9.0));
        let dst = Access::new(t, vec![Affine::of_loop(l).scale(4).add(&d(0))]);
        let flat = b.stmt(&[(4, exec)], StmtOp::Copy { dst, src });
        let body = vec![Item::Loop(i, vec![pack]), Item::Loop(j, vec![transpose]), Item::Loop(l, vec![flat])];
        b.check(&format!("layouts, {exec:?}"), body, false);
    }
}

#[test]
fn gathers_count_negative_positions_from_the_end() {
    for exec in [Exec::Unroll, Exec::Vector] {
        for dtype in [DType::I32, DType::I64] {
            let mut b = Build::default();
            let table = b.input(noise(&[6, 8], DType::F32));
            let positions: Vec<u8> = [0i64, 5, -1, -6, 3, 3]
                .iter()
                .flat_map(|i| i.to_le_bytes()[..dtype.bytes() as usize].to_vec())
                .collect();
            let index = b.input(Tensor::new(TensorType::new(dtype, [6]).unwrap(), positions.into()).unwrap());
            let out = b.output(DType::F32, &[6, 8]);
            let i = b.loop_(3, LoopKind::Sequential);
            let row = Affine::of_loop(i).scale(2).add(&d(0));
            let gather = StmtOp::Gather {
                dst: Access::new(out, vec![row.clone(), d(1)]),
                src: Access::new(table, vec![Affine::constant(0), d(1)]),
                index: Access::new(index, vec![row]),
                axis: 0,
            };
            let gather = b.stmt(&[(2, Exec::Unroll), (8, exec)], gather);
            b.program.steps.push(Step::Check { buffer: index, bound: 6 });
            b.check(&format!("gather by {dtype}, {exec:?}"), vec![Item::Loop(i, vec![gather])], false);
        }
    }
}

#[test]
fn scatters_combine_in_order() {
    for op in [None, Some(Combine::Add), Some(Combine::Mul), Some(Combine::Max), Some(Combine::Min)] {
        for (dtype, by, exec) in [
            (DType::F32, DType::I32, Exec::Unroll),
            (DType::F32, DType::I64, Exec::Vector),
            (DType::I64, DType::I32, Exec::Unroll),
            (DType::U8, DType::I64, Exec::Unroll),
        ] {
            let mut b = Build::default();
            let x = b.input(noise(&[5, 8], dtype));
            let updates = b.input(noise(&[6, 8], dtype));
            // Rows meet, so that the order shows.
            let positions: Vec<u8> =
                [0i64, -1, 0, 3, -5, 3].iter().flat_map(|i| i.to_le_bytes()[..by.bytes() as usize].to_vec()).collect();
            let index = b.input(Tensor::new(TensorType::new(by, [6]).unwrap(), positions.into()).unwrap());
            let out = b.output(dtype, &[5, 8]);
            let at = |buffer| Access::new(buffer, vec![d(0), d(1)]);
            let copy = b.stmt(&[(5, Exec::Unroll), (8, Exec::Unroll)], StmtOp::Copy { dst: at(out), src: at(x) });
            let i = b.loop_(3, LoopKind::Sequential);
            let row = Affine::of_loop(i).scale(2).add(&d(0));
            let scatter = StmtOp::Scatter {
                dst: Access::new(out, vec![Affine::constant(0), d(1)]),
                op,
                src: Access::new(updates, vec![row.clone(), d(1)]),
                index: Access::new(index, vec![row]),
                axis: 0,
            };
            let scatter = b.stmt(&[(2, Exec::Unroll), (8, exec)], scatter);
            b.program.steps.push(Step::Check { buffer: index, bound: 5 });
            b.check(&format!("scatter {op:?} {dtype} by {by}"), vec![copy, Item::Loop(i, vec![scatter])], false);
        }
    }
}

#[test]
fn maps_see_what_they_wrote() {
    for (outer, inner) in [(1, 12), (4, 3), (12, 1)] {
        let mut b = Build::default();
        let x = b.input(noise(&[12, 2], DType::F32));
        let out = b.output(DType::F32, &[12, 2]);
        let i = b.loop_(outer, LoopKind::Sequential);
        let at = Affine::of_loop(i).scale(inner as i64).add(&d(0));
        let mut value = Expr::default();
        let mut before = Access::new(out, vec![at.add_constant(-1), d(1)]);
        before.fill = Some(Scalar::f32(0.5));
        let before = value.push(Inst::Load(before));
        let term = value.push(Inst::Load(Access::new(x, vec![at.clone(), d(1)])));
        value.push(Inst::Binary(ScalarBinary::Add, before, term));
        let dst = Access::new(out, vec![at, d(1)]);
        let sum = b.stmt(&[(inner, Exec::Unroll), (2, Exec::Unroll)], StmtOp::Map { dst, value });
        b.check(&format!("running sum, {outer} x {inner}"), vec![Item::Loop(i, vec![sum])], false);
    }
}

#[test]
fn indices_out_of_range_end_the_run() {
    use aic_cpu::jit::{Jit, RunError};
    use aic_cpu::status::Status;
    for dtype in [DType::I32, DType::I64] {
        let mut program = Program { name: "check".into(), ..Program::default() };
        let index = program.buffers.push(BufferData::dense("i", dtype, &[3], Storage::Input(0)));
        program.inputs.push(index);
        program.steps.push(Step::Check { buffer: index, bound: 6 });
        let (compiled, weights) = common::compile(&program, &common::target("x86-64"));
        let (arm, _) = common::compile(&program, &common::target(common::AARCH64));
        let mut jit = Jit::new(&compiled, &weights).unwrap();
        let largest = if dtype == DType::I32 { i64::from(i32::MAX) } else { i64::MAX };
        for (value, valid) in
            [(5, true), (-6, true), (0, true), (6, false), (-7, false), (largest, false), (-largest - 1, false)]
        {
            let bytes: Vec<u8> =
                [0, 1, value].iter().flat_map(|i: &i64| i.to_le_bytes()[..dtype.bytes() as usize].to_vec()).collect();
            let expected = if valid { Ok(()) } else { Err(RunError::Status(Status::IndexOutOfRange)) };
            assert_eq!(jit.run(&[&bytes], &mut Vec::new()), expected, "{dtype} {value}");
            let status = if valid { Status::Ok } else { Status::IndexOutOfRange };
            assert_eq!(common::emulated(&arm, &weights, &[&bytes]).0, status.code(), "{dtype} {value}");
        }
    }
}

#[test]
fn kernels_of_equal_structure_share_a_function() {
    let mut program = Program { name: "twice".into(), ..Program::default() };
    let n = 8;
    let x = program.buffers.push(BufferData::dense("x", DType::F32, &[n], Storage::Input(0)));
    let t = program.buffers.push(BufferData::dense("t", DType::F32, &[n], Storage::Temp));
    let y = program.buffers.push(BufferData::dense("y", DType::F32, &[n], Storage::Output(0)));
    program.inputs.push(x);
    program.outputs.push(y);
    for (name, from, to) in [("first", x, t), ("second", t, y)] {
        let mut value = Expr::default();
        let v = value.push(Inst::Load(Access::new(from, vec![d(0)])));
        value.push(Inst::Unary(ScalarUnary::Neg, v));
        let mut kernel = KernelData { name: name.into(), ..KernelData::default() };
        let dims = vec![Dim { name: "d0".into(), extent: n, exec: Exec::Vector }];
        let op = StmtOp::Map { dst: Access::new(to, vec![d(0)]), value };
        let s = kernel.stmts.push(StmtData { name: "map".into(), dims, op, intrinsic: None });
        kernel.body.push(Item::Stmt(s));
        let k = program.kernels.push(kernel);
        program.steps.push(Step::Run(k));
    }
    let (compiled, _) = common::compile(&program, &common::target("x86-64-v3"));
    assert_eq!(compiled.steps[0].function, compiled.steps[1].function);
    assert!(compiled.steps[0].function.is_some());
    common::check("twice", &program, &[noise(&[n], DType::F32)], "x86-64-v3");
}
