/* One pass over the edges of attention, A[q,k] <v_k, r_q>: the strongest of each query and the sums of the others, as
   recorder/routes/edges.py finds them in many. */
#include "kernels.h"

#define TOGETHER 16 /* edges that are compared at once */
#define MOST 64     /* k is not larger */

/* The strongest edges so far, strongest first: their sizes, and where they stand in the chunk. */
struct strongest {
    float *size;
    int64_t *at;
    int64_t count, k;
};

INLINE void keep(struct strongest *best, float size, int64_t at) {
    int64_t to = best->count < best->k ? best->count++ : best->k - 1;
    for (; to > 0 && best->size[to - 1] < size; to--) {
        best->size[to] = best->size[to - 1];
        best->at[to] = best->at[to - 1];
    }
    best->size[to] = size;
    best->at[to] = at;
}

/* Keep those of `count` edges that are larger than the smallest that is kept, `least`; gives that of afterwards. */
INLINE float choose(struct strongest *best, const float *row, int64_t count, int64_t at, float least) {
    for (int64_t j = 0; j < count; j++) {
        float size = fabsf(row[j]);
        if (!(size > least)) continue;
        keep(best, size, at + j);
        least = best->count < best->k ? 0 : best->size[best->k - 1];
    }
    return least;
}

/* A row of scores becomes weights that sum to 1 over the keys that are seen, of `end` keys. */
INLINE void normalise(float *row, const uint8_t *seen, int64_t end) {
    float most = HIDDEN, total = 0;
    if (seen) {
        _Pragma("omp simd") for (int64_t k = 0; k < end; k++) row[k] = seen[k] ? row[k] : HIDDEN;
    }
    _Pragma("omp simd reduction(max : most)") for (int64_t k = 0; k < end; k++) most = row[k] > most ? row[k] : most;
    _Pragma("omp simd reduction(+ : total)") for (int64_t k = 0; k < end; k++) {
        float weight = exponential(clamped(row[k] - most));
        weight = row[k] <= HIDDEN ? 0 : weight;
        total += weight;
        row[k] = weight;
    }
    float part = total > 0 ? 1 / total : 0;
    _Pragma("omp simd") for (int64_t k = 0; k < end; k++) row[k] *= part;
}

/* Queries start .. start + rows, keys low .. low + keys, both counted from the first token of a padded prompt.

   weights   [batch, heads, rows, keys]: scores, or with `applied` what multiplies the values; overwritten with edges
   along     [batch, heads, rows, keys]: what the value of each key is along what its query reads
   visible   bytes [batch, rows, keys], or NULL: each query sees the keys up to itself
   head, key, edge  [batch, tokens, k], from query 0 on: the strongest, strongest first; -1, -1 and NaN where too few
   other, other_size  [batch, tokens]: sums of all others, and of their sizes */
CLONES void edges_f32(float *weights, const float *along, const uint8_t *visible, int64_t batch, int64_t heads,
                      int64_t rows, int64_t keys, int64_t start, int64_t low, int64_t applied, int64_t tokens,
                      int64_t k, int32_t *head, int32_t *key, float *edge, float *other, float *other_size) {
    int64_t step = rows * keys; /* from a head to the next */
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t r = 0; r < rows; r++) {
            int64_t to = b * tokens + start + r;
            const uint8_t *seen = visible ? visible + (b * rows + r) * keys : 0;
            int64_t end = visible ? keys : start + r + 1 - low, first = (b * heads * rows + r) * keys;
            float sizes[MOST];
            int64_t room[MOST];
            struct strongest best = {sizes, room, 0, k};
            for (int64_t h = 0; h < heads; h++) {
                float *row = weights + first + h * step, largest = 0;
                const float *value = along + first + h * step;
                if (!applied) normalise(row, seen, end);
                if (applied && seen) {
                    _Pragma("omp simd") for (int64_t i = 0; i < end; i++) row[i] = seen[i] ? row[i] : 0;
                }
                _Pragma("omp simd reduction(max : largest)") for (int64_t i = 0; i < end; i++) {
                    float product = row[i] == 0 ? 0 : row[i] * value[i], size = fabsf(product);
                    row[i] = product;
                    largest = size > largest ? size : largest;
                }
                float least = best.count < k ? 0 : sizes[k - 1];
                if (largest <= least) continue;
                int64_t i = 0;
                for (; i + TOGETHER <= end; i += TOGETHER) {
                    int32_t any = 0;
                    _Pragma("omp simd reduction(| : any)") for (int64_t j = 0; j < TOGETHER; j++) any |=
                        fabsf(row[i + j]) > least;
                    if (any) least = choose(&best, row + i, TOGETHER, h * step + i, least);
                }
                choose(&best, row + i, end - i, h * step + i, least);
            }
            for (int64_t i = 0; i < k; i++) {
                int there = i < best.count;
                float *place = weights + first + (there ? room[i] : 0);
                head[to * k + i] = there ? (int32_t)(room[i] / step) : -1;
                key[to * k + i] = there ? (int32_t)(low + room[i] % step) : -1;
                edge[to * k + i] = there ? *place : NAN;
                if (there) *place = 0;
            }
            float sum = 0, size = 0;
            for (int64_t h = 0; h < heads; h++) {
                const float *row = weights + first + h * step;
                _Pragma("omp simd reduction(+ : sum, size)") for (int64_t i = 0; i < end; i++) {
                    sum += row[i];
                    size += fabsf(row[i]);
                }
            }
            other[to] = sum;
            other_size[to] = size;
        }
    }
}
