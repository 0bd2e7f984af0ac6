/* What is slow in numpy of encoding chunks of `quantized`: the transform, the rounding, the symbols and their coding.
 *
 * numpy_kernels.py has the same in numpy and is the reference: both give the same bits. So floating-point operations
 * are single precision, in the order that is written there, and this file is compiled without contraction to FMA.
 * Every array comes from the caller, whose sizes it trusts. Planes are stored by frequency in coding order, in each
 * row the tiles of all images side by side, so that all loops run over tiles.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_format.h"

/* Tiles that are transformed together, and whose contexts are found together. */
enum { LANES = 32, WIDE = 256 };
/* Tiles that are looked at together for whether there is anything to do, and the level of a context of zeros. */
enum { GROUP = 32, QUIET = 2 };
/* Magnitudes whose rates are told apart. */
enum { MAGNITUDES = 32 };

/* The orthonormal DCT-II of n rows of LANES values, `step` rows apart: sums and differences of what lies symmetric,
 * the differences give every other frequency, the sums the rest, and so on while n is even. */
CLONES static void transform_rows(const float *restrict basis, int64_t n, float *restrict rows, int64_t step,
                                  float *restrict sums, float *restrict differences)
{
    int64_t half = n, every = 1;
    for (int64_t i = 0; i < n; i++)
        memcpy(sums + i * LANES, rows + i * step * LANES, LANES * sizeof *sums);
    for (; half % 2 == 0; every *= 2) {
        const int64_t last = half - 1;
        half /= 2;
        for (int64_t i = 0; i < half; i++)
            for (int l = 0; l < LANES; l++) {
                const float a = sums[i * LANES + l], b = sums[(last - i) * LANES + l];
                differences[i * LANES + l] = a - b;
                sums[i * LANES + l] = a + b;
            }
        for (int64_t k = every; k < n; k += 2 * every) {
            float total[LANES];
            for (int l = 0; l < LANES; l++)
                total[l] = basis[k * n] * differences[l];
            for (int64_t i = 1; i < half; i++)
                for (int l = 0; l < LANES; l++)
                    total[l] += basis[k * n + i] * differences[i * LANES + l];
            memcpy(rows + k * step * LANES, total, sizeof total);
        }
    }
    for (int64_t k = 0; k < n; k += every) {
        float total[LANES];
        for (int l = 0; l < LANES; l++)
            total[l] = basis[k * n] * sums[l];
        for (int64_t i = 1; i < half; i++)
            for (int l = 0; l < LANES; l++)
                total[l] += basis[k * n + i] * sums[i * LANES + l];
        memcpy(rows + k * step * LANES, total, sizeof total);
    }
}

typedef struct {
    int64_t height, width, tile_height, tile_width, down, across;
} Layout;

#define PIXEL uint8_t
#define NAME(name) name##_8
#include "_pixels.h"
#undef PIXEL
#undef NAME
#define PIXEL uint16_t
#define NAME(name) name##_16
#include "_pixels.h"
#undef PIXEL
#undef NAME

/* Coefficients over the step, float [channels][places][images * tiles] in coding order, of pixels [images][channels]
 * [H][W] of `bytes` each. Three channels are mixed by `matrix`, others have its diagonal.
 * Returns 0, or 1 without memory. */
