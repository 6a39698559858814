//! Tests of the interpreter of tile programs: semantics of every statement, and what it refuses.

use super::*;
use crate::tile::{
    Access, Affine, BufferData, Combine, Dim, Exec, Expr, Inst, Layout, LayoutDim, Loop, LoopData, LoopKind, Scalar,
    ScalarBinary, Space, StmtData, StmtOp,
};
use cranelift_entity::EntityRef;

fn dims(extents: &[(&str, u64)]) -> Vec<Dim> {
    extents.iter().map(|&(n, extent)| Dim { name: n.into(), extent, exec: Exec::Unroll }).collect()
}

fn d(i: usize) -> Affine {
    Affine::dim(i)
}

struct Builder(Program, KernelData);

impl Builder {
    fn new() -> Self {
        Self(Program::default(), KernelData { name: "k".into(), ..KernelData::default() })
    }

    fn buffer(&mut self, name: &str, dtype: DType, shape: &[u64], storage: Storage) -> Buffer {
        let is_input = matches!(storage, Storage::Input(_));
        let is_output = matches!(storage, Storage::Output(_));
        let b = self.0.buffers.push(BufferData::dense(name, dtype, shape, storage));
        if is_input {
            self.0.inputs.push(b);
        }
        if is_output {
            self.0.outputs.push(b);
        }
        b
    }

    fn stmt(&mut self, name: &str, extents: &[(&str, u64)], op: StmtOp) -> Item {
        Item::Stmt(self.1.stmts.push(StmtData { name: name.into(), dims: dims(extents), op, intrinsic: None }))
    }

    fn make_loop(&mut self, extent: u64) -> Loop {
        self.1.loops.push(LoopData { name: format!("i{extent}"), extent, kind: LoopKind::Sequential })
    }

    fn finish(mut self, body: Vec<Item>) -> Program {
        self.1.body = body;
        let k = self.0.kernels.push(self.1);
        self.0.steps.push(Step::Run(k));
        self.0
    }
}

fn zero() -> Expr {
    Expr::constant(Scalar::f32(0.0))
}

fn tensor(shape: &[u64], f: impl Fn(usize) -> f32) -> Tensor {
    let n = shape.iter().product::<u64>() as usize;
    Tensor::from_f32(shape, &(0..n).map(f).collect::<Vec<_>>()).unwrap()
}

fn floats(t: &Tensor) -> Vec<f32> {
    (0..t.ty().elems()).map(|i| t.get_f64(i).unwrap() as f32).collect()
}

