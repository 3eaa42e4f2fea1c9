/* One pass over the edges of attention, A[q,k] <v_k, r_q>: the strongest of each query and the sums of the others, as
   recorder/routes/edges.py finds them in many. */
#include "kernels.h"

#define LANES 64      /* whose largest edges say which may be among the strongest; k is not larger */
#define TOGETHER 16   /* edges that are taken together */
#define CANDIDATES 256

/* Edges that may be among the k strongest: their sizes, and where they stand in the chunk. */
struct found {
    float size[CANDIDATES];
    int64_t at[CANDIDATES], count;
};

/* The k-th largest of the lanes: at least k edges are as large. 0 where fewer lanes hold any. */
INLINE float threshold(const float *top, int64_t k) {
    float left[LANES], largest = 0;
    memcpy(left, top, sizeof left);
    for (int64_t j = 0; j < k; j++) {
        largest = 0;
        _Pragma("omp simd reduction(max : largest)") for (int64_t l = 0; l < LANES; l++) largest =
            left[l] > largest ? left[l] : largest;
        if (largest == 0) break;
        _Pragma("omp simd") for (int64_t l = 0; l < LANES; l++) left[l] = left[l] == largest ? 0 : left[l];
    }
    return largest;
}

/* Take an edge; where there is no room, the smallest gives way, which only those behind the k strongest do. */
INLINE void take(struct found *all, float size, int64_t at) {
    int64_t place = all->count;
    if (place == CANDIDATES) {
        for (int64_t i = place = 0; i < CANDIDATES; i++) place = all->size[i] < all->size[place] ? i : place;
        if (size <= all->size[place]) return;
    } else {
        all->count++;
    }
    all->size[place] = size;
    all->at[place] = at;
}

/* Take those of `count` edges that are as large as the threshold, and not 0. */
INLINE void look(struct found *all, const float *row, int64_t count, int64_t at, float least) {
    int64_t i = 0;
    for (; i + TOGETHER <= count; i += TOGETHER) {
        int32_t large = 0;
        _Pragma("omp simd reduction(| : large)") for (int32_t j = 0; j < TOGETHER; j++) large |=
            (int32_t)(fabsf(row[i + j]) >= least) << j;
        for (; large; large &= large - 1) {
            int64_t j = i + __builtin_ctz(large);
            if (row[j] != 0) take(all, fabsf(row[j]), at + j);
        }
    }
    for (; i < count; i++)
        if (fabsf(row[i]) >= least && row[i] != 0) take(all, fabsf(row[i]), at + i);
}

/* A row of scores becomes weights that sum to 1 over the keys that are seen, of `end` keys. */
INLINE void normalise(float *row, const uint8_t *seen, int64_t own, int64_t end) {
    float most = HIDDEN, total = 0;
    if (seen) {
        _Pragma("omp simd") for (int64_t k = 0; k < end; k++) row[k] = seen[k] ? row[k] : HIDDEN;
    } else {
        for (int64_t k = own + 1; k < end; k++) row[k] = HIDDEN;
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
            int64_t to = b * tokens + start + r, own = start + r - low;
            const uint8_t *seen = visible ? visible + (b * rows + r) * keys : 0;
            int64_t end = visible ? keys : whole_vectors(own + 1, keys), first = (b * heads * rows + r) * keys;
            float top[LANES] = {0};
            for (int64_t h = 0; h < heads; h++) {
                float *row = weights + first + h * step;
                const float *value = along + first + h * step;
                if (!applied) {
                    normalise(row, seen, own, end);
                } else if (seen) {
                    _Pragma("omp simd") for (int64_t i = 0; i < end; i++) row[i] = seen[i] ? row[i] : 0;
                } else {
                    for (int64_t i = own + 1; i < end; i++) row[i] = 0;
                }
                int64_t i = 0;
                for (; i + TOGETHER <= end; i += TOGETHER) {
                    float *lane = top + ((i + h * TOGETHER) & (LANES - 1));
                    _Pragma("omp simd") for (int64_t j = 0; j < TOGETHER; j++) {
                        float product = row[i + j] == 0 ? 0 : row[i + j] * value[i + j], size = fabsf(product);
                        row[i + j] = product;
                        lane[j] = size > lane[j] ? size : lane[j];
                    }
                }
                for (int64_t j = 0; i < end; i++, j++) {
                    float *lane = top + ((h * TOGETHER + j) & (LANES - 1));
                    row[i] = row[i] == 0 ? 0 : row[i] * value[i];
                    *lane = fabsf(row[i]) > *lane ? fabsf(row[i]) : *lane;
                }
            }
            struct found all;
            all.count = 0;
            float least = threshold(top, k);
            for (int64_t h = 0; h < heads; h++) look(&all, weights + first + h * step, end, h * step, least);
            for (int64_t i = 0; i < k; i++) {
                head[to * k + i] = key[to * k + i] = -1;
                edge[to * k + i] = NAN;
            }
            int64_t padded = whole_vectors(all.count, CANDIDATES), kept[LANES], number = 0;
            for (int64_t i = all.count; i < padded; i++) all.size[i] = -1;
            for (int64_t i = 0; i < all.count; i++) {
                int32_t before = 0;
                float size = all.size[i];
                _Pragma("omp simd reduction(+ : before)") for (int64_t j = 0; j < padded; j++) before += all.size[j] > size;
                for (int64_t j = 0; before < k && j < i; j++) before += all.size[j] == size;
                if (before >= k) continue;
                head[to * k + before] = (int32_t)(all.at[i] / step);
                key[to * k + before] = (int32_t)(low + all.at[i] % step);
                edge[to * k + before] = weights[first + all.at[i]];
                kept[number++] = all.at[i];
            }
            for (int64_t i = 0; i < number; i++) weights[first + kept[i]] = 0;
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