EXPORT int ep_transform(const void *pixels, int64_t bytes, int64_t images, int64_t channels, int64_t height,
                        int64_t width, int64_t tile_height, int64_t tile_width, int64_t down, int64_t across,
                        const float *matrix, const float *shift, const float *basis_down, const float *basis_across,
                        const int32_t *raster, float scale, float *out)
{
    const Layout layout = {height, width, tile_height, tile_width, down, across};
    const int64_t places = tile_height * tile_width, tiles = down * across, count = images * tiles;
    const int64_t longest = tile_height > tile_width ? tile_height : tile_width, pixel_count = height * width;
    const int64_t mixed = channels == 3 ? 3 : 1;
    void *gathered = calloc((size_t)(mixed * places), (size_t)(LANES * bytes));
    float *plane = malloc((size_t)((places + 2 * longest) * LANES) * sizeof *plane);
    if (gathered == NULL || plane == NULL) {
        free(gathered);
        free(plane);
        return 1;
    }
    float *const sums = plane + places * LANES, *const differences = sums + longest * LANES;
    for (int64_t first = 0; first < count; first += LANES) {
        const int64_t used = count - first < LANES ? count - first : LANES;
        for (int64_t c = 0; c < channels; c++) {
            /* Channels that are mixed are gathered together. */
            for (int64_t lane = 0; lane < used && c % mixed == 0; lane++) {
                const int64_t at = ((first + lane) / tiles * channels + c) * pixel_count, tile = (first + lane) % tiles;
                if (bytes == 1)
                    gather_tile_8((const uint8_t *)pixels + at, &layout, tile, lane, mixed, gathered);
                else
                    gather_tile_16((const uint16_t *)pixels + at, &layout, tile, lane, mixed, gathered);
            }
            if (bytes == 1)
                to_plane_8(gathered, places, mixed, matrix + c * channels, matrix[c * channels + c], shift[c], plane);
            else
                to_plane_16(gathered, places, mixed, matrix + c * channels, matrix[c * channels + c], shift[c], plane);
            for (int64_t x = 0; x < tile_width; x++)
                transform_rows(basis_down, tile_height, plane + x * LANES, tile_width, sums, differences);
            for (int64_t y = 0; y < tile_height; y++)
                transform_rows(basis_across, tile_width, plane + y * tile_width * LANES, 1, sums, differences);
            for (int64_t p = 0; p < places; p++) {
                float *const to = out + (c * places + p) * count + first;
                const float *const from = plane + raster[p] * LANES;
                for (int64_t lane = 0; lane < used; lane++)
                    to[lane] = from[lane] * scale;
            }
        }
    }
    free(gathered);
    free(plane);
    return 0;
}

static inline int32_t size_of(int16_t value)
{
    return value < 0 ? -(int32_t)value : value;
}

/* Magnitudes of up to WIDE values, each at most SATURATION, and the sum of the whole ones; bands become `band` where
 * one is not zero. */
CLONES static int64_t saturate(const int16_t *restrict row, int64_t n, uint8_t band, uint8_t *restrict bands,
                               uint8_t *restrict to)
{
    int32_t total = 0;
    for (int64_t l = 0; l < n; l++) {
        const int32_t size = size_of(row[l]);
        total += size;
        to[l] = (uint8_t)(size < SATURATION ? size : SATURATION);
    }
    for (int64_t l = 0; l < n; l++)
        bands[l] = to[l] ? band : bands[l];
    return total;
}

CLONES static int all_zero(const uint8_t *const near[NEIGHBORS], int64_t first)
{
    uint8_t any = 0;
    for (int64_t l = first; l < first + GROUP; l++)
        any |= near[0][l] | near[1][l] | near[2][l] | near[3][l] | near[4][l] | near[5][l] | near[6][l] | near[7][l] |
               near[8][l] | near[9][l] | near[10][l] | near[11][l];
    return any == 0;
}

/* Levels of contexts, round(2 log2(sum + 2)), of GROUP tiles from `first` on; returns the sums' own sum where the band
 * covers `band`. */
CLONES static int32_t find_levels(const uint8_t *const near[NEIGHBORS], int64_t first, const uint8_t *restrict bands,
                                  int band, uint8_t *restrict levels)
{
    int32_t around = 0;
    for (int64_t l = first; l < first + GROUP; l++) {
        const uint8_t four = (uint8_t)(near[0][l] + near[1][l] + near[2][l]);
        const uint8_t three = (uint8_t)(near[3][l] + near[4][l]);
        const uint8_t two = (uint8_t)(near[5][l] + near[6][l] + near[7][l] + near[8][l] + near[9][l]);
        const uint8_t single = (uint8_t)(near[10][l] + near[11][l]);
        const uint8_t even = (uint8_t)(four + four + two);
        const uint8_t rest = (uint8_t)(three + three + three + single);
        const int32_t sum = 2 * even + rest;
        /* Half the logarithm of 2 x^4; no x^4 here is so near a power of 2 that rounding reaches it. */
        const float x = (float)(sum + 2), square = x * x, fourth = square * square;
        int32_t exponent;
        memcpy(&exponent, &fourth, sizeof exponent);
        levels[l] = (uint8_t)(((exponent >> 23) - 126) >> 1);
        around += bands[l] >= band ? sum : 0;
    }
    return around;
}

/* Of a plane, values int16 [places][n]: bands [n], levels of contexts [places][n], and for each frequency, of what
 * bands cover, how many, their magnitudes and their context sums: int64 [3][places]. Returns 0, or 1 without memory. */
