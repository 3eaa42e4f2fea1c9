/* Reductions over the rows of matrices, one pass each. Sums are kept in float32 lanes, as torch keeps them.

   Matrices are [rows, width] with contiguous rows; each function comes for float32 and for bfloat16. */
#include "kernels.h"

#define LANES 64 /* numbers that are taken together; k is not larger */
#define TEETH 8
#define MOST 128 /* numbers that are sorted at once; 2 more than k at least */

/* norm[r] = |w_r|; dot[r] = w_r . b_r; base_norm[r] = |b_r|. */
#define WRITES(SUFFIX, NUMBER, SIZE)                                                                           \
    CLONES void writes_##SUFFIX(const char *w, const char *b, int64_t rows, int64_t width, float *norm,        \
                                float *dot, float *base_norm) {                                                \
        for (int64_t r = 0; r < rows; r++, w += width * SIZE, b += width * SIZE) {                             \
            float own = 0, both = 0, base = 0;                                                                 \
            _Pragma("omp simd reduction(+ : own, both, base)") for (int64_t i = 0; i < width; i++) {           \
                float x = NUMBER(w, i), y = NUMBER(b, i);                                                      \
                own += x * x;                                                                                  \
                both += x * y;                                                                                 \
                base += y * y;                                                                                 \
            }                                                                                                  \
            norm[r] = sqrtf(own);                                                                              \
            dot[r] = both;                                                                                     \
            base_norm[r] = sqrtf(base);                                                                        \
        }                                                                                                      \
    }
WRITES(f32, number_f32, 4)
WRITES(bf16, number_bf16, 2)

/* norm[r] = |x_r|. */
#define NORMS(SUFFIX, NUMBER, SIZE)                                                                            \
    CLONES void norms_##SUFFIX(const char *x, int64_t rows, int64_t width, float *norm) {                      \
        for (int64_t r = 0; r < rows; r++, x += width * SIZE) {                                                \
            float sum = 0;                                                                                     \
            _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < width; i++) {                       \
                float value = NUMBER(x, i);                                                                    \
                sum += value * value;                                                                          \
            }                                                                                                  \
            norm[r] = sqrtf(sum);                                                                              \
        }                                                                                                      \
    }
NORMS(f32, number_f32, 4)
NORMS(bf16, number_bf16, 2)

INLINE float sum(const float *lanes) {
    float sum = 0;
    _Pragma("omp simd reduction(+ : sum)") for (int64_t l = 0; l < LANES; l++) sum += lanes[l];
    return sum;
}

/* Strengths are compared as the bits they are: numbers that are not negative are ordered alike, a NaN before all. */
INLINE int32_t bits_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* A number that is not larger than the k-th largest of all: the k-th largest of the largest of each comb. */
INLINE int32_t threshold(const int32_t *top, int64_t k) {
    int32_t left[LANES], largest = 0;
    memcpy(left, top, sizeof left);
    for (int64_t j = 0; j < k; j++) {
        largest = 0;
        _Pragma("omp simd reduction(max : largest)") for (int64_t l = 0; l < LANES; l++) largest =
            left[l] > largest ? left[l] : largest;
        _Pragma("omp simd") for (int64_t l = 0; l < LANES; l++) left[l] = left[l] == largest ? 0 : left[l];
    }
    return largest;
}

/* The k largest of `count` numbers, largest first, of equal ones the one that stands first. What is behind them in
   `found` is negative. */
INLINE void sorted(const int32_t *found, const int32_t *at, int64_t count, int64_t k, int32_t *best, int64_t *place) {
    int64_t room = whole_vectors(count, MOST);
    for (int64_t j = 0; j < count; j++) {
        int32_t before = 0, value = found[j], own = at[j];
        _Pragma("omp simd reduction(+ : before)") for (int64_t i = 0; i < room; i++) before +=
            (found[i] > value) | ((found[i] == value) & (at[i] < own));
        if (before < k) {
            best[before] = value;
            place[before] = own;
        }
    }
}

/* Put a number among the `count` of at most k best; equal ones stand in the order in which they come. */
INLINE int64_t insert(int32_t *best, int64_t *place, int64_t count, int64_t k, int32_t value, int64_t at) {
    if (count == k && value <= best[k - 1]) return count;
    int64_t to = count < k ? count++ : k - 1;
    for (; to > 0 && best[to - 1] < value; to--) {
        best[to] = best[to - 1];
        place[to] = place[to - 1];
    }
    best[to] = value;
    place[to] = at;
    return count;
}

/* The k strongest neurons of each row, strength |a_i| * column_i, with their activations; |a_r| and |strength_r|.

   One pass finds the largest of each comb, of every LANES-th number of TEETH; only combs that reach the threshold are
   looked through. Where that leaves too many, because many are equal, all are. `room` holds 5 bytes for each comb. */
