/* Reductions over the rows of matrices, one pass each. Sums are kept in float32 lanes, as torch keeps them.

   Matrices are [rows, width] with contiguous rows; each function comes for float32 and for bfloat16. */
#include "kernels.h"

#define BLOCK 32  /* numbers of a row whose largest is found together */
#define MOST 256  /* largest k */

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

/* Keep `value` among the `count` of at most k best, best first; equal ones in the order in which they come. Numbers
   that are not negative are ordered as their bits are, and a NaN comes before all of them. */
INLINE int64_t keep(int32_t *best, int64_t *place, int64_t count, int64_t k, int32_t value, int64_t at) {
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

   `strength` is room for width + BLOCK numbers, `tops` for one number of each block. */
#define PEAKS(SUFFIX, NUMBER, SIZE)                                                                            \
    CLONES void peaks_##SUFFIX(const char *a, int64_t rows, int64_t width, const float *column, int64_t k,     \
                               int32_t *strength, int32_t *tops, float *norm, float *write_norm,               \
                               int64_t *neuron, float *value, float *write) {                                  \
        int64_t blocks = (width + BLOCK - 1) / BLOCK;                                                          \
        memset(strength + width, 0, BLOCK * sizeof(int32_t));                                                  \
        for (int64_t r = 0; r < rows; r++, a += width * SIZE) {                                                \
            float *written = (float *)strength, own = 0, all = 0;                                              \
            _Pragma("omp simd reduction(+ : own, all)") for (int64_t i = 0; i < width; i++) {                  \
                float x = NUMBER(a, i), s = fabsf(x * column[i]);                                              \
                own += x * x;                                                                                  \
                all += s * s;                                                                                  \
                written[i] = s;                                                                                \
            }                                                                                                  \
            for (int64_t b = 0; b < blocks; b++) {                                                             \
                int32_t top = 0;                                                                               \
                _Pragma("omp simd reduction(max : top)") for (int64_t i = 0; i < BLOCK; i++) {                 \
                    int32_t s = strength[b * BLOCK + i];                                                       \
                    top = s > top ? s : top;                                                                   \
                }                                                                                              \
                tops[b] = top;                                                                                 \
            }                                                                                                  \
            int32_t best[MOST], least = 0; /* the k-th largest top: no smaller number is among the k largest */ \
            int64_t place[MOST], count = 0;                                                                    \
            for (int64_t b = 0; b < blocks; b++) count = keep(best, place, count, k, tops[b], b);              \
            if (count == k) least = best[k - 1];                                                               \
            count = 0;                                                                                         \
            for (int64_t b = 0; b < blocks; b++) {                                                             \
                if (tops[b] < least) continue;                                                                 \
                int64_t end = (b + 1) * BLOCK < width ? (b + 1) * BLOCK : width;                               \
                for (int64_t i = b * BLOCK; i < end; i++)                                                      \
                    if (strength[i] >= least) count = keep(best, place, count, k, strength[i], i);             \
            }                                                                                                  \
            norm[r] = sqrtf(own);                                                                              \
            write_norm[r] = sqrtf(all);                                                                        \
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
