"""What each ONNX operator is tried with: attributes, operands and their shapes, for any element type.

A recipe is a function from a source of operands to variants. Shapes cover ranks 0 to 5, broadcasting, and dimensions of
size 0 and 1; axes are positive and negative. `RECIPES` has one for every operator that is supported.
"""

import itertools

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

NUMPY = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f32": np.float32,
    "f64": np.float64,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "u8": np.uint8,
    "u16": np.uint16,
    "u32": np.uint32,
    "u64": np.uint64,
    "bool": np.bool_,
}
FLOATS = ("f16", "bf16", "f32", "f64")
NEWEST_SET = 23


def onnx_type(name):
    return helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY[name]))


class Variant:
    """One node: operands (None where one is omitted), which of them are constants, attributes, number of results."""

    def __init__(self, *operands, const=(), results=1, opset=NEWEST_SET, **attributes):
        self.operands, self.const, self.results = operands, set(const), results
        self.opset, self.attributes = opset, attributes


class Source:
    """Operands of one element type."""

    def __init__(self, dtype, seed):
        self.dtype, self.is_float = dtype, dtype in FLOATS
        self.np = NUMPY[dtype]
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape, low=-2.0, high=2.0):
        """Numbers of the range; small integers, of which unsigned ones are not negative; truth values."""
        if self.dtype == "bool":
            return self.rng.integers(0, 2, shape).astype(np.bool_)
        if self.is_float:
            # Few digits, so that products of 16-bit floats are exact and sums hardly round.
            numbers = self.rng.uniform(low, high, shape).astype(np.float32)
            return np.asarray(numbers).astype(self.np)
        least = 0 if self.dtype.startswith("u") else -5
        return self.rng.integers(least, 9, shape).astype(self.np)

    def values(self, *numbers):
        return np.array(numbers).astype(self.np)

    def distinct(self, *shape):
        """No two elements along any dimension are equal, as far as the type has that many numbers."""
        count = int(np.prod(shape))
        return self.rng.permutation(count).reshape(shape).astype(np.float32).astype(self.np)

    def positions(self, size, *shape):
        return self.rng.integers(0, size, shape)


def i64(*numbers):
    return np.array(numbers, np.int64)


SHAPES = [(), (1,), (5,), (37,), (0,), (2, 3), (1, 4, 3), (2, 0, 3), (2, 1, 3, 2), (1, 2, 3, 1, 2)]
PAIRS = [
    ((), ()),
    ((3,), ()),
    ((1,), (5,)),
    ((2, 3), (3,)),
    ((2, 3), (2, 1)),
    ((0, 3), (1, 3)),
    ((2, 1, 4), (3, 1)),
    ((2, 3, 4, 2), (4, 1)),
    ((1, 2, 1, 3, 2), (2, 1, 3, 1, 2)),
    ((4, 9), (4, 9)),
]


def unary(low=-2.0, high=2.0, special=(0.0, 1.0), **attributes):
    def recipe(source):
        for shape in SHAPES:
            yield Variant(source(*shape, low=low, high=high), **attributes)
        if source.is_float and special:
            yield Variant(source.values(*special), **attributes)

    return recipe


WITH_INFINITIES = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan)


def binary(second=None, opset=NEWEST_SET, **attributes):
    def recipe(source):
        for a, b in PAIRS:
            other = source(*b) if second is None else second(source, b)
            yield Variant(source(*a), other, opset=opset, **attributes)
            if a != b and second is None:
                yield Variant(source(*b), source(*a), opset=opset, **attributes)

    return recipe


def variadic(source):
    yield Variant(source(2, 3))
    for a, b in PAIRS:
        yield Variant(source(*a), source(*b), source(*a))
    yield Variant(*(source(3, 1) if i % 2 else source(2) for i in range(5)))


def nonzero(source, shape):
    """Divisors."""
    numbers = source(*shape, low=0.5, high=3.0)
    return np.where(numbers == 0, source.values(3)[0], numbers).astype(source.np)


def both(*recipes):
    return lambda source: itertools.chain.from_iterable(r(source) for r in recipes)


def clip(source):
    low, high = source.values(0)[0], source.values(2)[0]
    low, high = np.asarray(low, source.np), np.asarray(high, source.np)
    for shape in SHAPES:
        yield Variant(source(*shape), low, high, const=(1, 2))
    yield Variant(source(4, 5))
    yield Variant(source(4, 5), low)
    yield Variant(source(4, 5), None, high)
    yield Variant(source(4, 5), low, high)
    if source.dtype == "f32":
        yield Variant(source(4, 5), min=-1.0, max=0.5, opset=10)


def power(source):
    def second(s, shape):
        return s(*shape, low=-2.0, high=3.0) if s.is_float else np.abs(s(*shape)) % 4

    for a, b in PAIRS:
        base = source(*a, low=0.1, high=3.0)
        yield Variant(base, second(source, b).astype(source.np))
    for exponent in (0.5, 2, 3, -1) if source.is_float else (0, 1, 2, 3):
        yield Variant(source(3, 4, low=0.5, high=2.0), np.asarray(exponent, source.np), const=(1,))
    yield Variant(source(3, 4, low=0.5, high=2.0), np.array([2.0], np.float32), const=(1,))
    yield Variant(source(3, 4, low=0.5, high=2.0), np.array(2, np.int64), const=(1,))


def modulo(source):
    for fmod in (0, 1):
        if source.is_float and not fmod:
            continue
        yield from binary(second=nonzero, fmod=fmod)(source)


def where(source):
    truth = Source("bool", 5)
    for a, b in PAIRS:
        yield Variant(truth(*a), source(*b), source(*a))
    yield Variant(truth(2, 1), source(3), source(4, 1, 1))


