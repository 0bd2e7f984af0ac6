/* The decoder for vectors of LANES floats, of which `down` takes COLUMNS at once; included by _kernels.c. */

#define NAME(name) NAMED(name##_, LANES)
#define INLINE static inline __attribute__((always_inline TARGET))
#define ROWS 4
#define vector NAME(vector)

/* Floats are read and written wherever they are. */
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#ifdef __clang__
#define REVERSED(a) __builtin_shufflevector(a, a, BACKWARDS)
#else
typedef int32_t NAME(numbers) __attribute__((vector_size(4 * LANES)));
#define REVERSED(a) __builtin_shuffle(a, (NAME(numbers)){BACKWARDS})
#endif

/* halfway[u][x] = sum over v < count of spectrum[u][v] basis[v][x], for ROWS rows. */
INLINE void NAME(across_plain)(const float *spectrum, int stride, int count, const float *basis, int width,
                               float *halfway) {
    for (int x = 0; x < width; x += LANES) {
        vector sum[ROWS] = {{0}};
        for (int v = 0; v < count; v++) {
            vector weights = *(const vector *)(basis + v * MAX_SIDE + x);
            for (int i = 0; i < ROWS; i++) sum[i] += weights * spectrum[i * stride + v];
        }
        for (int i = 0; i < ROWS; i++) *(vector *)(halfway + i * STRIDE + x) = sum[i];
    }
}

/* The same for widths of whole pairs of vectors: even v are alike, odd v opposite, seen from both ends of x. */
INLINE void NAME(across_folded)(const float *spectrum, int stride, int count, const float *basis, int width,
                                float *halfway) {
    for (int x = 0; x < width / 2; x += LANES) {
        vector even[ROWS] = {{0}}, odd[ROWS] = {{0}};
        for (int v = 0; v < count; v += 2) {
            vector first = *(const vector *)(basis + v * MAX_SIDE + x);
            vector second = *(const vector *)(basis + (v + 1) * MAX_SIDE + x);
            for (int i = 0; i < ROWS; i++) {
                even[i] += first * spectrum[i * stride + v];
                odd[i] += second * spectrum[i * stride + v + 1];
            }
        }
        for (int i = 0; i < ROWS; i++) {
            vector difference = even[i] - odd[i];
            *(vector *)(halfway + i * STRIDE + x) = even[i] + odd[i];
            *(vector *)(halfway + i * STRIDE + width - LANES - x) = REVERSED(difference);
        }
    }
}

INLINE void NAME(across)(const float *spectrum, int stride, const int *length, int rows, const float *basis,
                         int width, float *halfway) {
    for (int u = 0; u < rows; u += ROWS) {
        int count = larger(larger(length[u], length[u + 1]), larger(length[u + 2], length[u + 3]));
        if (width % (2 * LANES))
            NAME(across_plain)(spectrum + u * stride, stride, count, basis, width, halfway + u * STRIDE);
        else
            NAME(across_folded)(spectrum + u * stride, stride, count, basis, width, halfway + u * STRIDE);
    }
}

/* pixels[y][x] = sum over u < rows of basis[u][y] halfway[u][x] for LANES * COLUMNS columns; folded like the above,
 * so that the row after an odd number of rows must be zero. */
INLINE void NAME(down)(const float *halfway, int rows, const float *basis, int height, float *pixels) {
    int first_half = (height + 1) / 2;
    for (int y = 0; y < first_half; y += ROWS) {
        vector even[ROWS][COLUMNS] = {{{0}}}, odd[ROWS][COLUMNS] = {{{0}}};
        for (int u = 0; u < rows; u += 2) {
            const float *weights = basis + u * (MAX_SIDE / 2) + y;
            const vector *first = (const vector *)(halfway + u * STRIDE);
            const vector *second = (const vector *)(halfway + (u + 1) * STRIDE);
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < COLUMNS; j++) {
                    even[i][j] += first[j] * weights[i];
                    odd[i][j] += second[j] * weights[MAX_SIDE / 2 + i];
                }
        }
        for (int i = 0; i < ROWS && y + i < first_half; i++)
            for (int j = 0; j < COLUMNS; j++) {
                ((vector *)(pixels + (y + i) * STRIDE))[j] = even[i][j] + odd[i][j];
                ((vector *)(pixels + (height - 1 - y - i) * STRIDE))[j] = even[i][j] - odd[i][j];
            }
    }
}