EXPORT int ep_contexts(const int16_t *values, int64_t places, int64_t n, const int32_t *neighbors,
                       const int32_t *band_of_place, uint8_t *bands, uint8_t *levels, int64_t *statistics)
{
    uint8_t *const magnitudes = calloc((size_t)(places + 1), WIDE);
    int64_t covered[BANDS] = {0};
    if (magnitudes == NULL)
        return 1;
    memset(statistics, 0, (size_t)(3 * places) * sizeof *statistics);
    for (int64_t first = 0; first < n; first += WIDE) {
        const int64_t used = n - first < WIDE ? n - first : WIDE;
        uint8_t some[WIDE] = {0};
        for (int64_t p = 0; p < places; p++)
            statistics[places + p] += saturate(values + p * n + first, used, (uint8_t)band_of_place[p], some,
                                               magnitudes + p * WIDE);
        for (int64_t l = 0; l < used; l++) {
            covered[some[l]]++;
            bands[first + l] = some[l];
        }
        for (int64_t p = 0; p < places; p++) {
            const uint8_t *near[NEIGHBORS];
            uint8_t found[WIDE];
            for (int k = 0; k < NEIGHBORS; k++)
                near[k] = magnitudes + neighbors[p * NEIGHBORS + k] * (int64_t)WIDE;
            for (int64_t l = 0; l < used; l += GROUP)
                if (all_zero(near, l))
                    memset(found + l, QUIET, GROUP);
                else
                    statistics[2 * places + p] += find_levels(near, l, some, band_of_place[p], found);
            memcpy(levels + p * n + first, found, (size_t)used);
        }
    }
    for (int band = BANDS - 2; band >= 0; band--)
        covered[band] += covered[band + 1];
    for (int64_t p = 0; p < places; p++)
        statistics[p] = covered[band_of_place[p]];
    free(magnitudes);
    return 0;
}

/* Bands become `band` where a value is not zero. */
CLONES static void raise_bands(const int16_t *restrict row, int64_t n, uint8_t band, uint8_t *restrict bands)
{
    for (int64_t l = 0; l < n; l++)
        bands[l] = row[l] != 0 ? band : bands[l];
}

static inline int class_of(int level, int base)
{
    const int class = level + base - BASE_OFFSET;
    return class < 0 ? 0 : class > CLASSES - 1 ? CLASSES - 1 : class;
}

/* Whether eight values are zero, in contexts of zeros. */
static inline int eight_quiet(const int16_t *values, const uint8_t *levels)
{
    uint64_t first, second, eight;
    memcpy(&first, values, sizeof first);
    memcpy(&second, values + 4, sizeof second);
    memcpy(&eight, levels, sizeof eight);
    return (first | second | (eight ^ 0x0101010101010101u * QUIET)) == 0;
}

/* How often each magnitude, up to MAGNITUDES - 1, occurs in each class, of what bands cover in the first `count` of n
 * tiles: int64 [CLASSES][MAGNITUDES]. */
EXPORT int ep_tally(const int16_t *values, const uint8_t *levels, const uint8_t *bands, const uint8_t *bases,
                    int64_t places, int64_t n, int64_t count, const int32_t *band_of_place, int64_t *tally)
{
    int64_t covered[BANDS] = {0};
    /* Two counters of each, lest one waits for the other; what is not covered goes to a row of its own. */
    enum { SIZE = (CLASSES + 1) * MAGNITUDES, OUTSIDE = CLASSES * MAGNITUDES };
    int64_t *const counts = calloc(2 * SIZE, sizeof *counts);
    if (counts == NULL)
        return 1;
    for (int64_t l = 0; l < count; l++)
        covered[bands[l]]++;
    for (int band = BANDS - 2; band >= 0; band--)
        covered[band] += covered[band + 1];
    for (int64_t p = 0; p < places; p++) {
        int32_t row_of_level[LEVELS];
        const int16_t *const row = values + p * n;
        const uint8_t *const level = levels + p * n;
        const uint8_t band = (uint8_t)band_of_place[p];
        int64_t quiet = covered[band];
        if (quiet == 0)
            continue;
        for (int i = 0; i < LEVELS; i++)
            row_of_level[i] = class_of(i, bases[p]) * MAGNITUDES;
        for (int64_t first = 0; first < count; first += 8) {
            const int64_t end = first + 8 < count ? first + 8 : count;
            if (end == first + 8 && eight_quiet(row + first, level + first))
                continue;
            for (int64_t l = first; l < end; l++) {
                const int32_t magnitude = size_of(row[l]), inside = bands[l] >= band;
                const int32_t at = inside ? row_of_level[level[l]] : OUTSIDE;
                counts[(l & 1) * SIZE + at + (magnitude < MAGNITUDES ? magnitude : MAGNITUDES - 1)]++;
                quiet -= inside;
            }
        }
        counts[row_of_level[QUIET]] += quiet;
    }
    for (int64_t i = 0; i < OUTSIDE; i++)
        tally[i] = counts[i] + counts[SIZE + i];
    free(counts);
    return 0;
}

