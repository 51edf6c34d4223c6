"""The compositing kernels of `_warp_kernels` for CPUs, in vector C++: eight pixels of a row at a time.

Warp's own language is scalar, and a core spends its time in branches there. These functions are compiled by the LLVM
that comes with Warp, like everything else, and its vector types work on every processor. A tile lives on the stack, so
that a block of eight pixels may reach beyond the ellipse, or beyond the picture's edge, without touching a neighbour.
"""

# mypy: ignore-errors
# No postponed annotations here: Warp reads those of native functions before it could look up the local types.
from functools import cache
from typing import Any

import warp as wp

from ._warp_projection import CPU_FLAGS, Layout, Splat

CPU_TILE = 16  # pixels along a side: a row is two blocks

_TILE = """
    typedef float lanes __attribute__((ext_vector_type(8)));
    typedef int integers __attribute__((ext_vector_type(8)));
    typedef float loose __attribute__((ext_vector_type(8), aligned(4)));  // at any address
    constexpr int D = CHANNELS, BLOCKS = CHANNELS / 8;
    constexpr float LOWEST = 1.0f / 255.0f, HIGHEST = 0.999f, OPAQUE = 1e-4f, LOG2E = 1.44269504f;
    const int frame = index / layout.tiles_per_frame, within = index - frame * layout.tiles_per_frame;
    const int x0 = within % layout.columns * 16, y0 = within / layout.columns * 16;
    const int wide = wp::min(layout.width - x0, 16), high = wp::min(layout.height - y0, 16);
    const long corner = ((long)frame * layout.height + y0) * layout.width + x0;
    const lanes zero = 0.0f, centres = {0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f};
    int live = wide * high;
    alignas(32) float through[256];  // transmittance: negative where finished, zero outside the picture
    for (int i = 0; i < 256; i++) through[i] = i % 16 < wide && i / 16 < high ? 1.0f : 0.0f;
"""

_SPANS = """
        const float* splat = (const float*)(splats.data + members.data[k]);
        const int ahead = members.data[wp::min(k + 3, tile_starts.data[index + 1] - 1)];
        __builtin_prefetch(splats.data + ahead);
        for (int j = 0; j < BLOCKS; j += 2) __builtin_prefetch((const float*)(features.data + ahead) + 8 * j);
        const float u = splat[0] - x0, v = splat[1] - y0, a = splat[2], b = splat[3], c = splat[4], opacity = splat[5];
        const float inverse = 1 / a, extent = 2 * a * splat[6], reach = __builtin_sqrtf(extent / splat[7]);
        const int first_y = (int)wp::clamp(__builtin_ceilf(v - reach - 0.5f), 0.0f, (float)high);
        const int end_y = (int)wp::clamp(__builtin_floorf(v + reach + 0.5f), 0.0f, (float)high);
        alignas(32) int firsts[16], ends[16];  // pixels of each row on which the alpha can reach 1/255
        for (int y = first_y & 8; y < end_y; y += 8) {
            const lanes dy = centres + (y - v), room = extent - splat[7] * dy * dy;
            const lanes half = __builtin_elementwise_sqrt(__builtin_elementwise_max(room, zero)) * inverse;
            const lanes middle = u - b * inverse * dy;
            const lanes low = __builtin_elementwise_ceil(middle - half - 0.5f);
            const lanes end = __builtin_elementwise_floor(middle + half + 0.5f);
            const lanes edge = (lanes)(float)wide;  // clamped before it is converted, so that no number can overflow
            *(integers*)(firsts + y) = __builtin_convertvector(
                __builtin_elementwise_min(__builtin_elementwise_max(low, zero), edge), integers);
            *(integers*)(ends + y) = room > zero ? __builtin_convertvector(
                __builtin_elementwise_min(__builtin_elementwise_max(end, zero), edge), integers) : (integers)0;
        }
        const float* feature = (const float*)(features.data + members.data[k]);
        lanes color[BLOCKS];
        for (int j = 0; j < BLOCKS; j++) color[j] = *(loose*)(feature + 8 * j);
        const float aa = -0.5f * LOG2E * a, bb = -LOG2E * b, cc = -0.5f * LOG2E * c;
"""

