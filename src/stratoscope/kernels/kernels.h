/* What every kernel shares. Functions are plain C, called with addresses and sizes: see __init__.py. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Compiled once for each kind of processor; the loader picks the one that the machine can run. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

#define INLINE static inline __attribute__((always_inline))

/* One number of a row as float32. bfloat16 is the upper half of a float32. */
INLINE float number_f32(const void *x, int64_t i) { return ((const float *)x)[i]; }
INLINE float number_bf16(const void *x, int64_t i) {
    uint32_t bits = (uint32_t)((const uint16_t *)x)[i] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Loops run over whole vectors where they can. */
INLINE int64_t whole_vectors(int64_t length, int64_t most) {
    int64_t whole = (length + 15) & ~(int64_t)15;
    return whole < most ? whole : most;
}

/* Index of the lowest bit that is set, of bytes as they lie in memory. */
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "these kernels are for processors that keep the lowest byte first"
#endif
#define LOWEST_BIT(NUMBER) __builtin_ctzll(NUMBER)

/* --- softmax --- */
#define LOWEST (-70.0f) /* exp of less is no normal number, and up to 100 times slower */
#define HIDDEN (-1e30f)

/* e^x for LOWEST <= x <= 0, to some 1e-7 of its size: 2^n times a polynomial in the rest (Cephes). */
INLINE float exponential(float x) {
    float n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f; /* rounds to an integer */
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

INLINE float clamped(float x) { return x < LOWEST ? LOWEST : x; }