/// `y[m, n] = Σ a[m, k] b[n, k]`: naive, and tiled with panels, a register tile and a ragged edge by fill.
#[test]
fn scheduled_product_equals_naive() {
    let (m, n, k) = (6, 10, 7);
    let a = tensor(&[m, k], |i| (i as f32 * 0.37).sin());
    let w = tensor(&[n, k], |i| (i as f32 * 0.73).cos());
    let mut builder = Builder::new();
    let input = builder.buffer("a", DType::F32, &[m, k], Storage::Input(0));
    let weight = builder.buffer("w", DType::F32, &[n, k], Storage::Const(w.clone()));
    let y = builder.buffer("y", DType::F32, &[m, n], Storage::Output(0));
    let out = || Access::new(y, vec![d(0), d(1)]);
    let init = builder.stmt("init", &[("d0", m), ("d1", n)], StmtOp::Map { dst: out(), value: zero() });
    let mma = StmtOp::Mma {
        acc: out(),
        a: Access::new(input, vec![d(0), d(2)]),
        b: Access::new(weight, vec![d(1), d(2)]),
        fused: true,
    };
    let mma = builder.stmt("mma", &[("d0", m), ("d1", n), ("k0", k)], mma);
    let naive = run(&builder.finish(vec![init, mma]), std::slice::from_ref(&a)).unwrap();

    let mut builder = Builder::new();
    let input = builder.buffer("a", DType::F32, &[m, k], Storage::Input(0));
    let weight = builder.buffer("w", DType::F32, &[n, k], Storage::Const(w));
    builder.0.buffers[weight].layout = Layout::panels(&[n, k], 0, 4, &[1]);
    let y = builder.buffer("y", DType::F32, &[m, n], Storage::Output(0));
    let acc = builder.buffer("acc", DType::F32, &[3, 4], Storage::Local(Space::Reg));
    let (i, j, p) = (builder.make_loop(2), builder.make_loop(3), builder.make_loop(k));
    let (row, column) = (Affine::of_loop(i).scale(3).add(&d(0)), Affine::of_loop(j).scale(4).add(&d(1)));
    let tile = || Access::new(acc, vec![d(0), d(1)]);
    let init = builder.stmt("init", &[("d0", 3), ("d1", 4)], StmtOp::Map { dst: tile(), value: zero() });
    let mma = StmtOp::Mma {
        acc: tile(),
        a: Access::new(input, vec![row.clone(), Affine::of_loop(p).add(&d(2))]),
        b: Access { buffer: weight, index: vec![column, Affine::of_loop(p).add(&d(2))], fill: Some(Scalar::f32(0.0)) },
        fused: true,
    };
    let mma = builder.stmt("mma", &[("d0", 3), ("d1", 4), ("k0", 1)], mma);
    // The last panel is half empty: its products read fill values, and only two of its columns are stored.
    let copy = |b: &mut Builder, at: u64, width: u64, j: &Affine| {
        let column = j.scale(4).add(&d(1)).add_constant(at as i64);
        let src = Access::new(acc, vec![d(0), d(1).add_constant(at as i64)]);
        let dst = Access::new(y, vec![row.clone(), column]);
        b.stmt("store", &[("d0", 3), ("d1", width)], StmtOp::Copy { dst, src })
    };
    let whole = copy(&mut builder, 0, 4, &Affine::of_loop(j));
    let half = copy(&mut builder, 0, 2, &Affine::constant(2));
    let init2 = builder.stmt("init2", &[("d0", 3), ("d1", 4)], StmtOp::Map { dst: tile(), value: zero() });
    let StmtOp::Mma { a: tail_a, b: tail_b, .. } = builder.1.stmts[Stmt::new(1)].op.clone() else { panic!() };
    let fixed = |access: Access| Access {
        index: access
            .index
            .iter()
            .map(|x| {
                let map = |v| if v == crate::tile::Var::Loop(j) { Affine::constant(2) } else { Affine::var(v) };
                x.substitute(&map, &|_| 100)
            })
            .collect(),
        ..access
    };
    let mma2 = StmtOp::Mma { acc: tile(), a: fixed(tail_a), b: fixed(tail_b), fused: true };
    let mma2 = builder.stmt("mma2", &[("d0", 3), ("d1", 4), ("k0", 1)], mma2);
    builder.1.loops[j].extent = 2;
    let body = vec![Item::Loop(
        i,
        vec![Item::Loop(j, vec![init, Item::Loop(p, vec![mma]), whole]), init2, Item::Loop(p, vec![mma2]), half],
    )];
    let scheduled = run(&builder.finish(body), &[a]).unwrap();
    assert_eq!(naive, scheduled);
}

#[test]
fn products_round_once_or_twice() {
    let x = 1.0 + f32::EPSILON;
    let exact = f64::from(x) * f64::from(x) - 1.0;
    for (fused, expected) in [(true, exact as f32), (false, x * x - 1.0)] {
        let mut b = Builder::new();
        let a = b.buffer("a", DType::F32, &[1], Storage::Input(0));
        let y = b.buffer("y", DType::F32, &[1], Storage::Output(0));
        let at = |b| Access::new(b, vec![d(0)]);
        let value = Expr::constant(Scalar::f32(-1.0));
        let init = b.stmt("init", &[("d0", 1)], StmtOp::Map { dst: at(y), value });
        let mma = b.stmt("mma", &[("d0", 1)], StmtOp::Mma { acc: at(y), a: at(a), b: at(a), fused });
        let y = run(&b.finish(vec![init, mma]), &[tensor(&[1], |_| x)]).unwrap();
        assert_eq!(floats(&y[0]), [expected]);
    }
}

#[test]
fn reduction_follows_the_tree() {
    // Five values of very different size: the order shows in the result.
    let values = [1e8f32, 1.0, -1e8, 3.0, 0.5];
    let mut b = Builder::new();
    let x = b.buffer("x", DType::F32, &[2, 5], Storage::Input(0));
    let y = b.buffer("y", DType::F32, &[2], Storage::Output(0));
    let value = Expr::constant(Scalar::f32(0.25));
    let init = b.stmt("init", &[("d0", 2)], StmtOp::Map { dst: Access::new(y, vec![d(0)]), value });
    let reduce =
        StmtOp::Reduce { dst: Access::new(y, vec![d(0)]), op: Combine::Add, src: Access::new(x, vec![d(0), d(1)]) };
    let reduce = b.stmt("sum", &[("d0", 2), ("k0", 5)], reduce);
    let y = run(&b.finish(vec![init, reduce]), &[tensor(&[2, 5], |i| values[i % 5])]).unwrap();
    // h = 3: x0 + x3, x1 + x4, x2; then h = 2: (x0 + x3) + x2, x1 + x4; then one.
    let tree = ((values[0] + values[3]) + values[2]) + (values[1] + values[4]);
    assert_eq!(floats(&y[0]), [0.25 + tree; 2]);
}