_BLOCKS = """
        for (int y = first_y; y < end_y; y++) {
            if (firsts[y] >= ends[y]) continue;
            // One block where it can hold the whole row, else the row's two halves.
            const float dy = y + 0.5f - v;
            for (int x = ends[y] - firsts[y] <= 8 ? wp::min(firsts[y], 8) : 0; x < ends[y]; x += 8) {
                const int pixel = 16 * y + x;
                const lanes before = *(loose*)(through + pixel), dx = centres + (x - u);
                const lanes power = (aa * dx + bb * dy) * dx + cc * dy * dy;
                // 2 to the power, relative error 1e-7: of its rounded part by shifts, of the rest by a polynomial.
                const lanes held = __builtin_elementwise_min(__builtin_elementwise_max(power, (lanes)-80.0f), zero);
                const integers exponent = __builtin_convertvector(held - 0.5f, integers);
                const lanes r = held - __builtin_convertvector(exponent, lanes);
                const lanes mantissa = ((((1.327647129e-3f * r + 9.675540961e-3f) * r + 5.550713092e-2f) * r
                    + 2.402212024e-1f) * r + 6.931469440e-1f) * r + 1.0f;
                const lanes falloff = mantissa * (lanes)((exponent + 127) << 23);
                const lanes full = opacity * falloff, alpha = __builtin_elementwise_min(full, (lanes)HIGHEST);
                const lanes after = before * (1.0f - alpha);
                const integers hit = (before > zero) & (power <= zero) & (alpha >= LOWEST);
                const integers drawn = hit & (after > OPAQUE), spent = hit & (after <= OPAQUE);
                *(loose*)(through + pixel) = spent ? -before : drawn ? after : before;
                live += __builtin_reduce_add(spent);
                const lanes weight = drawn ? alpha * before : zero;
"""

_FORWARD = (
    _TILE
    + """
    alignas(32) float image[256 * D];
    __builtin_memset(image, 0, sizeof(image));
    for (int k = tile_starts.data[index]; k < tile_starts.data[index + 1] && live > 0; k++) {
"""
    + _SPANS
    + _BLOCKS
    + """
                for (int i = 0; i < 8; i++)
                    for (int j = 0; j < BLOCKS; j++) *(lanes*)(image + (pixel + i) * D + 8 * j) += weight[i] * color[j];
            }
        }
    }
    for (int y = 0; y < high; y++)
        for (int x = 0; x < wide; x++) {
            const long p = corner + (long)y * layout.width + x;
            const float left = __builtin_fabsf(through[16 * y + x]);
            transmittances.data[p] = left;
            for (int j = 0; j < BLOCKS; j++) {
                lanes sum = *(lanes*)(image + (16 * y + x) * D + 8 * j);
                if (backgrounds.data) sum += left * *(loose*)((float*)(backgrounds.data + frame) + 8 * j);
                *(loose*)((float*)(out.data + p) + 8 * j) = sum;
            }
        }
"""
)

_BACKWARD = (
    _TILE
    + """
    auto total = [](lanes s) { return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])); };
    alignas(32) float grads[256 * D], behind[256];  // of the picture; what lies behind, weighted by the loss
    if (wide < 16 || high < 16) __builtin_memset(grads, 0, sizeof(grads));
    __builtin_memset(behind, 0, sizeof(behind));
    for (int y = 0; y < high; y++)
        for (int x = 0; x < wide; x++) {
            const long p = corner + (long)y * layout.width + x;
            lanes sum = zero;
            for (int j = 0; j < BLOCKS; j++) {
                const lanes grad = *(loose*)((float*)(grad_out.data + p) + 8 * j);
                sum += grad * *(loose*)((float*)(out.data + p) + 8 * j);
                *(lanes*)(grads + (16 * y + x) * D + 8 * j) = grad;
            }
            behind[16 * y + x] = total(sum) - (grad_alphas.data ? grad_alphas.data[p] * final_transmittances.data[p] : 0);
        }
    for (int k = tile_starts.data[index]; k < tile_starts.data[index + 1]; k++) {
        float* to = (float*)(slot_splats.data + slots.data[k]);
        float* to_features = slot_features.data ? (float*)(slot_features.data + slots.data[k]) : nullptr;
        if (live == 0) {
            *(loose*)to = zero;
            for (int j = 0; j < BLOCKS && to_features; j++) *(loose*)(to_features + 8 * j) = zero;
            continue;
        }
"""
    + _SPANS
    + """
        lanes grad_x = zero, grad_y = zero, grad_a = zero, grad_b = zero, grad_c = zero, grad_opacity = zero;
        lanes grad_color[BLOCKS];
        for (int j = 0; j < BLOCKS; j++) grad_color[j] = zero;
"""
    + _BLOCKS
    + """
                lanes part[8], pair[4];
                for (int i = 0; i < 8; i++) {
                    part[i] = zero;
                    for (int j = 0; j < BLOCKS; j++) {
                        const lanes grad = *(lanes*)(grads + (pixel + i) * D + 8 * j);
                        grad_color[j] += weight[i] * grad;
                        part[i] += grad * color[j];
                    }
                }
                // The sum of each of the eight vectors, by pairwise additions.
                for (int i = 0; i < 4; i++)
                    pair[i] = __builtin_shufflevector(part[2 * i], part[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14)
                        + __builtin_shufflevector(part[2 * i], part[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
                for (int i = 0; i < 2; i++)
                    part[i] = __builtin_shufflevector(pair[2 * i], pair[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13)
                        + __builtin_shufflevector(pair[2 * i], pair[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
                const lanes seen = __builtin_shufflevector(part[0], part[1], 0, 1, 2, 3, 8, 9, 10, 11)
                    + __builtin_shufflevector(part[0], part[1], 4, 5, 6, 7, 12, 13, 14, 15);
                const lanes remainder = *(loose*)(behind + pixel) - weight * seen;
                *(loose*)(behind + pixel) = remainder;
                const lanes grad_alpha = (drawn & (full <= HIGHEST)) ? before * seen - remainder / (1.0f - alpha) : zero;
                const lanes grad_sigma = -alpha * grad_alpha, along = dx * grad_sigma, across = dy * grad_sigma;
                grad_opacity += falloff * grad_alpha;
                grad_a += dx * along;
                grad_b += dy * along;
                grad_c += dy * across;
                grad_x += along;
                grad_y += across;
            }
        }
        const float sum_x = total(grad_x), sum_y = total(grad_y);
        *(loose*)to = (lanes){-(a * sum_x + b * sum_y), -(b * sum_x + c * sum_y), 0.5f * total(grad_a), total(grad_b),
                              0.5f * total(grad_c), total(grad_opacity), 0, 0};
        for (int j = 0; j < BLOCKS && to_features; j++) *(loose*)(to_features + 8 * j) = grad_color[j];
    }
"""
)