CLONES static void choose_row(const float *restrict values, const uint8_t *restrict levels, const float *rate,
                              int64_t n, int16_t *restrict chosen, float *restrict gain)
{
    for (int64_t l = 0; l < n; l++) {
        const float size = fabsf(values[l]);
        const int32_t low = (int32_t)size, next = low + 1;
        const float none = size * size, below = size - (float)low, above = size - (float)next;
        const int32_t first = low < MAGNITUDES ? low : MAGNITUDES - 1;
        const int32_t second = next < MAGNITUDES ? next : MAGNITUDES - 1;
        const float down = below * below + rate[first * LEVELS + levels[l]];
        const float up = above * above + rate[second * LEVELS + levels[l]];
        float best = none + rate[levels[l]];
        int32_t result = down < best ? low : 0;
        best = down < best ? down : best;
        result = up < best ? next : result;
        best = up < best ? up : best;
        chosen[l] = (int16_t)result;
        gain[l] += none - best;
    }
}

/* The same of magnitudes below 1. */
CLONES static void choose_bits(const float *restrict values, const uint8_t *restrict levels, const float *rate,
                               int16_t *restrict chosen, float *restrict gain)
{
    for (int64_t l = 0; l < GROUP; l++) {
        const float size = fabsf(values[l]), none = size * size, above = size - 1.0f;
        const float zero = none + rate[levels[l]], one = above * above + rate[LEVELS + levels[l]];
        chosen[l] = one < zero;
        gain[l] += none - (one < zero ? one : zero);
    }
}

/* The same where nothing but 0 can be best, in contexts of zeros. */
CLONES static void choose_zeros(const float *restrict values, float rate, int16_t *restrict chosen,
                                float *restrict gain)
{
    for (int64_t l = 0; l < GROUP; l++) {
        const float none = values[l] * values[l];
        chosen[l] = 0;
        gain[l] += none - (none + rate);
    }
}

CLONES static int all_quiet(const uint8_t *restrict levels)
{
    uint8_t loud = 0;
    for (int64_t l = 0; l < GROUP; l++)
        loud |= levels[l] ^ QUIET;
    return loud == 0;
}

CLONES static int all_below(const float *restrict values, float limit)
{
    int32_t large = 0;
    for (int64_t l = 0; l < GROUP; l++)
        large |= fabsf(values[l]) >= limit;
    return large == 0;
}

/* Of each value's magnitude 0 and the two integers around it the one of least squared error + rate, int16 [places][n],
 * what that gains in each band against zeros, float [BANDS][n], and the bands that then cover what is not zero, uint8
 * [n]. `rates` is float [CLASSES][32]. */
EXPORT int ep_choose(const float *values, const uint8_t *levels, const uint8_t *bases, const float *rates,
                     int64_t places, int64_t n, const int32_t *band_of_place, int16_t *chosen, float *gain,
                     uint8_t *bands)
{
    memset(gain, 0, (size_t)(BANDS * n) * sizeof *gain);
    for (int64_t p = 0; p < places; p++) {
        float rate[MAGNITUDES * LEVELS];
        for (int level = 0; level < LEVELS; level++) {
            const float *const of_class = rates + class_of(level, bases[p]) * MAGNITUDES;
            for (int magnitude = 0; magnitude < MAGNITUDES; magnitude++)
                rate[magnitude * LEVELS + level] = of_class[magnitude];
        }
        /* A magnitude up to 0.5 is nearer to 0, so that 1 would have to cost less bits. */
        const int zeros = rate[LEVELS + QUIET] >= rate[QUIET];
        for (int64_t first = 0; first < n; first += GROUP) {
            const int64_t at = p * n + first, used = n - first < GROUP ? n - first : GROUP;
            float *const row = gain + band_of_place[p] * n + first;
            if (zeros && used == GROUP && all_quiet(levels + at) && all_below(values + at, 0.5f))
                choose_zeros(values + at, rate[QUIET], chosen + at, row);
            else if (used == GROUP && all_below(values + at, 1.0f))
                choose_bits(values + at, levels + at, rate, chosen + at, row);
            else
                choose_row(values + at, levels + at, rate, used, chosen + at, row);
        }
    }
    memset(bands, 0, (size_t)n);
    for (int64_t p = 1; p < places; p++)
        raise_bands(chosen + p * n, n, (uint8_t)band_of_place[p], bands);
    return 0;
}

