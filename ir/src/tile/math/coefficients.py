#!/usr/bin/env python3
"""Derives the polynomial coefficients of the elementary functions: `python3 coefficients.py` (needs mpmath).

Each polynomial is the minimax one for a weighted error, found by the exchange algorithm of Remez. Coefficients in binary32
are then rounded one after the other, from the lowest degree, and those left are fitted again around them, so
that the rounding of the large coefficients is made up by the small ones. Those in binary64 are rounded all at once.
"""

from mpmath import mp, mpf, matrix, lu_solve, atan, exp, expm1, erf, erfc, log, log1p, sin, cos, sqrt, cos as mpcos, pi
import struct

mp.dps = 50


def f32(x):
    return mpf(struct.unpack("f", struct.pack("f", float(x)))[0])


def remez(target, weight, powers, lo, hi, rounds=30, grid=1500):
    """Coefficients of sum(c[p] * x**p) that minimize max |weight * (sum - target)| on [lo, hi], and that error."""
    n = len(powers)
    lo, hi = mpf(lo), mpf(hi)
    true_weight = weight
    floor = mpf(10) ** -9 * max(abs(true_weight(lo)), abs(true_weight(hi)))
    weight = lambda x: max(abs(true_weight(x)), floor)  # a weight of 0 would leave a node without equation
    at = lambda t: (lo + hi) / 2 - (hi - lo) / 2 * mpcos(pi * t)
    nodes = [at(mpf(i) / n) for i in range(n + 1)]
    xs = [at(mpf(i) / grid) for i in range(grid + 1)]
    ts, ws = [target(x) for x in xs], [weight(x) for x in xs]
    for _ in range(rounds):
        rows = [[x**p for p in powers] + [(-1) ** i / weight(x)] for i, x in enumerate(nodes)]
        solution = lu_solve(matrix(rows), matrix([target(x) for x in nodes]))
        c = [solution[i] for i in range(n)]
        level = abs(solution[n])
        errors = [w * (sum(ci * x**p for ci, p in zip(c, powers)) - t) for x, t, w in zip(xs, ts, ws)]
        worst = max(map(abs, errors))
        if worst <= level * mpf("1.001"):
            break
        # One extremum for each run of errors of one sign.
        extrema = []
        for x, e in zip(xs, errors):
            if extrema and (extrema[-1][1] > 0) == (e > 0):
                if abs(e) > abs(extrema[-1][1]):
                    extrema[-1] = (x, e)
            else:
                extrema.append((x, e))
        while len(extrema) > n + 1:
            extrema.pop(0 if abs(extrema[0][1]) < abs(extrema[-1][1]) else -1)
        if len(extrema) < n + 1:
            break
        nodes = [x for x, _ in extrema]
    return c, worst


def fit(name, target, weight, powers, lo, hi, again=True):
    """Minimax with coefficients in binary32; `again` fits the rest after each rounding."""
    fixed = {}
    if not again:
        c, best = remez(target, weight, powers, lo, hi)
        fixed = {p: f32(x) for p, x in zip(powers, c)}
    for i, p in enumerate(powers if again else []):
        rest = powers[i:]
        residual = lambda x: target(x) - sum(c * x**q for q, c in fixed.items())
        c, worst = remez(residual, weight, rest, lo, hi)
        if i == 0:
            best = worst
        fixed[p] = f32(c[0])
    final = max(
        abs(weight(x) * (sum(c * x**q for q, c in fixed.items()) - target(x)))
        for x in (mpf(lo) + (mpf(hi) - mpf(lo)) * i / 2000 for i in range(2001))
    )
    print(f"{name}: error 2^{float(log(best, 2)):.2f}, rounded 2^{float(log(final, 2)):.2f}")
    for p in powers:
        bits = struct.unpack("I", struct.pack("f", float(fixed[p])))[0]
        print(f"    x^{p}: {float(fixed[p])!r} 0x{bits:08x}")
    return [float(fixed[p]) for p in powers]


def fit64(name, target, weight, degree, lo, hi):
    """Minimax of a degree with coefficients in binary64."""
    powers = list(range(degree + 1))
    c, best = remez(target, weight, powers, lo, hi, grid=600)
    c = [float(x) for x in c]
    final = max(
        abs(weight(x) * (sum(mpf(ci) * x**i for i, ci in enumerate(c)) - target(x)))
        for x in (mpf(lo) + (mpf(hi) - mpf(lo)) * i / 1000 for i in range(1001))
    )
    print(f"{name} (binary64): error 2^{float(log(best, 2)):.2f}, rounded 2^{float(log(final, 2)):.2f}")
    for i, x in enumerate(c):
        print(f"    x^{i}: {x!r}")


def atan_of_square(z):
    return (atan(sqrt(z)) / sqrt(z) - 1) / z if z > mpf(10) ** -9 else -mpf(1) / 3 + z / 5


