"""The calls that random programs are made of, as templates.

``{x}`` is a real value, ``{z}`` a real or complex one, ``{c}`` a complex one, ``{v}`` has an axis,
``{m}`` two of them; ``{y}`` is an operand that broadcasts with the one before: a value, a plain
array, a number. `writing.Writer` says what the others are. Calls that a program can't take (a
domain, a shape) are tried and dropped, so a template needn't be right everywhere.
"""

from __future__ import annotations

ELEMENTWISE = """
np.tanh({x}) | np.sin({x}) | np.cos({x}) | np.arctan({x}) | np.exp({x}) | np.exp(-({x} * {x}))
np.expm1({x}) | np.arcsinh({x}) | np.square({z}) | np.negative({z}) | +{z} | -{z} | np.exp2({x})
np.sinh({x}) | np.cosh({x}) | np.tan(0.5 * np.sin({x})) | np.sinc({x}) | np.deg2rad({x})
np.radians({x}) | np.degrees(0.1 * {x}) | np.log(np.square({x}) + 0.5) | np.log({x})
np.sqrt({x}) | np.sqrt(np.square({x}) + 0.2) | np.log2(1.5 + np.sin({x})) | np.log10({x})
np.log1p(np.square({x})) | np.cbrt(2.5 + np.cos({x})) | np.arcsin(0.8 * np.sin({x}))
np.arccos(0.7 * np.cos({x})) | np.arctanh(0.6 * np.sin({x})) | np.arccosh(1.5 + np.square({x}))
np.reciprocal(1.5 + np.square({x})) | np.nan_to_num({x}) | {z}.copy() | np.copy({z})
np.positive({z}) | {z} ** 2 | {z} ** 3 | {x} ** 0.5 | (1.2 + np.square({x})) ** {y} | 2.0 ** {x}
{x} ** -1 | np.power({x}, 3) | np.float_power({x}, 2) | np.conjugate({z}) | np.real({z})
np.imag({z}) | {c}.real | {c}.imag | np.angle({c}) | np.abs({c}) | {c} * {y}
{c} / (2.0 + np.abs({c})) | np.exp(1j * {x}) | {x} + 1j * {x} | np.sin({c}) | {c}.conj()
{x} + {y} | {x} - {y} | {x} * {y} | {y} + {x} | {y} - {x} | {y} * {x} | {x} / {y} | {y} / {x}
{x} / (np.square({y}) + 0.7) | np.add({x}, {y}) | np.multiply({y}, {x}) | np.subtract({y}, {x})
np.true_divide({y}, np.square({x}) + 1) | np.arctan2({x} + 0.0, {y} + 0.0)
np.arctan2({y}, {x} + 0.0)
np.hypot({x}, {y}) | np.hypot({y}, {x}) | np.logaddexp({x}, {y}) | np.logaddexp2({y}, {x})
{x} * 2 | 3 - {x} | {x} / 2 | 1 / (2 + {x} * {x}) | {x} + np.float64(0.3) | np.float32(0.5) * {x}
{x} * True | {x}.astype(np.float64) | {x}.astype(np.float32) | np.astype({x}, np.float64)
{x} * {x} | {x} - {x} * 0.5 | {x} * {x}.T | ({x} * {y}) * ({x} + 1) | {x} + {y} + {x}
nn.sigmoid({x}) | nn.silu({x}) | nn.gelu({x}) | nn.softplus({x}) | nn.gelu({x}, "erf")
np.copysign({x}, {y}) | np.heaviside({x}, 0.5) * {x} | np.ldexp({x}, 2) | np.sign({x}) + {x}
"""

