/* Convolutions of 3x3 by the minimal filtering algorithm F(4x4, 3x3) of Lavin and Gray (2016); see winograd.py.
 *
 * Images are [count, height, width, channels]. Some of them at a time become tiles [36, tiles, channels], which are
 * multiplied with the filters, plane by plane, and become outputs; all of it stays in the caches. Threads take images
 * of their own.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#define TARGET __attribute__((target("avx2,fma")))
#else
#define TARGET
#endif
#define INLINE TARGET static inline __attribute__((always_inline))

enum { LANES = 8, PANEL = 16, ROWS = 6, PLANES = 36, TILES = 96 };
enum { DONE = 0, NO_MEMORY = 1 };

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* Of one call; the tiles of an image are `down` times `across`. */
typedef struct {
    int64_t height, width, down, across, images, tiles, rows;
} grid_t;

static int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/* A step from row to row, or plane to plane, that no power of two divides, whose rows would share a set of the cache. */
static int64_t apart(int64_t values) { return values + PANEL; }

static grid_t make_grid(int64_t height, int64_t width) {
    grid_t g = {.height = height, .width = width, .down = (height + 3) / 4, .across = (width + 3) / 4};
    int64_t each = g.down * g.across;
    g.images = each < TILES ? TILES / each : 1;
    g.tiles = g.images * each;
    g.rows = round_up(g.tiles, ROWS);
    return g;
}

/* One dimension of B^T d. */
INLINE void input_line(const vec *d, int step, vec *out, int out_step) {
    vec a = d[step * 4] - 4 * d[step * 2], b = d[step * 3] - 4 * d[step];
    vec c = d[step * 4] - d[step * 2], e = 2 * (d[step * 3] - d[step]);
    out[0] = 4 * d[0] - 5 * d[step * 2] + d[step * 4];
    out[out_step] = a + b;
    out[out_step * 2] = a - b;
    out[out_step * 3] = c + e;
    out[out_step * 4] = c - e;
    out[out_step * 5] = 4 * d[step] - 5 * d[step * 3] + d[step * 5];
}

/* One dimension of A^T m. */
INLINE void output_line(const vec *m, int step, vec *out, int out_step) {
    vec a = m[step] + m[step * 2], b = m[step] - m[step * 2];
    vec c = m[step * 3] + m[step * 4], e = m[step * 3] - m[step * 4];
    out[0] = m[0] + a + c;
    out[out_step] = b + 2 * e;
    out[out_step * 2] = a + 4 * c;
    out[out_step * 3] = b + 8 * e + m[step * 5];
}

/* One dimension of A y. */
INLINE void gradient_line(const vec *y, int step, vec *out, int out_step) {
    vec a = y[0] + y[step * 2], b = y[step] + y[step * 3];
    vec c = y[0] + 4 * y[step * 2], e = 2 * y[step] + 8 * y[step * 3];
    out[0] = y[0];
    out[out_step] = a + b;
    out[out_step * 2] = a - b;
    out[out_step * 3] = c + e;
    out[out_step * 4] = c - e;
    out[out_step * 5] = y[step * 3];
}

/* Points at `side` times `side` pixels from (row, column) on, and at zeros outside of the image. */
static void point(const float **at, int side, const float *image, const grid_t *g, int64_t channels, int64_t row,
                  int64_t column, const float *zeros) {
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            int64_t y = row + i, x = column + j;
            int inside = y >= 0 && y < g->height && x >= 0 && x < g->width;
            at[side * i + j] = inside ? image + (y * g->width + x) * channels : zeros;
        }
}

