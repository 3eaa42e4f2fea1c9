/* Statistics of the columns of a table: rows are prompts, columns are neurons. */
#include "kernels.h"

#define STRIP 512 /* columns at a time: a run of memory for each row, and sums that stay in the first cache */

/* Mean and sum of squared deviations of each column, [width] each, over the rows `chosen` of x, or of x − y where y is not
   null; rows lie `stride` numbers apart. Deviations are counted from the first row, in double precision; the mean of a
   column that holds NaN or infinity is none. */
CLONES void moments_f32(const float *x, const float *y, const int64_t *chosen, int64_t rows, int64_t stride,
                        int64_t width, double *mean, double *squares) {
    for (int64_t start = 0; start < width; start += STRIP) {
        int64_t length = width - start < STRIP ? width - start : STRIP;
        double first[STRIP], sum[STRIP] = {0}, square[STRIP] = {0};
        for (int64_t row = 0; row < rows; row++) {
            const float *here = x + chosen[row] * stride + start, *other = y ? y + chosen[row] * stride + start : 0;
            if (row == 0) {
                for (int64_t i = 0; i < length; i++) first[i] = (double)here[i] - (y ? (double)other[i] : 0.0);
            } else if (y) {
#pragma omp simd
                for (int64_t i = 0; i < length; i++) {
                    double apart = (double)here[i] - (double)other[i] - first[i];
                    sum[i] += apart;
                    square[i] += apart * apart;
                }
            } else {
#pragma omp simd
                for (int64_t i = 0; i < length; i++) {
                    double apart = (double)here[i] - first[i];
                    sum[i] += apart;
                    square[i] += apart * apart;
                }
            }
        }
        for (int64_t i = 0; i < length; i++) {
            mean[start + i] = first[i] + sum[i] / (double)rows;
            squares[start + i] = fmax(square[i] - sum[i] * sum[i] / (double)rows, 0.0);
        }
    }
}

/* A number as an integer that sorts alike; −0 and 0 are the same. */
INLINE uint32_t sortable(float value) {
    uint32_t bits;
    value += 0.0f;
    memcpy(&bits, &value, 4);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

#define DIGIT 8
#define PASSES 4
#define BUCKETS (1 << DIGIT)
#define FEW 48

/* Sorts `count` keys; `spare` has room for as many. The result is in `keys`. */
INLINE void sort_keys(uint32_t *keys, uint32_t *spare, int64_t count) {
    if (count <= FEW) {
        for (int64_t i = 1; i < count; i++) {
            uint32_t key = keys[i];
            int64_t j = i;
            for (; j > 0 && keys[j - 1] > key; j--) keys[j] = keys[j - 1];
            keys[j] = key;
        }
        return;
    }
    uint32_t places[PASSES][BUCKETS] = {{0}};
    for (int64_t i = 0; i < count; i++)
        for (int pass = 0; pass < PASSES; pass++) places[pass][keys[i] >> (DIGIT * pass) & (BUCKETS - 1)]++;
    uint32_t *from = keys, *to = spare;
    for (int pass = 0; pass < PASSES; pass++) {
        uint32_t before = 0, *place = places[pass];
        if (place[from[0] >> (DIGIT * pass) & (BUCKETS - 1)] == (uint32_t)count) continue;
        for (int64_t bucket = 0; bucket < BUCKETS; bucket++) {
            uint32_t here = place[bucket];
            place[bucket] = before;
            before += here;
        }
        for (int64_t i = 0; i < count; i++) to[place[from[i] >> (DIGIT * pass) & (BUCKETS - 1)]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != keys) memcpy(keys, from, count * sizeof *keys);
}

/* Twice the pairs in which the first class is larger, of sorted keys. Returns 0 where anything is tied: without a branch
   that depends on the keys, which no processor could foresee. */
INLINE int count_wins(const uint32_t *one, int64_t ones, const uint32_t *zero, int64_t zeros, double *won) {
    int64_t below = 0, at_one = 0, at_zero = 0;
    uint32_t tied = 0;
    for (int64_t i = 1; i < ones; i++) tied |= one[i] == one[i - 1];
    for (int64_t i = 1; i < zeros; i++) tied |= zero[i] == zero[i - 1];
    while (at_one < ones && at_zero < zeros) {
        int64_t smaller = zero[at_zero] < one[at_one];
        tied |= zero[at_zero] == one[at_one];
        below += (smaller - 1) & at_zero;
        at_zero += smaller;
        at_one += 1 - smaller;
    }
    *won = 2 * ((double)below + (double)(ones - at_one) * (double)zeros);
    return !tied;
}

INLINE int64_t run_length(const uint32_t *keys, int64_t start, int64_t count, uint32_t key) {
    int64_t stop = start;
    while (stop < count && keys[stop] == key) stop++;
    return stop - start;
}

INLINE void count_with_ties(const uint32_t *one, int64_t ones, const uint32_t *zero, int64_t zeros, double *won,
                            double *tied) {
    *won = *tied = 0;
    for (int64_t at_one = 0, at_zero = 0; at_one < ones || at_zero < zeros;) {
        int from_one = at_zero == zeros || (at_one < ones && one[at_one] <= zero[at_zero]);
        uint32_t key = from_one ? one[at_one] : zero[at_zero];
        int64_t of_one = run_length(one, at_one, ones, key), of_zero = run_length(zero, at_zero, zeros, key);
        double group = (double)(of_one + of_zero);
        *won += (double)of_one * (double)(2 * at_zero + of_zero);
        *tied += group * (group * group - 1);
        at_one += of_one;
        at_zero += of_zero;
    }
}

/* Of each column: `wins`, twice the number of pairs (row of class 1, row of class 0) in which class 1 is larger, a tie
   counting half; `ties`, the sum of t³ − t over groups of t equal numbers; `counts`, the rows of class 1 and 0, [width, 2].
   `labels`: 0 or 1 for each row. NaN is left out. `room`: 2 · rows + 16 · rows numbers of 4 bytes. */
CLONES void ranks_f32(const float *x, int64_t rows, int64_t stride, int64_t width, const uint8_t *labels, uint32_t *room,
                      double *wins, double *ties, double *counts) {
    uint32_t *keys = room, *spare = room + rows;
    float *tile = (float *)(room + 2 * rows); /* 16 columns, one after the other: a row of memory is read once */
    for (int64_t start = 0; start < width; start += 16) {
        int64_t columns = width - start < 16 ? width - start : 16;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < columns; i++) tile[i * rows + row] = x[row * stride + start + i];
        for (int64_t i = 0; i < columns; i++) {
            int64_t ones = 0, zeros = 0;
            for (int64_t row = 0; row < rows; row++) { /* class 1 from the front, class 0 from the back */
                float value = tile[i * rows + row];
                if (value != value) continue;
                if (labels[row]) keys[ones++] = sortable(value);
                else keys[rows - ++zeros] = sortable(value);
            }
            uint32_t *one = keys, *zero = keys + rows - zeros;
            sort_keys(one, spare, ones);
            sort_keys(zero, spare, zeros);
            double won = 0, tied = 0;
            if (!count_wins(one, ones, zero, zeros, &won)) count_with_ties(one, ones, zero, zeros, &won, &tied);
            wins[start + i] = won;
            ties[start + i] = tied;
            counts[2 * (start + i)] = (double)ones;
            counts[2 * (start + i) + 1] = (double)zeros;
        }
    }
}