def cast(source):
    floats = [0.0, -0.0, 0.4, 1.6, 7.9, 100.0]
    for to in NUMPY:
        if source.is_float:
            # What lies outside of an integer type's range has no meaning that is the same everywhere.
            numbers = source.values(*floats, *([] if to.startswith("u") or to == "bool" else [-1.6, -7.0]))
        else:
            numbers = source(9)
        yield Variant(numbers, to=onnx_type(to))
    for shape in SHAPES:
        yield Variant(source(*shape), to=TensorProto.FLOAT)


def cast_like(source):
    for to in ("f32", "i32", "bool"):
        yield Variant(np.abs(source(2, 3)) if source.dtype != "bool" else source(2, 3), Source(to, 1)(4))


def constant(source):
    from onnx import numpy_helper

    for shape in SHAPES:
        yield Variant(value=numpy_helper.from_array(source(*shape)))
    if source.dtype == "f32":
        yield Variant(value_float=1.5)
        yield Variant(value_floats=[1.5, -2.0])
    if source.dtype == "i64":
        yield Variant(value_int=7)
        yield Variant(value_ints=[1, 2, 3])


def constant_of_shape(source):
    from onnx import numpy_helper

    for shape in ((1,), (2, 3), (0, 2), ()):
        value = numpy_helper.from_array(source(1))
        yield Variant(i64(*shape), const=(0,), value=value)


def range_(source):
    scalar = lambda number: np.asarray(number, source.np)
    for bounds in ((0, 5, 1), (3, 10, 3), (2, 2, 1)) + (() if source.dtype.startswith("u") else ((5, -3, -2),)):
        yield Variant(*map(scalar, bounds), const=(0, 1, 2))


def trilu(source):
    for upper in (0, 1):
        for shape in ((3, 3), (2, 4), (5, 2), (2, 3, 4), (1, 1), (2, 0)):
            yield Variant(source(*shape), upper=upper)
        for k in (-2, -1, 1, 9):
            yield Variant(source(4, 5), np.array(k, np.int64), const=(1,), upper=upper)


def eye_like(source):
    for k in (0, 1, -2):
        yield Variant(source(3, 5), k=k)
        yield Variant(source(4, 2), k=k, dtype=TensorProto.FLOAT)


def one_hot(source):
    values = lambda: source.values(0, 1)
    for axis in (-1, 0, 1, -2):
        yield Variant(source.positions(4, 2, 3), np.array(4, np.int64), values(), const=(1,), axis=axis)
    yield Variant(np.array([1, -1, -4, 7, 2]), np.array(4, np.int64), values(), const=(1,))
    if source.dtype == "f32":
        yield Variant(np.array([1, 0], np.int32), np.array([2], np.int32), values(), const=(1,))


def dropout(source):
    for shape in SHAPES:
        yield Variant(source(*shape))
    yield Variant(source(2, 3), np.array(0.5, np.float32), np.array(False), const=(1, 2))
    yield Variant(source(2, 3), results=2)


def reshape(source):
    for shape, to in (
        ((), (1, 1)),
        ((6,), (2, 3)),
        ((2, 3, 4), (4, -1)),
        ((2, 3, 4), (0, -1)),
        ((1, 1), ()),
        ((2, 0, 3), (0, 0, 6)),
        ((1, 2, 3, 1, 2), (3, 4)),
    ):
        yield Variant(source(*shape), i64(*to), const=(1,))
    yield Variant(source(0, 3), i64(3, 0), const=(1,), allowzero=1)


def flatten(source):
    for axis in (0, 1, 2, -1, -3):
        yield Variant(source(2, 3, 4), axis=axis)
    yield Variant(source(5), axis=0)
    yield Variant(source(2, 0, 3))
    yield Variant(source(1, 2, 3, 1, 2), axis=3)


def transpose(source):
    for shape in SHAPES:
        yield Variant(source(*shape))
    yield Variant(source(2, 3, 4), perm=[1, 0, 2])
    yield Variant(source(2, 3, 4), perm=[2, 0, 1])
    yield Variant(source(1, 2, 3, 4), perm=[0, 2, 3, 1])
    yield Variant(source(2, 1, 3, 2, 2), perm=[4, 2, 0, 3, 1])


def squeeze(source):
    yield Variant(source(1, 3, 1))
    yield Variant(source(1, 3, 1), i64(0), const=(1,))
    yield Variant(source(1, 3, 1, 0), i64(-2, 0), const=(1,))
    yield Variant(source(2, 1, 3, 1, 2), i64(1, 3), const=(1,))
    yield Variant(source(2, 1, 3), opset=11, axes=[1])


def unsqueeze(source):
    yield Variant(source(), i64(0), const=(1,))
    yield Variant(source(3), i64(0, 2), const=(1,))
    yield Variant(source(2, 3), i64(-1), const=(1,))
    yield Variant(source(2, 0), i64(-4, 1), const=(1,))
    yield Variant(source(2, 3), opset=11, axes=[0, 3])


def expand(source):
    for shape, to in (((), (2, 3)), ((1,), (5,)), ((3, 1), (2, 1, 4)), ((3, 1), (3, 0)), ((2, 3), (1,)), ((1, 2, 1, 1), (2, 1, 2, 3, 2))):
        yield Variant(source(*shape), i64(*to), const=(1,))


def shape_of(source):
    for shape in SHAPES:
        yield Variant(source(*shape))
    yield Variant(source(2, 3, 4), start=1)
    yield Variant(source(2, 3, 4), start=-2, end=-1)


def depth_to_space(source):
    for shape, block in (((1, 4, 2, 3), 2), ((2, 18, 1, 2), 3), ((1, 4, 0, 2), 2), ((1, 1, 2, 2), 1)):
        yield Variant(source(*shape), blocksize=block)
        yield Variant(source(*shape), blocksize=block, mode="CRD")