@cache
def cpu_compositing_kernels(channels: int) -> tuple[Any, Any]:
    """(forward, backward) kernels for a number of channels that is a multiple of 8, with tiles of CPU_TILE pixels."""
    vec = wp.types.vector(length=channels, dtype=wp.float32)
    module = f"portraitgen_compositing_cpu_{channels}"

    @wp.func_native(_FORWARD.replace("CHANNELS", str(channels)))
    def composite(
        index: int,
        layout: Layout,
        splats: wp.array[Splat],
        features: wp.array[vec],
        backgrounds: wp.array[vec],
        tile_starts: wp.array[wp.int32],
        members: wp.array[wp.int32],
        out: wp.array[vec],
        transmittances: wp.array[wp.float32],
    ): ...

    @wp.func_native(_BACKWARD.replace("CHANNELS", str(channels)))
    def composite_backward(
        index: int,
        layout: Layout,
        splats: wp.array[Splat],
        features: wp.array[vec],
        out: wp.array[vec],
        final_transmittances: wp.array[wp.float32],
        grad_out: wp.array[vec],
        grad_alphas: wp.array[wp.float32],
        tile_starts: wp.array[wp.int32],
        members: wp.array[wp.int32],
        slots: wp.array[wp.int32],
        slot_splats: wp.array[Splat],
        slot_features: wp.array[vec],
    ): ...

    @wp.kernel(module=module, enable_backward=False)
    def forward(
        start: int,
        layout: Layout,
        splats: wp.array[Splat],
        features: wp.array[vec],
        backgrounds: wp.array[vec],
        tile_starts: wp.array[wp.int32],
        members: wp.array[wp.int32],
        out: wp.array[vec],
        transmittances: wp.array[wp.float32],
    ):
        index = start + wp.tid()
        composite(index, layout, splats, features, backgrounds, tile_starts, members, out, transmittances)

    @wp.kernel(module=module, enable_backward=False)
    def backward(
        start: int,
        layout: Layout,
        splats: wp.array[Splat],
        features: wp.array[vec],
        out: wp.array[vec],
        final_transmittances: wp.array[wp.float32],
        grad_out: wp.array[vec],
        grad_alphas: wp.array[wp.float32],
        tile_starts: wp.array[wp.int32],
        members: wp.array[wp.int32],
        slots: wp.array[wp.int32],
        transmittances: wp.array[wp.float32],
        remainders: wp.array[wp.float32],
        slot_splats: wp.array[Splat],
        slot_features: wp.array[vec],
    ):
        """`transmittances` and `remainders` are the scratch that the kernel for CUDA needs."""
        index = start + wp.tid()
        composite_backward(
            index,
            layout,
            splats,
            features,
            out,
            final_transmittances,
            grad_out,
            grad_alphas,
            tile_starts,
            members,
            slots,
            slot_splats,
            slot_features,
        )

    forward.module.options["cpu_compiler_flags"] = CPU_FLAGS
    return forward, backward
