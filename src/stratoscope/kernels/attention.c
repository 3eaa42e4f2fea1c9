/* One pass over rows of attention scores: what recorder/attention/sums.py does in many, for weights recomputed from
   queries and keys. Names and formulas are those of that file. */
#include "kernels.h"

#define LOWEST (-70.0f)          /* exp of less is no normal number, and up to 100 times slower */
#define SMALLEST_REST 1e-20f
#define HIDDEN (-1e30f)
#define WAITING 256

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

/* The natural logarithm of a normal number, to some 1e-7 of its size (Cephes). */
INLINE float logarithm(float x) {
    int32_t bits, exponent;
    memcpy(&bits, &x, 4);
    exponent = ((bits >> 23) & 255) - 126;
    bits = (bits & 0x7fffff) | 0x3f000000; /* 0.5 <= mantissa < 1 */
    float m, e;
    memcpy(&m, &bits, 4);
    int small = m < 0.707106781186547524f;
    e = (float)(exponent - small);
    m = (small ? m + m : m) - 1.0f;
    float z = m * m, p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z - 2.12194440e-4f * e - 0.5f * z;
    return x > 0 && x < INFINITY ? m + p + 0.693359375f * e : logf(x);
}

INLINE float clamped(float x) { return x < LOWEST ? LOWEST : x; }

/* The mean information of a row over log(outcomes); NaN where there is only one outcome. */
INLINE float entropy(float plogp, float total, float outcomes) {
    return outcomes < 2 ? NAN : (logarithm(total) - plogp / total) / logarithm(outcomes);
}

/* Adds value[i] to all keys before the own key of query i; the last query's own key is `last`. */
INLINE void spread(const float *value, int64_t queries, float *keys, int64_t last) {
    float sum = 0;
    for (int64_t i = queries - 1; i >= 0; i--) {
        int64_t own = last - (queries - 1 - i);
        sum += value[i];
        if (i && own > 0) keys[own - 1] += sum;
    }
    for (int64_t k = 0; k < last - queries + 1; k++) keys[k] += sum;
}

/* Queries start .. start + rows, keys low .. low + keys, both counted from the first token of a padded prompt.

   scores    [batch, heads, rows, keys], overwritten with weights that are not normalised
   visible   bytes [batch, rows, keys], or NULL: each query sees the keys up to itself
   first     [batch] position of the first real token; valid: bytes, which queries are real, `valid_step` apart
   found     entropy, entropy_nosink, first, distance, distance_nosink: `plane` apart, each [batch, tokens, heads]
   keys_sum  [batch, 2 heads + 1, 2, room] as in AttentionSums */