/* Tiles of `count` images as [36, rows, channels], apart. */
TARGET static void input_tiles(const float *images, int64_t count, const grid_t *g, int64_t channels,
                               const float *zeros, float *tiles) {
    const float *at[PLANES];
    int64_t row = apart(channels), plane = apart(g->rows * row);
    for (int64_t n = 0; n < count; n++)
        for (int64_t ty = 0; ty < g->down; ty++)
            for (int64_t tx = 0; tx < g->across; tx++, tiles += row) {
                point(at, 6, images + n * g->height * g->width * channels, g, channels, 4 * ty - 1, 4 * tx - 1, zeros);
                for (int64_t c = 0; c < channels; c += LANES) {
                    vec d[PLANES], half[PLANES], out[PLANES];
                    for (int k = 0; k < PLANES; k++) d[k] = *(const vec *)(at[k] + c);
                    for (int j = 0; j < 6; j++) input_line(d + j, 6, half + j, 6);
                    for (int i = 0; i < 6; i++) input_line(half + 6 * i, 1, out + 6 * i, 1);
                    for (int k = 0; k < PLANES; k++) *(vec *)(tiles + k * plane + c) = out[k];
                }
            }
}

/* Tiles of the gradients of `count` images, in panels [36, panels, rows, 16]. */
TARGET static void gradient_tiles(const float *images, int64_t count, const grid_t *g, int64_t channels,
                                  const float *zeros, float *tiles) {
    const float *at[16];
    int64_t plane = apart(g->rows * round_up(channels, PANEL));
    for (int64_t n = 0; n < count; n++)
        for (int64_t ty = 0; ty < g->down; ty++)
            for (int64_t tx = 0; tx < g->across; tx++, tiles += PANEL) {
                point(at, 4, images + n * g->height * g->width * channels, g, channels, 4 * ty, 4 * tx, zeros);
                for (int64_t c = 0; c < channels; c += LANES) {
                    vec d[16], half[24], out[PLANES];
                    float *to = tiles + c / PANEL * g->rows * PANEL + c % PANEL;
                    for (int k = 0; k < 16; k++) d[k] = *(const vec *)(at[k] + c);
                    for (int j = 0; j < 4; j++) gradient_line(d + j, 4, half + j, 4);
                    for (int i = 0; i < 6; i++) gradient_line(half + 4 * i, 1, out + 6 * i, 1);
                    for (int k = 0; k < PLANES; k++) *(vec *)(to + k * plane) = out[k];
                }
            }
}

/* Images of products [36, rows, width], of which `channels` are wanted. */
TARGET static void outputs(const float *products, int64_t count, const grid_t *g, int64_t channels, float *images) {
    int64_t row = apart(round_up(channels, PANEL)), plane = apart(g->rows * row);
    for (int64_t n = 0; n < count; n++)
        for (int64_t ty = 0; ty < g->down; ty++)
            for (int64_t tx = 0; tx < g->across; tx++, products += row)
                for (int64_t c = 0; c < channels; c += LANES) {
                    vec m[PLANES], half[24], out[16];
                    for (int k = 0; k < PLANES; k++) m[k] = *(const vec *)(products + k * plane + c);
                    for (int j = 0; j < 6; j++) output_line(m + j, 6, half + j, 6);
                    for (int i = 0; i < 4; i++) output_line(half + 6 * i, 1, out + 4 * i, 1);
                    for (int i = 0; i < 4 && 4 * ty + i < g->height; i++)
                        for (int j = 0; j < 4 && 4 * tx + j < g->width; j++) {
                            int64_t pixel = (n * g->height + 4 * ty + i) * g->width + 4 * tx + j;
                            *(vec *)(images + pixel * channels + c) = out[4 * i + j];
                        }
                }
}

/* `rows` lines of a product with a panel [depth, 16]; added to what is there if `adds`. */
INLINE void lines(int rows, const float *left, int64_t row_step, int64_t depth_step, const float *panel, int64_t depth,
                  float *out, int64_t out_step, int adds) {
    vec sums[ROWS][2] = {{{0}}};
    for (int64_t k = 0; k < depth; k++) {
        vec one = *(const vec *)(panel + PANEL * k), other = *(const vec *)(panel + PANEL * k + LANES);
        for (int r = 0; r < rows; r++) {
            float value = left[r * row_step + k * depth_step];
            sums[r][0] += value * one;
            sums[r][1] += value * other;
        }
    }
    for (int r = 0; r < rows; r++) {
        vec *to = (vec *)(out + r * out_step), *next = (vec *)(out + r * out_step + LANES);
        if (adds) {
            sums[r][0] += *to;
            sums[r][1] += *next;
        }
        *to = sums[r][0];
        *next = sums[r][1];
    }
}