/* Sets to zero what lies beyond the band in which ending gains most, of `gain` as above and `bits`, float [BANDS]. */
CLONES EXPORT int ep_cut(int16_t *chosen, const float *gain, const float *bits, int64_t places, int64_t n,
                         const int32_t *band_of_place, uint8_t *ends)
{
    for (int64_t first = 0; first < n; first += WIDE) {
        const int64_t used = n - first < WIDE ? n - first : WIDE;
        float sum[WIDE], most[WIDE];
        for (int64_t l = 0; l < used; l++) {
            sum[l] = 0;
            most[l] = bits[0];
            ends[first + l] = 0;
        }
        for (int band = 1; band < BANDS; band++)
            for (int64_t l = 0; l < used; l++) {
                sum[l] += gain[band * n + first + l];
                const float total = sum[l] + bits[band];
                ends[first + l] = total > most[l] ? (uint8_t)band : ends[first + l];
                most[l] = total > most[l] ? total : most[l];
            }
    }
    for (int64_t p = 0; p < places; p++) {
        int16_t *const row = chosen + p * n;
        const uint8_t band = (uint8_t)band_of_place[p];
        for (int64_t l = 0; l < n; l++)
            row[l] = ends[l] >= band ? row[l] : 0;
    }
    return 0;
}

/* Of a plane the magnitudes where a dead zone begins: floor(|value| + zone). */
CLONES EXPORT int ep_dead_zone(const float *restrict values, int64_t count, float zone, int16_t *restrict chosen)
{
    for (int64_t i = 0; i < count; i++)
        chosen[i] = (int16_t)(int32_t)(fabsf(values[i]) + zone);
    return 0;
}

/* Gives magnitudes the signs of `values`. */
CLONES EXPORT int ep_sign(const float *restrict values, int64_t count, int16_t *restrict chosen)
{
    for (int64_t i = 0; i < count; i++)
        chosen[i] = (int16_t)(values[i] < 0 ? -chosen[i] : chosen[i]);
    return 0;
}

/* The sum of products of WIDE values, in sixteen sums side by side. */
CLONES static double product(const float *restrict a, const float *restrict b)
{
    float some[16] = {0};
    double total = 0;
    for (int64_t first = 0; first < WIDE; first += 16)
        for (int l = 0; l < 16; l++)
            some[l] += a[first + l] * b[first + l];
    for (int l = 0; l < 16; l++)
        total += some[l];
    return total;
}

CLONES static void find_errors(const float *restrict values, const int16_t *restrict chosen, int64_t n,
                               float *restrict errors)
{
    for (int64_t l = 0; l < n; l++)
        errors[l] = (float)chosen[l] - values[l];
}

/* The sums of products of the errors of up to three planes of `count` values, double [planes][planes] of which c <= d
 * is filled. */
EXPORT int ep_products(const float *values, const int16_t *chosen, int64_t planes, int64_t count, double *products)
{
    float errors[3][WIDE] = {{0}};
    for (int64_t first = 0; first < count; first += WIDE) {
        const int64_t used = count - first < WIDE ? count - first : WIDE;
        memset(errors, 0, sizeof errors);
        for (int64_t c = 0; c < planes; c++)
            find_errors(values + c * count + first, chosen + c * count + first, used, errors[c]);
        for (int64_t c = 0; c < planes; c++)
            for (int64_t d = c; d < planes; d++)
                products[c * planes + d] += product(errors[c], errors[d]);
    }
    return 0;
}

typedef struct {
    uint8_t *to;
    uint64_t window;
    int held;
} Bits;

static inline void put_bits(Bits *bits, uint32_t value, int count)
{
    bits->window |= (uint64_t)value << bits->held;
    bits->held += count;
    while (bits->held >= 8) {
        *bits->to++ = (uint8_t)bits->window;
        bits->window >>= 8;
        bits->held -= 8;
    }
}

/* Contexts and symbols of a plane, diagonal after diagonal, of what bands cover; how many on each diagonal goes to
 * `runs`. Plain bits go on in `bits` at bit `*bit`, whose bytes are zero from there on. Returns how many there are. */
