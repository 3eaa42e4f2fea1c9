/* One pass over rows of attention scores: what recorder/attention/sums.py does in many, for weights recomputed from
   queries and keys. Names and formulas are those of that file. */
#include "kernels.h"

#define SMALLEST_REST 1e-20f
#define ROWS 16 /* rows of a head that are taken together */

/* The natural logarithm of a positive normal number, to some 1e-7 of its size (Cephes). */
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
    return m + p + 0.693359375f * e + (x - x); /* what is not finite gives NaN */
}

/* The mean information of a row over log(outcomes); NaN where there is only one outcome. */
INLINE float entropy(float plogp, float total, float outcomes) {
    float mass = total > 0 ? total : 1, several = outcomes < 2 ? 2 : outcomes;
    float found = (logarithm(mass) + (total - total) - plogp / mass) / logarithm(several);
    return outcomes < 2 ? NAN : found;
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

/* What is known of ROWS rows of one head, one number of each. Masses are not normalised; `others` leaves out the
   token itself and the first token. */
struct rows {
    float seen[ROWS], to_first[ROWS], sees_first[ROWS], sees_own[ROWS]; /* keys seen; q - first token; 1 or 0 */
    float at_first[ROWS], at_own[ROWS];                                 /* scores below the row's largest */
    float others[ROWS], plogp[ROWS], moment[ROWS];                      /* sums of w, w log w and w (q - k) */
    float with[ROWS], without[ROWS], even_with[ROWS], even_without[ROWS], first_mass[ROWS];
    float found[5][ROWS];
};

/* Row `i` of `all`: takes the columns of the token itself and of the first token out of the scores and turns the others,
   of `end` keys, into weights. */
INLINE void weigh(struct rows *all, int i, float *row, const uint8_t *seen, int64_t end, int64_t own_at,
                  int64_t column, float to_first) {
    float n = (float)(own_at + 1), most = HIDDEN;
    if (seen) {
        int32_t sees = 0;
        _Pragma("omp simd reduction(+ : sees)") for (int64_t k = 0; k < end; k++) {
            sees += seen[k];
            row[k] = seen[k] ? row[k] : HIDDEN;
        }
        n = (float)sees;
    } else {
        for (int64_t k = own_at + 1; k < end; k++) row[k] = HIDDEN;
    }
    _Pragma("omp simd reduction(max : most)") for (int64_t k = 0; k < end; k++) most = row[k] > most ? row[k] : most;
    int inside = column >= 0 && column < end;
    int sees_first = inside && (!seen || seen[column]), sees_own = to_first > 0 && (!seen || seen[own_at]);
    all->seen[i] = n;
    all->to_first[i] = to_first;
    all->sees_first[i] = (float)sees_first;
    all->sees_own[i] = (float)sees_own;
    all->at_first[i] = sees_first ? clamped(row[column] - most) : 0;
    all->at_own[i] = sees_own ? clamped(row[own_at] - most) : 0;
    if (inside) row[column] = HIDDEN;
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
    all->others[i] = others;
    all->plogp[i] = plogp;
    all->moment[i] = moment;
}

/* From the sums of the rows to what is found of them. */
INLINE void conclude(struct rows *all) {
    _Pragma("omp simd") for (int i = 0; i < ROWS; i++) {
        float first = all->sees_first[i] * exponential(all->at_first[i]);
        float own = all->sees_own[i] * exponential(all->at_own[i]);
        float plogp = all->plogp[i] + own * all->at_own[i], others = all->others[i], moment = all->moment[i];
        float rest = others + own, total = rest + first, to_first = all->to_first[i];
        float n = all->seen[i], seen_rest = n - all->sees_first[i];
        int is_first = to_first == 0;
        int undefined = (rest <= SMALLEST_REST) | (seen_rest < 1) | is_first;
        float without_first = entropy(plogp, rest, seen_rest), away = moment / rest;
        all->found[0][i] = entropy(plogp + first * all->at_first[i], total, n);
        all->found[1][i] = undefined ? NAN : without_first;
        all->found[2][i] = all->sees_first[i] > 0 ? first / total : NAN;
        all->found[3][i] = (moment + first * to_first) / total;
        all->found[4][i] = undefined ? NAN : away;
        float with = 1 / total, without = is_first | (rest <= SMALLEST_REST) ? 0 : 1 / rest;
        float to_others = is_first ? 0 : first;
        all->with[i] = with;
        all->without[i] = without;
        all->even_with[i] = n > 1 ? (others + to_others) * with / (n - 1) : 0;
        all->even_without[i] = seen_rest > 1 ? others * without / (seen_rest - 1) : 0;
        all->first_mass[i] = to_others * with;
    }
}

/* Adds the weights of four rows, `step` apart, to the sums of `end` keys. */
INLINE void add_four(const float *row, int64_t step, int64_t end, const float *with, const float *without,
                     float *mass, float *mass_without) {
    const float *second = row + step, *third = second + step, *fourth = third + step;
    _Pragma("omp simd") for (int64_t k = 0; k < end; k++) {
        float a = row[k], b = second[k], c = third[k], d = fourth[k];
        mass[k] += a * with[0] + b * with[1] + c * with[2] + d * with[3];
        mass_without[k] += a * without[0] + b * without[1] + c * without[2] + d * without[3];
    }
}

INLINE void add_one(const float *row, int64_t end, float with, float without, float *mass, float *mass_without) {
    _Pragma("omp simd") for (int64_t k = 0; k < end; k++) {
        mass[k] += row[k] * with;
        mass_without[k] += row[k] * without;
    }
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
        float *count = keys_sum + (b * (2 * heads + 1) + 2 * heads) * 2 * room + low;
        for (int64_t h = 0; h < heads; h++) {
            float *mass = keys_sum + (b * (2 * heads + 1) + h) * 2 * room + low, *mass_without = mass + room;
            float *even = keys_sum + (b * (2 * heads + 1) + heads + h) * 2 * room + low, *even_without = even + room;
            float first_mass = 0;
            for (int64_t r = 0; r < rows; r += ROWS) {
                struct rows all = {0};
                int64_t block = rows - r < ROWS ? rows - r : ROWS, last = start + r + block - 1 - low;
                int64_t end = visible ? keys : whole_vectors(last + 1, keys);
                float *row = scores + ((b * heads + h) * rows + r) * keys;
                const uint8_t *real = valid + b * valid_step + start + r;
                for (int64_t i = 0; i < block; i++) {
                    const uint8_t *seen = visible ? visible + (b * rows + r + i) * keys : 0;
                    if (real[i])
                        weigh(&all, (int)i, row + i * keys, seen, end, last - block + 1 + i, column,
                              (float)(start + r + i - first[b]));
                    else
                        memset(row + i * keys, 0, (size_t)end * sizeof(float));
                }
                conclude(&all);
                for (int64_t i = 0; i < block; i++) {
                    if (!real[i]) all.with[i] = all.without[i] = all.even_with[i] = all.even_without[i] = 0;
                    first_mass += real[i] ? all.first_mass[i] : 0;
                    float *out = found + (b * tokens + start + r + i) * heads + h;
                    for (int q = 0; q < 5; q++) out[q * plane] = real[i] ? all.found[q][i] : NAN;
                }
                int64_t i = 0;
                for (; i + 4 <= block; i += 4)
                    add_four(row + i * keys, keys, end, all.with + i, all.without + i, mass, mass_without);
                for (; i < block; i++) add_one(row + i * keys, end, all.with[i], all.without[i], mass, mass_without);
                for (i = 0; i < block; i++) {
                    if (!real[i]) continue;
                    int is_first = all.to_first[i] == 0;
                    int64_t own_at = last - block + 1 + i;
                    if (visible) {
                        const uint8_t *seen = visible + (b * rows + r + i) * keys;
                        float with = all.even_with[i], without = all.even_without[i];
                        _Pragma("omp simd") for (int64_t k = 0; k < end; k++) {
                            float other = k == own_at ? 0 : (float)seen[k];
                            even[k] += other * with;
                            even_without[k] += other * without;
                        }
                        for (int64_t k = 0; h == 0 && k < end; k++) {
                            float other = k == own_at ? 0 : (float)seen[k];
                            count[k] += other;
                            count[room + k] += is_first ? 0 : other;
                        }
                    }
                }
                if (!visible) {
                    float one[ROWS], not_first[ROWS];
                    for (i = 0; i < block; i++) {
                        one[i] = 1;
                        not_first[i] = all.to_first[i] != 0;
                    }
                    spread(all.even_with, block, even, last);
                    spread(all.even_without, block, even_without, last);
                    if (h == 0) spread(one, block, count, last);
                    if (h == 0) spread(not_first, block, count + room, last);
                }
            }
            if (column >= 0 && column < keys) mass[column] += first_mass;
        }
    }
}