CLONES void attention_f32(float *scores, const uint8_t *visible, int64_t batch, int64_t heads, int64_t rows,
                          int64_t keys, int64_t start, int64_t low, const int64_t *first, const uint8_t *valid,
                          int64_t valid_step, float *found, int64_t plane, int64_t tokens, float *keys_sum,
                          int64_t room) {
    for (int64_t b = 0; b < batch; b++) {
        int64_t column = first[b] - low; /* of the first token */
        int inside = column >= 0 && column < keys;
        float *count = keys_sum + (b * (2 * heads + 1) + 2 * heads) * 2 * room + low;
        for (int64_t h = 0; h < heads; h++) {
            float *mass = keys_sum + (b * (2 * heads + 1) + h) * 2 * room + low;
            float *even = keys_sum + (b * (2 * heads + 1) + heads + h) * 2 * room + low;
            float first_mass = 0, waiting[4][WAITING];
            int64_t waits = 0;
            for (int64_t r = 0; r < rows; r++) {
                float *row = scores + ((b * heads + h) * rows + r) * keys;
                const uint8_t *seen = visible ? visible + (b * rows + r) * keys : 0;
                float *out = found + (b * tokens + start + r) * heads + h;
                int64_t own_at = start + r - low, end = visible ? keys : whole_vectors(own_at + 1, keys);
                if (!valid[b * valid_step + start + r]) {
                    for (int q = 0; q < 5; q++) out[q * plane] = NAN;
                    continue;
                }
                float n = 0, most = HIDDEN;
                if (seen) {
                    int32_t sees = 0;
                    _Pragma("omp simd reduction(+ : sees)") for (int64_t k = 0; k < end; k++) {
                        sees += seen[k];
                        row[k] = seen[k] ? row[k] : HIDDEN;
                    }
                    n = (float)sees;
                } else {
                    n = (float)(own_at + 1);
                    for (int64_t k = own_at + 1; k < end; k++) row[k] = HIDDEN;
                }
                _Pragma("omp simd reduction(max : most)") for (int64_t k = 0; k < end; k++) most =
                    row[k] > most ? row[k] : most;

                int sees_first = inside && column < end && (!seen || seen[column]);
                int is_first = start + r == first[b];
                int sees_own = !is_first && (!seen || seen[own_at]);
                float l_first = sees_first ? clamped(row[column] - most) : 0, l_own = clamped(row[own_at] - most);
                float at_first = sees_first ? exponential(l_first) : 0, own = sees_own ? exponential(l_own) : 0;
                if (inside && column < end) row[column] = HIDDEN;
                row[own_at] = HIDDEN;

                float others = 0, plogp = 0, moment = 0;
                _Pragma("omp simd reduction(+ : others, plogp, moment)") for (int64_t k = 0; k < end; k++) {
                    float l = clamped(row[k] - most), weight = exponential(l);
                    weight = row[k] <= HIDDEN ? 0 : weight;
                    others += weight;
                    plogp += weight * l;
                    moment += weight * (float)(own_at - k);
                    row[k] = weight;
                }
                plogp += own * l_own;

                float rest = others + own, total = rest + at_first, to_first = (float)(start + r - first[b]);
                float seen_rest = n - (float)sees_first;
                int undefined = rest <= SMALLEST_REST || seen_rest < 1 || is_first;
                out[0] = entropy(plogp + at_first * l_first, total, n);
                out[plane] = undefined ? NAN : entropy(plogp, rest, seen_rest);
                out[2 * plane] = sees_first ? at_first / total : NAN;
                out[3 * plane] = (moment + at_first * to_first) / total;
                out[4 * plane] = undefined ? NAN : moment / rest;

                float with = 1 / total, without = is_first || rest <= SMALLEST_REST ? 0 : 1 / rest;
                float elsewhere = others + (is_first ? 0 : at_first);
                float even_with = n > 1 ? elsewhere * with / (n - 1) : 0;
                float even_without = seen_rest > 1 ? others * without / (seen_rest - 1) : 0;
                first_mass += is_first ? 0 : at_first * with;
                float *mass_without = mass + room, *seen_without = even + room;
                _Pragma("omp simd") for (int64_t k = 0; k < end; k++) {
                    mass[k] += row[k] * with;
                    mass_without[k] += row[k] * without;
                }
                if (seen) {
                    _Pragma("omp simd") for (int64_t k = 0; k < end; k++) {
                        float other = k == own_at ? 0 : (float)seen[k];
                        even[k] += other * even_with;
                        seen_without[k] += other * even_without;
                    }
                    if (h == 0)
                        for (int64_t k = 0; k < end; k++) {
                            float other = k == own_at ? 0 : (float)seen[k];
                            count[k] += other;
                            count[room + k] += is_first ? 0 : other;
                        }
                } else {
                    waiting[0][waits] = even_with;
                    waiting[1][waits] = even_without;
                    waiting[2][waits] = 1;
                    waiting[3][waits++] = !is_first;
                    if (waits == WAITING || r == rows - 1) {
                        float *to[4] = {even, seen_without, h ? 0 : count, h ? 0 : count + room};
                        for (int q = 0; q < 4; q++)
                            if (to[q]) spread(waiting[q], waits, to[q], own_at);
                        waits = 0;
                    }
                }
            }
            if (inside) mass[column] += first_mass;
        }
    }
}