def double(half_ln2, tiny):
    q = lambda f: (expm1(f) - f) / f**2 if abs(f) > tiny else mpf(1) / 2
    fit64("exp", q, lambda f: f**2 / exp(f), 9, -half_ln2, half_ln2)
    fit64("expm1", q, lambda f: f / (expm1(f) / f) if abs(f) > tiny else f, 10, -half_ln2, half_ln2)
    # log((1 + s) / (1 - s)) = 2 s + s^3 q(s^2).
    ls = lambda z: (log((1 + sqrt(z)) / (1 - sqrt(z))) / sqrt(z) - 2) / z if z > mpf(10) ** -12 else mpf(2) / 3
    for name, degree in [("log", 6), ("atanh", 9)]:
        fit64(name, ls, lambda z: z / (2 + z * ls(z)), degree, 0, mpf("0.1717") ** 2)
    es = lambda s: erf(sqrt(s)) / sqrt(s) - 1 if s > tiny else 2 / sqrt(pi) - 1
    fit64("erf small", es, lambda s: 1 / (1 + es(s)), 13, 0, 1)
    # In powers of x - 3.4375; 1 - erf(5.9) is below half a unit of the last place of 1.
    root = lambda t: erfc(t + mpf("3.4375")) ** mpf("0.25")
    fit64("erf large", root, lambda t: 4 * root(t) ** 3, 23, mpf(1) - mpf("3.4375"), mpf("5.9") - mpf("3.4375"))
    quarter = pi / 4 * mpf("1.0005")
    sq = lambda s: (sin(sqrt(s)) / sqrt(s) - 1) / s if s > mpf(10) ** -12 else -mpf(1) / 6
    fit64("sin", sq, lambda s: s / (1 + s * sq(s)), 5, 0, quarter**2)
    cq = lambda s: (cos(sqrt(s)) - 1 + s / 2) / s**2 if s > mpf(10) ** -12 else mpf(1) / 24
    fit64("cos", cq, lambda s: s**2 / cos(sqrt(s)), 5, 0, quarter**2)
    fit64("atan", atan_of_square, lambda z: z / (1 + z * atan_of_square(z)), 11, 0, mpf("0.4143") ** 2)


def main():
    half_ln2 = log(2) / 2 * mpf("1.0005")
    tiny = mpf(10) ** -12
    # e^f = 1 + f + f^2 q(f), relative error.
    q = lambda f: (expm1(f) - f) / f**2 if abs(f) > tiny else mpf(1) / 2
    fit("exp", q, lambda f: f**2 / exp(f), [0, 1, 2, 3, 4], -half_ln2, half_ln2)
    # The same for e^f - 1, relative to itself.
    fit("expm1", q, lambda f: f / (expm1(f) / f) if abs(f) > tiny else f, [0, 1, 2, 3, 4], -half_ln2, half_ln2)
    # log(1 + f) = f - f^2/2 + f^3 q(f), relative error.
    lq = lambda f: (log1p(f) - f + f**2 / 2) / f**3 if abs(f) > mpf(10) ** -9 else mpf(1) / 3
    fit("log", lq, lambda f: f**2 / (log1p(f) / f) if abs(f) > tiny else f, list(range(8)), sqrt(mpf(1) / 2) - 1, sqrt(mpf(2)) - 1, again=False)
    # log((1 + s) / (1 - s)) = 2 s + s^3 q(s^2), relative error, for powers.
    ls = lambda z: (log((1 + sqrt(z)) / (1 - sqrt(z))) / sqrt(z) - 2) / z if z > mpf(10) ** -9 else mpf(2) / 3
    fit("atanh", ls, lambda z: z / (2 + z * ls(z)), list(range(4)), 0, mpf("0.1717") ** 2, again=False)
    # erf(x) = x + x q(x^2) near zero.
    t = mpf("1.0")
    es = lambda s: erf(sqrt(s)) / sqrt(s) - 1 if s > tiny else 2 / sqrt(pi) - 1
    fit("erf small", es, lambda s: 1 / (1 + es(s)), [0, 1, 2, 3, 4, 5], 0, t**2)
    # erf(x) = 1 - q(x)^4 elsewhere, absolute error; 1 - erf(3.95) is below half a unit of the last place of 1.
    fit("erf large", lambda x: erfc(x) ** mpf("0.25"), lambda x: 4 * erfc(x) ** mpf("0.75"), list(range(8)), t, mpf("3.95"))
    # sin f = f + f^3 q(f^2), cos f = 1 - f^2/2 + f^4 q(f^2).
    quarter = pi / 4 * mpf("1.0005")
    sq = lambda s: (sin(sqrt(s)) / sqrt(s) - 1) / s if s > mpf(10) ** -9 else -mpf(1) / 6
    fit("sin", sq, lambda s: s / (1 + s * sq(s)), [0, 1, 2], 0, quarter**2)
    cq = lambda s: (cos(sqrt(s)) - 1 + s / 2) / s**2 if s > mpf(10) ** -9 else mpf(1) / 24
    fit("cos", cq, lambda s: s**2 / cos(sqrt(s)), [0, 1, 2], 0, quarter**2)
    # atan(t) = t + t^3 q(t^2) up to tan(pi / 8), relative error.
    fit("atan", atan_of_square, lambda z: z / (1 + z * atan_of_square(z)), list(range(5)), 0, mpf("0.4143") ** 2)
    double(half_ln2, tiny)


if __name__ == "__main__":
    main()