def space_to_depth(source):
    for shape, block in (((1, 1, 4, 6), 2), ((2, 3, 3, 6), 3), ((1, 2, 0, 2), 2)):
        yield Variant(source(*shape), blocksize=block)


def concat(source):
    yield Variant(source(3), axis=0)
    yield Variant(source(3), source(1), source(0), axis=-1)
    for axis in (0, 1, 2, -1):
        shapes = [[2, 3, 2] for _ in range(3)]
        for i, s in enumerate(shapes):
            s[axis] = i + 1
        yield Variant(*(source(*s) for s in shapes), axis=axis)
    yield Variant(source(1, 2, 1, 2, 3), source(1, 2, 4, 2, 3), axis=2)


def split(source):
    yield Variant(source(6), results=2, num_outputs=2)
    yield Variant(source(7, 2), results=3, num_outputs=3)
    yield Variant(source(2, 6), i64(1, 3, 2), const=(1,), results=3, axis=1)
    yield Variant(source(2, 6, 1), i64(0, 6), const=(1,), results=2, axis=-2)
    yield Variant(source(2, 6), results=2, axis=1, split=[2, 4], opset=11)


def slice_(source):
    full = 1 << 62
    for starts, ends, axes, steps in (
        ([1], [3], [0], [1]),
        ([-3], [full], [1], [1]),
        ([0, 1], [-1, 4], [0, 2], [2, 3]),
        ([-1], [-full], [2], [-2]),
        ([3], [1], [0], [1]),
        ([2, 4], [0, -9], [-3, -1], [-1, -1]),
    ):
        yield Variant(source(4, 3, 5), i64(*starts), i64(*ends), i64(*axes), i64(*steps), const=(1, 2, 3, 4))
    yield Variant(source(9), i64(2), i64(7), const=(1, 2))
    yield Variant(source(2, 0, 3), i64(0, 0, 1), i64(1, 1, 3), const=(1, 2))
    yield Variant(source(2, 1, 3, 2, 4), np.array([1], np.int32), np.array([3], np.int32), np.array([4], np.int32), const=(1, 2, 3))
    yield Variant(source(4, 3), starts=[1], ends=[3], axes=[1], opset=9)


def gather(source):
    for shape, axis in (((5,), 0), ((4, 3), 0), ((4, 3), 1), ((2, 3, 4), -1), ((2, 1, 3, 2, 2), -3), ((3, 0), 0)):
        size = shape[axis]
        for indices in ((), (1,), (2, 3), (0,)):
            yield Variant(source(*shape), source.positions(size, *indices), axis=axis)
    yield Variant(source(5, 2), np.array([-1, 0, -5], np.int32))
    yield Variant(source(5, 2), i64(3, 1), const=(1,))


def gather_elements(source):
    for shape, taken, axis in (((5,), (3,), 0), ((4, 3), (2, 3), 0), ((4, 3), (4, 5), 1), ((2, 3, 4), (2, 3, 2), -1), ((2, 3), (0, 3), 0), ((2, 1, 3, 2, 2), (2, 1, 2, 2, 2), -3)):
        yield Variant(source(*shape), source.positions(shape[axis], *taken), axis=axis)
    yield Variant(source(5, 2), np.array([[-1, 0], [-5, 4]], np.int32), axis=0)


def gather_nd(source):
    def at(shape, count, batch=0):
        return np.stack([source.positions(s, *count) for s in shape], -1)

    yield Variant(source(4), at([4], (3,)))
    yield Variant(source(4, 3), at([4], (2,)))
    yield Variant(source(4, 3), at([4, 3], (2, 3)))
    yield Variant(source(2, 3, 4), at([2, 3], (5,)))
    yield Variant(source(2, 3, 4), at([3], (2, 2)), batch_dims=1)
    yield Variant(source(2, 3, 4, 2), at([4, 2], (2, 3)), batch_dims=2)
    yield Variant(source(4, 3), i64([-1, -3], [0, 2]))


def scatter_variants(source, **attributes):
    for shape, taken, axis in (((5,), (3,), 0), ((4, 3), (2, 3), 0), ((4, 6), (4, 5), 1), ((2, 3, 4), (2, 3, 2), -1), ((2, 3), (0, 3), 0)):
        # Distinct along the axis: the order of updates to one element is open.
        size, count = shape[axis], taken[axis]
        order = np.argsort(source.rng.uniform(size=tuple(size if d == axis % len(shape) else t for d, t in enumerate(taken))), axis=axis)
        indices = np.take(order, np.arange(count), axis=axis).astype(np.int64)
        yield Variant(source(*shape), indices, source(*taken), axis=axis, **attributes)


def scatter_elements(source):
    yield from scatter_variants(source)
    yield Variant(source(4, 2), np.array([[-1, 0]], np.int32), source(1, 2))
    if source.dtype != "bool":
        for reduction in ("add", "mul", "max", "min"):
            yield from scatter_variants(source, reduction=reduction)
            yield Variant(source(4), i64(1, 1, 3), source(3), reduction=reduction)


def scatter_nd(source):
    reductions = ("none",) if source.dtype == "bool" else ("none", "add", "mul", "max", "min")
    for reduction in reductions:
        yield Variant(source(6), i64([1], [4], [0]), source(3), reduction=reduction)
        yield Variant(source(4, 3), i64([2], [0]), source(2, 3), reduction=reduction)
        yield Variant(source(4, 3), i64([[2, 0], [0, -1]]), source(1, 2), reduction=reduction)
        yield Variant(source(2, 3, 4), i64([[1, 2], [0, 1]]), source(1, 2, 4), reduction=reduction)


def tile(source):
    for shape, repeats in (((3,), (2,)), ((2, 3), (1, 2)), ((2, 1, 3), (3, 2, 1)), ((2, 3), (0, 2)), ((2, 0), (2, 2)), ((1, 2, 1, 2, 2), (2, 1, 3, 1, 2))):
        yield Variant(source(*shape), i64(*repeats), const=(1,))