KINKED = """
np.abs({x}) | abs({x}) | np.fabs({x}) | np.maximum({x}, {y}) | np.minimum({y}, {x})
np.fmax({x}, {y}) | np.fmin({y}, {x}) | np.clip({x}, -0.5, 0.5) | {x}.clip(-1, 0.7)
np.clip({x}, {y}, 2.0) | nn.relu({x}) | nn.leaky_relu({x}) | nn.leaky_relu({x}, 0.2)
np.where({b}, {x}, {y}) | np.where({b}, {y}, {x}) | np.where({b}, {x}, 0.1 * {x})
np.where({x} > 0, {x}, np.exp({x}) - 1) | {x} * ({x} > {y}) | {x} * {b}
np.select([{x} > 0.5, {x} < -0.5], [{x}, -{x}], 0.0)
np.choose(({x} > 0).astype(int), [{x}, {y}]) | np.remainder({x}, 1.5) | {x} % 2
np.fmod({x}, 1.5) | np.modf({x})[0] | np.divmod({x}, 1.3)[1] | {x} - np.floor({x})
np.round({x}, 1) + {x} | np.ceil({x}) * {x} | np.rint({x}) + {x} | np.trunc({x}) * {y} + {x}
({x} // 0.7) * {x} | np.where(np.logical_and({x} > -1, {x} < {y}), {x}, 0)
np.where(~({x} > {y}), {x}, {y}) | np.where(np.isfinite({x}) & ({x} <= 0.4), {x} * 2, {y})
np.sort({v}, axis={axis}) | np.sort({v}, axis={axis})[::-1]
np.take(np.partition({v}, 0, axis={axis}), [0], axis={axis})
np.max({x}{ax}) | np.min({x}{ax}) | {x}.max({axw}) | {x}.min({axw}) | np.ptp({v}, axis={axis})
np.amax({x}{ax}) | np.nan_to_num({x}, nan=1.0)
np.take_along_axis({v}, np.argsort({v}, axis={axis}), axis={axis}) | {v}[np.argmax({v}, axis=0)]
np.take_along_axis({v}, np.argmax({v}, axis={axis}, keepdims=True), axis={axis})
{v}[np.argsort({v}[..., 0])] | np.linalg.norm({v}, 1) | np.linalg.norm({m}, np.inf)
np.linalg.norm({v}, ord=1, axis={axis}) | np.linalg.norm({m}, 2) | np.linalg.norm({m}, "nuc")
np.linalg.cond({sq}) | nn.max_pool2d({nchw}, 2) | nn.global_max_pool({nchw})
np.cumsum(np.sort({v}, axis=-1), axis=-1) | np.max({v}, axis={axis}, keepdims=True) - {v}
np.count_nonzero({x} > 0) * {x} | np.sum({x} > 0.2) * {x} | np.mean({x} > 0) + {x}
"""

REDUCTIONS = """
np.sum({z}{ax}) | np.mean({z}{ax}) | {z}.sum({axw}) | {z}.mean({axw}) | np.prod({x}{ax})
{x}.prod({axw}) | np.var({x}{ax}) | np.std({x}{ax}) | {x}.var({axw})
np.var({v}, axis={axis}, ddof=0, keepdims=True) | np.sum({x}, axis={axis}, keepdims=True) * {x}
{x} - np.mean({v}, axis={axis}, keepdims=True) | np.cumsum({v}, axis={axis})
np.cumprod({v}, axis={axis}) | np.cumsum({z}) | {v}.cumsum() | np.nansum({x}{ax})
np.nanmean({x}{ax}) | np.average({v}, axis={axis})
np.average({v}, weights=np.square({same}) + 0.3) | np.diff({v}, axis={axis}) | np.ediff1d({x})
np.gradient({v1}) | np.trapezoid({v}, axis={axis}) | np.trapezoid({v1}, {v1})
np.linalg.norm({z}) | np.linalg.norm({v}, axis={axis}) | np.linalg.norm({m}, "fro")
np.linalg.vector_norm({v}, axis={axis}, ord=3) | np.linalg.matrix_norm({m})
nn.softmax({v}, {axis}) | nn.log_softmax({v}, axis={axis}) | nn.logsumexp({x}{ax})
np.add.reduce({v}, axis={axis}) | np.multiply.reduce({v}) | sum({v}) | np.linspace({x}, {y}, 3)
nn.layer_norm({v}) | nn.layer_norm({m}, axis=(-2, -1)) | nn.rms_norm({v})
nn.layer_norm({v}, {last}, {last}) | nn.mse({x}, {y}) | nn.mse({x}, {x}, reduction="sum")
np.sum({x}, dtype=np.float64) | np.mean({x}, dtype=np.float64) | np.trace({m}) | {m}.trace()
nn.cross_entropy({v}, {labels}) | nn.batch_norm({nchw}) | nn.group_norm({nchw}, 1)
"""