/* Writes the first `count` of a vector's numbers. */
INLINE void NAME(store)(float *to, const vector *from, int count) {
    if (count >= LANES)
        *(vector *)to = *from;
    else
        memcpy(to, from, count * sizeof(float));
}

/* Writes the pixels of a group of tiles into the image, three channels mapped. */
INLINE void NAME(mix)(const plan_t *plan, float (*pixels)[MAX_SIDE * STRIDE], int height, int width, float *image) {
    float m[MIXED * MIXED], offset[MIXED];
    size_t plane = (size_t)plan->height * plan->width;
    memcpy(m, plan->matrix, sizeof m);
    memcpy(offset, plan->offset, sizeof offset);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x += LANES) {
            const float *from = pixels[0] + y * STRIDE + x;
            float *to = image + (size_t)y * plan->width + x;
            vector a = *(const vector *)from, b = *(const vector *)(from + MAX_SIDE * STRIDE),
                   c = *(const vector *)(from + 2 * MAX_SIDE * STRIDE);
            vector red = a * m[0] + b * m[1] + c * m[2] + offset[0];
            vector green = a * m[3] + b * m[4] + c * m[5] + offset[1];
            vector blue = a * m[6] + b * m[7] + c * m[8] + offset[2];
            NAME(store)(to, &red, width - x);
            NAME(store)(to + plane, &green, width - x);
            NAME(store)(to + 2 * plane, &blue, width - x);
        }
}

/* The same of channel k alone, whose matrix is diagonal. */
INLINE void NAME(map_one)(const plan_t *plan, const float *pixels, int k, int height, int width, float *image) {
    float scale = plan->matrix[(size_t)k * plan->channels + k], offset = plan->offset[k];
    float *plane = image + (size_t)k * plan->height * plan->width;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x += LANES) {
            vector value = *(const vector *)(pixels + y * STRIDE + x) * scale + offset;
            NAME(store)(plane + (size_t)y * plan->width + x, &value, width - x);
        }
}

/* Takes each row of the result from a row of the image, in runs of columns that go up or down by one. */
INLINE int NAME(rearrange)(const plan_t *plan, const float *image, const int64_t *rows, const int64_t *columns,
                           float *out) {
    int height = plan->height, width = plan->width;
    for (int y = 0; y < height; y++)
        if (rows[y] < 0 || rows[y] >= height) return OUTSIDE;
    for (int x = 0; x < width; x++)
        if (columns[x] < 0 || columns[x] >= width) return OUTSIDE;
    for (int start = 0, end; start < width; start = end) {
        int64_t from = columns[start], step = start + 1 < width && columns[start + 1] < from ? -1 : 1;
        for (end = start + 1; end < width && columns[end] == columns[end - 1] + step; end++) {
        }
        for (int k = 0; k < plan->channels; k++)
            for (int y = 0; y < height; y++) {
                const float *restrict source = image + ((size_t)k * height + rows[y]) * width + from;
                float *restrict target = out + ((size_t)k * height + y) * width + start;
                if (step > 0)
                    for (int x = 0; x < end - start; x++) target[x] = source[x];
                else
                    for (int x = 0; x < end - start; x++) target[x] = source[-x];
            }
    }
    return DONE;
}

/* Reads the low frequencies of a tile into the spectrum; returns its rows, as far as the extent lets them be. */
INLINE int NAME(load_tile)(const plan_t *plan, const int16_t *values, int extent, int stride, scratch_t *s) {
    int rows = smaller(extent + 1, plan->tile_height), width = plan->tile_width;
    for (int u = 0; u < rows; u++) {
        s->length[u] = smaller(extent - u + 1, width);
        /* Some more than that, as the rows that are multiplied with it are longer; they are zero. */
        int count = smaller(round_up(s->length[u / ROWS * ROWS], 8), width);
        const int16_t *restrict from = values + u * plan->block_width;
        float *restrict to = s->spectrum + u * stride;
        for (int v = 0; v < count; v++) to[v] = from[v];
    }
    for (int u = rows; u % ROWS; u++) {
        s->length[u] = 0;
        memset(s->spectrum + u * stride, 0, stride * sizeof(float));
    }
    return rows;
}