#[test]
fn in_place_scan_is_sequential() {
    // x[d] += x[d - 1], in order, within one tile.
    let n = 600;
    let mut b = Builder::new();
    let x = b.buffer("x", DType::F32, &[n], Storage::Input(0));
    let y = b.buffer("y", DType::F32, &[n], Storage::Output(0));
    let at = |b, by| Access::new(b, vec![d(0).add_constant(by)]);
    let copy = b.stmt("copy", &[("d0", n)], StmtOp::Copy { dst: at(y, 0), src: at(x, 0) });
    let mut value = Expr::default();
    let p = value.push(Inst::Load(Access { fill: Some(Scalar::f32(0.0)), ..at(y, -1) }));
    let q = value.push(Inst::Load(at(y, 0)));
    value.push(Inst::Binary(ScalarBinary::Add, p, q));
    let scan = b.stmt("scan", &[("d0", n)], StmtOp::Map { dst: at(y, 0), value });
    let y = run(&b.finish(vec![copy, scan]), &[tensor(&[n], |_| 1.0)]).unwrap();
    assert_eq!(floats(&y[0]), (1..=n).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn gather_counts_negative_indices_from_the_end() {
    let mut b = Builder::new();
    let ids = b.buffer("ids", DType::I64, &[3], Storage::Input(0));
    let table = b.buffer("table", DType::F32, &[4, 2], Storage::Const(tensor(&[4, 2], |i| i as f32)));
    b.0.buffers[table].layout = Layout::panels(&[4, 2], 0, 3, &[1]);
    let y = b.buffer("y", DType::F32, &[3, 2], Storage::Output(0));
    let gather = StmtOp::Gather {
        dst: Access::new(y, vec![d(0), d(1)]),
        src: Access::new(table, vec![Affine::constant(0), d(1)]),
        index: Access::new(ids, vec![d(0)]),
        axis: 0,
    };
    let gather = b.stmt("gather", &[("d0", 3), ("d1", 2)], gather);
    b.0.steps.push(Step::Check { buffer: ids, bound: 4 });
    let program = b.finish(vec![gather]);
    let ids = |v: [i64; 3]| [Tensor::from_i64([3], &v).unwrap()];
    let y = run(&program, &ids([3, -4, -1])).unwrap();
    assert_eq!(floats(&y[0]), [6.0, 7.0, 0.0, 1.0, 6.0, 7.0]);
    for bad in [4, -5, i64::MIN, i64::MAX] {
        let error = run(&program, &ids([0, bad, 0])).unwrap_err();
        assert!(matches!(error.kind, InterpErrorKind::Check { index, bound: 4, .. } if index == bad));
        let mut unchecked = program.clone();
        unchecked.steps.remove(0);
        let error = run(&unchecked, &ids([0, bad, 0])).unwrap_err();
        assert!(matches!(error.kind, InterpErrorKind::GatherIndex { index, .. } if index == bad));
    }
}

#[test]
fn rings_keep_a_window() {
    // A window of three rows over a stream of eight: y[i] = x[i] + x[i - 2].
    let mut b = Builder::new();
    let x = b.buffer("x", DType::F32, &[8, 2], Storage::Input(0));
    let ring = b.buffer("ring", DType::F32, &[8, 2], Storage::Local(Space::Scratch));
    b.0.buffers[ring].layout.dims[0] = LayoutDim { axis: 0, div: 1, modulo: Some(3), extent: 3 };
    let y = b.buffer("y", DType::F32, &[6, 2], Storage::Output(0));
    let fill = b.stmt(
        "fill",
        &[("d0", 2), ("d1", 2)],
        StmtOp::Copy { dst: Access::new(ring, vec![d(0), d(1)]), src: Access::new(x, vec![d(0), d(1)]) },
    );
    let i = b.make_loop(6);
    let row = |by| vec![Affine::of_loop(i).add_constant(by), d(0)];
    let next =
        b.stmt("next", &[("d0", 2)], StmtOp::Copy { dst: Access::new(ring, row(2)), src: Access::new(x, row(2)) });
    let mut value = Expr::default();
    let p = value.push(Inst::Load(Access::new(ring, row(0))));
    let q = value.push(Inst::Load(Access::new(ring, row(2))));
    value.push(Inst::Binary(ScalarBinary::Add, p, q));
    let add = b.stmt("add", &[("d0", 2)], StmtOp::Map { dst: Access::new(y, row(0)), value });
    let y = run(&b.finish(vec![fill, Item::Loop(i, vec![next, add])]), &[tensor(&[8, 2], |i| i as f32)]).unwrap();
    assert_eq!(floats(&y[0]), (0..12).map(|i| (2 * i + 4) as f32).collect::<Vec<_>>());
}

#[test]
fn integer_products_widen() {
    let mut b = Builder::new();
    let x = b.buffer("x", DType::I8, &[4], Storage::Input(0));
    let y = b.buffer("y", DType::I32, &[1], Storage::Output(0));
    let zero = Expr::constant(Scalar::i32(0));
    let dst = Access::new(y, vec![Affine::constant(0)]);
    let init = b.stmt("init", &[], StmtOp::Map { dst: dst.clone(), value: zero });
    let at = || Access::new(x, vec![d(0)]);
    let mma = b.stmt("mma", &[("k0", 4)], StmtOp::Mma { acc: dst, a: at(), b: at(), fused: false });
    let ty = TensorType::new(DType::I8, [4]).unwrap();
    let y = run(&b.finish(vec![init, mma]), &[Tensor::new(ty, vec![0x80, 0x7f, 0xff, 2].into()).unwrap()]).unwrap();
    assert_eq!(y[0].get_i64(0), Some(128 * 128 + 127 * 127 + 1 + 4));
}

#[test]
fn misuse_is_reported() {
    let build = |read_by: i64, init: bool, shape: &[u64]| {
        let mut b = Builder::new();
        let x = b.buffer("x", DType::F32, &[4], Storage::Input(0));
        let t = b.buffer("t", DType::F32, &[4], Storage::Temp);
        let y = b.buffer("y", DType::F32, &[4], Storage::Output(0));
        let at = |b, by| Access::new(b, vec![d(0).add_constant(by)]);
        let first = b.stmt("first", &[("d0", 3 + u64::from(init))], StmtOp::Copy { dst: at(t, 0), src: at(x, 0) });
        let second = b.stmt("second", &[("d0", 4)], StmtOp::Copy { dst: at(y, 0), src: at(t, read_by) });
        run(&b.finish(vec![first, second]), &[tensor(shape, |i| i as f32)])
    };
    assert!(build(0, true, &[4]).is_ok());
    let error = build(0, false, &[4]).unwrap_err();
    assert!(matches!(error.kind, InterpErrorKind::Unwritten { offset: 3, .. }));
    assert_eq!(error.stmt.as_deref(), Some("second"));
    assert_eq!(error.kernel.as_deref(), Some("k"));
    let error = build(1, true, &[4]).unwrap_err();
    assert!(matches!(&error.kind, InterpErrorKind::OutOfBounds { index, .. } if *index == [4]));
    assert!(matches!(build(-1, true, &[4]).unwrap_err().kind, InterpErrorKind::OutOfBounds { .. }));
    assert!(matches!(build(0, true, &[2, 2]).unwrap_err().kind, InterpErrorKind::InputType { .. }));
}

#[test]
fn divisions_of_a_tile_dimension_are_followed() {
    // y[d] = x[d / 3, d % 3] on 2 x 3, both by coordinates and by a layout that is blocked the same way.
    let x = tensor(&[2, 3], |i| i as f32);
    let mut b = Builder::new();
    let input = b.buffer("x", DType::F32, &[2, 3], Storage::Input(0));
    let t = b.buffer("t", DType::F32, &[6], Storage::Temp);
    b.0.buffers[t].layout = Layout::panels(&[6], 0, 4, &[]);
    let y = b.buffer("y", DType::F32, &[6], Storage::Output(0));
    let ext = |_| 6;
    let src = Access::new(input, vec![d(0).floor_div(3, &ext), d(0).modulo(3, &ext)]);
    let at = |b| Access::new(b, vec![d(0)]);
    let one = b.stmt("one", &[("d0", 6)], StmtOp::Copy { dst: at(t), src });
    let two = b.stmt("two", &[("d0", 6)], StmtOp::Copy { dst: at(y), src: at(t) });
    let y = run(&b.finish(vec![one, two]), std::slice::from_ref(&x)).unwrap();
    assert_eq!(y[0].bytes(), x.bytes());
}