static float *room(int64_t values) { return aligned_alloc(64, round_up(values * sizeof(float), 64)); }

/* Returns whether this processor computes as the code was compiled. */
EXPORT int edgeprune_winograd(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

/* Convolves `count` images of `channels` with filters [36, panels, channels, 16] to `outs` channels. */
TARGET EXPORT int edgeprune_winograd_convolve(const float *images, int64_t count, int64_t height, int64_t width,
                                              int64_t channels, const float *filters, int64_t outs, float *out) {
    grid_t g = make_grid(height, width);
    int64_t wide = round_up(outs, PANEL), pixels = height * width, row = apart(channels), out_row = apart(wide);
    int64_t plane = apart(g.rows * row), out_plane = apart(g.rows * out_row);
    float *zeros = room(channels), *tiles = room(PLANES * plane), *products = room(PLANES * out_plane);
    int status = zeros && tiles && products ? DONE : NO_MEMORY;
    if (status == DONE) {
        memset(zeros, 0, channels * sizeof(float));
        memset(tiles, 0, PLANES * plane * sizeof(float));
    }
    for (int64_t n = 0; status == DONE && n < count; n += g.images) {
        int64_t some = count - n < g.images ? count - n : g.images;
        int64_t rows = round_up(some * g.down * g.across, ROWS);
        input_tiles(images + n * pixels * channels, some, &g, channels, zeros, tiles);
        for (int k = 0; k < PLANES; k++)
            for (int64_t c = 0; c < wide; c += PANEL)
                for (int64_t r = 0; r < rows; r += ROWS)
                    lines(ROWS, tiles + k * plane + r * row, row, 1, filters + (k * wide + c) * channels, channels,
                          products + k * out_plane + r * out_row + c, out_row, 0);
        outputs(products, some, &g, outs, out + n * pixels * outs);
    }
    free(zeros), free(tiles), free(products);
    return status;
}

/* Adds to `sums` [36, channels, wide] the gradients of filters, of `count` images and those of their outputs. */
TARGET EXPORT int edgeprune_winograd_correlate(const float *images, int64_t count, int64_t height, int64_t width,
                                               int64_t channels, const float *gradients, int64_t outs, float *sums) {
    grid_t g = make_grid(height, width);
    int64_t wide = round_up(outs, PANEL), pixels = height * width, most = channels > outs ? channels : outs;
    int64_t row = apart(channels), plane = apart(g.rows * row), other_plane = apart(g.rows * wide);
    float *zeros = room(most), *tiles = room(PLANES * plane), *others = room(PLANES * other_plane);
    int status = zeros && tiles && others ? DONE : NO_MEMORY;
    if (status == DONE) {
        memset(zeros, 0, most * sizeof(float));
        memset(others, 0, PLANES * other_plane * sizeof(float));
    }
    for (int64_t n = 0; status == DONE && n < count; n += g.images) {
        int64_t some = count - n < g.images ? count - n : g.images, rows = some * g.down * g.across;
        input_tiles(images + n * pixels * channels, some, &g, channels, zeros, tiles);
        gradient_tiles(gradients + n * pixels * outs, some, &g, outs, zeros, others);
        for (int k = 0; k < PLANES; k++)
            for (int64_t c = 0; c < wide; c += PANEL) {
                const float *left = tiles + k * plane, *panel = others + k * other_plane + c * g.rows;
                float *to = sums + k * channels * wide + c;
                int64_t r = 0;
                for (; r + ROWS <= channels; r += ROWS)
                    lines(ROWS, left + r, 1, row, panel, rows, to + r * wide, wide, 1);
                for (; r < channels; r += 2) lines(2, left + r, 1, row, panel, rows, to + r * wide, wide, 1);
            }
    }
    free(zeros), free(tiles), free(others);
    return status;
}