/* One plane of a group of tiles that lie side by side. */
INLINE void NAME(decode_group)(const plan_t *plan, const int16_t *values, const uint16_t *extents, int count,
                               int stride, scratch_t *s, float *pixels) {
    int rows[GROUP], width = plan->tile_width, size = plan->block_height * plan->block_width;
    for (int t = 0; t < count; t++) {
        rows[t] = NAME(load_tile)(plan, values + (size_t)t * size, extents[t], stride, s);
        NAME(across)(s->spectrum, stride, s->length, rows[t], plan->across, width, s->halfway + t * width);
    }
    for (int x = 0; x < count * width; x += LANES * COLUMNS) {
        /* Narrow tiles are multiplied together, over the rows of the tallest. */
        int first = x / width, last = smaller(count - 1, (x + LANES * COLUMNS - 1) / width), most = 0;
        for (int t = first; t <= last; t++) most = larger(most, rows[t]);
        for (int t = first; t <= last; t++)
            for (int u = round_up(rows[t], ROWS); u < round_up(most, 2); u++)
                memset(s->halfway + u * STRIDE + t * width, 0, width * sizeof(float));
        NAME(down)(s->halfway + x, most, plan->down, plan->tile_height, pixels + x);
    }
}

INLINE void NAME(decode_tiles)(const plan_t *plan, const int16_t *values, const uint16_t *extents, int stride,
                               scratch_t *s, float *image) {
    int tiles = plan->grid_height * plan->grid_width, size = plan->block_height * plan->block_width;
    int group = larger(1, GROUP / plan->tile_width), mixed = plan->channels == MIXED;
    for (int top = 0; top < plan->grid_height; top++)
        for (int left = 0; left < plan->grid_width; left += group) {
            int count = smaller(group, plan->grid_width - left);
            int y = top * plan->tile_height, x = left * plan->tile_width;
            int height = smaller(plan->tile_height, plan->height - y);
            int width = smaller(count * plan->tile_width, plan->width - x);
            float *corner = image + (size_t)y * plan->width + x;
            for (int k = 0; k < plan->channels; k++) {
                size_t first = (size_t)k * tiles + top * plan->grid_width + left;
                float *pixels = s->pixels[mixed ? k : 0];
                NAME(decode_group)(plan, values + first * size, extents + first, count, stride, s, pixels);
                if (!mixed) NAME(map_one)(plan, pixels, k, height, width, corner);
            }
            if (mixed) NAME(mix)(plan, s->pixels, height, width, corner);
        }
}

/* Scatters the low frequencies of one plane, whose positions ascend, into the spectrum; returns its rows. */
#define SCATTER(name, position)                                                                            \
    INLINE int NAME(name)(const plan_t *plan, const float *restrict values, const position *restrict positions, \
                          int stride, float *restrict spectrum, int *restrict length) {                    \
        int bits = plan->column_bits, count = plan->components, padded = round_up(plan->tile_height, ROWS); \
        uint32_t mask = (1u << bits) - 1, height = plan->tile_height;                                      \
        memset(spectrum, 0, padded * stride * sizeof(float));                                              \
        memset(length, 0xff, padded * sizeof(int));                                                        \
        while (count && (uint32_t)positions[count - 1] >> bits >= height) count--;                         \
        /* Whatever the positions are, nothing is written outside; each row keeps its last column. */       \
        if (mask + 1 == (uint32_t)stride)                                                                  \
            for (int i = 0; i < count; i++) {                                                              \
                uint32_t at = positions[i] & (MAX_SIDE * stride - 1);                                      \
                spectrum[at] = values[i];                                                                  \
                length[at / stride] = at % stride;                                                         \
            }                                                                                              \
        else                                                                                               \
            for (int i = 0; i < count; i++) {                                                              \
                uint32_t row = (positions[i] >> bits) & (MAX_SIDE - 1), column = positions[i] & mask;      \
                spectrum[row * stride + column] = values[i];                                               \
                length[row] = column;                                                                      \
            }                                                                                              \
        for (int u = 0; u < padded; u++) length[u] = smaller(length[u] + 1, plan->tile_width);             \
        return count ? (int)((uint32_t)positions[count - 1] >> bits) + 1 : 0;                              \
    }

SCATTER(scatter_short, uint16_t)
SCATTER(scatter_long, uint32_t)