#define PEAKS(SUFFIX, NUMBER, SIZE)                                                                            \
    CLONES void peaks_##SUFFIX(const char *a, int64_t rows, int64_t width, const float *column, int64_t k,     \
                               int32_t *room, float *norm, float *write_norm, int64_t *neuron, float *value,   \
                               float *write) {                                                                 \
        int64_t groups = (width + LANES * TEETH - 1) / (LANES * TEETH);                                        \
        uint8_t *strong = (uint8_t *)(room + groups * LANES);                                                  \
        for (int64_t r = 0; r < rows; r++, a += width * SIZE) {                                                \
            float own[LANES] = {0}, all[LANES] = {0};                                                          \
            int32_t overall[LANES] = {0};                                                                      \
            for (int64_t g = 0; g < groups; g++) {                                                             \
                int64_t first = g * LANES * TEETH, end = first + LANES * TEETH < width ? first + LANES * TEETH : width; \
                int32_t top[LANES] = {0};                                                                      \
                int64_t i = first;                                                                             \
                for (; i + LANES <= end; i += LANES) {                                                         \
                    _Pragma("omp simd") for (int64_t l = 0; l < LANES; l++) {                                  \
                        float x = NUMBER(a, i + l), s = fabsf(x * column[i + l]);                              \
                        int32_t bits = bits_of(s);                                                             \
                        own[l] += x * x;                                                                       \
                        all[l] += s * s;                                                                       \
                        top[l] = bits > top[l] ? bits : top[l];                                                \
                    }                                                                                          \
                }                                                                                              \
                for (int64_t l = 0; i + l < end; l++) {                                                        \
                    float x = NUMBER(a, i + l), s = fabsf(x * column[i + l]);                                  \
                    int32_t bits = bits_of(s);                                                                 \
                    own[l] += x * x;                                                                           \
                    all[l] += s * s;                                                                           \
                    top[l] = bits > top[l] ? bits : top[l];                                                    \
                }                                                                                              \
                _Pragma("omp simd") for (int64_t l = 0; l < LANES; l++) {                                      \
                    room[g * LANES + l] = top[l];                                                              \
                    overall[l] = top[l] > overall[l] ? top[l] : overall[l];                                    \
                }                                                                                              \
            }                                                                                                  \
            norm[r] = sqrtf(sum(own));                                                                         \
            write_norm[r] = sqrtf(sum(all));                                                                   \
            int32_t best[LANES], found[MOST], at[MOST], least = threshold(overall, k);                         \
            int64_t place[LANES], count = 0;                                                                   \
            _Pragma("omp simd") for (int64_t c = 0; c < groups * LANES; c++) strong[c] = room[c] >= least;     \
            for (int64_t c = 0; c < groups * LANES; c += 8) {                                                  \
                uint64_t any;                                                                                  \
                memcpy(&any, strong + c, 8);                                                                   \
                for (; any; any &= any - 1) {                                                                  \
                    int64_t comb = c + LOWEST_BIT(any) / 8;                                                    \
                    int64_t first = comb / LANES * LANES * TEETH + comb % LANES, end = first + LANES * TEETH;  \
                    for (int64_t i = first; i < end && i < width; i += LANES) {                                \
                        found[count] = bits_of(fabsf(NUMBER(a, i) * column[i]));                               \
                        at[count] = (int32_t)i;                                                                \
                        count += (found[count] >= least) & (count < MOST - 1);                                 \
                    }                                                                                          \
                }                                                                                              \
            }                                                                                                  \
            if (count < MOST - 1) {                                                                            \
                for (int64_t i = count; i < whole_vectors(count, MOST); i++) found[i] = -1;                    \
                sorted(found, at, count, k, best, place);                                                      \
            } else {                                                                                           \
                count = 0;                                                                                     \
                for (int64_t i = 0; i < width; i++)                                                            \
                    count = insert(best, place, count, k, bits_of(fabsf(NUMBER(a, i) * column[i])), i);        \
            }                                                                                                  \
            for (int64_t j = 0; j < k; j++) {                                                                  \
                neuron[r * k + j] = place[j];                                                                  \
                value[r * k + j] = NUMBER(a, place[j]);                                                        \
                memcpy(write + r * k + j, best + j, 4);                                                        \
            }                                                                                                  \
        }                                                                                                      \
    }
PEAKS(f32, number_f32, 4)
PEAKS(bf16, number_bf16, 2)

/* dot[r] = sum_j value_rj * columns[neuron_rj] . (y_r - bias); norm[r] = |y_r - bias|. `columns` is W transposed, of
   y's type; bias is float32 [width], zeros where there is none. */
#define EXPLAINED(SUFFIX, NUMBER, SIZE)                                                                        \
    CLONES void explained_##SUFFIX(const char *y, int64_t rows, int64_t width, const float *bias,              \
                                   const char *columns, int64_t k, const int64_t *neuron, const float *value,  \
                                   float *output, float *dot, float *norm) {                                   \
        for (int64_t r = 0; r < rows; r++, y += width * SIZE) {                                                \
            float own = 0, total = 0;                                                                          \
            _Pragma("omp simd reduction(+ : own)") for (int64_t i = 0; i < width; i++) {                       \
                float x = NUMBER(y, i) - bias[i];                                                              \
                output[i] = x;                                                                                 \
                own += x * x;                                                                                  \
            }                                                                                                  \
            for (int64_t j = 0; j < k; j++) {                                                                  \
                const char *column = columns + neuron[r * k + j] * width * SIZE;                               \
                float sum = 0;                                                                                 \
                _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < width; i++)                     \
                    sum += NUMBER(column, i) * output[i];                                                      \
                total += value[r * k + j] * sum;                                                               \
            }                                                                                                  \
            dot[r] = total;                                                                                    \
            norm[r] = sqrtf(own);                                                                              \
        }                                                                                                      \
    }
EXPLAINED(f32, number_f32, 4)
EXPLAINED(bf16, number_bf16, 2)
