/* Reductions over the rows of a matrix, one pass each. Sums are kept in float32 lanes, as torch keeps them. */
#include "kernels.h"

/* out[r] = sum of squares of row r; x is float32 [rows, width], rows `stride` elements apart. */
CLONES void squares_f32(const float *x, int64_t rows, int64_t width, int64_t stride, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const float *row = x + r * stride;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) sum += row[i] * row[i];
        out[r] = sum;
    }
}