INLINE void NAME(decode_sparse)(const plan_t *plan, const float *values, const char *positions, int stride,
                                scratch_t *s, float *image) {
    int mixed = plan->channels == MIXED;
    for (int k = 0; k < plan->channels; k++, values += plan->components) {
        float *pixels = s->pixels[mixed ? k : 0];
        const char *at = positions + (size_t)k * plan->components * plan->position_bytes;
        int rows = plan->position_bytes == 2
                       ? NAME(scatter_short)(plan, values, (const uint16_t *)at, stride, s->spectrum, s->length)
                       : NAME(scatter_long)(plan, values, (const uint32_t *)at, stride, s->spectrum, s->length);
        NAME(across)(s->spectrum, stride, s->length, rows, plan->across, plan->tile_width, s->halfway);
        for (int x = 0; x < plan->tile_width; x += LANES * COLUMNS)
            NAME(down)(s->halfway + x, rows, plan->down, plan->tile_height, pixels + x);
        if (!mixed) NAME(map_one)(plan, pixels, k, plan->height, plan->width, image);
    }
    if (mixed) NAME(mix)(plan, s->pixels, plan->height, plan->width, image);
}

/* Asks for an image that is decoded next, from where the processor cannot guess; a large one comes as it goes. */
INLINE void NAME(fetch)(const char *memory, size_t bytes) {
    for (size_t at = 0; at < bytes && at < 16384; at += 64) __builtin_prefetch(memory + at);
}

/* `stride` is a constant here, which the compiler folds into the addresses. */
INLINE int NAME(decode_images)(const plan_t *plan, const batch_t *batch, int stride, scratch_t *s, float *whole) {
    size_t size = (size_t)plan->channels * plan->height * plan->width;
    size_t spectra = (size_t)plan->channels * plan->grid_height * plan->grid_width;
    size_t tile = (size_t)plan->block_height * plan->block_width, components = plan->components;
    size_t values_bytes = spectra * (batch->sparse ? components * sizeof(float) : tile * sizeof(int16_t));
    size_t others_bytes = spectra * (batch->sparse ? components * plan->position_bytes : sizeof(uint16_t));
    int64_t share = size < SHARE ? SHARE / size : 1, i, first;
    int status = DONE;
    while (status == DONE && (first = __atomic_fetch_add(batch->next, share, __ATOMIC_RELAXED)) < batch->count)
        for (i = first; i < first + share && i < batch->count && status == DONE; i++) {
            const char *values = batch->values + batch->indices[i] * values_bytes;
            const char *others = batch->others + batch->indices[i] * others_bytes;
            float *target = batch->out + i * size, *image = batch->rows ? whole : target;
            if (i + 1 < batch->count) {
                NAME(fetch)(batch->values + batch->indices[i + 1] * values_bytes, values_bytes);
                NAME(fetch)(batch->others + batch->indices[i + 1] * others_bytes, others_bytes);
            }
            if (batch->sparse)
                NAME(decode_sparse)(plan, (const float *)values, others, stride, s, image);
            else
                NAME(decode_tiles)(plan, (const int16_t *)values, (const uint16_t *)others, stride, s, image);
            if (batch->rows)
                status = NAME(rearrange)(plan, image, batch->rows + i * plan->height,
                                         batch->columns + i * plan->width, target);
        }
    return status;
}

__attribute__((unused TARGET)) static int NAME(decode)(const plan_t *plan, const batch_t *batch) {
    size_t size = (size_t)plan->channels * plan->height * plan->width;
    char *memory = malloc(sizeof(scratch_t) + 64 + (batch->rows ? size * sizeof(float) : 0));
    if (!memory) return NO_MEMORY;
    scratch_t *scratch = (scratch_t *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    float *whole = (float *)(scratch + 1);
    int status = larger(plan->block_height, plan->block_width) <= 32
                     ? NAME(decode_images)(plan, batch, 32, scratch, whole)
                     : NAME(decode_images)(plan, batch, MAX_SIDE, scratch, whole);
    free(memory);
    return status;
}

#undef NAME
#undef INLINE
#undef ROWS
#undef vector
#undef REVERSED
#undef SCATTER
#undef BACKWARDS
#undef TARGET
#undef COLUMNS
#undef LANES