EXPORT int64_t ep_symbols(const int16_t *values, const uint8_t *levels, const uint8_t *bands, const uint8_t *bases,
                          int64_t places, int64_t n, const int32_t *starts, const int32_t *band_of_diagonal,
                          int64_t diagonals, int32_t *members, uint8_t *contexts, uint8_t *symbols, int64_t *runs,
                          uint8_t *bits, int64_t *bit)
{
    Bits plain = {bits + *bit / 8, bits[*bit / 8], (int)(*bit % 8)};
    int64_t active = n, count = 0;
    (void)places;
    for (int64_t l = 0; l < n; l++)
        members[l] = (int32_t)l;
    for (int64_t d = 0; d < diagonals; d++) {
        const int64_t before = count;
        if (d == 0 || band_of_diagonal[d] != band_of_diagonal[d - 1]) {
            int64_t going = 0;
            for (int64_t i = 0; i < active; i++) {
                const int32_t tile = members[i];
                members[going] = tile;
                going += bands[tile] >= band_of_diagonal[d];
            }
            active = going;
        }
        for (int64_t p = starts[d]; active && p < starts[d + 1]; p++) {
            uint8_t class_of_level[LEVELS];
            const int16_t *const row = values + p * n;
            const uint8_t *const level = levels + p * n;
            if (bases[p] == 0)
                continue;
            for (int i = 0; i < LEVELS; i++)
                class_of_level[i] = (uint8_t)class_of(i, bases[p]);
            for (int64_t i = 0; i < active; i++) {
                const int32_t tile = members[i], value = row[tile];
                const int class = class_of_level[level[tile]];
                const int shift = class < CENTER + 2 ? 0 : (class - CENTER) / 2;
                const int32_t high = value >> shift;
                contexts[count] = (uint8_t)class;
                if (high < -7 || high > 7) {
                    symbols[count++] = ESCAPE;
                    put_bits(&plain, (uint32_t)value & 0xffff, 16);
                } else {
                    symbols[count++] = (uint8_t)(high + 7);
                    put_bits(&plain, (uint32_t)value & ((1u << shift) - 1), shift);
                }
            }
        }
        runs[d] = count - before;
    }
    *plain.to = (uint8_t)plain.window;
    *bit = 8 * (plain.to - bits) + plain.held;
    return count;
}

/* Counts of symbols by context, int64 [contexts][SYMBOLS]; those of a run count from the first of its contexts. */
EXPORT int ep_count(const uint8_t *contexts, const uint8_t *symbols, const int64_t *runs, const int64_t *firsts,
                    int64_t run_count, int64_t *counts)
{
    for (int64_t r = 0; r < run_count; contexts += runs[r], symbols += runs[r], r++) {
        int64_t *const of_run = counts + firsts[r] * SYMBOLS;
        for (int64_t i = 0; i < runs[r]; i++)
            of_run[contexts[i] * SYMBOLS + symbols[i]]++;
    }
    return 0;
}

/* Codes the symbols of all runs, the last first, in contexts as above. `frequencies` and `starts` are uint16 [contexts][SYMBOLS], states are
 * LOW. Words are written from the end of `words` down, of which there is room for as many as symbols; returns how
 * many. */
EXPORT int64_t ep_code(const uint8_t *contexts, const uint8_t *symbols, const int64_t *runs, const int64_t *firsts,
                       int64_t run_count, const uint16_t *frequencies, const uint16_t *starts, uint32_t *states,
                       int64_t lanes, uint16_t *words, int64_t room)
{
    uint16_t *to = words + room;
    int64_t end = 0;
    for (int64_t r = 0; r < run_count; r++)
        end += runs[r];
    for (int64_t r = run_count - 1; r >= 0; r--) {
        const int64_t first = end - runs[r];
        const uint16_t *const frequencies_of_run = frequencies + firsts[r] * SYMBOLS;
        const uint16_t *const starts_of_run = starts + firsts[r] * SYMBOLS;
        int64_t lane = runs[r] ? (runs[r] - 1) % lanes : 0;
        for (int64_t i = end - 1; i >= first; i--) {
            const int64_t at = contexts[i] * SYMBOLS + symbols[i];
            const uint32_t frequency = frequencies_of_run[at];
            uint32_t state = states[lane];
            const int full = state >= (uint64_t)frequency << (32 - PRECISION);
            to[-1] = (uint16_t)state;
            to -= full;
            state = full ? state >> 16 : state;
            const uint32_t whole = state / frequency;
            states[lane] = (whole << PRECISION) + (state - whole * frequency) + starts_of_run[at];
            lane = lane == 0 ? lanes - 1 : lane - 1;
        }
        end = first;
    }
    return words + room - to;
}