def pad(source):
    for mode in ("constant", "edge", "reflect", "wrap"):
        yield Variant(source(5), i64(2, 3), const=(1,), mode=mode)
        yield Variant(source(3, 4), i64(1, 0, 2, 3), const=(1,), mode=mode)
        yield Variant(source(1, 2, 3, 4), i64(0, 0, 1, 2, 0, 0, 2, 1), const=(1,), mode=mode)
    yield Variant(source(3, 4), i64(-1, 2, 1, -2), const=(1,))
    yield Variant(source(3, 4), i64(1, 2), np.asarray(source.values(1)[0], source.np), i64(-1), const=(1, 2, 3))
    yield Variant(source(2, 0), i64(1, 1, 0, 2), const=(1,))
    if source.dtype == "f32":
        yield Variant(source(3, 4), opset=10, pads=[1, 0, 2, 3], value=1.5)


def center_crop_pad(source):
    for shape, to in (((5,), (3,)), ((4, 3), (7, 2)), ((2, 3, 4), (2, 6, 1)), ((1, 2, 1, 3, 2), (2, 1, 3, 2, 2))):
        yield Variant(source(*shape), i64(*to), const=(1,))
    yield Variant(source(2, 5, 4), i64(3, 7), const=(1,), axes=[-2, 0])


