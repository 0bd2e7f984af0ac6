/* Decoding of packs, image after image within the first-level cache; called through ctypes, see _native.py.
 *
 * Each plane of a tile takes two products with the inverse DCT's basis, across and down, over the frequencies
 * that hold something; even and odd ones apart, which halves the work. Then one affine map of the three channels
 * of each pixel: color space, mean and standard deviation; or of one, where there are more or fewer. _kernels_decode.h is compiled once for each generation
 * of vector units, and the first call chooses.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { MAX_SIDE = 64, MIXED = 3, GROUP = 64, STRIDE = 80 };
enum { SHARE = 3 * 32 * 32 * 8 }; /* about as many values are taken by a thread at once */
enum { DONE = 0, NO_MEMORY = 1, OUTSIDE = 2 };

/* Sizes are in pixels or coefficients; mirrored by `Plan` in _native.py. */
typedef struct {
    int32_t channels, height, width;   /* of the decoded image */
    int32_t block_height, block_width; /* of a stored tile */
    int32_t tile_height, tile_width;   /* of a decoded tile */
    int32_t grid_height, grid_width;   /* tiles of an image */
    int32_t column_bits, components;   /* of sparse spectra */
    int32_t position_bytes;
    const float *down;   /* [MAX_SIDE, MAX_SIDE / 2]: basis, first half of the pixels; the rest is zero */
    const float *across; /* [MAX_SIDE, MAX_SIDE]: basis; the rest is zero */
    const float *matrix; /* [channels, channels] */
    const float *offset; /* [channels] */
} plan_t;

/* A batch of `count` images and the block of `stored` images that it is decoded from; see edgeprune_decode_planes. */
typedef struct {
    int sparse;
    const char *values, *others;
    int64_t stored;
    const int64_t *indices, *rows, *columns;
    int64_t count;
    int64_t *next;
    float *out;
} batch_t;

/* What one image needs; padded, because the products read and write whole vectors. */
typedef struct {
    float spectrum[MAX_SIDE * MAX_SIDE];
    float halfway[MAX_SIDE * STRIDE];
    float pixels[MIXED][MAX_SIDE * STRIDE]; /* of channels that are mixed; of others the one that is decoded */
    int length[MAX_SIDE * MAX_SIDE]; /* coefficients of each row of the spectrum, up to the last that counts */
} scratch_t;

static inline int round_up(int value, int step) { return (value + step - 1) / step * step; }
static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline int larger(int a, int b) { return a > b ? a : b; }

#define JOINED(a, b) a##b
#define NAMED(a, b) JOINED(a, b)

/* Plain vectors of the compiler's: SSE2, NEON or what else every processor of this kind has. */
#define LANES 4
#define BACKWARDS 3, 2, 1, 0
#define COLUMNS 1
#define TARGET
#include "_kernels_decode.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define LANES 8
#define BACKWARDS 7, 6, 5, 4, 3, 2, 1, 0
#define COLUMNS 1
#define TARGET , target("avx2,fma")
#include "_kernels_decode.h"

#define LANES 16
#define BACKWARDS 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
#define COLUMNS 2
#define TARGET , target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "_kernels_decode.h"

typedef int decode_t(const plan_t *, const batch_t *);

/* Returns how many numbers a vector has that this processor decodes with. */
EXPORT int edgeprune_lanes(void) {
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 16;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 8 : 4;
}

static decode_t *chosen(void) {
    int lanes = edgeprune_lanes();
    return lanes == 16 ? decode_16 : lanes == 8 ? decode_8 : decode_4;
}
#else
EXPORT int edgeprune_lanes(void) { return 4; }
#define chosen() decode_4
#endif

/* Decodes a batch of `count` images into `out` [count, channels, height, width], together with every thread
 * that is called with the same `next`: the number of the image that nobody has taken yet, 0 at first.
 *
 * `values` and `others` are those of the block of `stored` images: int16 tiles and uint16 extents (`sparse` 0),
 * or float32 values and their positions. `indices` [count] says which image of the block each image of the
 * batch is; `rows` [count, height] and `columns` [count, width] rearrange it, unless NULL. Returns DONE,
 * NO_MEMORY or OUTSIDE.
 */
EXPORT int edgeprune_decode_planes(const plan_t *plan, int sparse, const char *values, const char *others, int64_t stored,
                            const int64_t *indices, const int64_t *rows, const int64_t *columns, int64_t count,
                            int64_t *next, float *out) {
    batch_t batch = {sparse, values, others, stored, indices, rows, columns, count, next, out};
    for (int64_t i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= stored) return OUTSIDE;
    return chosen()(plan, &batch);
}