CONTRACTIONS = """
{m} @ {right} | {m}.T @ {m} | {m} @ np.swapaxes({m}, -1, -2) | {left} @ {m}
np.matmul({left}, {m}) | np.matmul({m}, {right}) | np.dot({m}, {right2}) | np.dot({left2}, {m})
{m}.dot({right2}) | {v1} @ {vec} | {vec} @ {v1} | np.dot({v1}, {v1}) | np.inner({v}, {last})
np.inner({last}, {v}) | np.outer({x}, {x}) | np.outer({vec}, {v1})
np.tensordot({m}, {m}, axes=([0], [0])) | np.tensordot({v}, {last}, axes=1)
np.tensordot({x}, {x}, axes=0) | np.kron({x}, {vec}) | np.einsum("ij,kj->ik", {m2}, {m2})
np.einsum("ij,ij->i", {m2}, {m2}) | np.einsum("ij->ji", {m2}) | np.einsum("ij,j->i", {m2}, {last})
np.einsum("ii->i", {sq2}) | np.einsum("ii", {sq2}) | np.einsum("...i,...i", {v}, {last})
np.einsum("i,j->ij", {v1}, {vec}) | np.einsum("ij,jk,kl->il", {m2}, np.ones(({n1}, 3)), {three})
np.einsum("i...->...", {v}) | np.einsum("ij,ij", {m2}, {y}) | np.vdot({z}, {z})
np.linalg.vecdot({v}, {last}) | np.vecdot({v}, {last}) | np.matvec({m}, {last})
np.vecmat({last0}, {m2}) | np.linalg.multi_dot([{m2}, {m2}.T, {m2}]) | np.cross({v3}, {v3})
np.linalg.matrix_power({sq}, 2) | np.linalg.matrix_power({sq}, 3) | np.linalg.outer({v1}, {v1})
np.multiply.outer({v1}, {v1}) | np.add.outer({v1}, {vec}) | ({m} @ {right}) * 0.3 + 1
{m2}[0] @ {m2}.T | {m} @ {m}.T | nn.attention({m}, {m}, {m})
nn.attention({m}, {m}, np.tanh({m}), causal=True) | nn.conv1d({ncl}, {kernel1})
nn.conv2d({nchw}, {kernel2}, padding=1) | nn.conv2d({nchw}, {kernel2}, stride=2, padding=1)
nn.avg_pool2d({nchw}, 2) | nn.upsample({nchw}) | nn.pad2d({nchw}, 1) | nn.global_avg_pool({nchw})
{c2} @ {c2}.conj().T | np.vdot({c}, {c})
"""

SHAPES = """
np.reshape({z}, {reshape}) | {z}.reshape({reshape}) | {z}.reshape(-1)
np.reshape({z}, {reshape}, order="F") | np.ravel({z}) | {z}.ravel() | {z}.flatten() | {z}.T
np.transpose({m}, {perm}) | {m}.transpose({perm}) | np.swapaxes({m}, 0, -1)
np.moveaxis({m}, 0, -1) | np.rollaxis({m}, 1) | np.squeeze({z}) | {z}.squeeze()
np.expand_dims({z}, 0) | {z}[None] | {z}[..., None] | {v}[:, None]
np.broadcast_to({z}, (2, *np.shape({z}))) | {x} + np.broadcast_to({v}[0], np.shape({v}))
np.flip({v}, {axis}) | {v}[::-1] | {v}[..., ::-1] | np.fliplr({m}) | np.flipud({v})
np.rot90({m}) | np.atleast_1d({x}) | np.atleast_2d({x}) | np.atleast_3d({x})
np.roll({v}, 1, axis={axis}) | np.roll({z}, 2) | np.tile({x}, 2) | np.tile({v}, (2, 1))
np.repeat({v}, 2, axis={axis}) | np.repeat({x}, 2) | {v}.repeat(2) | np.pad({v}, 1)
np.pad({v}, (1, 0), mode="edge") | np.pad({v}, 1, mode="reflect") | np.pad({v}, 1, mode="wrap")
np.pad({v}, 2, constant_values=0.5) | np.concatenate([{v}, {v} * 2])
np.concatenate([{v}, {same}], axis={axis}) | np.concatenate([{same}, {v}], axis=-1)
np.concatenate([{v}, {x}], axis=None) | np.stack([{x}, {same}]) | np.stack([{same}, {z}], axis=-1)
np.stack([{v}[k] for k in range({n0})]) | np.stack([np.sin(s) for s in {v}])
np.hstack([{v}, {same}]) | np.vstack([{x}, {same}]) | np.dstack([{v}, {same}])
np.column_stack([{v}, {v}]) | np.block([[{m2}, {m2}], [{m2}, {same}]])
np.append({v}, {same}, axis=0) | np.append({x}, {y}) | np.tril({m}) | np.triu({m}, 1)
np.diag({v1}) | np.diag({m2}) | np.diagflat({v1}) | np.diagonal({m}) | {m}.diagonal(1)
np.diagonal({m}, 0, -2, -1) | np.split({v}, [1], axis={axis})[0]
np.split({v}, [1], axis={axis})[1] | np.array_split({v}, 2)[0]
np.array_split({v}, 2, axis={axis})[-1] | np.unstack({v})[0] | np.broadcast_arrays({x}, {y})[0]
np.matrix_transpose({m}) | {m}.mT | np.linalg.diagonal({m}) | {v}[{index}] | {v}[{index}]
{v}[{index}] | {m}[{index2}] | {m}[{index2}] | {m}[{index2}] | {c}[{indexc}] | {v}[{fancy}]
{v}[{fancy}] | {m}[{fancy2}] | {m}[{fancy2}] | np.take({v}, {ints}, axis=0)
{v}.take({ints0}, axis=0) | np.take({x}, [0, 0]) | np.take({v}, {ints0}, axis=0, mode="wrap")
np.compress({mask0}, {v}, axis=0) | {v}[{mask0}] | np.take_along_axis({v}, {along}, axis=0)
{v}[{mask}] | {m2}[np.arange({n0}), {ints1}] | {v}[{ints0}, None] | {v}[[0, -1]]
{v}[np.newaxis, ..., -1] | name({z}, "kept") | ({v}[1:] - {v}[:-1]) * 2 | {v}[0] * {v}
{v}[-1] + {v} | {v}[::2] | {v}[1::2] | {m}[:, ::-2] | {m}.T[::-1] | {m}[1:, :-1]
{m}.T.reshape(-1) | nn.embedding({m2}, {ints}) | np.dsplit({t3}, [1])[0] | np.hsplit({m}, [1])[0]
np.vsplit({m}, [1])[-1] | {t3}[..., 0] | {t3}[:, 0, :] | {t3}[0, ..., None]
"""