def column_to_image(source):
    for size, block, shape, attributes in (
        ((5, 5), (1, 5), (1, 5, 5), {}),
        ((5, 5), (2, 2), (2, 8, 16), {}),
        ((6, 5), (2, 3), (1, 6, 9), dict(strides=[2, 1])),
        ((5, 5), (3, 2), (1, 12, 12), dict(dilations=[1, 2], pads=[0, 0, 1, 1])),
    ):
        probe = [attributes.get("pads", [0, 0, 0, 0]), attributes.get("dilations", [1, 1]), attributes.get("strides", [1, 1])]
        steps = [(size[i] + probe[0][i] + probe[0][i + 2] - probe[1][i] * (block[i] - 1) - 1) // probe[2][i] + 1 for i in (0, 1)]
        yield Variant(source(*shape[:2], steps[0] * steps[1]), i64(*size), i64(*block), const=(1, 2), **attributes)


def determinant(source):
    for shape in ((1, 1), (2, 2), (3, 3), (2, 4, 4), (1, 2, 1, 3, 3), (0, 2, 2)):
        yield Variant(source(*shape))


def grid_sample(source):
    image = source(1, 2, 4, 5)
    grid = source(1, 3, 3, 2, low=-1.2, high=1.2)
    for mode in ("linear", "nearest", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            if (mode, padding) == ("cubic", "border"):
                continue  # onnxruntime, onnx and torch give three different results next to the border
            for corners in (0, 1):
                yield Variant(image, grid, mode=mode, padding_mode=padding, align_corners=corners)
    yield Variant(source(2, 1, 1, 1), source(2, 1, 2, 2, low=-1.0, high=1.0))


def reverse_sequence(source):
    for batch, time in ((0, 1), (1, 0)):
        lengths = i64(1, 3, 4) if batch == 0 else i64(2, 1, 0, 3)
        yield Variant(source(3, 4, 2), np.maximum(lengths, 1), batch_axis=batch, time_axis=time)


def reduction(low=-2.0, empty=True, opset=None):
    def recipe(source):
        make = lambda *shape: source(*shape, low=low)
        for keepdims in (0, 1):
            yield Variant(make(2, 3, 4), keepdims=keepdims)
            for axes in ((0,), (1,), (2,), (-1,), (0, 2), (-2, -1), (0, 1, 2)):
                yield Variant(make(2, 3, 4), i64(*axes), const=(1,), keepdims=keepdims)
        yield Variant(make(), keepdims=1)
        yield Variant(make(37), i64(0), const=(1,))
        yield Variant(make(1, 1, 5), i64(1), const=(1,))
        yield Variant(make(2, 1, 3, 2, 3), i64(1, 3), const=(1,))
        yield Variant(make(2, 3), noop_with_empty_axes=1)
        yield Variant(make(3, 0), i64(0), const=(1,))
        if empty:
            yield Variant(make(2, 0, 3), i64(1), const=(1,))
        if opset and source.dtype in ("f32", "i32", "i64"):
            yield Variant(make(2, 3, 4), axes=[-1], opset=opset)

    return recipe


def arg(source):
    for keepdims in (0, 1):
        for axis in (0, 1, -1):
            yield Variant(source.distinct(2, 3, 4), axis=axis, keepdims=keepdims)
    for last in (0, 1):
        yield Variant(source.values(1, 2, 2, 0, 2, 0, 0), select_last_index=last)
    yield Variant(source(2, 1, 3, 2, 2), axis=1)
    yield Variant(source(0, 3), axis=1)


def top_k(source):
    for largest in (0, 1):
        for shape, axis, k in (((7,), 0, 3), ((3, 5), -1, 5), ((4, 3), 0, 1), ((2, 6, 3), 1, 4), ((2, 0, 3), 2, 2)):
            yield Variant(source.distinct(*shape), i64(k), const=(1,), results=2, axis=axis, largest=largest)
        yield Variant(source.values(1, 3, 3, 0, 1, 3), i64(4), const=(1,), results=2, largest=largest)


def cum_sum(source):
    for exclusive, reverse in itertools.product((0, 1), (0, 1)):
        for axis in (0, 1, -1):
            yield Variant(source(2, 3, 4), np.array(axis, np.int64), const=(1,), exclusive=exclusive, reverse=reverse)
    yield Variant(source(9), np.array(0, np.int32), const=(1,))
    yield Variant(source(0, 3), np.array(0, np.int64), const=(1,))
    yield Variant(source(1, 2, 1, 3, 2), np.array(-2, np.int64), const=(1,))


def matmul(source):
    for a, b in (((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((2, 2, 3), (3, 2)), ((2, 1, 2, 3), (3, 3, 4)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((1, 2, 1, 2, 3), (2, 1, 2, 3, 2)), ((17, 19), (19, 23))):
        yield Variant(source(*a), source(*b))
        if len(b) == 2:
            yield Variant(source(*a), source(*b), const=(1,))


def gemm(source):
    for ta, tb in itertools.product((0, 1), (0, 1)):
        a, b = ((4, 3) if ta else (3, 4)), ((5, 4) if tb else (4, 5))
        for c in (None, (3, 5), (5,), (3, 1), ()):
            third = () if c is None else (source(*c),)
            yield Variant(source(*a), source(*b), *third, transA=ta, transB=tb)
    if source.is_float:
        yield Variant(source(2, 3), source(3, 2), source(2, 2), alpha=0.5, beta=2.0)
    yield Variant(source(0, 3), source(3, 2))
    yield Variant(source(2, 0), source(0, 3), source(3))


def einsum(source):
    for equation, *shapes in (
        ("ij,jk->ik", (2, 3), (3, 4)),
        ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
        ("bhqd,bhkd->bhqk", (1, 2, 3, 4), (1, 2, 5, 4)),
        ("ij->ji", (2, 3)),
        ("ij->i", (2, 3)),
        ("i,i->", (5,), (5,)),
        ("i,j->ij", (2,), (3,)),
        ("...ij,...jk->...ik", (2, 1, 3, 2), (1, 3, 2, 4)),
        ("ii->i", (3, 3)),
        ("ij,jk", (2, 3), (3, 4)),
    ):
        yield Variant(*(source(*s) for s in shapes), equation=equation)
    if source.dtype == "f32":
        yield Variant(source(2, 3), source(3, 4), source(4, 2), equation="ij,jk,kl->il")


def conv(source):
    for x, w, bias, attributes in (
        ((1, 2, 7), (3, 2, 3), True, {}),
        ((2, 4, 9), (4, 2, 2), False, dict(group=2, strides=[2], pads=[1, 0])),
        ((1, 3, 6, 5), (4, 3, 3, 2), True, {}),
        ((2, 4, 5, 5), (4, 1, 3, 3), True, dict(group=4, pads=[1, 1, 1, 1])),
        ((1, 2, 8, 8), (3, 2, 3, 3), False, dict(dilations=[2, 1], strides=[1, 2])),
        ((1, 2, 7, 6), (3, 2, 3, 3), True, dict(auto_pad="SAME_LOWER", strides=[2, 2])),
        ((1, 2, 7, 6), (3, 2, 3, 3), True, dict(auto_pad="SAME_UPPER", kernel_shape=[3, 3])),
        ((1, 1, 1, 1), (1, 1, 1, 1), False, dict(auto_pad="VALID")),
        ((1, 16, 6, 6), (24, 16, 1, 1), True, {}),
    ):
        operands = [source(*x), source(*w)] + ([source(w[0])] if bias else [])
        yield Variant(*operands, const=range(1, len(operands)), **attributes)
    yield Variant(source(1, 2, 5), source(3, 2, 2))


def conv_transpose(source):
    for x, w, bias, attributes in (
        ((1, 2, 5), (2, 3, 3), True, {}),
        ((2, 4, 4), (4, 2, 2), False, dict(group=2, strides=[2], pads=[1, 0])),
        ((1, 3, 4, 3), (3, 4, 3, 2), True, dict(strides=[2, 3])),
        ((1, 2, 4, 4), (2, 3, 3, 3), True, dict(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])),
        ((1, 2, 4, 4), (2, 3, 3, 3), False, dict(dilations=[2, 1])),
        ((1, 2, 3, 3), (2, 3, 3, 3), False, dict(strides=[3, 2], output_shape=[10, 8])),
        ((1, 2, 3, 3), (2, 3, 3, 3), False, dict(strides=[2, 2], auto_pad="SAME_UPPER")),
        ((1, 4, 3, 3), (4, 1, 2, 2), True, dict(group=4)),
    ):
        operands = [source(*x), source(*w)] + ([source(w[1] * attributes.get("group", 1))] if bias else [])
        yield Variant(*operands, const=range(1, len(operands)), **attributes)


def pooling(more=({},), last=()):
    def recipe(source):
        for extra in more:
            for x, attributes in (
                ((1, 2, 7), dict(kernel_shape=[3])),
                ((1, 2, 8), dict(kernel_shape=[2], strides=[2])),
                ((2, 3, 6, 5), dict(kernel_shape=[2, 3])),
                ((1, 2, 7, 7), dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
                ((1, 2, 7, 6), dict(kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)),
                ((1, 2, 7, 6), dict(kernel_shape=[3, 2], strides=[2, 1], auto_pad="SAME_UPPER")),
                ((1, 2, 7, 6), dict(kernel_shape=[2, 2], auto_pad="SAME_LOWER")),
                ((1, 2, 9, 8), dict(kernel_shape=[2, 3], dilations=[2, 1])),
                ((1, 1, 1, 1), dict(kernel_shape=[1, 1])),
            ):
                yield Variant(source(*x), **attributes, **extra)
        yield from (Variant(source(1, 2, 5, 5), kernel_shape=[2, 2], **extra) for extra in last)

    return recipe


def max_pool(source):
    yield from pooling()(source)


def global_pooling(source, opset=NEWEST_SET):
    for shape in ((1, 2, 5), (2, 3, 4, 5), (1, 1, 1, 1), (2, 3, 37)):
        yield Variant(source(*shape), opset=opset)


def batch_normalization(source):
    for shape in ((2, 3), (2, 3, 4), (1, 3, 4, 5), (2, 1, 3, 3)):
        channels = shape[1]
        operands = [source(*shape)] + [source(channels) for _ in range(3)] + [source(channels, low=0.5, high=2.0)]
        yield Variant(*operands, const=(1, 2, 3, 4))
        yield Variant(*operands, epsilon=0.01)


def instance_normalization(source):
    for shape in ((2, 3, 4), (1, 2, 4, 5), (2, 1, 3, 3)):
        yield Variant(source(*shape), source(shape[1]), source(shape[1]))
        yield Variant(source(*shape), source(shape[1]), source(shape[1]), const=(1, 2), epsilon=0.01)


def group_normalization(source):
    for shape, groups in (((2, 4, 3), 2), ((1, 6, 2, 3), 3), ((1, 4, 2, 2), 1), ((2, 2, 3, 2), 2)):
        yield Variant(source(*shape), source(shape[1]), source(shape[1]), num_groups=groups)
        yield Variant(source(*shape), source(groups), source(groups), num_groups=groups, opset=20)


def layer_normalization(source):
    for shape, axis in (((5,), -1), ((2, 7), -1), ((2, 3, 4), 1), ((2, 3, 4), -2), ((2, 3, 4), 0), ((1, 2, 3, 2, 4), 2)):
        scale = shape[axis % len(shape) :]
        yield Variant(source(*shape), source(*scale), source(*scale), axis=axis)
        yield Variant(source(*shape), source(*scale), axis=axis, epsilon=0.01)


def rms_normalization(source):
    for shape, axis in (((5,), -1), ((2, 7), -1), ((2, 3, 4), 1), ((2, 3, 4), 0), ((1, 2, 3, 2, 4), -2)):
        yield Variant(source(*shape), source(*shape[axis % len(shape) :]), axis=axis)


def lp_normalization(source):
    for p in (1, 2):
        for axis in (0, 1, -1):
            yield Variant(source(2, 3, 4), p=p, axis=axis)


def mean_variance_normalization(source):
    yield Variant(source(2, 3, 4, 5))
    yield Variant(source(2, 3, 4, 5), axes=[1, -1])


def lrn(source):
    for size in (1, 3, 5):  # onnxruntime takes odd ones only
        yield Variant(source(2, 5, 3, 2), size=size, alpha=0.1, beta=0.5, bias=1.5)


def softmax(source):
    for shape in SHAPES[1:]:
        if 0 not in shape:
            yield Variant(source(*shape))
    for axis in (0, 1, 2, -2):
        yield Variant(source(2, 3, 4), axis=axis)
    yield Variant(source(0, 3))
    if source.dtype == "f32":
        yield Variant(source(2, 3, 4), axis=1, opset=11)


def attention(source):
    q = lambda *shape: source(*shape, low=-1.0, high=1.0)
    yield Variant(q(1, 2, 3, 4), q(1, 2, 5, 4), q(1, 2, 5, 6))
    yield Variant(q(2, 4, 3, 4), q(2, 2, 5, 4), q(2, 2, 5, 4))
    yield Variant(q(1, 3, 8), q(1, 5, 8), q(1, 5, 8), q_num_heads=2, kv_num_heads=2)
    yield Variant(q(1, 2, 4, 4), q(1, 2, 4, 4), q(1, 2, 4, 4), is_causal=1)
    yield Variant(q(1, 2, 3, 4), q(1, 2, 5, 4), q(1, 2, 5, 4), q(3, 5))
    yield Variant(q(1, 2, 3, 4), q(1, 2, 5, 4), q(1, 2, 5, 4), np.tril(np.ones((3, 5), np.bool_)))
    yield Variant(q(1, 2, 3, 4), q(1, 2, 5, 4), q(1, 2, 5, 4), scale=0.3)


def rotary_embedding(source):
    yield Variant(source(2, 3, 4, 6), source(2, 4, 3), source(2, 4, 3))
    yield Variant(source(2, 3, 4, 6), source(2, 4, 3), source(2, 4, 3), interleaved=1)
    yield Variant(source(2, 3, 4, 6), source(7, 3), source(7, 3), source.positions(7, 2, 4))
    yield Variant(source(2, 4, 12), source(2, 4, 3), source(2, 4, 3), num_heads=2)


def resize(source):
    none = None
    image = lambda: source(1, 2, 4, 5)
    scales = lambda *s: np.array(s, np.float32)
    modes = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")
    if not source.is_float:
        for sizes in ((1, 2, 8, 10), (1, 2, 3, 7)):
            yield Variant(image(), none, none, i64(*sizes), const=(3,), coordinate_transformation_mode="asymmetric")
        return
    for coordinates in modes:
        for sizes in ((1, 2, 8, 10), (1, 2, 3, 7), (1, 2, 1, 2)):
            for mode in ("nearest", "linear", "cubic"):
                yield Variant(image(), none, none, i64(*sizes), const=(3,), mode=mode, coordinate_transformation_mode=coordinates)
        # Where corners are aligned, onnxruntime and onnx read a size that is not whole differently.
        height = 2.0 if coordinates == "align_corners" else 1.7
        yield Variant(image(), none, scales(1, 1, height, 0.6), const=(2,), mode="linear", coordinate_transformation_mode=coordinates)
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        yield Variant(image(), none, scales(1, 1, 2.5, 0.5), const=(2,), nearest_mode=rounding)
    yield Variant(source(1, 2, 6), none, scales(1, 1, 2), const=(2,), mode="linear")
    yield Variant(image(), none, scales(1, 1, 0.6, 0.8), const=(2,), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1)
    yield Variant(image(), none, none, i64(8, 3), const=(3,), axes=[2, 3], mode="linear")
    if source.dtype == "f32":
        yield Variant(image(), scales(1, 1, 2, 3), const=(1,), mode="nearest", opset=10)


def upsample(source):
    scales = np.array([1, 1, 2, 3], np.float32)
    yield Variant(source(1, 2, 3, 4), scales, const=(1,), mode="nearest", opset=9)
    if source.is_float:
        yield Variant(source(1, 2, 3, 4), scales, const=(1,), mode="linear", opset=9)


def recurrent(gates, states, **extra):
    def recipe(source):
        weights = lambda *shape: source(*shape, low=-0.5, high=0.5)
        inputs, hidden, steps, batch = 3, 4, 5, 2
        for direction in ("forward", "reverse", "bidirectional"):
            d = 2 if direction == "bidirectional" else 1
            w, r = weights(d, gates * hidden, inputs), weights(d, gates * hidden, hidden)
            b = weights(d, 2 * gates * hidden)
            x = source(steps, batch, inputs, low=-1.0, high=1.0)
            first = [weights(d, batch, hidden) for _ in range(states)]
            attributes = dict(hidden_size=hidden, direction=direction, results=1 + states, **extra)
            yield Variant(x, w, r, const=(1, 2), **attributes)
            yield Variant(x, w, r, b, const=(1, 2, 3), **attributes)
            yield Variant(x, w, r, b, np.array([5, 2], np.int32), *first, const=(1, 2, 3), **attributes)
            yield Variant(source(1, 1, inputs), w, r, b, const=(1, 2, 3), **attributes)

    return recipe


def lstm(source):
    yield from recurrent(4, 2)(source)
    weights = lambda *shape: source(*shape, low=-0.5, high=0.5)
    w, r, b, p = weights(1, 16, 3), weights(1, 16, 4), weights(1, 32), weights(1, 12)
    yield Variant(source(3, 2, 3), w, r, b, None, None, None, p, const=(1, 2, 3, 7), hidden_size=4, results=3)
    yield Variant(source(3, 2, 3), w, r, b, const=(1, 2, 3), hidden_size=4, results=3, clip=0.3)


def if_(source):
    from onnx import numpy_helper

    for truth in (True, False):
        graphs = {}
        for name in ("then_branch", "else_branch"):
            value = numpy_helper.from_array(source(2, 3), f"{name}_value")
            node = helper.make_node("Constant", [], [f"{name}_out"], value=value)
            kind = helper.make_tensor_value_info(f"{name}_out", value.data_type, None)
            graphs[name] = helper.make_graph([node], name, [], [kind])
        yield Variant(np.array(truth), const=(0,), **graphs)


def loop(source):
    kind = onnx_type(source.dtype)
    info = helper.make_tensor_value_info
    for trips in (0, 1, 4):
        op = "Or" if source.dtype == "bool" else "Add"
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node(op, ["state", "state"], ["next"]),
                helper.make_node("Identity", ["state"], ["seen"]),
            ],
            "body",
            [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("state", kind, [2])],
            [info("go_on", TensorProto.BOOL, []), info("next", kind, [2]), info("seen", kind, [2])],
        )
        results = 2 if trips else 1
        if not trips:
            body.output.pop()
            body.node.pop()
        yield Variant(np.array(trips, np.int64), np.array(True), source(2), const=(0, 1), results=results, body=body)


def scan(source):
    kind = onnx_type(source.dtype)
    info = helper.make_tensor_value_info
    op = "Or" if source.dtype == "bool" else "Add"
    body = lambda: helper.make_graph(
        [helper.make_node(op, ["state", "x"], ["next"]), helper.make_node("Identity", ["next"], ["y"])],
        "body",
        [info("state", kind, [2]), info("x", kind, [2])],
        [info("next", kind, [2]), info("y", kind, [2])],
    )
    yield Variant(source(2), source(4, 2), results=2, body=body(), num_scan_inputs=1)
    yield Variant(source(2), source(4, 2), results=2, body=body(), num_scan_inputs=1, scan_input_directions=[1])
    yield Variant(source(2), source(2, 3), results=2, body=body(), num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[-1], scan_output_directions=[1])


def window(source):
    for size in (1, 7, 10):
        for periodic in (0, 1):
            yield Variant(np.array(size, np.asarray(source(1)).dtype), const=(0,), periodic=periodic)


def prelu(source):
    for a, b in (((5,), (5,)), ((2, 3), (3,)), ((2, 3), (1,)), ((1, 3, 2, 2), (3, 1, 1)), ((0, 3), (3,)), ((2, 1, 3, 2, 2), (2, 2))):
        yield Variant(source(*a), source(*b), const=(1,))
        yield Variant(source(*a), source(*b))


def shift(source):
    for direction in ("LEFT", "RIGHT"):
        for a, b in PAIRS:
            yield Variant(source(*a), source(*b) % source.values(8)[0], direction=direction)


ELEMENTWISE = {
    "Sqrt": unary(low=0.0, special=(0.0, np.inf, np.nan)),
    "Exp": unary(special=WITH_INFINITIES),
    "Log": unary(low=0.01, special=(0.0, 1.0, np.inf, np.nan)),
    "Reciprocal": unary(low=0.2, special=(1.0, -4.0, np.inf)),
    "Erf": unary(special=(0.0, 1.0, -1.0, 6.0, -6.0)),
    "Sin": unary(low=-7.0, high=7.0),
    "Cos": unary(low=-7.0, high=7.0),
    "Tan": unary(low=-1.4, high=1.4),
    "Asin": unary(low=-1.0, high=1.0, special=(0.0, 1.0, -1.0)),
    "Acos": unary(low=-1.0, high=1.0, special=(0.0, 1.0, -1.0)),
    "Atan": unary(low=-7.0, high=7.0, special=(0.0, np.inf, -np.inf)),
    "Sinh": unary(),
    "Cosh": unary(),
    "Tanh": unary(low=-5.0, high=5.0, special=(0.0, 40.0, -40.0)),
    "Asinh": unary(low=-9.0, high=9.0),
    "Acosh": unary(low=1.0, high=9.0, special=(1.0,)),
    "Atanh": unary(low=-0.95, high=0.95),
    "Floor": unary(low=-5.0, high=5.0, special=WITH_INFINITIES),
    "Ceil": unary(low=-5.0, high=5.0, special=WITH_INFINITIES),
    "Round": unary(low=-5.0, high=5.0, special=(0.5, 1.5, 2.5, -0.5, -1.5, np.inf, np.nan)),
    "Sign": unary(special=(0.0, 1.0, -3.0, np.inf, -np.inf)),
    "Neg": unary(special=WITH_INFINITIES),
    "Abs": unary(special=WITH_INFINITIES),
    "Identity": unary(special=WITH_INFINITIES),
    "Not": unary(),
    "BitwiseNot": unary(),
    "IsNaN": unary(special=WITH_INFINITIES),
    "IsInf": both(unary(special=WITH_INFINITIES), unary(special=WITH_INFINITIES, detect_negative=0), unary(special=WITH_INFINITIES, detect_positive=0)),
    "Sigmoid": unary(low=-6.0, high=6.0, special=(0.0, 80.0, -80.0)),
    "Relu": unary(),
    "LeakyRelu": both(unary(), unary(alpha=0.25)),
    "Elu": both(unary(), unary(alpha=2.0)),
    "Celu": both(unary(), unary(alpha=2.0)),
    "Selu": both(unary(), unary(alpha=2.0, gamma=1.5)),
    "Softplus": unary(low=-5.0, high=5.0),
    "Softsign": unary(),
    "ThresholdedRelu": both(unary(), unary(alpha=0.5)),
    "HardSigmoid": both(unary(low=-5.0, high=5.0), unary(alpha=0.5, beta=0.6)),
    "HardSwish": unary(low=-5.0, high=5.0),
    "Mish": unary(low=-5.0, high=5.0),
    "Swish": unary(low=-5.0, high=5.0),
    "Gelu": both(unary(low=-4.0, high=4.0), unary(low=-4.0, high=4.0, approximate="tanh")),
    "Shrink": both(unary(), unary(lambd=1.0, bias=0.5)),
    "Add": binary(),
    "Sub": binary(),
    "Mul": binary(),
    "Div": binary(second=nonzero),
    "Pow": power,
    "Mod": modulo,
    "Max": variadic,
    "Min": variadic,
    "Sum": variadic,
    "Mean": variadic,
    "Equal": binary(),
    "Less": binary(),
    "LessOrEqual": binary(),
    "Greater": binary(),
    "GreaterOrEqual": binary(),
    "And": binary(),
    "Or": binary(),
    "Xor": binary(),
    "BitwiseAnd": binary(),
    "BitwiseOr": binary(),
    "BitwiseXor": binary(),
    "BitShift": shift,
    "PRelu": prelu,
    "Clip": clip,
    "Where": where,
    "Cast": cast,
    "CastLike": cast_like,
}

RECIPES = ELEMENTWISE | {
    "ArgMax": arg,
    "ArgMin": arg,
    "Attention": attention,
    "AveragePool": pooling(more=({}, dict(count_include_pad=1))),
    "BatchNormalization": batch_normalization,
    "BlackmanWindow": window,
    "CenterCropPad": center_crop_pad,
    "Col2Im": column_to_image,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "CumSum": cum_sum,
    "DepthToSpace": depth_to_space,
    "Det": determinant,
    "Dropout": dropout,
    "Einsum": einsum,
    "Expand": expand,
    "EyeLike": eye_like,
    "Flatten": flatten,
    "GRU": both(recurrent(3, 1), recurrent(3, 1, linear_before_reset=1)),
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Gemm": gemm,
    "GlobalAveragePool": global_pooling,
    "GlobalLpPool": lambda source: global_pooling(source, opset=21),
    "GlobalMaxPool": global_pooling,
    "GridSample": grid_sample,
    "GroupNormalization": group_normalization,
    "HammingWindow": window,
    "HannWindow": window,
    "Hardmax": softmax,
    "If": if_,
    "InstanceNormalization": instance_normalization,
    "LRN": lrn,
    "LSTM": lstm,
    "LayerNormalization": layer_normalization,
    "LogSoftmax": softmax,
    "Loop": loop,
    "LpNormalization": lp_normalization,
    "LpPool": pooling(more=({}, dict(p=1))),
    "MatMul": matmul,
    "MaxPool": max_pool,
    "MeanVarianceNormalization": mean_variance_normalization,
    "OneHot": one_hot,
    "Pad": pad,
    "RMSNormalization": rms_normalization,
    "RNN": recurrent(1, 1),
    "Range": range_,
    "ReduceL1": reduction(),
    "ReduceL2": reduction(),
    "ReduceLogSum": reduction(low=0.5),
    "ReduceLogSumExp": reduction(),
    "ReduceMax": reduction(empty=False, opset=11),
    "ReduceMean": reduction(empty=False, opset=11),
    "ReduceMin": reduction(empty=False, opset=11),
    "ReduceProd": reduction(),
    "ReduceSum": reduction(opset=11),
    "ReduceSumSquare": reduction(),
    "Reshape": reshape,
    "Resize": resize,
    "ReverseSequence": reverse_sequence,
    "RotaryEmbedding": rotary_embedding,
    "Scan": scan,
    "Scatter": lambda source: (setattr(v, "opset", 10) or v for v in scatter_variants(source)),
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Shape": shape_of,
    "Size": unary(special=()),
    "Slice": slice_,
    "Softmax": softmax,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "TopK": top_k,
    "Transpose": transpose,
    "Trilu": trilu,
    "Unsqueeze": unsqueeze,
    "Upsample": upsample,
}