FACTORISATIONS = """
np.linalg.cholesky({spd}) | np.linalg.inv({spd}) | np.linalg.inv({sq} + 3 * np.eye({n}))
np.linalg.solve({spd}, {rhs}) | np.linalg.solve({spd}, {m2}) | np.linalg.det({sq})
np.linalg.slogdet({spd})[1] | np.linalg.slogdet({sq})[1] | np.linalg.eigh({spd})[0]
np.linalg.eigvalsh({spd}) | np.linalg.eigh({spd}).eigenvectors ** 2
np.linalg.svd({m}, full_matrices=False)[1] | np.linalg.svd({m}, compute_uv=False)
np.linalg.svdvals({m}) | np.linalg.qr({m})[1] ** 2 | np.linalg.qr({tall}).Q ** 2
np.linalg.pinv({m}) | np.linalg.eigvals({sq2} + 0j) | np.linalg.eigh({herm})[0]
np.linalg.cholesky({herm}) | np.linalg.inv({herm}) | np.linalg.solve({herm}, {c1})
np.linalg.matrix_power({spd}, -1) | np.linalg.svd({m}, full_matrices=False)[0] ** 2
"""

TRANSFORMS = """
np.fft.fft({v}) | np.fft.ifft({v}, axis={axis}) | np.fft.rfft({v}) | np.fft.rfft({v}, axis={axis})
np.fft.irfft({cv}) | np.fft.irfft({cv}, n=5) | np.fft.fft2({m}) | np.fft.rfftn({m})
np.fft.fftshift({v}) | np.fft.ifftshift({v}, axes=0) | np.real(np.fft.fft({v}))
np.abs(np.fft.rfft({v})) + 0.1 | np.fft.ifft(np.fft.fft({cv}) * 2)
np.fft.fft({v}, n=4, norm="ortho") | np.fft.hfft({cv}) | np.fft.ihfft({v}) | np.fft.irfftn({cm})
np.fft.ifft2({cm})
"""

RANDOM = """
nn.dropout({x}, 0.3, rng) | nn.dropout({x}, 0.5, rng) * {y} | nn.dropout(np.tanh({x}), 0.2, rng)
nn.attention({m}, {m}, {m}, rate=0.3, rng=rng)
{x} * (np.random.default_rng(5).random(np.shape({x})) < 0.6)
{x} + np.random.default_rng(7).standard_normal(np.shape({x}))
"""

INSIDE = """
grad(lambda t: np.sum(np.tanh(t) ** 2))({x}) | grad(lambda t: np.sum(t * t * {x}))({x})
value_and_grad(lambda t: np.sum(np.sin(t)))({x})[1]
grad(checkpoint(lambda t: np.sum(np.exp(-t * t))))({x}) | stop_gradient({x}) * {x}
{x} * stop_gradient(np.tanh({x}))
"""

FAMILIES = {
    "elementwise": (ELEMENTWISE, 6),
    "kinked": (KINKED, 3),
    "reductions": (REDUCTIONS, 4),
    "contractions": (CONTRACTIONS, 4),
    "shapes": (SHAPES, 6),
    "factorisations": (FACTORISATIONS, 1),
    "transforms": (TRANSFORMS, 1),
    "inside": (INSIDE, 0.3),
}
"""Name -> (templates, how often one of them is taken)."""


def templates(text: str) -> list[str]:
    return [t.strip() for line in text.strip().splitlines() for t in line.split(" | ") if t.strip()]
